"""What a cell does to attack the host by its sockets.

`TOOLS` is run once in a kernel; then each attack is a cell of its own.
"""

from __future__ import annotations

TOOLS = '''
import contextlib, json, os, random, socket, struct, threading, time, zmq
from concurrent.futures import ThreadPoolExecutor
from jupyter_client.session import Session
from rlm_runtime import wire

BROKER = "/rlm/run/host"
TOKEN = wire.session()["token"]
MIB = 1 << 20
rng = random.Random(SEED)
kernel = get_ipython().kernel
count = 0

def frame(data, more=False):
    return struct.pack(">BQ", 2 | more, len(data)) + data

def raw(seconds=1.0):
    """A connection for host calls; None where no more are taken."""
    found = socket.socket(socket.AF_UNIX)
    found.settimeout(seconds)
    try:
        found.connect(BROKER)
    except OSError:
        found.close()
        return None
    return found

def push(sock, data):
    """Send what can be sent: the host may not read, or hang up."""
    global count
    count += 1
    with contextlib.suppress(OSError):
        sock.sendall(data)
        return True
    return False

def head(**changes):
    known = {"token": TOKEN, "cell": wire.current_cell, "call": f"1-{rng.randrange(10**9)}", "nth": 0, "kind": "llm_query"}
    return json.dumps(known | changes).encode()

def request(body=None, **changes):
    """The bytes of a whole request."""
    data = body if isinstance(body, bytes) else json.dumps(body or {"prompt": "x"}).encode()
    return begun(len(data), **changes) + data

def begun(size, **changes):
    """The beginning of a request whose body is to have so many bytes."""
    first = head(**changes)
    return struct.pack(">II", len(first), size) + first

def each(number, attack, threads=16):
    """Do it so many times, in threads. What it says is lost."""
    def once(place):
        with contextlib.suppress(Exception):
            attack(place)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(once, range(number)))

def for_seconds(seconds, attack, threads=8):
    end = time.monotonic() + seconds
    def again(_):
        while time.monotonic() < end:
            with contextlib.suppress(Exception):
                attack()
    each(threads, again, threads)

def to_host():
    """The kernel's own ends of its connections with the host, past ZeroMQ: shell, iopub, control."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=os.dup(int(name)))
            if sock.family == socket.AF_UNIX and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
                if pid == 1 and sock.getsockname().startswith("/rlm/run"):  # the first process's
                    found.append(sock)
                    continue
            sock.close()
    return found

def iopub(kind, content, parent=None, session=None, **more):
    global count
    count += 1
    (session or kernel.session).send(kernel.iopub_socket, kind, content, parent=kernel.get_parent() if parent is None else parent, **more)

def told(parent, session="somebody"):
    return {"header": {"msg_id": parent, "session": session, "msg_type": "execute_request", "username": "u", "version": "5.3"}}
'''

