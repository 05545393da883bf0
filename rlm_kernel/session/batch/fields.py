"""One question from a row of a file or a dict: what its fields mean, and what cannot be one."""

from __future__ import annotations

import contextlib
import glob
import json
import math
import operator
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from rlm_kernel.config import known_keys
from rlm_kernel.errors import UsageError
from rlm_kernel.nearest import did_you_mean, nearest
from rlm_kernel.session.inputs import STDIN, Context, expand

FIELDS = ("id", "custom_id", "question", "files", "text", "context", "schema", "limits", "settings")
_OF_MODELS = ("model", "temperature", "top_p", "seed", "reasoning", "thinking_tokens", "max_tokens")
"""No address and no key: a file of questions does not say where keys are sent."""
_TYPO = 0.85
"""How much the name of a field must be like one of ours to be taken for a slip."""
MAX_FILLED = 20_000
"""Characters of a value that stands in a question."""
_BRACES = re.compile(r"\{\{([^{}\n]*)\}\}|\{([^{}\n]{1,200})\}")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Draft:
    """A question as it was given. `id`: None for one that is made of what is asked."""

    id: str | int | None
    question: str
    context: Context = None
    schema: Mapping[str, Any] | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


def draft(values: Mapping[str, Any], base: Path, *, cells: bool = False) -> Draft:
    """The question of a row or dict.

    Args:
        values: as docs/batch.md names them.
        base: what relative paths are relative to.
        cells: all values are texts, as a CSV file has them; "" is none.

    Raises:
        UsageError: what is wrong with it, in a sentence that fits behind "line 7: ".
    """
    if cells:
        values = {name: _cell(name, value) for name, value in values.items() if value != ""}
    # Tables in memory have no other value where there is none.
    values = {name: value for name, value in values.items() if not _is_nan(value)}
    for name in values:
        if name in FIELDS or not isinstance(name, str):
            continue
        if (meant := nearest(name, FIELDS, _TYPO)) is not None:
            raise UsageError(f"it has a {name!r}. {did_you_mean(meant)}")
    question = values.get("question")
    if not isinstance(question, str) or not question.strip():
        raise UsageError(
            'its "question" is not a text' if question else 'it has no "question"',
            hint="" if question else f"It has: {', '.join(map(str, values))[:200] or 'nothing'}.",
        )
    schema = values.get("schema")
    if schema is not None and not isinstance(schema, Mapping):
        raise UsageError('its "schema" is not a JSON schema')
    return Draft(
        checked_id(values.get("id", values.get("custom_id"))),
        question,
        _context(values, base),
        schema,
        _changes(values),
    )


def _cell(name: str, value: Any) -> Any:
    """What a cell of a table means: JSON where the field takes more than a text."""
    if name in ("id", "custom_id", "question", "text") or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def checked_id(value: Any) -> str | int | None:
    """Whole numbers of any type are such; so are 3.0, as a column with gaps has them. Raises UsageError."""
    if value is None or _is_nan(value):
        return None
    if isinstance(value, uuid.UUID):
        return str(value)
    if not isinstance(value, str | bool):
        with contextlib.suppress(TypeError):
            whole = isinstance(value, float) and value.is_integer()
            value = int(value) if whole else operator.index(value)
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UsageError('its "id" is neither a text nor a whole number')
    if value == "":
        raise UsageError('its "id" is empty')
    # Of whole numbers that are longer still, Python makes no text.
    if (isinstance(value, int) and abs(value) >= 10**1_000) or len(str(value)) > 1_000:
        raise UsageError('its "id" is too long')
    return value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _context(values: Mapping[str, Any], base: Path) -> Context:
    """Raises UsageError."""
    given = [name for name in ("files", "text", "context") if values.get(name) is not None]
    if len(given) > 1:
        raise UsageError(f"it has {' and '.join(given)}: give one of them")
    if given and given[0] != "files":
        if given[0] == "text" and not isinstance(values["text"], str):
            raise UsageError('its "text" is not a text')
        return values[given[0]]
    named = values.get("files") or []
    named = [named] if isinstance(named, str | os.PathLike) else named
    if not isinstance(named, Sequence) or not all(isinstance(one, str | os.PathLike) for one in named):
        raise UsageError('its "files" are neither a path nor a list of paths')
    found = [path for one in named for path in _found(os.fspath(one), base)]
    return list(dict.fromkeys(found)) or None


def _found(name: str, base: Path) -> Sequence[Path]:
    """The files of a path or glob, as seen from the base. Raises UsageError."""
    if not name or "\0" in name or name == "-":
        raise UsageError(f'its "files" have {name!r}, which names no file')
    path = base / Path(name).expanduser()
    if not os.path.lexists(path) and glob.has_magic(name):
        pattern = name if os.path.isabs(name) else os.path.join(glob.escape(str(base)), name)
        return expand([Path(pattern)], base / STDIN)
    return [path]


def _changes(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of this question alone, by dotted name. Raises UsageError."""
    limits, settings = values.get("limits") or {}, values.get("settings") or {}
    if not isinstance(limits, Mapping) or not isinstance(settings, Mapping):
        raise UsageError('its "limits" or "settings" are not a JSON object')
    changes = {**settings, **{f"limits.{name}": value for name, value in limits.items()}}
    known = _own_settings() if changes else ()
    for key in changes:
        if key not in known:
            raise UsageError(
                f"setting {key!r} cannot be set for a single question",
                hint=did_you_mean(nearest(key, known)),
            )
    return {key: "none" if value is None else value for key, value in changes.items()}


@cache
def _own_settings() -> tuple[str, ...]:
    """The settings that a question may have its own of. The containers are those of the batch."""
    models = (f"{role}.{name}" for role in ("root_llm", "sub_llm") for name in _OF_MODELS)
    return (*(key for key in known_keys() if key.startswith(("limits.", "prompt."))), *models)


def filled(question: str, values: Mapping[str, Any]) -> str:
    """The question with values in the place of their names in braces; `{{name}}` stays, as `{name}`.

    Braces around anything that is no single word stay as they are. Raises UsageError for a word that is no
    name, and for a value that is too long to stand in a question.
    """

    def value_of(match: re.Match[str]) -> str:
        if match[2] is None:
            return f"{{{match[1]}}}"
        name = match[2].strip()
        if name not in values:
            if _WORD.fullmatch(name) is None:
                return match[0]
            near = nearest(name, map(str, values))
            raise UsageError(
                f"there is no value for {{{name}}} in the question",
                hint=f"{did_you_mean(near)} There are: {', '.join(f'{{{one}}}' for one in values)[:300]}. "
                f"Write {{{{{name}}}}} for a literal {{{name}}}.".strip(),
            )
        value = values[name]
        text = value if isinstance(value, str) else _told(value)
        if len(text) > MAX_FILLED:
            raise UsageError(
                f"{{{name}}} has {len(text):,} characters, which is too much for a question",
                hint=f"Remove {{{name}}} from the question: the code has the whole row as `context`.",
            )
        return text

    return _BRACES.sub(value_of, question)


def has_fields(question: str) -> bool:
    """Whether `filled` may put values into the question: paths in these are nobody's wish."""
    return any(match[2] is not None for match in _BRACES.finditer(question))


def _told(value: Any) -> str:
    from rlm_kernel.session.plainvalues import as_json

    return "" if value is None else as_json(value)
