"""A suite's report as JUnit XML, which CI systems read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from rlm_kernel.session.regression.results import CaseResult, Suite

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to hold, not even escaped: a report with such a character is read by nobody."""
MAX_CHARS = 20_000
"""Of an answer in a report."""


def as_xml(suites: Mapping[str, Suite]) -> bytes:
    """The report: a test suite for each, by its name. A trace that differs is a failure, one that could not
    be asked again an error.
    """
    root = ElementTree.Element("testsuites", _about("rlm test", list(suites.values())))
    for name, suite in suites.items():
        inner = ElementTree.SubElement(root, "testsuite", _about(name, [suite]))
        inner.extend(_case(one, name) for one in suite.traces)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True)) + b"\n"


def _about(name: str, suites: Sequence[Suite]) -> dict[str, str]:
    differ, failed, skipped = (
        sum(suite.count(verdict) for suite in suites) for verdict in ("differs", "failed", "skipped")
    )
    return {
        "name": _plain(name),
        "tests": str(sum(len(suite.traces) for suite in suites)),
        "failures": str(differ),
        "errors": str(failed),
        "skipped": str(skipped),
        "time": f"{sum(suite.seconds for suite in suites):.3f}",
    }


def _case(one: CaseResult, suite: str) -> ElementTree.Element:
    about = {"name": _plain(one.trace.name), "classname": _plain(suite), "time": f"{one.seconds:.3f}"}
    case = ElementTree.Element("testcase", about)
    message = {"message": _plain(one.detail)}
    if one.verdict == "skipped":
        ElementTree.SubElement(case, "skipped", message)
    elif one.verdict != "same":
        what = "failure" if one.verdict == "differs" else "error"
        found = ElementTree.SubElement(case, what, message | {"type": one.verdict})
        found.text = _plain("\n".join([f"then: {_all(one.then)}", f"now: {_all(one.now)}", *one.remarks]))
    if one.remarks:
        ElementTree.SubElement(case, "system-out").text = _plain("\n".join(one.remarks))
    return case


def _all(answers: object) -> str:
    texts = answers if isinstance(answers, list | tuple) else ()
    return "\n".join("no answer" if text is None else str(text)[:MAX_CHARS] for text in texts)


def _plain(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
