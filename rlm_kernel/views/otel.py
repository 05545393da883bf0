"""Where the spans of a run go: to the program's own OpenTelemetry, or by the `OTEL_…` variables to a
receiver.

Nothing here delays or fails a run. Spans are sent by a thread in the background; those that a receiver does
not take in time are dropped.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rlm_kernel._version import __version__
from rlm_kernel.secrets import known_secrets
from rlm_kernel.views.spans import SCHEMA, Spans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
INSTALL = (
    "{variable} asks for OpenTelemetry, which is not installed, so rlm sends no spans. Type: pip install "
    "'rlm-kernel[otel]'."
)
END_SECONDS = 2.0
"""How long the end of a command waits for spans to be sent."""
SEND_SECONDS = 5.0
"""For one request with spans, retries and all."""
QUEUE = 8192
"""Spans that wait to be sent; more are dropped."""
_CAPTURES = ("true", "1", "span_only", "span_and_event")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_own: Any = None
"""This process' provider of spans, where the program has none."""
_used: set[Any] = set()
"""All providers that got spans."""
_making = threading.Lock()


def asked_for(environ: Mapping[str, str]) -> str:
    """The variable that asks for spans; "" for none."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ""
    if exporters := environ.get("OTEL_TRACES_EXPORTER", "").strip():
        return "" if exporters.lower() == "none" else "OTEL_TRACES_EXPORTER"
    return next((name for name in _ENDPOINTS if environ.get(name, "").strip()), "")


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether anybody may want spans. Imports nothing."""
    return bool(asked_for(environ)) or "opentelemetry.sdk.trace" in sys.modules


def spans(environ: Mapping[str, str], say: Callable[[str], None]) -> Spans | None:
    """A listener that makes spans, where they are wanted; `say` hears why there are none.

    Blocking: importing OpenTelemetry takes half a second. Raises nothing.
    """
    try:
        return _spans(environ, say)
    except ImportError:
        say(INSTALL.format(variable=asked_for(environ)))
    except Exception as error:
        why = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        say(f"rlm sends no spans: {why}.")
    return None


def _spans(environ: Mapping[str, str], say: Callable[[str], None]) -> Spans | None:
    variable = asked_for(environ)
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    provider = _programs_own()
    if provider is None and variable:
        provider = _provider(environ, say)
    if provider is None:
        return None
    _used.add(provider)
    tracer = provider.get_tracer("rlm_kernel", __version__, schema_url=SCHEMA)
    capture = environ.get(CAPTURE, "").strip().lower() in _CAPTURES
    return Spans(tracer, parent=_parent(environ), capture=capture, secrets=known_secrets(environ))


def _programs_own() -> Any:
    """What the program that runs us has set up, as instrumented ones have; None for nothing."""
    if "opentelemetry.sdk.trace" not in sys.modules:
        return None
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    provider = trace.get_tracer_provider()
    return provider if isinstance(provider, TracerProvider) else None


def _provider(environ: Mapping[str, str], say: Callable[[str], None]) -> Any:
    global _own
    with _making:
        if _own is None:
            if not (exporters := _exporters(environ, say)):
                return None
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            named = "OTEL_SERVICE_NAME" in environ or "service.name" in environ.get(
                "OTEL_RESOURCE_ATTRIBUTES", ""
            )
            service = {} if named else {"service.name": "rlm"}
            # At its own exit it would wait for half a minute.
            made = TracerProvider(
                resource=Resource.create({**service, "service.version": __version__}), shutdown_on_exit=False
            )
            _tell_once(say)
            queue = None if "OTEL_BSP_MAX_QUEUE_SIZE" in environ else QUEUE
            delay = None if "OTEL_BSP_SCHEDULE_DELAY" in environ else 1000
            for exporter in exporters:
                processor = BatchSpanProcessor(exporter, max_queue_size=queue, schedule_delay_millis=delay)
                made.add_span_processor(processor)
            atexit.register(flush)
            _own = made
        return _own


def _exporters(environ: Mapping[str, str], say: Callable[[str], None]) -> list[SpanExporter]:
    found: list[SpanExporter] = []
    for name in environ.get("OTEL_TRACES_EXPORTER", "").strip().lower().split(",") or ["otlp"]:
        match name.strip() or "otlp":
            case "otlp":
                protocol = next((environ[one] for one in _PROTOCOLS if environ.get(one)), "http/protobuf")
                if protocol != "http/protobuf":
                    say(
                        f"rlm sends spans only over http/protobuf, not over {protocol[:40]}, so it sends "
                        "none."
                    )
                    continue
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

                set_ = any(
                    one.endswith("_TIMEOUT") and one.startswith("OTEL_EXPORTER_OTLP") for one in environ
                )
                found.append(OTLPSpanExporter(timeout=None if set_ else SEND_SECONDS))
            case "console":
                from opentelemetry.sdk.trace.export import ConsoleSpanExporter

                found.append(ConsoleSpanExporter(out=sys.stderr))  # stdout is the answer's
            case other:
                say(f"OTEL_TRACES_EXPORTER must be otlp, console or none, not {other[:40]!r}.")
    return found


def _parent(environ: Mapping[str, str]) -> Any:
    """The span that is current where the run is asked for, else the one that TRACEPARENT names."""
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    current = context.get_current()
    if trace.get_current_span(current).get_span_context().is_valid:
        return current
    carrier = {
        name: environ[name.upper()] for name in ("traceparent", "tracestate") if name.upper() in environ
    }
    return TraceContextTextMapPropagator().extract(carrier)


class _Once(logging.Handler):
    """Tells the first of what goes wrong while spans are sent."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say: Callable[[str], None] | None = say

    def emit(self, record: logging.LogRecord) -> None:
        say, self._say = self._say, None
        if say is not None:
            told = " ".join(record.getMessage().split())
            say(f"Sending spans failed: {told[:300].rstrip('.')}.")


def _tell_once(say: Callable[[str], None]) -> None:
    """Where the program keeps no log, what the exporter logs is told once, and not each time."""
    if not logging.getLogger().handlers:
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(_Once(say))
        logger.propagate = False


def flush(seconds: float = END_SECONDS) -> None:
    """Send what waits to be sent, for at most so long."""
    threads = [threading.Thread(target=_flushed, args=(one,), daemon=True) for one in list(_used)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds / max(1, len(threads)))


def _flushed(provider: Any) -> None:
    try:
        provider.force_flush(int(END_SECONDS * 1000))
    except Exception:  # nobody waits for it
        logging.getLogger("opentelemetry").debug("not flushed", exc_info=True)
