"""The loaded files and the active input, `context`.

One file loaded: `context` is its text. Several: a dict of name to text. `switch_to` makes one of several the
active one.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlm_runtime import (
    byname,
    formats,
    forms,
    granted,
    kinds,
    labels,
    look,
    memory,
    missed,
    packing,
    remarks,
    wire,
)
from rlm_runtime.granted import Granted
from rlm_runtime.hits import Hit
from rlm_runtime.lazytext import LazyText
from rlm_runtime.picturefile import Picture
from rlm_runtime.readers import Read
from rlm_runtime.search import search
from rlm_runtime.unpacking import Unreadable

Text = str | LazyText
files: dict[str, Text] = {}
"""Name to text of all loaded files."""


class Loaded(NamedTuple):
    """Where a loaded file is on the host, and how it was read."""

    path: str
    encoding: str
    lazy: bool
    note: str
    part_of: str = ""
    """The name of the file that it is a part of; "" where it is all that the file holds."""
    inside: Path = Path()
    """Where it is in this container."""


_loaded: dict[str, Loaded] = {}
_folders: dict[str, str] = {}
"""Host's path of each folder that was loaded, to what it is called."""
_left_out: dict[str, tuple[str, str]] = {}
"""Host's path of a folder, or of a file in one, to its name and what was left out of it, and why."""
_whole: dict[str, Text] = {}
"""The dict that `context` is as long as several files are loaded."""
_sizes: dict[str, int] = {}
"""Characters of each text that is in memory."""
_in_memory = [0]
"""Their sum."""
_ENDS = re.compile(r"[\r\n]")
_SHOWN, _NAMED = 200, 5
"""Files that loading lists, and that an error names."""
_STATUS_ROWS = 500
_REMARKS, _REMARK = 20, 500
_active: list[Any] = [None]
_listeners: list[Callable[[Any], None]] = []
_object: list[Loaded] = []
"""The file that `context` was made of, where it is an object of the user's."""


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
        _folders.clear()
    loaded: dict[str, Text] = {}
    for texts in _read([str(path)], name):
        loaded |= texts
    for label in before:
        if label not in loaded:
            _drop(label)
            _loaded.pop(label, None)
    _put(loaded)
    _activate_files()
    remarks.tell()
    return loaded[next(iter(loaded))] if len(loaded) == 1 else ""  # type: ignore[return-value]


def load_beside(path: str) -> Any:
    """Load a file, or a folder, and leave `context` as it is; its text, or a list of its texts."""
    loaded: dict[str, Text] = {}
    for texts in _read([str(path)]):
        loaded |= texts
    for name, text in loaded.items():
        in_context = name in _whole
        _drop(name)
        files[name] = text
        _sizes[name] = len(text) if isinstance(text, str) else 0
        _in_memory[0] += _sizes[name]
        if in_context:
            _whole[name] = text
    return next(iter(loaded.values())) if len(loaded) == 1 else list(loaded.values())


def load_files(paths: list[str]) -> None:
    """Load several files or whole directories.

    `context` is then a str for one file, a dict of name to text for several.
    """
    for texts in _read([str(path) for path in paths]):
        _put(texts)
    _activate_files()
    remarks.tell()
    for name in itertools.islice(files, _SHOWN):
        print(_line(name, files[name]))
    if len(files) > _SHOWN:
        print(f"… and {len(files) - _SHOWN:,} more")


def _read(paths: Sequence[str], name: str | None = None) -> Iterator[dict[str, Text]]:
    """The texts of each of the paths, by their names.

    All names are made before anything is read. `name`: what a single one is to be called, if it is a file.
    """
    found = list({str(one.path): one for one in map(granted.grant, paths)}.values())
    known = {loaded.path: loaded.part_of or label for label, loaded in _loaded.items()}
    names = granted.names(found, known, _folders)
    if name is not None and (name not in _loaded or _loaded[name].path == str(found[0].path)):
        names[str(found[0].path)] = name
    inside = {str(path) for one in found if one.files is not None for path in one.paths()}
    before = [label for label, loaded in _loaded.items() if loaded.path in names]
    again: set[str] = set()
    for one in found:
        if one.files is None and str(one.path) in inside:
            continue
        texts = _read_one(one, names) if one.files is None else _read_folder(one, names)
        again.update(texts)
        yield texts
    _forget_parts(before, again)


