"""The loaded files and the active input, `context`.

One file loaded: `context` is its text. Several: a dict of name to text. `switch_to` makes one of several the
active one.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from rlm_contract import Granted

from rlm_runtime import charsets, folders, forms, memory, wire
from rlm_runtime.formats import read_file
from rlm_runtime.hits import Hit
from rlm_runtime.kinds import is_format
from rlm_runtime.lazytext import LazyText
from rlm_runtime.picturefile import Picture
from rlm_runtime.readers import Read
from rlm_runtime.search import search
from rlm_runtime.unpacking import Unreadable

Text = str | LazyText
files: dict[str, Text] = {}
"""Name to text of all loaded files."""


class _Loaded(NamedTuple):
    """Where a loaded file is on the host, and how it was read."""

    path: str
    encoding: str
    lazy: bool
    note: str
    part_of: str = ""
    """The name of the file that it is a part of; "" where it is all that the file holds."""


_loaded: dict[str, _Loaded] = {}
_left_out: dict[str, str] = {}
"""Host's path of a folder, or of a file in one, to what was left out of it, and why."""
_remarked: dict[str, None] = {}
"""What the user was told of how files were read, and of what was left out."""
_to_tell: list[str] = []
"""Of those what is to be told at the end of the load in progress."""
_whole: dict[str, Text] = {}
"""The dict that `context` is as long as several files are loaded."""
_sizes: dict[str, int] = {}
"""Characters of each text that is in memory."""
_in_memory = [0]
"""Their sum."""
_ENDS = re.compile(r"[\r\n]")
_SHOWN = 200
"""Files that loading lists."""
_STATUS_ROWS = 500
_REMARKS, _REMARK = 20, 500
_active: list[Any] = [None]
_listeners: list[Callable[[Any], None]] = []


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
    if len(_whole) != len(files):  # code has changed `files` itself
        _whole.clear()
        _whole.update(files)
    _activate(next(iter(files.values())) if len(files) == 1 else _whole if files else None)


def _put(loaded: dict[str, Text]) -> None:
    for name, text in loaded.items():
        _drop(name)
        files[name] = _whole[name] = text
        _sizes[name] = len(text) if isinstance(text, str) else 0
        _in_memory[0] += _sizes[name]


def _drop(name: str) -> None:
    files.pop(name, None)
    _whole.pop(name, None)
    _in_memory[0] -= _sizes.pop(name, 0)


def load_file(path: str, name: str | None = None, replace_all: bool = False) -> str:
    """Load a file that the user named, by its absolute path on the host, and return its text.

    `name` defaults to the file's own; a taken one gets its folder before it. `replace_all` unloads the
    others. Raises FileRefused.
    """
    before = list(files) if replace_all else []
    if replace_all:
        _left_out.clear()
    loaded = _read(str(path), name)
    for label in before:
        if label not in loaded:
            _drop(label)
            del _loaded[label]
    _put(loaded)
    _activate_files()
    _tell()
    return loaded[next(iter(loaded))] if len(loaded) == 1 else ""  # type: ignore[return-value]


def load_files(paths: list[str]) -> None:
    """Load several files or whole directories.

    `context` is then a str for one file, a dict of name to text for several.
    """
    for path in paths:
        _put(_read(str(path), None))
    _activate_files()
    _tell()
    for name in itertools.islice(files, _SHOWN):
        print(_line(name, files[name]))
    if len(files) > _SHOWN:
        print(f"… and {len(files) - _SHOWN:,} more")


def _remark(about: str, what: str) -> None:
    remark = f"{about}: {what}"
    if remark not in _remarked:
        _remarked[remark] = None
        _to_tell.append(remark)


def _tell() -> None:
    """What was guessed or left out, for the user and for whoever looks at the cell's outputs; each once."""
    for remark in _to_tell[:_SHOWN]:
        print(f"Note: {' '.join(remark.split())}", file=sys.stderr)
    if len(_to_tell) > _SHOWN:
        print(f"Note: … and {len(_to_tell) - _SHOWN:,} more", file=sys.stderr)
    _to_tell.clear()


