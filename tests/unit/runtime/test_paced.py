"""What the kernel publishes waits for what it published before: with ZeroMQ's own sockets, and readers that
read or do not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from rlm_runtime import paced
from rlm_runtime.paced import TOGETHER, Paced

MANY = 20


class Publisher:
    """ipykernel's thread, as far as it is wrapped: sends in a thread of its own what others give it."""

    def __init__(self, context: zmq.Context[Any], address: str) -> None:
        self.socket = context.socket(zmq.XPUB)
        self.socket.linger = 0
        self.socket.bind(address)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self._given: list[Any] = []
        self._more = threading.Condition()
        self._over = False

    def send_multipart(self, parts: list[Any], **options: Any) -> None:
        with self._more:
            self._given.append((parts, options))
            self._more.notify()

    def _work(self) -> None:
        assert self.socket.recv() == b"\x01"
        while True:
            with self._more:
                self._more.wait_for(lambda: self._given or self._over)
                if self._over:
                    return
                parts, options = self._given.pop(0)
            self.socket.send_multipart(parts, **options)
            del parts

    def close(self) -> None:
        with self._more:
            self._over = True
            self._more.notify()
        self.thread.join()
        self.socket.close()


@pytest.fixture
def ends(tmp_path: Any) -> Iterator[SimpleNamespace]:
    with zmq.Context() as context:
        publisher = Publisher(context, f"ipc://{tmp_path}/s")
        reader = context.socket(zmq.SUB)
        reader.linger, reader.rcvhwm, reader.rcvtimeo = 0, 1, 10_000
        reader.connect(f"ipc://{tmp_path}/s")
        reader.subscribe(b"")
        publisher.thread.start()
        yield SimpleNamespace(publisher=publisher, reader=reader)
        reader.close()
        publisher.close()


def test_large_outputs_wait_until_those_before_them_are_on_their_way(ends: SimpleNamespace) -> None:
    Paced(ends.publisher)
    sent = 0

    def publish() -> None:
        nonlocal sent
        for number in range(MANY):
            ends.publisher.send_multipart([b"t", bytes([number]) * TOGETHER])
            sent += 1

    publishing = threading.Thread(target=publish)
    publishing.start()
    for number in range(MANY):
        assert sent <= number + 8, "no more than a few are under way"
        assert ends.reader.recv_multipart() == [b"t", bytes([number]) * TOGETHER]
    publishing.join(10)
    assert sent == MANY


def test_a_client_that_does_not_read_holds_up_nobody_for_long(
    ends: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    wait = zmq.MessageTracker.wait
    monkeypatch.setattr(paced, "PATIENCE", 0.1)
    monkeypatch.setattr(
        zmq.MessageTracker, "wait", lambda self, timeout: (waits.append(timeout), wait(self, timeout))
    )
    Paced(ends.publisher)
    for number in range(MANY):
        ends.publisher.send_multipart([b"t", bytes([number]) * TOGETHER])
    assert len(waits) < MANY / 2, "it is not waited for again and again"
    for number in range(MANY):
        assert ends.reader.recv_multipart() == [b"t", bytes([number]) * TOGETHER]


def test_small_outputs_go_as_they_are(ends: SimpleNamespace) -> None:
    Paced(ends.publisher)
    for number in range(100):
        ends.publisher.send_multipart([b"t", bytes([number])], copy=True)
    assert [ends.reader.recv_multipart()[1] for _ in range(100)] == [bytes([number]) for number in range(100)]
