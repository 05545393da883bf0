"""What is expected of the traces of a folder: `rlm-test.toml`, written by hand, and the answers that were
accepted, which `rlm test --update` writes.
"""

from __future__ import annotations

import codecs
import datetime
import json
import os
import tempfile
import tomllib
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlm_kernel.bounded import parse
from rlm_kernel.errors import ConfigError, UsageError
from rlm_kernel.nearest import did_you_mean, nearest
from rlm_kernel.session.regression.alike import How, Measure
from rlm_kernel.trace.plain import read_plain

WISHES = "rlm-test.toml"
ACCEPTED = "rlm-test.accepted.json"
MAX_BYTES = 16 << 20
MAX_ATTEMPTS = 10


class Wish(BaseModel):
    """What is wished for a trace, or at the top of the file for all of them.

    `expected`: the answer (to the last question) in place of the recorded one; `skip`: why the trace is not
    tested; `model`: its root model, where models are asked; `attempts`: it is tried so often until it is the
    same.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    compare: How | None = None
    expected: Any = None
    tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None
    ordered: bool | None = None
    skip: str = ""
    model: str | None = None
    attempts: Annotated[int, Field(ge=1, le=MAX_ATTEMPTS)] = 1

    def measure(self, above: Measure) -> Measure:
        """How its answers are compared."""
        return Measure(
            self.compare or above.how,
            above.tolerance if self.tolerance is None else self.tolerance,
            above.ordered if self.ordered is None else self.ordered,
        )


@dataclass(frozen=True)
class Expectations:
    """Those of a folder. `accepted`: the answers of a trace, to all its questions in order."""

    folder: Path
    general: Wish
    wishes: Mapping[str, Wish]
    accepted: Mapping[str, Sequence[str | None]]

    def of(self, name: str) -> Wish:
        """Those of a trace, and where it has none of its own those of all."""
        own = self.wishes.get(name, Wish())
        there = own.model_dump(exclude_unset=True)
        return Wish(**{**self.general.model_dump(exclude_unset=True), **there})

    def without_models(self) -> Expectations:
        """The same without models of their own."""

        def bare(wish: Wish) -> Wish:
            return Wish(**wish.model_dump(exclude_unset=True, exclude={"model"}))

        wishes = {name: bare(wish) for name, wish in self.wishes.items()}
        return replace(self, general=bare(self.general), wishes=wishes)

    def answers(self, name: str, recorded: Sequence[str | None]) -> list[str | None]:
        """What is expected of a trace: its recorded answers, or those that were accepted, and before these
        the one that the file names.
        """
        accepted = self.accepted.get(name)
        answers = list(accepted if accepted is not None and len(accepted) == len(recorded) else recorded)
        wanted = self.of(name).expected
        if wanted is not None and answers:
            answers[-1] = wanted if isinstance(wanted, str) else _written(wanted)
        return answers

    def is_fixed(self, name: str) -> bool:
        """Whether a person wrote down what the answer is."""
        return self.of(name).expected is not None

    def accept(self, answers: Mapping[str, Sequence[str | None]]) -> Path:
        """Write down answers as expected from now on, beside those of other traces. Raises UsageError."""
        path = self.folder / ACCEPTED
        both = {name: list(known) for name, known in (*self.accepted.items(), *answers.items())}
        text = json.dumps(dict(sorted(both.items())), indent=1, ensure_ascii=False) + "\n"
        try:
            handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=".rlm-test-")
            with open(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
            os.replace(temporary, path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error
        return path


def read_expectations(folder: Path, traces: Collection[str]) -> Expectations:
    """What the folder's files say. Blocking. Raises ConfigError, which names the entry."""
    path = folder / WISHES
    wishes, accepted = (_as_named(found, traces) for found in (_toml(path), _accepted(folder / ACCEPTED)))
    tables = {name: value for name, value in wishes.items() if isinstance(value, dict)}
    unknown = [name for name in tables if name not in traces]
    if unknown:
        raise ConfigError(
            f"{path} names {unknown[0]!r}, but there is no such trace next to it.",
            hint=did_you_mean(nearest(unknown[0], traces))
            or f'Name each table after a trace: ["{next(iter(traces), "count.ipynb")}"]',
        )
    general = _wish(path, "", {name: value for name, value in wishes.items() if name not in tables})
    if general.expected is not None:
        raise ConfigError(
            f"{path}: `expected` must belong to a trace.",
            hint='Put it into the table of a trace: ["count.ipynb"]',
        )
    each = {name: _wish(path, name, table) for name, table in tables.items()}
    return Expectations(folder, general, each, accepted)


def _as_named(entries: Mapping[str, Any], traces: Collection[str]) -> dict[str, Any]:
    """The entries by the names of the traces: a copy may have an accent apart from its letter."""
    names = {unicodedata.normalize("NFC", name): name for name in traces}
    return {names.get(unicodedata.normalize("NFC", name), name): value for name, value in entries.items()}


def _written(wanted: Any) -> str:
    """A value of TOML as an answer has it."""
    if isinstance(wanted, datetime.date | datetime.time):
        return str(wanted)
    return json.dumps(wanted, ensure_ascii=False, default=str)


def _wish(path: Path, name: str, table: Mapping[str, Any]) -> Wish:
    try:
        return Wish(**table)
    except (ValidationError, TypeError) as error:
        problem = error.errors()[0] if isinstance(error, ValidationError) else None
        where = ".".join(map(str, problem["loc"])) if problem else ""
        why = problem["msg"] if problem else str(error)
        known = ", ".join(Wish.model_fields)
        raise ConfigError(
            f"{path}{f', {name!r}' if name else ''}: {where}: {why}.", hint=f"There are: {known}."
        ) from error


def _read(path: Path) -> bytes:
    """The file's bytes; none where it is not there. Raises ConfigError."""
    try:
        return read_plain(path, follow=False, most=MAX_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not TOML: {error}.", hint="docs/regression.md has an example."
        ) from error


def _accepted(path: Path) -> dict[str, list[str | None]]:
    raw = _read(path)
    if not raw:
        return {}
    try:
        found = parse(raw.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not JSON: {error}.", hint="Delete it, and type rlm test --update."
        ) from error
    fits = isinstance(found, dict) and all(
        isinstance(answers, list) and all(one is None or isinstance(one, str) for one in answers)
        for answers in found.values()
    )
    if not fits:
        raise ConfigError(
            f"{path} does not have the form that rlm writes.", hint="Delete it, and type rlm test --update."
        )
    return dict(found)
