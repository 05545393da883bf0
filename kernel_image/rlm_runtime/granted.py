"""The files and folders that the host lets be read, and what their files are called."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import rlm_contract

from rlm_runtime import folders, labels, wire
from rlm_runtime.labels import Wanted


class Granted(NamedTuple):
    """A path that may be read: on the host, and inside. Of a folder `files`, which are below it inside, and
    what was `left_out`.
    """

    path: PurePath
    inside: Path
    files: Sequence[Path] | None = None
    left_out: folders.LeftOut = folders.LeftOut()

    def paths(self) -> list[PurePath]:
        """Those of its files, on the host."""
        if self.files is None:
            return [self.path]
        return [self.path / file.relative_to(self.inside) for file in self.files]


def grant(path: str) -> Granted:
    """Ask the host for a path. Raises FileRefused."""
    told: rlm_contract.Granted = wire.call("file", {"path": path})
    inside, real = Path(told["inside"]), labels.on_host(told["path"])
    if not told["directory"]:
        return Granted(real, inside)
    return Granted(real, inside, *folders.members(inside, told.get("ignore", [])))


def names(
    granted: Sequence[Granted], known: Mapping[str, str], called: MutableMapping[str, str]
) -> dict[str, str]:
    """A name for each of the files and folders, by its path on the host.

    `known`: the names of the files that are loaded, which keep them; `called`: those of the folders, to which
    the new ones are added. Where there are several folders, the names of their files begin with the folder's.
    """
    new = [one.path for one in granted if one.files is not None and str(one.path) not in called]
    called.update(zip(map(str, new), labels.told_apart(list(map(Wanted, new)), called.values()), strict=True))
    below: dict[str, Wanted] = {}
    alone: dict[str, Wanted] = {}
    for one in granted:
        if one.files is None:
            alone.setdefault(str(one.path), Wanted(one.path))
            continue
        prefix = called[str(one.path)].count("/") + 1 if len(called) > 1 else 0
        above = len(one.path.parts) - prefix
        for path in one.paths():
            below.setdefault(str(path), Wanted(path, len(path.parts) - above))
    found = dict(known)
    for wanted in (below, alone):  # a file that is named by itself gives way to those of folders
        fresh = {path: one for path, one in wanted.items() if path not in found}
        found |= zip(fresh, labels.told_apart(list(fresh.values()), set(found.values())), strict=True)
    return found | called