BROKER = {
    "any bytes": """
def attack(place):
    sock = raw()
    push(sock, bytes(rng.choices(range(256), k=rng.randrange(200))) if place % 2 else bytes(2) + rng.randbytes(5000))
    sock.close()
each(300, attack)
""",
    "truncated requests": """
whole = request({"prompt": "y" * 5000})
def attack(place):
    sock = raw()
    push(sock, whole[: rng.randrange(len(whole))])
    sock.close()
each(300, attack)
""",
    "bytes changed at random": """
whole = request()
def attack(place):
    sock = raw()
    data = bytearray(whole)
    for _ in range(rng.randrange(1, 9)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    push(sock, bytes(data))
    push(sock, rng.randbytes(rng.randrange(3000)))
    sock.close()
each(500, attack)
""",
    "requests of any size": """
def attack(place):
    sock = raw()
    size = rng.choice([0, 4097, 17 * MIB, 65 * MIB, 1 << 31, (1 << 32) - 1])
    push(sock, rng.choice([struct.pack(">II", size, 2), begun(size)]))
    all(push(sock, bytes(MIB)) for _ in range(20))
    sock.close()
each(32, attack, 8)
""",
    "requests without end": """
def attack():
    sock = raw()
    push(sock, begun((1 << 32) - 1))
    all(push(sock, bytes(MIB)) for _ in range(200))
    sock.close()
for_seconds(SECONDS, attack)
""",
    "unfinished requests, held open": """
held = []
def attack(place):
    sock = raw(0.2)
    if sock is not None:
        held.append(sock)
        size = rng.choice([200, 16_000, 100_000, 15 * MIB])
        unfinished = begun(size) + b'{"prompt": "' + bytes(min(size, MIB) - 100)
        push(sock, [unfinished, unfinished[:20], b"\\0"][place % 3])
each(400, attack, 32)
time.sleep(SECONDS)
for sock in held: sock.close()
""",
    "connections that come and go": """
def attack(place):
    for _ in range(300):
        sock = raw(0.2)
        if sock is not None:
            push(sock, rng.choice([b"", b"\\0", request()]))
            sock.close()
each(16, attack)
""",
    "what is handed over without end": """
def attack(place):
    sock = raw(seconds=2)
    for number in range(400):
        name = f"{place}-{rng.randrange(3)}"
        push(sock, request(b"" if number % 5 == 0 else bytes(MIB), kind="hand", call=name))
        if number % 20 == 19:
            push(sock, request(b"", kind="unhand", call=name))
    sock.close()
each(4, attack, 4)
""",
    "two thousand connections": """
held = []
def attack(place):
    sock = raw(0.05)
    if sock is not None:
        held.append(sock)
each(2000, attack, 64)
count += 2000
for sock in held: sock.close()
""",
    "wrong tokens": """
def attack(place):
    sock = raw()
    for _ in range(300):
        push(sock, request(token=rng.choice(["", "0" * 32, TOKEN[:-1], TOKEN.upper() + "x", "\\ud800"])))
    push(sock, request(b"[" * 16 * MIB, token="0" * 32))
    sock.close()
each(40, attack)
""",
    "names of other cells": """
def attack(place):
    sock = raw()
    for _ in range(200):
        push(sock, request(cell=rng.choice(["", "cell-1", "turn-01-a", wire.current_cell + " ", "c" * 64])))
    push(sock, request(b"[" * 16 * MIB, cell="cell-0"))
    sock.close()
each(20, attack)
""",
    "replayed and crossed calls": """
def attack(place):
    sock = raw()
    same = [request(call=f"7-{number}", nth=rng.randrange(3)) for number in range(20)]
    extra = [request({"calls": [f"7-{n}" for n in range(20)]}, kind=kind) for kind in ("cancel", "order")]
    extra += [request({"call": "7-7"}, kind="received"), request({}, kind="hello")]
    extra += [request({"calls": [None, {}, "7"] * 1000}, kind="cancel")]
    for _ in range(20):
        some = same * 2 + extra
        rng.shuffle(some)
        push(sock, b"".join(some))
    sock.close()
each(16, attack)
""",
    "nested and growing bodies": """
bodies = [b"[" * 15 * MIB, b'{"a":' * 2 * MIB, b"[" + b"{}," * (5 * MIB) + b"1]", b'{"prompt":[' + b'"ab",' * (3 * MIB) + b"1]}",
          b'{"prompt":"' + b"x" * 15 * MIB + b'\\\\ud83d\\\\ude00"}', b'{"prompt":' + b'"' * 15 * MIB, b"9" * 15 * MIB, b"\\xff" * MIB]
def attack(place):
    sock = raw(seconds=20)
    push(sock, request(bodies[place % len(bodies)], kind=rng.choice(["llm_query", "final", "order"])))
    push(sock, request())
    with contextlib.suppress(OSError):
        sock.recv(1000)
    sock.close()
each(24, attack, 6)
""",
    "64 MiB from a hundred threads": """
large = b'{"prompt": "' + b"x" * (64 * MIB) + b'"}'
def attack(place):
    sock = raw(seconds=30)
    push(sock, begun(len(large)))
    push(sock, large)
    sock.close()
each(100, attack, 100)
del large
""",
    "giant prompts from a hundred threads": """
body = json.dumps({"prompt": "x" * (12 * MIB) + ("\\U0001f600" if SEED % 2 else "")}).encode()
def attack(place):
    wire._transmit(begun(len(body)) + body)
    wire._reply()
    global count
    count += 1
each(100, attack, 100)
del body
""",
    "a flood of calls": """
def attack(place):
    sock = raw()
    sender = threading.Thread(target=lambda: [push(sock, request(call=f"{place}-{number}")) for number in range(1000)])
    sender.start()
    with contextlib.suppress(OSError):
        while sock.recv(MIB): pass
    sender.join()
    sock.close()
each(10, attack, 10)
""",
    "replies that nobody reads": """
body = json.dumps({"prompt": "echo" + "x" * MIB}).encode()
held = []
def attack(place):
    sock = raw(seconds=0.5)
    held.append(sock)
    for number in range(100):
        if not push(sock, request(body, call=f"{place}-{number}")):
            break
each(30, attack, 30)
time.sleep(0.5)
for sock in held: sock.close()
del body
""",
    "answers without end": """
body = json.dumps({"text": "x" * (15 * MIB)}).encode()
def attack(place):
    sock = raw(seconds=20)
    for number in range(5):
        push(sock, request(body, kind="final"))
    with contextlib.suppress(OSError):
        sock.recv(1000)
    sock.close()
each(8, attack, 8)
del body
""",
}