def _read(path: str, name: str | None) -> dict[str, Text]:
    grant: Granted = wire.call("file", {"path": path})
    inside, real = Path(grant["inside"]), _on_host(grant["path"])
    if grant["directory"]:
        return _read_folder(_shown(path), inside, real, grant.get("ignore", []))
    try:
        read = read_file(inside, real.name, room=_room())
    except (Unreadable, OSError) as error:
        raise wire.FileRefused(f"{grant['path']}: {error}") from None
    except MemoryError:
        raise wire.FileRefused(
            f"{path} is too large for this kernel's memory. Ask the user for a larger `sandbox.memory`."
        ) from None
    return _named(real, name or _shown(real.name), read)


def _named(path: PurePath, wanted: str, read: Read) -> dict[str, Text]:
    """The texts of a file by the names that they get."""
    return {
        _label(path, wanted, text, label.removeprefix(wanted), alone=not read.parts): text.text
        for label, text in read.named(wanted)
    }


def _on_host(path: str) -> PurePath:
    """A path as the host's system has it: its last part is a file's name."""
    return PureWindowsPath(path) if re.match(r"[A-Za-z]:[\\/]|\\\\", path) else PurePosixPath(path)


def _read_folder(path: str, inside: Path, real: PurePath, rules: Sequence[Sequence[str]]) -> dict[str, Text]:
    found, left_out = folders.members(inside, rules)
    loaded: dict[str, Text] = {}
    count = 0
    room = _room()
    for member in found:
        part = member.relative_to(inside)
        try:
            read = read_file(member, member.name, room=room)
        except (Unreadable, OSError, MemoryError) as error:
            left_out.add("binary or unreadable files", str(part))
            if is_format(member.name) and len(_left_out) < _STATUS_ROWS:
                _leave_out(_shown(str(real / part)), str(error))
            continue
        texts = _named(real / part, _shown(str(part)), read)
        loaded |= texts
        count += 1
        room = _room(room - sum(len(text) for text in texts.values() if isinstance(text, str)))
    told = left_out.told(_shown)
    print(f"{path}: {count:,} files loaded{f'; left out: {told}' if told else ''}")
    if told:
        _leave_out(path, told)
    if not loaded:
        raise wire.FileRefused(
            f"{path} holds no file with text in it{f'; left out: {told}' if told else ''}."
        )
    return loaded


def _leave_out(path: str, what: str) -> None:
    _left_out[path] = f"left out: {what}"
    _remark(path, _left_out[path])


def _room(left: int | None = None) -> int:
    """Bytes that the next text may have in memory, after those that are there (or of what is left)."""
    if left is None:
        left = memory.all_texts() - _in_memory[0]
    return max(0, min(memory.one_text(), left))


def _label(path: PurePath, wanted: str, read: Read, part: str, *, alone: bool) -> str:
    """The name for a file: the wanted one, with its folder before it, or the whole path, the first that no
    other file has. `part`: what follows it, for a text that is a part of the file; `alone`: the file has
    no other.
    """
    place, name = str(path), wanted + part
    if name in _loaded and _loaded[name].path != place:
        names = (_shown(f"{path.parent.name}/{path.name}"), _shown(place), place)
        names = tuple(name + part for name in names)
        name = next(name for name in names if name not in _loaded or _loaded[name].path == place)
    note, part_of = read.note(), "" if alone else name.removesuffix(part)
    _loaded[name] = _Loaded(place, read.encoding, isinstance(read.text, LazyText), note, part_of)
    if note:
        _remark(_on_a_line(name), note)
    return name


def _shown(name: str) -> str:
    """A file's name as it can be read and typed: one that is not UTF-8 by the code page of its text."""
    if name.isascii():
        return name
    try:
        return charsets.decode_name(os.fsencode(name))
    except UnicodeError:
        return name.encode("utf-8", "backslashreplace").decode()


