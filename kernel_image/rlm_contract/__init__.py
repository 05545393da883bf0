"""What host and container have in common: names, sizes and shapes of all that crosses the stream between
them.

`rlm_kernel` and `rlm_runtime` both import this package; it imports nothing but Python's own. `frames` is how
bytes cross, `glance` how both tell what a path looks like, `tokens` how both estimate the tokens of a text.
The types say what each side sends. Whoever receives checks it all the same: the container is hostile.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Literal, NotRequired, TypedDict

VERSION: Final = 4
"""Of all that crosses the stream. Ends that differ in it do not talk."""

# The container.

COMMAND: Final = ("/opt/rlm/bin/python", "-m", "rlm_runtime")
RUN: Final = "/rlm/run"
"""Memory of the container, for sockets and for what the kernel is told."""
FILES: Final = "/rlm/files"
"""Below it are the user's files."""
DEPOT: Final = "/rlm/depot"
"""The same of files that are named after the container has started."""
SOCKETS: Final = {"shell": 1, "iopub": 2, "stdin": 3, "control": 4, "hb": 5}
"""The kernel's sockets. With Jupyter's ipc transport a port is the ending of a socket's name."""
EXIT_OOM: Final = 97
"""The container's status when its kernel was killed for memory."""
EXIT_LEASE: Final = 98
"""The same when its owner has ended, or when the first process fails."""


class Session(TypedDict):
    """What the kernel is told.

    `max_request` in bytes, `window` in calls of a batch. `token`: what each host call has to name.
    """

    token: str
    max_request: int
    window: int
    replayed: bool


class Hello(TypedDict):
    """From the host.

    `nonce` in hex; `idle`: seconds without an owner; `key`: of Jupyter's messages; `debugger`: one may attach
    to the kernel. The rest is as of `glance`.
    """

    version: int
    nonce: str
    idle: float
    session: Session
    key: str
    debugger: NotRequired[bool]
    boot: NotRequired[str]
    files: NotRequired[dict[str, int | None]]


class Welcome(TypedDict):
    """From the container.

    `seen`: the time of change of each of the host's files, and an outline where that proves too little.
    """

    version: int
    seen: dict[str, tuple[int | None, list[int] | None]]
    mapped: bool


class End(TypedDict):
    """From the container, in its last frame. `words`: the end of what the kernel wrote to its stderr."""

    status: int
    words: str


HELPERS: Final = frozenset((
    "files", "load_file", "load_files", "load_object", "switch_to", "list_files", "remove_file", "peek",
    "grep", "chunks", "records", "pdf_page", "llm_query", "llm_query_batched", "allm_query", "rlm_query",
    "rlm_query_batched", "cite", "expect_answer", "expect_evidence", "tools", "budget", "history",
    "SHOW_VARS", "FINAL", "FINAL_VAR", "HostCallError", "LLMError", "BudgetExceeded", "FileRefused",
    "PictureError", "NoRecord", "Cancelled", "CallFailed", "ToolError", "re", "json", "csv", "math",
    "Counter", "defaultdict", "add_buffer", "chunk_indices", "write_chunks", "classify", "buffers",
    "answer", "context", "question", "paths", "partial_results", "In", "Out", "get_ipython", "exit", "quit",
    "display",
))  # fmt: skip
"""Names that code in the kernel has, which no tool may have."""

# Questions of the host to the kernel, as Jupyter's user expressions.

VARIABLES: Final = "__import__('rlm_runtime.api', fromlist=['api']).SHOW_VARS()"
DESCRIPTION: Final = "__import__('rlm_runtime.api', fromlist=['api']).describe()"
WHOLE: Final = "__import__('rlm_runtime.files', fromlist=['files']).whole({limit:d})"
"""The whole input, if it has no more bytes than that."""
STANDING: Final = "__import__('rlm_runtime.standing', fromlist=['standing']).standing({texts!r})"
"""Which of the texts stand in the input."""
LOADED: Final = "__import__('rlm_runtime.files', fromlist=['files']).files_status()"

STANDS: Final = (
    "__import__('rlm_runtime.citing', fromlist=['citing']).stands({path!r}, {start:d}, {end:d}, {quote!r})"
)
"""Whether a quotation stands between two characters of the text that a reader makes of a loaded file."""

# Host calls: a request is the sizes of its head and its body, and both; a reply is its size, and itself.

CALLS: Final = f"{RUN}/host"
"""The socket for them."""
SIZES, SIZE = struct.Struct("!II"), struct.Struct("!I")
Kind = Literal[
    "hello", "llm_query", "rlm_query", "file", "final", "budget", "history", "order", "received", "cancel",
    "planned", "cut_off", "hand", "unhand", "tool"
]  # fmt: skip
MAX_CELL_ID: Final = 64
"""Characters of a cell's id, as in nbformat's schema."""
MAX_CALL_ID: Final = 80
MAX_HANDED_FILES: Final = 20
"""Loaded files that are handed over by name."""
MAX_WHOLE_TEXTS: Final = 500
"""Texts that the host is told whole."""
MAX_WHOLE_TOLD: Final = 170_000
"""Characters of the Python literal that tells them."""
MAX_PICTURES: Final = 20
"""Of one call. Anthropic takes pictures of up to 8,000 pixels a side where there are no more, Bedrock no
more at all.
"""
MAX_PICTURE: Final = 3_700_000
"""Bytes of one picture: in base64, 5 MB, which is as much as Anthropic takes."""
MAX_ALL_PICTURES: Final = 14_000_000
"""Bytes of the pictures of one call: in base64, less than the 20 MB of a request to Gemini."""
MAX_SIDE: Final = 8_000
"""Pixels of a side of a picture."""
MAX_PREVIEW: Final = 6_000
"""Bytes of a preview, a picture of at most `PREVIEW_SIDE` pixels a side."""
PREVIEW_SIDE: Final = 200


