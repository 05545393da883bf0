"""What a shell offers when the user presses Tab: sessions, traces, cells, models, settings and their values.

It must come at once. So nothing here imports litellm, Docker's library, rich or even our settings: files are
read as they are. And it must never disturb: what cannot be read is not offered. Files and folders are
completed by the shell itself, where a command offers nothing.
"""

from __future__ import annotations

import ast
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import typer

_PACKAGE = Path(__file__).parents[1]
_TAIL = 1 << 18
"""Bytes of a notebook's end in which its metadata stands."""
_MAX_TRACE = 64_000_000
_MAX_NAMES = 10_000
_MAX_SHOWN = 300
_HELP = 60
_SUITES = ("niah", "oolong", "pairs", "copy", "small", "jsonl:")
_STRATEGIES = ("auto", "rlm", "rlm-flat", "bare", "retrieval")
Offered = list[tuple[str, str]]
"""Values, each with what it means."""


def use_scripts() -> None:
    """Have --install-completion and --show-completion give the scripts in `completion/`.

    Typer's own insert names of files unquoted, and split a word at its = or :.
    """
    from typer import _completion_shared

    for shell in ("bash", "zsh", "fish"):
        script = Path(__file__).parent / "completion" / f"rlm.{shell}"
        _completion_shared._completion_scripts[shell] = script.read_text("utf-8")


def answer(command: Callable[[], typer.Typer]) -> NoReturn:
    """Answer the shell, which has said in the environment what it wants to know; silence where anything is
    wrong.

    Args:
        command: Imports `rlm` with all its commands.
    """
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        from typer import _completion_classes

        _completion_classes._sanitize_help_text = str  # type: ignore[assignment]  # it loads rich to take out markup, of which there is none
        command()(prog_name="rlm")
        sys.stdout.flush()
    except BaseException:
        pass
    os._exit(0)


def files(incomplete: str) -> Offered:
    """Nothing, so that the shell offers files and folders in its own way."""
    return []


def sessions(incomplete: str) -> Offered:
    """Sessions of this folder."""
    folder = Path(_setting("session", "dir", ".rlm_state")).expanduser()
    return [(name, "session") for name in _names(folder) if (folder / name / "state.json").is_file()]


def running(incomplete: str) -> Offered:
    """Runs in progress, by id."""
    try:
        from rlm_kernel.sandbox.rundir import live_sessions

        return [(one.about.session, _line(one.about.question)) for one in live_sessions()]
    except Exception:
        return []


def traces(incomplete: str) -> Offered:
    """Notebooks that are traces, and folders on the way to them; those of `trace.dir` where nothing is typed
    yet.
    """
    folder, slash, start = incomplete.rpartition("/")
    offered = list(_traces_in(folder + slash, start))
    here = _setting("trace", "dir", "rlm-traces")
    if not incomplete and Path(here).expanduser().is_dir():
        offered += _traces_in(f"{here.rstrip('/')}/", "")
    return offered


def _traces_in(typed: str, start: str) -> Iterator[tuple[str, str]]:
    folder = Path(typed or ".").expanduser()
    shown = 0
    for name in _names(folder):
        if not name.startswith(start) or (name.startswith(".") and not start):
            continue
        path = folder / name
        if path.is_dir():
            yield f"{typed}{name}/", "folder"
        elif name.endswith(".ipynb") and shown < _MAX_SHOWN and _is_trace(path):
            shown += 1
            yield f"{typed}{name}", "trace"


def _is_trace(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL))
            return b'"rlm_version"' in file.read(_TAIL)
    except OSError:
        return False


def cells(ctx: typer.Context, incomplete: str) -> Offered:
    """Code cells of the trace that the command line names."""
    try:
        path = Path(ctx.params.get("trace") or _typed_trace()).expanduser()
        if path.stat().st_size > _MAX_TRACE:
            return []
        notebook = json.loads(path.read_text("utf-8"))
        code = [
            cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "rlm" in cell["metadata"]
        ]
        return [(str(cell["id"]), _line("".join(cell["source"]))) for cell in code]
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        return []


def _typed_trace() -> str:
    """The notebook in the line so far: an option whose value is still to come keeps Typer from reading the
    arguments.
    """
    lexer = shlex.shlex(
        os.environ.get("_TYPER_COMPLETE_ARGS") or os.environ.get("COMP_WORDS", ""), posix=True
    )
    lexer.whitespace_split, lexer.commenters = True, ""
    return next(word for word in lexer if word.endswith(".ipynb"))


def models(incomplete: str) -> Offered:
    """The local models, and those of litellm's table: providers first, then the models of one."""
    from rlm_kernel.models._catalog import table

    local = [("local", "no key; nothing leaves this machine"), ("local:0.5b", "the smaller local model")]
    named: dict[str, str] = {}
    for name, entry in table().items():
        if isinstance(entry, dict) and entry.get("mode") in ("chat", "responses"):
            provider = str(entry.get("litellm_provider"))
            full = name if "/" in name else f"{provider}/{name}"
            named[full] = provider
    if "/" in incomplete:
        return list(named.items())
    providers = dict.fromkeys(full.partition("/")[0] for full in named)
    return [*local, *((f"{provider}/", "provider") for provider in sorted(providers))]