JUPYTER = {
    "faked replies and states": """
for number in range(500):
    parent = rng.choice([kernel.get_parent(), told("no-such"), {}, told(7)])
    iopub("status", {"execution_state": rng.choice(["idle", "busy", "starting", None, 5])}, parent)
    kind = rng.choice(["execute_reply", "execute_input", "error", "stream", "clear_output", "x" * 200])
    iopub(kind, {"status": "ok", "code": "1"}, parent)
    ident = kernel._parent_ident["shell"]
    reply = {"status": rng.choice(["error", "ok", "aborted"])}
    kernel.session.send(kernel.shell_stream, "execute_reply", reply, parent=told("no-such"), ident=ident)
""",
    "the end of its own cell, faked": """
ident = kernel._parent_ident["shell"]
variables = {"data": {"text/plain": "{1: [" * 5000}}
for status in ("aborted", "ok", "ok"):
    reply = {"status": status, "user_expressions": {"variables": variables}}
    kernel.session.send(kernel.shell_stream, "execute_reply", reply, parent=kernel.get_parent(), ident=ident)
    iopub("status", {"execution_state": "idle"})
print("after the end")
""",
    "wrong keys, large signatures, other versions": """
other = Session(key=b"wrong", signature_scheme="hmac-sha256")
for number in range(300):
    iopub("stream", {"name": "stdout", "text": "forged"}, session=other)
    kernel.iopub_socket.send_multipart([b"t", b"<IDS|MSG>", rng.randbytes(rng.choice([0, 32, 64, 60_000])), b"{}", b"{}", b"{}", b"{}"])
    kernel.iopub_socket.send_multipart([rng.randbytes(20) for _ in range(rng.randrange(1, 80))])
    sent = kernel.session.msg("stream", {"name": 5, "text": ["x"]})
    sent["header"]["version"] = rng.choice(["4.0", "1", None, {}, "9" * 1000])
    sent["header"]["date"] = "9999-99-99T99:99:99.999999Z"
    kernel.session.send(kernel.iopub_socket, sent)
large = rng.randbytes(20 * MIB)
for _ in range(20):
    kernel.iopub_socket.send_multipart([b"t", b"<IDS|MSG>", large, b"{}", b"{}", b"{}", b"{}"]); time.sleep(0.05)
""",
    "large outputs": """
for number in range(40):
    iopub("display_data", {"data": {"image/png": "A" * rng.choice([1, 5, 20, 23, 30, 70]) * MIB}, "metadata": {}}); time.sleep(0.05)
for number in range(10):
    iopub("stream", {"name": "stdout", "text": rng.choice(["\\U0001f600", "x", "é"]) * (2 * MIB)}); time.sleep(0.05)
""",
    "outputs that grow": """
for number in range(8):
    for content in ({"data": {"application/json": [{}] * rng.choice([10_000, 150_000, 2 * MIB])}, "metadata": {}},
                    {"data": {"text/plain": "x"}, "metadata": {}, "transient": {"display_id": "d" * (10 * MIB) + str(number)}},
                    {"data": {str(key): "x" * 1000 for key in range(5000)}, "metadata": {"m": "x" * (5 * MIB)}}):
        iopub(rng.choice(["display_data", "update_display_data", "execute_result"]), content); time.sleep(0.05)
nested = []
for _ in range(900): nested = [nested]
for _ in range(20): iopub("display_data", {"data": {"application/json": nested}, "metadata": {"n": nested}})
""",
    "a flood of small outputs": """
for number in range(20_000):
    iopub("stream", {"name": "stdout", "text": "x"})
""",
    "cells of persons, invented": """
for number in range(1500):
    parent = told(f"person-{number}")
    iopub("execute_input", {"code": "x" * rng.choice([10, 100_000]) + str(number), "execution_count": number}, parent)
    iopub("stream", {"name": "stdout", "text": "y" * 10_000}, parent)
    iopub("status", {"execution_state": "idle"}, parent)
""",
    "messages without end on its own sockets": """
for sock in to_host():
    sock.settimeout(SECONDS)
    push(sock, frame(b"x", True))
    all(push(sock, frame(bytes(MIB), True)) for _ in range(300)) and all(push(sock, b"\\1\\0" * 10_000) for _ in range(50))
""",
    "unfinished messages on its own sockets": """
for sock in to_host():
    sock.settimeout(1)
    push(sock, b"\\3" + struct.pack(">Q", 7 * MIB) + bytes(6 * MIB))
""",
    "noise on its own sockets": """
for sock in to_host():
    sock.settimeout(1)
    all(push(sock, rng.randbytes(10_000)) for _ in range(100))
""",
    "its own sockets, closed": """
for sock in to_host():
    sock.shutdown(socket.SHUT_RDWR)
""",
    "one multi-part message by ZeroMQ": """
done = time.monotonic() + SECONDS
while time.monotonic() < done and count < 300:
    kernel.shell_stream.socket.send(bytes(MIB), zmq.SNDMORE); count += 1
""",
}
"""Some of these leave no kernel that could be used."""

