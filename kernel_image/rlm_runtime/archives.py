"""Archives: the text of all files in a zip or tar, each after its name.

What cannot be read costs itself alone, and is named.
"""

from __future__ import annotations

import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, NamedTuple

from rlm_runtime import charsets, memory
from rlm_runtime.unpacking import NAME, Budget, Unreadable

_TAR_HEADER = 512
_PIECE = 1 << 16
_LOCAL = struct.Struct("<4s5H3I2H")
_OUT = 1 << 20
_NAMED = 3
_NOTES = 10
_REASON = 300
_METHODS = {1: "shrunk", 6: "imploded", 9: "Deflate64", 93: "zstandard", 95: "xz", 98: "PPMd", 99: "AES"}


class Member(NamedTuple):
    """A file in an archive; `pieces` unpacks it, and raises whatever is wrong with it."""

    name: str
    pieces: Callable[[], Iterator[bytes]]
    size: int = 0
    """What it unpacks to, by its own word."""


Members = Iterator[Member]


class Told(NamedTuple):
    """A text, and what the user should know of what it lacks."""

    text: str
    notes: list[str]


def archive_text(
    members: Members, budget: Budget, notes: list[str], read: Callable[[bytes, str], Told]
) -> Told:
    """All members' texts, each after `=== name ===`.

    `read` makes text of a member's bytes, and takes the room for it from the budget.

    `notes`: what is said of the archive while its members are walked. Raises Unreadable if nothing at all can
    be read.
    """
    whole = bytearray()  # in a str every character may take four bytes
    unread: list[str] = []
    good = 0
    with budget:
        for member in members:
            name = _printable(member.name)
            if budget.room < NAME:
                notes.append(f"{name} and what follows it was left out, as there is no more room")
                break
            budget.keep(NAME)
            try:
                text, said = read(budget.take(member.pieces(), member.size), member.name)
            except Exception as error:  # damaged data makes any reader raise anything
                why = str(error) if isinstance(error, Unreadable) else f"{type(error).__name__}: {error}"
                unread.append(why[:_REASON] if why.startswith(name) else f"{name}: {why[:_REASON]}")
                text = f"[left out: {why[:_REASON]}]"
            else:
                good += 1
                notes += [f"{name}: {note}" for note in said]
            whole += f"=== {name} ===\n{text}\n\n".encode("utf-8", "surrogatepass")
    if unread and not good:
        raise Unreadable(f"nothing in it can be read; {unread[0]}")
    if unread:
        shown = "; ".join(unread[:_NAMED]) + ("; …" if len(unread) > _NAMED else "")
        notes.insert(0, f"{len(unread):,} of {len(unread) + good:,} files in it left out ({shown})")
    return Told(whole.decode("utf-8", "surrogatepass").rstrip("\n"), few(notes))


def few(notes: list[str]) -> list[str]:
    """Remarks, the first ten of them at most, and how many more there are."""
    return (
        notes if len(notes) <= _NOTES else [*notes[: _NOTES - 1], f"{len(notes) - _NOTES + 1:,} more remarks"]
    )


def _printable(name: str) -> str:
    name = name if len(name) <= 300 else f"{name[:150]}…{name[-150:]}"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in name)


def _is_noise(name: str) -> bool:
    """What macOS adds for itself."""
    return (
        name.startswith("__MACOSX/")
        or name.rpartition("/")[2] == ".DS_Store"
        or name.rpartition("/")[2].startswith("._")
    )


def zip_members(file: IO[bytes], notes: list[str]) -> Members:
    """The files of a zip: by its directory, or, where that is lost, by what stands before each of them.

    Raises Unreadable.
    """
    try:
        _check_directory(file)
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError) as error:
        if isinstance(error, Unreadable):
            raise
        if not _is_cut_off(file):
            raise
        notes.append("its directory is damaged or cut off, so that files may be missing")
        yield from _without_directory(file, notes)
        return
    page = _page(archive.infolist())
    for member in archive.infolist():
        if (
            member.filename.endswith(("/", "\\"))
            or stat.S_ISLNK(member.external_attr >> 16)
            or _is_noise(member.filename)
        ):
            continue
        yield Member(_name(member, page), partial(_zip_pieces, archive, member), member.file_size)


def _check_directory(file: IO[bytes]) -> None:
    """Each entry takes memory before the first is looked at. Raises Unreadable, BadZipFile."""
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end is None:
        raise zipfile.BadZipFile("it has no directory")
    most = memory.total() // 16
    if end[5] > most:
        raise Unreadable(f"its directory of files has {end[5]:,} bytes, too much for memory")


