"use strict";
(() => {
  const form = document.getElementById("search"), field = document.getElementById("find");
  const status = document.getElementById("status"), told = document.getElementById("found");
  const body = document.getElementById("rows"), rows = [...body.rows];
  let texts = null, due = 0;
  form.hidden = false;

  function look() {
    clearTimeout(due);
    const wanted = field.value.toLowerCase().trim(), how = status.value;
    if (wanted) texts ??= rows.map((row) => row.textContent.toLowerCase());
    let count = 0;
    rows.forEach((row, at) => {
      const shown = (!how || row.className === how) && (!wanted || texts[at].includes(wanted));
      if (row.hidden === shown) row.hidden = !shown;
      count += shown;
    });
    told.textContent = wanted || how ? `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")}` : "";
  }

  function sort(button) {
    const head = button.closest("th"), before = head.getAttribute("aria-sort");
    const order = before === "descending" ? "ascending" : before === "ascending" ? null : "descending";
    for (const one of document.querySelectorAll("th[aria-sort]")) one.removeAttribute("aria-sort");
    if (order) head.setAttribute("aria-sort", order);
    const sign = order === "descending" ? -1 : 1, by = button.dataset.by;
    body.append(...(order ? [...rows].sort((one, other) => sign * (one.dataset[by] - other.dataset[by])) : rows));
  }

  for (const button of document.querySelectorAll("button[data-by]")) {
    button.disabled = false;
    button.addEventListener("click", () => sort(button));
  }
  status.addEventListener("change", look);
  field.addEventListener("input", () => { clearTimeout(due); due = setTimeout(look, 200); });
  form.addEventListener("submit", (event) => { event.preventDefault(); look(); });
  field.addEventListener("keydown", (event) => { if (event.key === "Escape") { field.value = ""; look(); } });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|TEXTAREA|SELECT/.test(document.activeElement.tagName)) { event.preventDefault(); field.focus(); }
  });
  if (field.value || status.value) look();
})();
