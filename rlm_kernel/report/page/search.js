
"use strict";
(() => {
  const form = document.getElementById("search"), field = document.getElementById("find");
  const told = document.getElementById("found");
  const MOST = 5000;
  let blocks = null, hits = [], at = -1, due = 0, marked = null, looked = "";
  form.hidden = false;

  // As long as it was: "İ" has two small letters, and what comes behind it would be looked for one further.
  const small = (text) => text.toLowerCase().length === text.length ? text.toLowerCase()
    : text.replace(/./gsu, (one) => one.toLowerCase().length === one.length ? one.toLowerCase() : one);
  const all = () => blocks ??= [...document.querySelectorAll("[data-find]")].map(
    (node) => [node, small(node.textContent)]);

  function look() {
    clearTimeout(due);
    const wanted = looked = small(field.value).trim();
    hits = [];
    at = -1;
    unmark();
    if (!wanted) { told.textContent = ""; return; }
    for (const [node, text] of all()) {
      for (let place = text.indexOf(wanted); place >= 0 && hits.length < MOST; place = text.indexOf(wanted, place + wanted.length)) {
        hits.push([node, place, wanted.length]);
      }
      if (hits.length >= MOST) break;
    }
    if (hits.length) go(0); else told.textContent = "not found";
  }

  function go(number) {
    if (!hits.length) return;
    at = (number + hits.length) % hits.length;
    told.textContent = `${at + 1} of ${hits.length}${hits.length >= MOST ? "+" : ""}`;
    unmark();
    const [node, place, length] = hits[at];
    const range = rangeOf(node, place, length);
    const inner = range ? range.startContainer.parentElement : node;
    unfold(inner);
    marked = node;
    node.classList.add("here");
    if (range && window.CSS && CSS.highlights) CSS.highlights.set("found", new Highlight(range));
    inner.scrollIntoView({ block: "center" });
  }

  function unmark() {
    if (marked) marked.classList.remove("here");
    marked = null;
    if (window.CSS && CSS.highlights) CSS.highlights.clear();
  }

  function unfold(node) {
    for (let one = node; one; one = one.parentElement) if (one.tagName === "DETAILS") one.open = true;
  }

  function rangeOf(node, place, length) {
    const walk = document.createTreeWalker(node, NodeFilter.SHOW_TEXT), range = document.createRange();
    let passed = 0, begun = false;
    while (walk.nextNode()) {
      const size = walk.currentNode.length;
      if (!begun && place < passed + size) { range.setStart(walk.currentNode, place - passed); begun = true; }
      if (begun && place + length <= passed + size) { range.setEnd(walk.currentNode, place + length - passed); return range; }
      passed += size;
    }
    return null;
  }

  field.addEventListener("input", () => { clearTimeout(due); due = setTimeout(look, 200); });
  form.addEventListener("submit", (event) => { event.preventDefault(); });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); if (looked !== small(field.value).trim()) look(); else go(at + (event.shiftKey ? -1 : 1)); }
    if (event.key === "Escape") { field.value = ""; look(); }
  });
  document.getElementById("next").addEventListener("click", () => go(at + 1));
  document.getElementById("before").addEventListener("click", () => go(at - 1));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) { event.preventDefault(); field.focus(); }
  });

  function toAnchor() {
    const node = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (node) { unfold(node); node.scrollIntoView(); }
  }
  addEventListener("hashchange", toAnchor);
  if (location.hash) toAnchor();

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open]):not(.calls):not(.group):not(.held)")].filter((one) => !one.closest("td"));
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
})();