def _page(members: list[zipfile.ZipInfo]) -> str:
    """The code page of names that are not marked as UTF-8: that of the machine where the archive was made.

    Told by all of them together.
    """
    raw = b"\n".join(
        member.orig_filename.encode("cp437") for member in members if not member.flag_bits & 0x800
    )
    try:
        return "utf-8" if raw.isascii() else charsets.find(raw).encoding
    except charsets.NoText:
        return "cp437"


def _name(member: zipfile.ZipInfo, page: str) -> str:
    name = member.filename
    if (
        not member.flag_bits & 0x800 and name == member.orig_filename
    ):  # else the archive has the name in UTF-8 besides
        name = name.encode("cp437").decode(page, "replace")
    return name if "/" in name else name.replace("\\", "/")  # as some programs of Windows write it


def _zip_pieces(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    if member.flag_bits & 1:
        raise Unreadable("it is encrypted, and needs a password")
    if member.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
        zipfile.ZIP_BZIP2,
        zipfile.ZIP_LZMA,
    ):
        raise Unreadable(
            "it is packed by a method that is not known here "
            f"({_METHODS.get(member.compress_type, member.compress_type)})"
        )
    with archive.open(member) as part:
        while piece := part.read(_PIECE):
            yield piece


def _without_directory(file: IO[bytes], notes: list[str]) -> Members:
    file.seek(0)
    data = file.read(memory.one_text())
    at = data.find(b"PK\3\4")
    while 0 <= at <= len(data) - _LOCAL.size:
        _, _, flags, method, _, _, _, size, _, length, extra = _LOCAL.unpack_from(data, at)
        begin = at + _LOCAL.size
        name = data[begin : begin + length].decode("utf-8" if flags & 0x800 else "cp437", "replace")
        begin += length + extra
        known = not flags & 8 and size != 0xFFFFFFFF
        # Where the size follows the data, the next header tells where that ends, at the latest.
        after = data.find(b"PK\3\4", begin + size if known else begin)
        end = (
            begin + size
            if known
            else _first(data.find(b"PK\7\x08", begin), data.find(b"PK\1\2", begin), after, len(data))
        )
        if name and not name.endswith("/") and not _is_noise(name):
            cut = end > len(data) or (not known and end == len(data))
            yield Member(
                name,
                partial(
                    _local_pieces, memoryview(data)[begin:end], flags, method, name if cut else "", notes
                ),
            )
        at = after


def _is_cut_off(file: IO[bytes]) -> bool:
    file.seek(0)
    return b"PK\3\4" in file.read(_OUT)


def _first(*places: int) -> int:
    return min(place for place in places if place >= 0)


def _local_pieces(data: memoryview, flags: int, method: int, cut: str, notes: list[str]) -> Iterator[bytes]:
    if flags & 1:
        raise Unreadable("it is encrypted, and needs a password")
    if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unreadable(f"it is packed by a method that is not known here ({_METHODS.get(method, method)})")
    if cut:
        notes.append(f"{_printable(cut)}: cut off before its end, and read up to there")
    if method == zipfile.ZIP_STORED:
        yield bytes(data)
        return
    decoder = zlib.decompressobj(-15)
    rest: bytes | memoryview = data
    while len(rest) and not decoder.eof:
        yield decoder.decompress(rest, _OUT)
        rest = decoder.unconsumed_tail
    yield decoder.flush()


def tar_members(file: IO[bytes], notes: list[str]) -> Members:
    """The files of a tar; links, devices and folders are none.

    One that is cut off gives what is before that.
    """
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while True:
            try:
                member = archive.next()
            except (tarfile.TarError, OSError, ValueError, EOFError) as error:
                if not notes:
                    notes.append(f"damaged or cut off, and read up to there ({error})")
                return
            if member is None:
                return
            archive.members.clear()  # it would remember them all
            if member.isreg() and not _is_noise(member.name):
                name = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                cut = partial(
                    notes.append, f"{_printable(name)}: cut off before its end, and read up to there"
                )
                yield Member(
                    name, partial(_tar_pieces, file, archive, member, cut)
                )  # of one that is cut off, the size is not there


def _tar_pieces(
    file: IO[bytes], archive: tarfile.TarFile, member: tarfile.TarInfo, cut: Callable[[], None]
) -> Iterator[bytes]:
    if member.issparse():
        part = archive.extractfile(member)
        while part is not None and (piece := part.read(_PIECE)):
            yield piece
        return
    file.seek(member.offset_data)
    left = member.size
    while left and (piece := file.read(min(left, _PIECE))):
        left -= len(piece)
        yield piece
    if left:
        cut()


def is_tar(head: bytes) -> bool:
    """Whether data that begins so is a tar: its first header's checksum is right."""
    head = head[:_TAR_HEADER]
    # Fields are filled up with zeros, and no text has one: so for a text `tarfile` is not even read.
    if len(head) < _TAR_HEADER or b"\0" not in head or not head.strip(b"\0"):
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True
