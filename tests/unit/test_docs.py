"""The documents, checked against the code: what they list is what there is."""

from __future__ import annotations

import ast
import importlib.util
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from rlm_kernel import __version__
from rlm_kernel.cli import app
from rlm_kernel.config import NOT_SETTINGS, SHORTHANDS, Settings, known_keys
from rlm_kernel.models.weights import MODELS
from rlm_kernel.trace.accounts import TotalsMeta
from rlm_kernel.trace.schema import CallMeta, CellMeta, FileMeta, NotebookMeta, OriginMeta, ParentMeta
from tests.conftest import REAL_HOME

ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "kernel_image" / "rlm_runtime"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
_CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CELL_BREAK = re.compile(r"(?<!\\)\|")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def table_rows(text: str) -> Iterator[list[str]]:
    """The cells of all tables' rows, headings included."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("| ---"):
            yield [cell.strip() for cell in _CELL_BREAK.split(line)[1:-1]]


def code_names(text: str) -> list[str]:
    """What stands in backticks in the first column of the tables."""
    return [name for row in table_rows(text) for name in re.findall(r"`([^`]+)`", row[0])]


# Every document


@each_document
def test_relative_links_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(_CODE_BLOCK.sub("", document.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = document.parent / path if path else document
        assert linked.exists(), f"{document.name} links to {target}"
        assert not anchor or anchor in _anchors(linked), f"{document.name} links to {target}"


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _CODE_BLOCK.sub("", document.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_no_path_of_one_machine(document: Path) -> None:
    text = document.read_text("utf-8")
    found = re.findall(r"(?<![\w.$~])/(?:home|root|Users|work|builds)/[\w.-]+", text)
    found += [place for place in (f"{ROOT}/", f"{REAL_HOME}/") if len(place) > 2 and place in text]
    assert found == []


def test_every_document_is_linked_from_the_readme_or_another_document() -> None:
    linked = {
        (document.parent / target.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for target in _LINK.findall(document.read_text("utf-8"))
    }
    assert [
        path.name for path in DOCUMENTS if path.parent == ROOT / "docs" and path.resolve() not in linked
    ] == []


# architecture.md

_FUNCTION = re.compile(r"`([\w/]+\.py)::([\w.]+)`")


def defined(file: str, name: str) -> bool:
    """Whether a module of the package has a function, class or method of that name."""
    body: list[Any] = ast.parse((ROOT / "rlm_kernel" / file).read_text("utf-8")).body
    for part in name.split("."):
        found = next((node for node in body if getattr(node, "name", None) == part), None)
        if found is None:
            return False
        body = found.body
    return True


def test_the_walk_of_a_question_has_twelve_steps_at_most_and_each_names_a_function_that_is_there() -> None:
    walk = text_of("architecture.md").partition("## The walk of one question")[2].partition("\n### ")[0]
    steps = re.split(r"^\d+\. ", walk, flags=re.MULTILINE)[1:]
    assert 8 <= len(steps) <= 12
    for step in steps:
        named = _FUNCTION.findall(step)
        assert len(named) == 1, step
        assert defined(*named[0]), named


def test_the_parts_of_a_run_are_made_by_functions_that_are_there() -> None:
    named = _FUNCTION.findall(text_of("architecture.md"))
    assert len(named) > 14
    assert [place for place in named if not defined(*place)] == []
    modules = re.findall(r"`(session/[\w/]+(?:\.py|/))`", text_of("architecture.md"))
    assert [module for module in modules if not (ROOT / "rlm_kernel" / module).exists()] == []


# configuration.md


def test_configuration_lists_every_setting_with_its_default_and_variable() -> None:
    rows = {
        row[0].strip("`"): row
        for row in table_rows(text_of("configuration.md"))
        if len(row) == 5 and row[0].startswith("`")
    }
    assert list(rows) == known_keys()
    for key, (_, default, _, variable, meaning) in rows.items():
        assert (key, default) == (key, f"`{_shown_default(key)}`")
        assert variable == f"`RLM_{key.upper().replace('.', '__')}`"
        assert meaning


def _shown_default(key: str) -> str:
    section, name = key.split(".")
    value = getattr(getattr(Settings(), section), name)
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def test_configuration_says_how_quantities_are_counted() -> None:
    units = {row[0].strip("`"): row[2] for row in table_rows(text_of("configuration.md")) if len(row) == 5}
    for key in known_keys():
        value = getattr(getattr(Settings(), key.split(".")[0]), key.split(".")[1])
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert units[key], key


def test_configuration_names_the_other_variables() -> None:
    names = re.findall(r"`(RLM_[A-Z_*]+)`", text_of("configuration.md"))
    settings = {f"RLM_{key.upper().replace('.', '__')}" for key in known_keys()}
    assert set(names) - settings == {*NOT_SETTINGS, *SHORTHANDS, "RLM_MODELS"}


# kernel.md


def _assigned(module: ast.Module, name: str) -> ast.expr:
    """What a module assigns to a name at its top level."""
    for node in module.body:
        targets = (
            [node.target]
            if isinstance(node, ast.AnnAssign)
            else node.targets
            if isinstance(node, ast.Assign)
            else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            assert isinstance(node, ast.AnnAssign | ast.Assign)
            assert node.value is not None
            return node.value
    raise AssertionError(name)


def _signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    return f"{function.name}({ast.unparse(function.args)})"


def test_kernel_names_what_code_has_with_its_signatures() -> None:
    """The runtime cannot be imported without IPython, so it is read."""
    modules = [
        ast.parse((RUNTIME / name).read_text("utf-8"))
        for name in (
            "api.py",
            "citing.py",
            "classifying.py",
            "files.py",
            "hosttools.py",
            "pdfpages.py",
            "queries.py",
            "wire.py",
        )
    ]
    names = _assigned(modules[0], "NAMES")
    assert isinstance(names, ast.Dict)
    functions = {
        node.name: node
        for module in modules
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    expected = {"context", "answer", _signature(functions["classify"])}
    for key in names.keys:
        assert isinstance(key, ast.Constant)
        expected.add(_signature(functions[key.value]) if key.value in functions else key.value)
    text = text_of("kernel.md")
    documented = code_names(text[: text.index("## Kinds of files")])
    assert sorted(documented) == sorted(expected)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (RUNTIME / "display.py", ("STREAM_HEAD", "STREAM_TAIL", "TEXT_CAP", "PICTURE_CAP", "DISPLAY_CAP")),
        (RUNTIME / "hits.py", ("LISTED",)),
        (ROOT / "rlm_kernel" / "session" / "conversation.py", ("MAX_HISTORY",)),
        (ROOT / "rlm_kernel" / "sandbox" / "outputs.py", ("TEXT_CAP", "PICTURE_CAP", "COUNT_CAP")),
        (ROOT / "rlm_kernel" / "session" / "environment.py", ("MAX_IN_FLIGHT",)),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_kernel_names_the_caps(module: Path, names: tuple[str, ...]) -> None:
    tree = ast.parse(module.read_text("utf-8"))
    for name in names:
        assert re.search(
            rf"(?<![\d,]){ast.literal_eval(_assigned(tree, name)):,}(?![\d,])", text_of("kernel.md")
        ), name


# cli.md


@pytest.fixture(scope="module")
def cli_reference() -> Any:
    spec = importlib.util.spec_from_file_location("cli_reference", ROOT / "scripts" / "cli_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("columns", ["40", "200"])
def test_cli_has_the_help_of_every_command(
    cli_reference: Any, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert text_of("cli.md") == cli_reference.page(), (
        "make it anew: python scripts/cli_reference.py > docs/cli.md"
    )


def test_cli_has_every_option_of_every_command(cli_reference: Any) -> None:
    text = text_of("cli.md")
    for path, command, _ in cli_reference.commands(get_command(app), "rlm"):
        section = text.partition(f"\n## {path}\n")[2].partition("\n## ")[0]
        for parameter in command.params:
            shown = parameter.param_type_name == "option" and not parameter.hidden
            for name in parameter.opts if shown else ():
                assert name in section, f"{name} of {path}"


# trace-format.md


@pytest.mark.parametrize(
    "part",
    [NotebookMeta, CellMeta, CallMeta, FileMeta, ParentMeta, OriginMeta, TotalsMeta],
    ids=lambda part: part.__name__,
)
def test_trace_format_names_every_field(part: Any) -> None:
    text = text_of("trace-format.md")
    start = text.index(f"`{part.__name__}`")
    section = text[start:].partition("\n### ")[0].partition("\n## ")[0]
    if part in (FileMeta, ParentMeta, OriginMeta, TotalsMeta):
        section = text[start:].partition("\n\n")[0]
        assert set(part.model_fields) <= set(re.findall(r"`(\w+)`", section))
    else:
        assert sorted(code_names(section)) == sorted(part.model_fields)


def test_trace_format_names_the_kinds_of_cells() -> None:
    kinds = CellMeta.model_json_schema()["properties"]["kind"]["enum"]
    rows = [row for row in table_rows(text_of("trace-format.md")) if len(row) == 4 and row[3].startswith("`")]
    assert {row[3].strip("`") for row in rows if row[0] != "cell id"} - {"kind"} == set(kinds)


# The others


def test_security_and_models_name_tests_that_exist() -> None:
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", text_of("security.md") + text_of("models.md"))
    assert len(named) > 20
    for file, function in named:
        found = [
            path for path in (ROOT / "tests").rglob(file) if f"def {function}(" in path.read_text("utf-8")
        ]
        assert found, f"{file}::{function}"


def test_models_names_the_local_models() -> None:
    text = text_of("models.md")
    for model in MODELS:
        for fact in (model.name, model.title, model.file_name, f"{model.size:,}", model.sha256):
            assert fact in text


def test_architecture_names_the_rooms() -> None:
    rooms = {f"rlm_kernel/{path.parent.name}/" for path in (ROOT / "rlm_kernel").glob("*/__init__.py")}
    documented = {name for name in code_names(text_of("architecture.md")) if name.startswith("rlm_kernel/")}
    assert documented == rooms


def test_the_changelog_begins_with_this_version() -> None:
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert next(name for name in sections if name != "Unreleased") == __version__


# CONTRIBUTING.md


def test_contributing_names_folders_and_targets_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"`((?:rlm_kernel|kernel_image|tests|scripts|benchmarks)/[\w./]*)`", text)) - {
        "rlm_kernel/cli/where.py"
    }
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"^make ([\w-]+)", text, re.MULTILINE)) <= set(targets)


@each_document
def test_python_examples_compile(document: Path) -> None:
    for block in re.findall(
        r"^[ ]*```python\n(.*?)^[ ]*```", document.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        ast.parse(textwrap.dedent(block))
