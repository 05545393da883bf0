"""A notebook that is being written: what it holds, and when it is saved, whole or in its journal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rlm_kernel.engine.protocols import Totals
from rlm_kernel.errors import TraceNotWritten
from rlm_kernel.trace.accounts import TotalsMeta
from rlm_kernel.trace.notebook_file import NotebookFile
from rlm_kernel.trace.parts import is_made
from rlm_kernel.trace.schema import FileMeta, NotebookMeta
from rlm_kernel.trace.writable import Writable

_KERNELSPEC = {"name": "rlm", "display_name": "RLM (Docker)", "language": "python"}
_LANGUAGE = {
    "name": "python",
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "pygments_lexer": "ipython3",
}


class SavedNotebook:
    """The base of the notebook writer: cells and metadata, and their way to the disk.

    Raises TraceNotWritten.
    """

    def __init__(self, path: Path, meta: NotebookMeta, secrets: Sequence[str]) -> None:
        self.path = path
        self._writable = Writable(secrets)
        # Before the title is made of it, which may cut a secret in two.
        known = NotebookMeta.model_validate(self._writable.meta(meta))
        # Without a seal: as long as it is written it has none, and a run that is killed leaves none.
        ours = {"journal": "", "journaled": 0, "files": [], "seal": "", "sealed": []}
        self._meta = known.model_copy(update=ours)
        self._plain: tuple[NotebookMeta | None, dict[str, Any]] = (None, {})
        self._files: list[FileMeta] = []
        self._places: dict[str, int] = {}
        self._file = NotebookFile(path, self._refresh)
        self._take_files(known.files)
        self._sizes: dict[str, int] = {}
        self._shown = 0
        self._counts: Counter[str] = Counter()
        self._account: Callable[[], Totals] | None = None
        self._before = Totals()
        self._saved = 0.0
        self._closed = False
        self._whole_due: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Have the notebook whole on disk, and nothing beside it."""
        self._closed = True
        self._save()

    def release(self) -> None:
        """Write no more, and leave everything as it is on disk: another writer takes the trace up."""
        self._cancel_whole()
        self._file.release()

    @property
    def files(self) -> Sequence[FileMeta]:
        """The files of the trace, as far as they are known."""
        return self._files

    def set_files(self, files: Iterable[FileMeta]) -> None:
        """Say what is known of these files now: more than before, such as their digests, or that there are
        such at all.
        """
        self._take_files(files)
        self._save()

    def _take_files(self, files: Iterable[FileMeta]) -> None:
        for file in files:
            place = self._places.setdefault(file.path, len(self._files))
            self._files[place : place + 1] = [file]
            self._file.put_file(place, self._writable.meta(file))

    def _refresh(self) -> None:
        """Put what the disk has of a running cell's progress into its cell."""

    def _put(self, cell: dict[str, Any], *, check: bool) -> None:
        name = cell["id"]
        if name not in self._file.cells:
            self._counts[name.partition("-")[0]] += 1
        self._file.put(cell, check=check)
        outputs = (output for output in cell.get("outputs", ()) if not is_made(output))
        size = sum(len(str(part)) for output in outputs for part in output.values())
        self._shown += size - self._sizes.get(name, 0)
        self._sizes[name] = size

    def _ours(self) -> dict[str, Any]:
        """The notebook's metadata, with the account as it is now."""
        if self._plain[0] is not self._meta:
            self._plain = self._meta, self._writable.meta(self._meta)
        plain = self._plain[1]
        if self._account is None:
            return plain
        return {**plain, "totals": self._writable.meta(TotalsMeta.of(self._before + self._account()))}

    def _save(self) -> None:
        notebook = {"kernelspec": _KERNELSPEC, "language_info": _LANGUAGE}
        with self._writing():
            if self._closed:
                self._file.write_whole(notebook, self._ours(), closed=True)
            else:
                self._file.save(notebook, self._ours())
        self._saved = time.monotonic()
        if self._closed:
            self._cancel_whole()
        else:
            self._arm_whole()

    def _arm_whole(self) -> None:
        """Have the notebook written whole as soon as it may be, if no event comes before."""
        wait = self._file.wait()
        if self._file.behind and self._whole_due is None:
            with contextlib.suppress(RuntimeError):
                self._whole_due = asyncio.get_running_loop().call_later(wait + 0.01, self._whole_when_due)

    def _whole_when_due(self) -> None:
        self._whole_due = None
        with contextlib.suppress(TraceNotWritten):
            if self._file.wait():
                self._arm_whole()
            elif self._file.behind:
                self._save()

    def _cancel_whole(self) -> None:
        if self._whole_due is not None:
            self._whole_due.cancel()
            self._whole_due = None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> TraceNotWritten:
        return TraceNotWritten(
            f"The trace {self.path} cannot be written: {error.strerror or error}.",
            hint=going_on(self.path),
        )


def going_on(path: Path) -> str:
    """The hint where a trace could not be written. What is there was put there whole."""
    then = (
        f"then continue: rlm resume {path}"
        if os.path.isfile(path)
        else "or choose another place with --trace."
    )
    return f"Free some space or check the folder's permissions, {then}"
