"""Caps on what a cell prints, displays and raises, at the source.

The host caps again what it receives; here the cap keeps the beginning and the end of long output, which the
host could not, and a message stays small enough to be received at all.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any

from rlm_runtime import hints, shown
from rlm_runtime.descriptors import Descriptor
from rlm_runtime.paced import Paced

if TYPE_CHECKING:
    from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

    from rlm_runtime.cells import Cells

STREAM_HEAD = 500_000
"""Characters of a cell's stdout (and of its stderr) that pass as they come."""
STREAM_TAIL = 20_000
"""Characters kept from the end of longer output, shown when the cell ends."""
TEXT_CAP = 200_000
"""Characters of one displayed text representation."""
PICTURE_CAP = 8_000_000
"""Characters (base64) of one displayed picture."""
TURNS = 1_000
"""How often in a cell stdout and stderr, written to in turns, are kept in order: to send what one has takes a
moment.
"""
DISPLAY_CAP = 200
"""Displays of one cell."""
ERROR_CAP = 50_000
"""Characters of an exception's message."""
FRAMES_CAP = 1_000
"""Frames of a traceback; the outermost and the innermost are kept."""
_SMALL_PICTURE = 2_000
"""Bytes of a picture that is not looked at: it may be made of few."""
_CHAIN = 20
"""Exceptions, each the cause of the next."""
_NAME = 200


class CappedStream:
    """Wraps a stream object of ipykernel in place.

    Of what is written the head passes, then only the tail is kept.

    It is flushed if something was written: ipykernel asks for that many times a cell, and each time its
    thread is waited for.
    """

    _last: CappedStream | None = None
    """The one of all that was written to last."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._write: Callable[[str], int | None] = stream.write
        self._flush: Callable[[], None] = stream.flush
        self._unflushed = False
        self._passed = 0
        self._dropped = 0
        self._tail = ""
        self._turns = 0
        stream.write = self.write
        stream.flush = self.flush
        stream.close = lambda: None

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._take_turn()
        size, text = len(text), _whole_lines(text)
        room = STREAM_HEAD - self._passed
        if room > 0:
            self._pass_on(text[:room])
            self._passed += min(len(text), room)
        rest = text[max(room, 0) :]
        if rest:
            self._tail += rest[-STREAM_TAIL:]
            self._dropped += len(rest)
            if len(self._tail) > 2 * STREAM_TAIL:
                self._tail = self._tail[-STREAM_TAIL:]
        return size

    def flush(self) -> None:
        if self._unflushed:
            self._unflushed = False
            self._flush()

    def _pass_on(self, text: str) -> None:
        self._write(text)
        self._unflushed = True  # only now: a flush of another thread may have come before

    def _take_turn(self) -> None:
        """Each stream is sent when it has something for a while: what the other has comes first, so that both
        are read in their order.
        """
        last, CappedStream._last = CappedStream._last, self
        if last is not None and last is not self and last._turns < TURNS:
            last._turns += 1
            last._stream.flush()

    def cell_started(self) -> None:
        self._passed, self._dropped, self._tail, self._turns = 0, 0, "", 0

    def cell_ended(self) -> bool:
        """Whether something was left out."""
        capped = self._dropped > 0
        if capped:
            tail = self._tail[-STREAM_TAIL:]
            self._pass_on(f"\n… {self._dropped - len(tail):,} characters of output left out …\n{tail}")
        self.cell_started()
        return capped


def _whole_lines(text: str) -> str:
    """A text that has carriage returns between its own characters: these are its line ends, and shown as
    such. A progress bar has them at the begin or the end of what it writes at one time, and does overwrite
    what was there.
    """
    if "\r" not in text:
        return text
    inner = text.strip("\r")
    if not _LONE.search(inner):
        return text
    start = text.index(inner)
    return text[:start] + _LONE.sub("\u240d\n", inner) + text[start + len(inner) :]


_LONE = re.compile(r"\r(?=[^\r\n])")


def cap_text(text: str, limit: int = TEXT_CAP) -> str:
    """The text, or its beginning and end with a notice between."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"