def _forget_parts(before: Sequence[str], again: Collection[str]) -> None:
    """Unload what files held `before` and no longer hold, such as a sheet of a workbook read again."""
    of_files = {_loaded[label].part_of or label for label in again}
    for label in before:
        if label not in again and (_loaded[label].part_of or label) in of_files:
            _drop(label)
            del _loaded[label]


def _read_one(one: Granted, names: Mapping[str, str]) -> dict[str, Text]:
    path = str(one.path)
    byname.link(names[path], one.inside)
    try:
        read = formats.read_file(one.inside, one.path.name, room=_room())
    except (Unreadable, OSError) as error:
        raise wire.FileRefused(f"{path}: {error}") from None
    except MemoryError:
        raise wire.FileRefused(
            f"{path} is too large for this kernel's memory. Ask the user for a larger `sandbox.memory`."
        ) from None
    return _named(path, one.inside, names[path], read)


def _named(path: str, inside: Path, name: str, read: Read) -> dict[str, Text]:
    """The texts of a file by the names that they get, and a note of how each was read."""
    part_of = name if read.parts else ""
    return {_note(path, inside, label, text, part_of): text.text for label, text in read.named(name)}


def _read_folder(one: Granted, names: Mapping[str, str]) -> dict[str, Text]:
    folder = str(one.path)
    byname.link(names[folder], one.inside)
    for top in _tops(one, names):
        byname.link(top, one.inside / top)
    loaded: dict[str, Text] = {}
    left = memory.all_texts() - _in_memory[0]
    count = 0
    for member, path in _members(one):
        try:
            read = formats.read_file(member, member.name, room=_room(left))
        except (Unreadable, OSError, MemoryError) as error:
            one.left_out.add("binary or unreadable files", str(member.relative_to(one.inside)))
            if kinds.is_format(member.name) and len(_left_out) < _STATUS_ROWS:
                _leave_out(path, names[path], str(error).removeprefix(f"{member.name}: "))
            continue
        texts = _named(path, member, names[path], read)
        loaded |= texts
        count += 1
        left -= sum(len(text) for text in texts.values() if isinstance(text, str))
    told, called = one.left_out.told(labels.shown), labels.on_a_line(names[folder])
    print(f"{called}: {count:,} files loaded{f'; left out: {told}' if told else ''}")
    if told:
        _leave_out(folder, names[folder], told)
    if not loaded:
        raise wire.FileRefused(
            f"{labels.shown(folder)} holds no file with text in it{f'; left out: {told}' if told else ''}."
        )
    return loaded


def _tops(one: Granted, names: Mapping[str, str]) -> set[str]:
    """The first parts of the names of a folder's files, where they are named from the folder on."""
    within = ((member.relative_to(one.inside), path) for member, path in _members(one))
    return {place.parts[0] for place, path in within if names[path] == place.as_posix()}


def _members(one: Granted) -> Iterator[tuple[Path, str]]:
    """The files of a folder: where they are, and their paths on the host."""
    return zip(one.files or (), map(str, one.paths()), strict=True)


def _leave_out(path: str, name: str, what: str) -> None:
    _left_out[path] = labels.on_a_line(name), f"left out: {what}"
    remarks.add(*_left_out[path])


def _room(left: int | None = None) -> int:
    """Bytes that the next text may have in memory, after those that are there (or of what is left)."""
    if left is None:
        left = memory.all_texts() - _in_memory[0]
    return max(0, min(memory.one_text(), left))