MAX_QUOTE: Final = 4_000
"""Characters of a quotation: a passage that a person reads, and not a file."""
MAX_EVIDENCE: Final = 1_000
"""Passages that are given with an answer."""
ENCODINGS: Final = frozenset((
    "ascii", "utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "iso8859-1", "iso8859-2",
    "iso8859-5", "iso8859-7", "iso8859-15", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255",
    "cp1256", "cp1257", "cp1258", "cp437", "cp737", "cp850", "cp852", "cp855", "cp862", "cp866",
    "cp874", "cp037", "koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "gb18030", "gbk", "gb2312",
    "big5", "cp932", "shift_jis", "euc_jp", "cp949", "euc_kr",
))  # fmt: skip
"""Of passages that the host reads, by the names of Python's codecs: each makes text of bytes, and nothing
else.
"""


class Head(TypedDict):
    """`nth`: how often the cell has asked the very same before.

    `images`: bytes of each of the pictures, which follow the body's JSON.
    """

    token: str
    cell: str
    call: str
    nth: int
    kind: Kind
    images: NotRequired[list[int]]


class Query(TypedDict):
    """Of `llm_query`. `timeout` in seconds.

    `anew`: an answer to the same that the host has kept is of no use.

    `images`: PNG or JPEG files, sent as they are behind the JSON; `previews`: a small picture of each in
    base64.
    """

    prompt: str
    model: str | None
    schema: NotRequired[Any]
    timeout: NotRequired[float]
    anew: NotRequired[bool]
    images: NotRequired[list[bytes]]
    previews: NotRequired[list[str]]


Batch = tuple[Literal["llm_query", "rlm_query"], int, int, str | None]
"""Of `planned`: calls that code is about to make. Their kind, how many, tokens of all prompts together by
`tokens`, and the model as of the calls.
"""
MAX_BATCHES: Final = 32
"""Of one `planned`."""
Partial = tuple[str, int, int, bool]
"""Of a batch that was cut off: its cell, its answers, its prompts, and whether a limit did it."""


class Handed(TypedDict):
    """An input for a child that was sent by `hand`."""

    handed: str
    form: Literal["text", "json"]


class HandedFiles(TypedDict):
    """An input for a child that the host has."""

    files: list[str]


class ChildQuery(TypedDict):
    """Of `rlm_query`. `model`: the child's root model."""

    question: str
    context: Handed | HandedFiles | None
    model: NotRequired[str]
    schema: NotRequired[Any]
    timeout: NotRequired[float]


class ToolDeclared(TypedDict):
    """A tool as the set-up cell declares it. `parameters`: JSON schema of the arguments."""

    name: str
    signature: str
    doc: NotRequired[str]
    parameters: NotRequired[dict[str, Any]]


class ToolCall(TypedDict):
    """Of `tool`. Arguments by name: those of `*args` are a list, those of `**kwargs` an object."""

    name: str
    arguments: dict[str, Any]


class ToolAnswer(TypedDict):
    """The value for a `tool` call. `files`: paths on the host, which a `file` call finds."""

    value: Any
    files: list[str]


class Evidence(TypedDict):
    """Of `final`: a passage of a file that the answer stands on.

    From `start` up to `end`, in `unit`: bytes of the file, or characters of the text that a reader makes of
    it. `mark` is its number in the answer, `path` the host's.
    """

    mark: int
    path: str
    start: int
    end: int
    quote: str
    unit: Literal["bytes", "characters"]
    encoding: str


class Error(TypedDict):
    """`type` names an exception of `rlm_runtime.wire`; `TimedOut` is an LLMError there.

    `brief`: a person runs the cells, who needs no traceback to understand it.
    """

    type: str
    message: str
    brief: NotRequired[bool]


class Reply(TypedDict):
    """`value` if it is `ok`, else `error`. `cut`: a model's reply ends at its limit of tokens.

    `asking`: seconds of the run so far in which the user was asked whether calls may be made; 0 if missing.
    """

    call: str
    ok: bool
    value: NotRequired[Any]
    cut: NotRequired[bool]
    error: NotRequired[Error]
    asking: NotRequired[float]


class Granted(TypedDict):
    """The value for a `file` call: where the container has it, and what the host calls it.

    `ignore`: the folder's place below each folder that has rules of what to ignore, and these.
    """

    inside: str
    path: str
    directory: bool
    ignore: NotRequired[list[tuple[str, str]]]