class CappedDisplay:
    """Wraps the shell's formatter and its publisher: every display() and every last expression passes
    here.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._format = shell.display_formatter.format
        self._publish = shell.display_pub.publish
        shell.display_pub.publish = self.publish
        self._count = 0
        self.capped = False
        shell.display_formatter.format = self.format
        plain = shell.display_formatter.formatters["text/plain"]
        plain.for_type(str, _short_repr)
        plain.for_type(bytes, _short_repr)
        plain.for_type(
            CoroutineType, lambda obj, printer, _cycle: printer.text(f"{obj!r} (it did not run: `await` it)")
        )

    def format(self, obj: Any, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        self._count += 1
        if self._count > DISPLAY_CAP:
            self.capped = True
            if self._count == DISPLAY_CAP + 1:
                return {
                    "text/plain": f"… more than {DISPLAY_CAP} displays in one cell: the rest is left out"
                }, {}
            return {}, {}
        data, metadata = self._format(obj, *args, **kwargs)
        if (said := shown.text_of(data)) is not None:
            data["text/plain"] = said
        return self._cap(data), metadata

    def publish(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """What is displayed, formatted or as the code made it itself."""
        if data and isinstance(data, dict):  # or else the publisher says what is wrong
            data = self._cap(data) or {"text/plain": _LEFT_OUT}
        self._publish(data, *args, **kwargs)

    def _cap(self, data: dict[str, Any]) -> dict[str, Any]:
        data = _scaled(data)
        capped = {kind: _cap_representation(kind, value) for kind, value in data.items()}
        self.capped = self.capped or any(capped[kind] is not value for kind, value in data.items())
        return {kind: value for kind, value in capped.items() if value is not None}

    def cell_started(self) -> None:
        self._count, self.capped = 0, False


class CappedErrors:
    """Wraps the shell's tracebacks.

    What exceptions say of themselves is asked once, and an exception that says too much, or fails to, or is
    interrupted as it does, is shown as one of the same name.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._kernel = os.getpid()
        self._show, self._show_lines = shell.showtraceback, shell._showtraceback
        shell.showtraceback, shell._showtraceback = self.show, self.show_lines
        self._show_syntax, shell.showsyntaxerror = shell.showsyntaxerror, self.show_syntax
        # IPython formats each exception once more, as it is, to keep it as long as the kernel lives.
        shell._format_exception_for_storage = lambda *_, **__: {}
        self._shown: tuple[BaseException, BaseException] | None = None
        self._code = ""
        self.capped = False

    def show(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        _, error, _ = exc_tuple or sys.exc_info()
        if isinstance(error, SystemExit):
            if os.getpid() == self._kernel:  # and not in a process that code forked, which ends by it
                self._ended(error)
            return
        if error is not None and (line := _brief(error)):
            self._shell._get_exc_info(exc_tuple)  # kept for %tb and %debug
            self._show_lines(type(error), error, [_in_cell(error, line, self._shell.user_ns)])
            return
        if error is not None:
            told = _told(error)
            self._shown = (error, told)
            self.capped = _cut_short(told.__traceback__) or told is not error or self.capped
            self._add_hint(told)
            exc_tuple = (type(told), told, told.__traceback__)
        self._show(exc_tuple, *args, **kwargs)

    def show_syntax(self, *args: Any, **kwargs: Any) -> None:
        """What does not parse is shown by this alone."""
        if (error := sys.exc_info()[1]) is not None:
            self._add_hint(error)
        self._show_syntax(*args, **kwargs)

    def _add_hint(self, error: BaseException) -> None:
        names = [name for name in self._shell.user_ns if isinstance(name, str)]
        note = _more_hints(error, self._code) or hints.hint(error, self._shell.user_ns.get("context"), names)
        if note and not getattr(error, "__notes__", None):
            error.add_note(f"Hint: {note}")

    @staticmethod
    def _ended(error: SystemExit) -> None:
        code = error.code if isinstance(error.code, (int, str, type(None))) else type(error.code).__name__
        said = "" if code is None else f" with {cap_text(repr(code), _NAME)}"
        sys.stderr.write(
            f"[The cell ended here, by SystemExit{said}. The kernel and its variables live on.]\n"
        )

    def show_lines(self, kind: Any, error: Any, lines: list[str]) -> None:
        text = "\n".join(line for line in lines if isinstance(line, str))
        if len(text) > TEXT_CAP:
            self.capped, lines = True, cap_text(text).split("\n")
        self._show_lines(kind, error, lines)

    def cell_started(self, code: str = "") -> None:
        self._shown, self.capped, self._code = None, False, code

    def cell_ended(self, result: ExecutionResult) -> None:
        """The reply to the client tells the exception again.

        A cell that ended itself without a complaint is ok.
        """
        if isinstance(result.error_in_exec, SystemExit) and result.error_in_exec.code in (None, 0):
            result.error_in_exec = None
        if self._shown is not None and result.error_in_exec is self._shown[0]:
            result.error_in_exec = self._shown[1]


def hint_about(more: Callable[[BaseException, str], str]) -> None:
    """Have a function asked for a hint first, with an error and the cell's code."""
    _hinters.append(more)


def _more_hints(error: BaseException, code: str) -> str:
    return next((told for hint in _hinters if (told := hint(error, code))), "")


_hinters: list[Callable[[BaseException, str], str]] = []


def _brief(error: BaseException) -> str:
    """The line that says all of an error, or of errors that are all such; "" of others."""
    if isinstance(error, BaseExceptionGroup):
        lines = [_brief(one) for one in error.exceptions]
        more = f" (and {len(lines) - 1:,} more)" if len(lines) > 1 else ""
        return f"{lines[0]}{more}" if all(lines) else ""
    if not getattr(error, "brief", False):
        return ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _in_cell(error: BaseException, line: str, variables: dict[str, Any]) -> str:
    """With the line of the cell that it came from."""
    number, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals is variables and trace.tb_frame.f_code.co_name == "<module>":
            number = trace.tb_lineno
        trace = trace.tb_next
    return f"{line} (Line {number} of the cell.)" if number else line


def _told(error: BaseException) -> BaseException:
    """The error as it is, or one that can be shown in its place; with the errors that led to it."""
    chain = [error]
    while (
        (before := chain[-1].__cause__ or chain[-1].__context__) is not None
        and len(chain) < _CHAIN
        and before not in chain
    ):
        chain.append(before)
    told = None
    for one in reversed(chain):
        shown = _showable(one)
        if told is not None and told is not (one.__cause__ or one.__context__):
            shown.__cause__ = told
        told = shown
    return told or error


def _showable(error: BaseException) -> BaseException:
    try:
        text = str(error)
        if len(text) <= ERROR_CAP:
            return error
        text = cap_text(text, ERROR_CAP)
    except BaseException as failure:  # an interrupt, too, of what would never end
        text = f"(its message cannot be had: {type(failure).__name__[:_NAME]})"
    kind = type(type(error).__name__[:_NAME], (Exception,), {"__module__": "builtins"})
    shown: BaseException = kind(text).with_traceback(error.__traceback__)
    shown.__cause__, shown.__context__, shown.__suppress_context__ = (
        error.__cause__,
        error.__context__,
        error.__suppress_context__,
    )
    return shown


def _cut_short(trace: TracebackType | None) -> bool:
    """Take the middle out of a long traceback: to format each frame takes a while. Whether it was long."""
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    if len(frames) <= FRAMES_CAP:
        return False
    frames[FRAMES_CAP // 2 - 1].tb_next = frames[-FRAMES_CAP // 2]
    return True


def _short_repr(value: str | bytes, printer: Any, _cycle: bool) -> None:
    # repr() of a context of gigabytes would need as much memory again.
    if len(value) <= TEXT_CAP:
        printer.text(repr(value))
        return
    half = TEXT_CAP // 2
    printer.text(f"{value[:half]!r} … {len(value) - 2 * half:,} more … {value[-half:]!r}")


_LEFT_OUT = "… too large to be shown: left out"


def _scaled(data: dict[str, Any]) -> dict[str, Any]:
    """With large pictures scaled down: nobody looks at all of their pixels here, and few models take them."""
    made = dict(data)
    for kind in ("image/png", "image/jpeg"):
        value = data.get(kind)
        if isinstance(value, (str, bytes)) and len(value) > _SMALL_PICTURE:
            from rlm_runtime.pictures import displayed

            if (smaller := displayed(value, PICTURE_CAP)) is not None:
                del made[kind]
                made[smaller[0]] = smaller[1]
    return made


def _cap_representation(kind: str, value: Any) -> Any:
    """The value, shortened if it is text; None for a picture over the cap, whose text/plain then stands
    alone.
    """
    if not isinstance(value, str):
        return value
    if kind.startswith("text/"):
        return cap_text(value)
    return value if len(value) <= PICTURE_CAP else None


def _without_surrogates(session: Any) -> None:
    """Lone surrogates have no UTF-8: without this, a message that holds one, and all that was printed with
    it, would be lost.
    """
    from jupyter_client.jsonutil import json_clean, json_default

    pack = session.pack

    def packed(message: Any) -> Any:
        try:
            return pack(message)
        except UnicodeEncodeError:
            return json.dumps(json_clean(message), default=json_default, allow_nan=False).encode()

    session.pack = packed


def _give_back_streams(stdout: Any, stderr: Any) -> None:
    """What a cell put in the place of stdout or stderr ends with it; a text that was caught there and not
    looked at is shown.
    """
    for name, own in (("stdout", stdout), ("stderr", stderr)):
        other = getattr(sys, name, None)
        if other is own:
            continue
        setattr(sys, name, own)
        caught = ""
        if isinstance(other, io.StringIO) and not other.closed:
            caught = other.getvalue()
        own.write(caught)
        stderr.write(
            f"Note: this cell replaced sys.{name}. It is as before "
            f"again{', and what was caught is above' if caught else ''}.\n"
        )


class _Unkept(dict[int, list[Any]]):
    """In the place of IPython's record of all that cells showed, which would take as much memory as they
    say.
    """

    def __missing__(self, number: int) -> list[Any]:
        return []


def install(shell: InteractiveShell, cells: Cells) -> None:
    """Cap the shell's streams, displays and errors from now on.

    The host hears of a cell that was capped by the message `rlm_truncated`.
    """
    streams = [CappedStream(sys.stdout), CappedStream(sys.stderr)]
    descriptors = [
        Descriptor(stream) for stream in (sys.stdout, sys.stderr) if hasattr(stream, "watch_fd_thread")
    ]
    own = (sys.stdout, sys.stderr)
    displays, errors = CappedDisplay(shell), CappedErrors(shell)
    kernel: Any = shell.kernel
    _without_surrogates(kernel.session)
    Paced(kernel.iopub_thread)
    shell.history_manager.outputs = _Unkept()

    def before(info: Any) -> None:
        for capped in (*streams, displays):
            capped.cell_started()
        errors.cell_started(info.raw_cell or "")

    def after(result: ExecutionResult) -> None:
        for descriptor in descriptors:
            descriptor.take_up()
        _give_back_streams(*own)
        errors.cell_ended(result)
        capped = [stream.cell_ended() for stream in streams]
        if any(capped) or displays.capped or errors.capped:
            kernel.session.send(kernel.iopub_socket, "rlm_truncated", {}, parent=shell.get_parent())

    cells.follow(before, after)