def _note(path: str, inside: Path, name: str, read: Read, part_of: str) -> str:
    """Note how the text of this name was read; its name. `part_of`: as of `Loaded`."""
    note = read.note()
    _loaded[name] = Loaded(path, read.encoding, isinstance(read.text, LazyText), note, part_of, inside)
    if note:
        remarks.add(labels.on_a_line(name), note)
    return name


def load_object(path: str) -> Any:
    """Make the JSON value in a file that the user gave the context."""
    inside = Path(wire.call("file", {"path": str(path)})["inside"])
    value = json.loads(inside.read_bytes())
    _object[:] = [Loaded(str(path), "utf-8", False, "", inside=inside)]
    _activate(value)
    return value


def switch_to(name: str) -> str:
    """Make one loaded file the active input: `context` becomes its text."""
    _activate(files[_known(name)])
    return files[name]  # type: ignore[return-value]


def remove_file(name: str) -> None:
    """Unload a file, with all of its parts. The others stay; `context` follows."""
    parts: list[str] = []
    if name not in _loaded or _loaded[name].part_of == name:
        parts = [label for label, loaded in _loaded.items() if loaded.part_of == name]
    for label in parts or [_known(name)]:
        _drop(label)
        _loaded.pop(label, None)
    _activate_files()


def _known(name: str) -> str:
    if name not in files:
        raise KeyError(labels.unknown(name, files))
    return name


def path_of(name: str) -> str:
    """The host's path of a loaded file; "" of a text that is a part of one, or none."""
    return _loaded[name].path if name in _loaded and not _loaded[name].part_of else ""


def origin(name: str) -> Loaded | None:
    """Where the text of this name was read from; None for one that code has made."""
    return _loaded.get(name)


def parts_of(path: str) -> list[str]:
    """The names of the texts that were read from a file, by its host's path, in the file's order."""
    return [name for name, loaded in _loaded.items() if loaded.path == path and name in files]


def object_file() -> Loaded | None:
    """The file that `context` was made of, where it is an object of the user's and no text of a file."""
    return _object[0] if _object and not files else None


def list_files() -> list[str]:
    """A line for each loaded file: name, size, how it was read, and which are in `context`; at the end, what
    was left out and why.
    """
    return [*(_line(name, text) for name, text in files.items()), *map(": ".join, _left_out.values())]


def _line(name: str, text: Text) -> str:
    size, about = look.size_of(text)
    shown = text.about() if isinstance(text, Picture) else f"{size:,} {'bytes' if about else 'characters'}"
    parts = [shown]
    if name in _loaded and _loaded[name].note:
        parts.append(_loaded[name].note)
    if len(files) > 1 and active() is text:
        parts.append("active")
    return f"{labels.on_a_line(name)}: {', '.join(parts)}"


def files_status() -> list[dict[str, Any]]:
    """What `rlm status` tells of the files."""
    current = active()
    rows = []
    for name, text in files.items():
        size, about = look.size_of(text)
        loaded = _loaded.get(name, Loaded("", "", False, ""))
        shown = {
            "name": name,
            "path": loaded.path,
            "bytes" if about else "characters": size,
            "encoding": loaded.encoding,
        }
        rows.append(shown | {"lazy": loaded.lazy, "active": current is text or isinstance(current, dict)})
    return rows[:_STATUS_ROWS]


def _active_texts() -> dict[str, Text]:
    """Those of the active input, by their names."""
    return dict(look.labelled(active(), name_of(active()) or "context"))


def text(name: str) -> Text:
    """The text of a loaded file. Raises KeyError."""
    return files[_known(name)]


def texts() -> dict[str, Text]:
    """The texts of the active input that can be read, by name: no pictures."""
    return chosen(None)