FOLDER = {
    "every connection that there may be, flooding": """
made = [sock for sock in (raw(0.2) for _ in range(512)) if sock is not None]
def attack(place):
    push(made[place], rng.randbytes(5000) if place % 2 else begun((1 << 32) - 1) + bytes(MIB))
each(len(made), attack, 64)
time.sleep(SECONDS)
for sock in made: sock.close()
""",
    "the kernel's addresses, taken": """
def serve(listener):
    while True:
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            push(sock, rng.randbytes(100_000))
            sock.close()
for name in os.listdir("/rlm/run"):
    if name.startswith("k-"):
        os.unlink(f"/rlm/run/{name}")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"/rlm/run/{name}")
        listener.listen(64)
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        count += 1
""",
    "forks that raise, and go on as the kernel": """
for number in range(20):
    count += 1
    if os.fork() == 0:
        raise RuntimeError("in a fork")
""",
    "no room left": """
with contextlib.suppress(OSError):
    with open("/rlm/run/full", "wb", 0) as file:
        while file.write(bytes(4096)): count += 1
for number in range(1000):
    open(f"/rlm/run/{number}", "wb").close()
""",
    "all of it, deleted": """
for name in os.listdir("/rlm/run"):
    os.unlink(f"/rlm/run/{name}"); count += 1
""",
}
"""What code does to the folder in which the sockets of its container lie.

The last one leaves no way to a new connection.
"""