def load_object(path: str) -> Any:
    """Make the JSON value in a file that the user gave the context."""
    value = json.loads(Path(wire.call("file", {"path": str(path)})["inside"]).read_bytes())
    _activate(value)
    return value


def switch_to(name: str) -> str:
    """Make one loaded file the active input: `context` becomes its text."""
    _activate(files[_known(name)])
    return files[name]  # type: ignore[return-value]


def remove_file(name: str) -> None:
    """Unload a file. The others stay; `context` follows."""
    _drop(_known(name))
    _loaded.pop(name, None)
    _activate_files()


def _known(name: str) -> str:
    if name not in files:
        raise KeyError(
            f"no file named {str(name)[:80]!r} is loaded; there are: {', '.join(list(files)[:50]) or 'none'}"
        )
    return name


def path_of(name: str) -> str:
    """The host's path of a loaded file; "" of a text that is a part of one, or none."""
    return _loaded[name].path if name in _loaded and not _loaded[name].part_of else ""


def list_files() -> list[str]:
    """A line for each loaded file: name, size, how it was read, and which are in `context`; at the end, what
    was left out and why.
    """
    return [*(_line(name, text) for name, text in files.items()), *map(": ".join, _left_out.items())]


def _line(name: str, text: Text) -> str:
    size, about = _size(text)
    shown = text.about() if isinstance(text, Picture) else f"{size:,} {'bytes' if about else 'characters'}"
    parts = [shown]
    if name in _loaded and _loaded[name].note:
        parts.append(_loaded[name].note)
    if len(files) > 1 and active() is text:
        parts.append("active")
    return f"{name}: {', '.join(parts)}"


def _size(text: Any) -> tuple[int, bool]:
    """Characters; of a large text that are not counted yet its bytes, which is the second."""
    if isinstance(text, LazyText) and text.whole and not text.source.counted:
        return text.source.end, True
    return len(text), False


def files_status() -> list[dict[str, Any]]:
    """What `rlm status` tells of the files."""
    current = active()
    rows = []
    for name, text in files.items():
        size, about = _size(text)
        loaded = _loaded.get(name, _Loaded("", "", False, ""))
        shown = {
            "name": name,
            "path": loaded.path,
            "bytes" if about else "characters": size,
            "encoding": loaded.encoding,
        }
        rows.append(shown | {"lazy": loaded.lazy, "active": current is text or isinstance(current, dict)})
    return rows[:_STATUS_ROWS]


def _texts() -> dict[str, Text]:
    value = active()
    if isinstance(value, Text):
        return {next((name for name, text in files.items() if text is value), "context"): value}
    if isinstance(value, dict):
        return {str(key): text if isinstance(text, Text) else json.dumps(text) for key, text in value.items()}
    if isinstance(value, list):
        return {
            f"[{index}]": text if isinstance(text, str) else json.dumps(text)
            for index, text in enumerate(value)
        }
    return {"context": "" if value is None else str(value)}


def _read_texts() -> dict[str, Text]:
    """Those of the texts that can be read: no pictures."""
    return {name: text for name, text in _texts().items() if not isinstance(text, Picture)}


def peek(start: int = 0, end: int = 2000, name: str | None = None) -> str:
    """Characters start to end of the active input, or of the named file.

    Negative numbers count from the end: peek(-2000) is the end.
    """
    part = slice(start, None if start < 0 < end else end)
    if name is not None:
        return str(files[_known(name)][part])
    value = active()
    return (
        str(value[part])
        if isinstance(value, Text)
        else "\n".join(f"=== {n} ===\n{t[part]}" for n, t in _texts().items())
    )


