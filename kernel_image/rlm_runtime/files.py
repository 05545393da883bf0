"""The loaded files and the active input, `context`.

One file loaded: `context` is its text. Several: a dict of name to text. `switch_to` makes one of several the active one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlm_runtime import wire
from rlm_runtime.readers import Unreadable, read_file

files: dict[str, str] = {}
"""Name to text of all loaded files."""
_sources: dict[str, str] = {}
"""Name to host path of all loaded files."""
_active: list[Any] = [None]
_listeners: list[Callable[[Any], None]] = []


class Hit(NamedTuple):
    """A line that matched: file, line number from 1, and the line."""

    file: str
    line: int
    text: str

    def __repr__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


def active() -> Any:
    """The object that `context` must be."""
    return _active[0]


def on_activate(listener: Callable[[Any], None]) -> None:
    """Have a function called with each new value of `context`, as soon as it is the active one."""
    _listeners.append(listener)


def _activate(value: Any) -> None:
    _active[0] = value
    for listener in _listeners:
        listener(value)


def _activate_files() -> None:
    _activate(next(iter(files.values())) if len(files) == 1 else dict(files) if files else None)


def load_file(path: str, name: str | None = None, replace_all: bool = False) -> str:
    """Load a file that the user named, by its absolute path on the host, and return its text.

    `name` defaults to the file's own; a taken one gets its folder before it. Raises FileRefused.
    """
    before = list(files) if replace_all else []
    loaded = _read(str(path), name)
    for label in before:
        if label not in loaded:
            del files[label], _sources[label]
    files.update(loaded)
    _activate_files()
    return loaded[next(iter(loaded))] if len(loaded) == 1 else ""


def load_files(paths: list[str]) -> None:
    """Load several files or whole directories. `context` is then a str for one file, a dict of name to text for several."""
    for path in paths:
        files.update(_read(str(path), None))
    _activate_files()
    for line in list_files():
        print(line)


def _read(path: str, name: str | None) -> dict[str, str]:
    grant = wire.call("file", {"path": path})
    inside, real = Path(grant["inside"]), Path(grant["path"])
    if not grant["directory"]:
        return {_label(real, name or real.name): _text(inside, grant["path"])}
    loaded: dict[str, str] = {}
    left_out = []
    for member in sorted(p for p in inside.rglob("*") if p.is_file()):
        part = member.relative_to(inside)
        try:
            text = read_file(member, member.name)
        except (Unreadable, OSError):
            left_out.append(str(part))
        else:
            loaded[_label(real / part, str(part))] = text
    if left_out:
        print(f"{path}: {len(left_out):,} binary or unreadable files left out, {left_out[0]} the first")
    if not loaded:
        raise wire.FileRefused(f"{path} holds no file with text in it.")
    return loaded


def _text(inside: Path, path: str) -> str:
    try:
        return read_file(inside, Path(path).name)
    except (Unreadable, OSError) as error:
        raise wire.FileRefused(f"{path}: {error}") from None
    except MemoryError:
        raise wire.FileRefused(f"{path} is too large for this kernel's memory. Ask the user for a larger `sandbox.memory`.") from None


def _label(path: Path, wanted: str) -> str:
    """The name for a file: the wanted one, with its folder before it, or the whole path, the first that no other file has."""
    names = (wanted, f"{path.parent.name}/{path.name}", str(path))
    name = next(name for name in names if _sources.get(name, str(path)) == str(path))
    _sources[name] = str(path)
    return name


def load_object(path: str) -> Any:
    """Make the JSON value in a file that the user gave the context."""
    value = json.loads(Path(wire.call("file", {"path": str(path)})["inside"]).read_bytes())
    _activate(value)
    return value


def switch_to(name: str) -> str:
    """Make one loaded file the active input: `context` becomes its text."""
    _activate(files[_known(name)])
    return files[name]


def remove_file(name: str) -> None:
    """Unload a file. The others stay; `context` follows."""
    del files[_known(name)]
    _sources.pop(name, None)
    _activate_files()


def _known(name: str) -> str:
    if name not in files:
        raise KeyError(f"no file named {str(name)[:80]!r} is loaded; there are: {', '.join(list(files)[:50]) or 'none'}")
    return name


def list_files() -> list[str]:
    """A line for each loaded file: name and size."""
    return [f"{name}: {len(text):,} characters" for name, text in files.items()]


def _texts() -> dict[str, str]:
    value = active()
    if isinstance(value, str):
        return {next((name for name, text in files.items() if text is value), "context"): value}
    if isinstance(value, dict):
        return {str(key): text if isinstance(text, str) else json.dumps(text) for key, text in value.items()}
    if isinstance(value, list):
        return {f"[{index}]": text if isinstance(text, str) else json.dumps(text) for index, text in enumerate(value)}
    return {"context": "" if value is None else str(value)}


def peek(start: int = 0, end: int = 2000, name: str | None = None) -> str:
    """Characters start to end of the active input, or of the named file. Negative numbers count from the end."""
    if name is not None:
        return files[_known(name)][start:end]
    value = active()
    return value[start:end] if isinstance(value, str) else "\n".join(f"=== {n} ===\n{t[start:end]}" for n, t in _texts().items())


def grep(pattern: str, name: str | None = None, *, ignore_case: bool = False, limit: int | None = None, regex: bool = True) -> list[Hit]:
    """The lines of the active input (or of the named file) that match, as (file, line, text). `len(grep(...))` counts them.

    `pattern` is a regular expression (`regex=False`: plain text). `limit` stops early. In place of a name, a text or a dict of texts is
    searched itself, because `grep(pattern, context)` is what many models write. Raises ValueError for a bad pattern.
    """
    try:
        found = re.compile(pattern if regex else re.escape(pattern), re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ValueError(f"bad pattern {pattern!r}: {error}. Use regex=False to search for it as it stands.") from None
    hits: list[Hit] = []
    for label, text in _scope(name).items():
        for number, line in enumerate(text.split("\n"), 1):
            if found.search(line):
                hits.append(Hit(label, number, line))
                if limit is not None and len(hits) >= limit:
                    return hits
    return hits


def _scope(where: Any) -> dict[str, str]:
    if where is None or where is active():
        return _texts()
    if isinstance(where, dict):
        return {str(key): str(text) for key, text in where.items()}
    if isinstance(where, str) and where not in files and ("\n" in where or len(where) > 300):
        return {"text": where}
    return {where: files[_known(where)]}


def chunks(size: int, overlap: int = 0, name: str | None = None) -> Iterator[str]:
    """The active input in pieces of `size` characters, each with the last `overlap` characters of the one before."""
    if size <= overlap or overlap < 0:
        raise ValueError(f"size ({size}) must be greater than overlap ({overlap}), and overlap not negative")
    for text in [files[_known(name)]] if name is not None else _texts().values():
        for start in range(0, len(text), size - overlap):
            yield text[start : start + size]
            if start + size >= len(text):
                break


def describe() -> dict[str, Any]:
    """What the host tells the root model of the input: constant in size."""
    value = active()
    texts = _texts() if value is not None else {}
    first = next(iter(texts.values()), "")
    return {
        "kind": type(value).__name__ if value is not None else "None",
        "total_chars": sum(map(len, texts.values())),
        "items": [[label[:200], len(text)] for label, text in list(texts.items())[:100]],
        "item_count": len(texts),
        "head": first[:300],
    }
