"""The file that --tools names."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlm_kernel.errors import UsageError
from rlm_kernel.tools.module import tools_in
from rlm_kernel.tools.tool import Tool


def names(path: Path) -> list[str]:
    return [one.name for one in tools_in([path]) if isinstance(one, Tool)]


def test_public_functions_that_are_made_there_are_tools(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def help_out():\n    return 1\n")
    path = tmp_path / "my tools.py"
    path.write_text(
        "import json\nfrom math import sqrt\nfrom helper import help_out\nfrom rlm_kernel import tool\n"
        "LIMIT = 3\nclass Thing: pass\ndef _own(): pass\n"
        "def first(): pass\nasync def second(): pass\nthird = tool(first, name='third', children=True)\n"
    )
    assert names(path) == ["first", "second", "third"]


def test_all_names_them_where_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "tools.py"
    path.write_text("from math import sqrt\n__all__ = ['sqrt']\ndef first(): pass\n")
    assert names(path) == ["sqrt"]
    path.write_text("__all__ = ['gone']\n")
    with pytest.raises(UsageError, match="names functions that do not exist"):
        tools_in([path])


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("def f(:\n", r"SyntaxError: .*\(line 1\)"),
        ("x = 1\nimport no_such_module_here\n", r"ModuleNotFoundError: .*\(line 2\)"),
        ("raise SystemExit('bye')\n", "SystemExit: bye"),
        ("x = 1\n", "has no public function"),
        ("async def streams():\n    yield 1\n", "async generator"),
        ("class Made:\n    def __init__(self, f): self.func = f\n@Made\ndef f(): ...\n", "its function can"),
    ],
)
def test_a_file_that_gives_no_tools_is_told_plainly(tmp_path: Path, code: str, told: str) -> None:
    path = tmp_path / "tools.py"
    path.write_text(code)
    with pytest.raises(UsageError, match=told):
        tools_in([path])


def test_what_is_no_file_of_python_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.py", Path(__file__).with_suffix(".txt")):
        with pytest.raises(UsageError, match="not a Python file"):
            tools_in([path])