def providers(incomplete: str) -> Offered:
    """Litellm's providers."""
    from rlm_kernel.models._catalog import known_providers

    return [(name, "") for name in sorted(known_providers())]


def profiles(incomplete: str) -> Offered:
    """The project's prompts."""
    return [(value, "") for value in _values(_settings()["prompt.profile"][0]) if value != "none"]


def reasoning(incomplete: str) -> Offered:
    """How much a model may reason."""
    return [(value, "") for value in _values(_settings()["root_llm.reasoning"][0]) if value != "none"]


def suites(incomplete: str) -> Offered:
    """Suites of `rlm bench`."""
    return [(name, "") for name in _SUITES]


def strategies(incomplete: str) -> Offered:
    """Strategies of `rlm bench`; several have commas between them."""
    before, comma, _ = incomplete.rpartition(",")
    return [(f"{before}{comma}{name}", "") for name in _STRATEGIES]


def assignments(incomplete: str) -> Offered:
    """Settings, each with a =; behind that, its values."""
    key, equals, value = incomplete.partition("=")
    settings = _settings()
    if not equals:
        return [(f"{name}=", about) for name, (_, about) in settings.items() if not name.endswith(".api_key")]
    if key not in settings:
        return []
    if key.rpartition(".")[2] == "model":
        return [(f"{key}={name}", about) for name, about in models(value)]
    return [(f"{key}={one}", "") for one in _values(settings[key][0])]


def _settings() -> dict[str, tuple[ast.expr, str]]:
    """All settings with their types and what is said of them, as the source of `config.settings` has them."""
    module = ast.parse((_PACKAGE / "config" / "settings.py").read_text("utf-8"))
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    found: dict[str, tuple[ast.expr, str]] = {}
    for section, kind, _ in _fields(classes["Settings"]):
        places = [section] if isinstance(kind, ast.Name) else [f"{section}.{name}" for name in _named()]
        of_class = _class_in(kind, classes)
        for place, name, annotation, about in (
            (place, *field)
            for place in places
            for field in (_fields_of(of_class, classes) if of_class else ())
        ):
            found[f"{place}.{name}"] = (annotation, about)
    return found


def _class_in(kind: ast.expr, classes: dict[str, ast.ClassDef]) -> ast.ClassDef | None:
    """The section that a type is, or has for each name of the user's."""
    return next(
        (classes[node.id] for node in ast.walk(kind) if isinstance(node, ast.Name) and node.id in classes),
        None,
    )


def _fields_of(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[tuple[str, ast.expr, str]]:
    """The fields of a section, with those of the one that it is made of."""
    above = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
    return [field for name in above for field in _fields_of(classes[name], classes)] + list(_fields(node))


def _named() -> list[str]:
    """The names of models that config.json or the environment have beside root and sub."""
    variables = [name.split("__")[1].lower() for name in os.environ if name.startswith("RLM_MODELS__")]
    try:
        named = list(json.loads(Path("config.json").read_text("utf-8-sig"))["models"])
    except (OSError, ValueError, LookupError, TypeError):
        named = []
    names = [name for name in (*named, *variables) if isinstance(name, str) and name.isprintable()]
    return list(dict.fromkeys(names))


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr, str]]:
    for statement, following in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            about = following.value if isinstance(following, ast.Expr) else None
            text = about.value if isinstance(about, ast.Constant) and isinstance(about.value, str) else ""
            yield statement.target.id, statement.annotation, _line(text)


def _values(annotation: ast.expr) -> list[str]:
    """The values that a type names: of a Literal, a switch, and none."""
    values: list[str] = []
    for node in ast.walk(annotation):
        if (
            isinstance(node, ast.Subscript)
            and isinstance(node.value, ast.Name)
            and node.value.id == "Literal"
        ):
            values += [str(part.value) for part in ast.walk(node.slice) if isinstance(part, ast.Constant)]
        elif isinstance(node, ast.Name) and node.id == "bool":
            values += ["true", "false"]
        elif isinstance(node, ast.Constant) and node.value is None:
            values.append("none")
    return values


def _setting(section: str, name: str, default: str) -> str:
    """A setting, from the environment or config.json, unchecked."""
    if value := os.environ.get(f"RLM_{section}__{name}".upper(), "").strip():
        return value
    try:
        value = json.loads(Path("config.json").read_text("utf-8-sig"))[section][name]
    except (OSError, ValueError, LookupError, TypeError):
        return default
    return value if isinstance(value, str) and value else default


def _names(folder: Path) -> list[str]:
    """What is in a folder, without names that no line of a terminal can hold."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry, _ in zip(entries, range(_MAX_NAMES), strict=False)]
    except (OSError, ValueError):
        return []
    return sorted(name for name in names if name.isprintable())


def _line(text: str) -> str:
    """The first line, short, and with nothing in it that a terminal obeys."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return "".join(char for char in line[:_HELP] if char.isprintable())