def grep(
    pattern: str,
    name: str | None = None,
    *,
    ignore_case: bool = False,
    limit: int | None = None,
    regex: bool = True,
    before: int = 0,
    after: int = 0,
) -> Sequence[Hit]:
    """The lines of the active input (or of the named file) that match, as (file, line, text).

    `len(grep(...))` counts them.

    `pattern` is a regular expression (`regex=False`: plain text). `limit` stops early. `before` and `after`:
    how many lines around it each hit has, in `.before` and `.after`. In place of a name, a text or a dict of
    texts is searched itself, because `grep(pattern, context)` is what many models write. A list; of more than
    a million hits a sequence that makes them when they are looked at. Raises ValueError for a bad pattern.
    """
    if before < 0 or after < 0:
        raise ValueError(f"before ({before}) and after ({after}) count lines, and cannot be negative")
    try:
        found = re.compile(pattern if regex else re.escape(pattern), re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ValueError(
            f"bad pattern {pattern!r}: {error}. Use regex=False to search for it as it stands."
        ) from None
    return search(_scope(name), found, limit, before, after)


def _scope(where: Any) -> dict[str, Text]:
    if where is None or where is active():
        return _read_texts()
    if isinstance(where, dict):
        return {str(key): text if isinstance(text, Text) else str(text) for key, text in where.items()}
    if isinstance(where, LazyText) or (
        isinstance(where, str) and where not in files and (_ENDS.search(where) or len(where) > 300)
    ):
        return {"text": where}
    return {where: files[_known(where)]}


def chunks(size: int, overlap: int = 0, name: str | None = None) -> Iterator[str]:
    """The active input in pieces of `size` characters, each with the last `overlap` characters of the one
    before.
    """
    if size <= overlap or overlap < 0:
        raise ValueError(f"size ({size}) must be greater than overlap ({overlap}), and overlap not negative")
    for text in [files[_known(name)]] if name is not None else _read_texts().values():
        if isinstance(text, LazyText):
            yield from text.pieces(size, overlap)
            continue
        for start in range(0, len(text), size - overlap):
            yield text[start : start + size]
            if start + size >= len(text):
                break


def records(name: str | None = None) -> list[dict[str, Any]] | Iterator[dict[str, Any]]:
    """The active input (or the named file) as a list of dicts: of a table, JSON lines, sections of settings,
    or lines that are alike by their names, and with numbers as numbers; of any other text, its lines with
    `line` and `text`. Of a large text an iterator. In place of a name, a text itself will do.

    Raises ValueError where too few lines have the form of the others, TypeError for several texts.
    """
    if name is None:
        where = active()
    else:
        where = name if isinstance(name, dict) else next(iter(_scope(name).values()))
    if isinstance(where, list):
        return where
    if not isinstance(where, Text):
        raise TypeError(
            f"records() reads one text, and this is a {type(where).__name__}. Name a file: records(name)."
        )
    return forms.records(where, _name_of(where))


def _name_of(text: Any) -> str:
    """The name of the file that a text is; "" if it is none."""
    return next((name for name, loaded in files.items() if loaded is text), "")


def _on_a_line(name: str) -> str:
    return name if name.isprintable() else repr(name)


def _remarks() -> list[str]:
    """What the user should know of how the files were read, and of what was left out."""
    return [
        *(f"{_on_a_line(name)}: {loaded.note}" for name, loaded in _loaded.items() if loaded.note),
        *map(": ".join, _left_out.items()),
    ]


def describe() -> dict[str, Any]:
    """What the host tells the root model of the input: constant in size, and told without a look at large
    texts.
    """
    value = active()
    texts = _texts() if value is not None else {}
    first = next(iter(texts.values()), "")
    sizes = {label: _size(text) for label, text in texts.items()}
    return {
        "kind": type(value).__name__ if value is not None else "None",
        "total_chars": sum(size for size, _ in sizes.values()),
        "items": [[label[:200], size] for label, (size, _) in list(sizes.items())[:100]],
        "item_count": len(texts),
        "head": str(first[:300]),
        "about": any(about for _, about in sizes.values()),
        "remarks": [remark[:_REMARK] for remark in _remarks()[:_REMARKS]],
        "more_remarks": max(0, len(_remarks()) - _REMARKS),
        "pictures": [
            [label[:200], text.about()]
            for label, text in list(texts.items())[:100]
            if isinstance(text, Picture)
        ],
        "form": forms.form(value, _name_of(value))
        if isinstance(value, (str, LazyText)) and not isinstance(value, Picture)
        else "",
    }