def chosen(where: Any) -> dict[str, Text]:
    """The texts that the `name` of a helper means, by their names: None the active input, else the file or
    files of that name (`labels.meant`).

    A text itself will do, or a dict of texts, because `grep(pattern, context)` is what many models write.
    Pictures are passed over beside others. Raises KeyError.
    """
    if where is None or where is active():
        found = _active_texts()
    elif isinstance(where, (dict, list)):
        found = dict(look.labelled(where))
    elif isinstance(where, LazyText) or (
        isinstance(where, str) and where not in files and (_ENDS.search(where) or len(where) > 300)
    ):
        return {name_of(where) or "text": where}
    else:
        found = labels.meant(str(where), files or _active_texts())
    if len(found) == 1 and where is not None:
        return found
    return {name: text for name, text in found.items() if not isinstance(text, Picture)}


def _one(found: dict[str, Text]) -> Any:
    """The text, if there is one alone."""
    return next(iter(found.values())) if len(found) == 1 else found


def peek(start: int = 0, end: int = 2000, name: str | None = None) -> str:
    """Characters start to end of the active input, or of the named file.

    Negative numbers count from the end: peek(-2000) is the end. Of several files the first few are shown, of
    which this is that part, and how many more there are.
    """
    value = active() if name is None else _one(chosen(name))
    part = slice(start, None if start < 0 < end else end)
    return str(value[part]) if isinstance(value, Text) else look.peek(value, part)


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
    hits = search(chosen(name), found, limit, before, after)
    if not hits and regex and isinstance(pattern, str) and (told := missed.as_elsewhere(pattern)):
        print(f"Note: {told}")
    return hits


def chunks(size: int, overlap: int = 0, name: str | None = None) -> Iterator[str]:
    """The active input (or the named file) in pieces of at most `size` characters, each with the last
    `overlap` characters of the one before.

    Several files are packed: as many whole ones as fit into a piece, each under a line `=== name ===`; of a
    larger one each part tells its number. The lines with names count in `size`.
    """
    if size <= overlap or overlap < 0:
        raise ValueError(f"size ({size}) must be greater than overlap ({overlap}), and overlap not negative")
    return packing.pieces(chosen(name), size, overlap)


def records(name: str | None = None) -> list[dict[str, Any]] | Iterator[dict[str, Any]]:
    """The active input (or the named file) as a list of dicts: of a table, JSON lines, sections of settings,
    or lines that are alike by their names, and with numbers as numbers; of any other text, its lines with
    `line` and `text`. Of a large text an iterator. In place of a name, a text itself will do.

    Raises ValueError where too few lines have the form of the others, TypeError for several texts.
    """
    where = active() if name is None else _one(chosen(name))
    if isinstance(where, list):
        return where
    if isinstance(where, dict) and where:
        shown = ", ".join(labels.on_a_line(str(one)) for one in itertools.islice(where, _NAMED))
        more = f" and {len(where) - _NAMED:,} more" if len(where) > _NAMED else ""
        raise TypeError(
            f"records() reads one text, and these are {len(where):,}: {shown}{more}. Name one: "
            f"records({next(iter(where))!r}), or take each: for name in …: records(name)"
        )
    if not isinstance(where, Text):
        raise TypeError(
            f"records() reads one text, and this is a {type(where).__name__}. Name a file: records(name)."
        )
    return forms.records(where, name_of(where))


def name_of(text: Any) -> str:
    """The name of the file that a text is; "" if it is none."""
    return next((name for name, loaded in files.items() if loaded is text), "")


def describe() -> dict[str, Any]:
    """What the host tells the root model of the input: constant in size, and told without a look at large
    texts.
    """
    value = active()
    notes = ((name, loaded.note) for name, loaded in _loaded.items() if loaded.note)
    told = [*remarks.grouped(notes), *map(": ".join, _left_out.values())]
    return look.describe(value, name_of(value), from_files=value is _whole) | {
        "remarks": [remark[:_REMARK] for remark in told[:_REMARKS]],
        "more_remarks": max(0, len(told) - _REMARKS),
    }


def whole(limit: int) -> list[list[str]] | None:
    """The input itself, for the host, if it has no more tokens than `limit`, as of `look.whole`."""
    value = active()
    found = look.whole(value, limit, from_files=value is _whole)
    return [[name_of(value) or "context", found[0][1]]] if found and isinstance(value, Text) else found
