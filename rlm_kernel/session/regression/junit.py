"""A suite's report as JUnit XML, which CI systems read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from rlm_kernel.session.regression.suite import CaseResult, Suite

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to hold, not even escaped: a report with such a character is read by nobody."""
MAX_CHARS = 20_000
"""Of an answer in a report."""


def as_xml(suite: Suite) -> bytes:
    """The report. A trace that differs is a failure, one that could not be asked again an error."""
    differ, failed, skipped = (suite.count(name) for name in ("differs", "failed", "skipped"))
    about = {
        "name": "rlm test",
        "tests": str(len(suite.traces)),
        "failures": str(differ),
        "errors": str(failed),
        "skipped": str(skipped),
        "time": f"{suite.seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", about)
    inner = ElementTree.SubElement(root, "testsuite", about)
    for one in suite.traces:
        inner.append(_case(one))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True)) + b"\n"


def _case(one: CaseResult) -> ElementTree.Element:
    about = {"name": _plain(one.trace.name), "classname": "rlm", "time": f"{one.seconds:.3f}"}
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
