"""What a kernel can say that is not so, by cells that a root model's script has it run.

Each cell ends without an error.
"""

from __future__ import annotations

TOOLS = """
import contextlib, json, time
from rlm_runtime import api, line, wire
from rlm_runtime import files as loaded
kernel = get_ipython().kernel
ident = kernel._parent_ident["shell"]

def nested(depth, inner=1):
    for _ in range(depth):
        inner = [inner]
    return inner

VALUES = [None, True, -1, 10**400, 1.5e308, float("nan"), float("-inf"), "", "\\ud800", "x" * 50_000, [], {}, [1], {"1": 2}, {"": {}},
          nested(300), {"msg_id": []}, [[None, "a"], ["b"], 5], nested(600)]

class Repr(dict):
    def __init__(self, text):
        self.text = text
    def __repr__(self):
        return self.text

def send(stream, kind, header, parent, metadata, content):
    # Past the packing of Jupyter, which knows neither NaN nor lone surrogates.
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, parent, metadata, content)]
    socket = getattr(stream, "socket", stream)
    name = ident if stream is kernel.shell_stream else [kind.encode()]
    kernel.session.send_raw(stream, parts, ident=name) if hasattr(stream, "send_multipart") else socket.send_multipart(
        [*name, b"<IDS|MSG>", kernel.session.sign(parts), *parts])
"""

MESSAGES = """
ours = {name: kernel.get_parent()["header"][name] for name in ("msg_id", "session")}
GENUINE = {
    "clear_output": {"wait": True},
    "stream": {"name": "stdout", "text": "told\\n"},
    "display_data": {"data": {"text/plain": "shown", "application/json": {"a": 1}}, "metadata": {}, "transient": {"display_id": "d"}},
    "update_display_data": {"data": {"text/plain": "shown"}, "metadata": {}, "transient": {"display_id": "d"}},
    "execute_result": {"data": {"text/plain": "1"}, "metadata": {}, "execution_count": 1},
    "error": {"ename": "E", "evalue": "v", "traceback": ["a", "b"]},
    "status": {"execution_state": "busy"},
    "execute_input": {"code": "1", "execution_count": 1},
    "comm_open": {"comm_id": "c", "data": {}}, "input_request": {"prompt": "?", "password": False},
}
HUGE = b"1" * 5000
person = {"msg_id": "theirs", "session": "theirs", "msg_type": "execute_request"}
for kind, content in GENUINE.items():
    header = {"msg_id": "m", "msg_type": kind, "session": "k", "date": "2024-01-01T00:00:00Z", "version": "5.3"}
    for parent in (ours, person):
        for value in VALUES:
            for name in content:
                send(kernel.iopub_socket, kind, header, parent, {}, content | {name: value})
        for value in VALUES[::3]:
            for name in ("msg_id", "msg_type", "session", "date", "version"):
                send(kernel.iopub_socket, kind, header | {name: value}, parent, {}, content)
            send(kernel.iopub_socket, kind, value, parent, value, content)
            send(kernel.iopub_socket, kind, header, value, {}, content)
            send(kernel.iopub_socket, kind, header, parent, {}, value)
        send(kernel.iopub_socket, kind, header, parent, {}, b'{"text": ' + HUGE + b"}")
    time.sleep(0.05)
for value in VALUES:
    for parent in ({"msg_id": value, "session": value}, value):
        send(kernel.shell_stream, "execute_reply", {"msg_type": "execute_reply"}, parent, {}, {"status": value})
time.sleep(0.5)
"""

CALLS = """
KINDS = {
    "llm_query": {"prompt": "p", "model": None, "schema": None, "timeout": None}, "rlm_query": {"question": "q", "context": 5},
    "file": {"path": "/nowhere"}, "order": {"calls": ["1-1-1"]}, "planned": {"calls": 1}, "budget": {"x": 1}, "received": {"call": "1-1-1"},
    "cancel": {"calls": []}, "final": {"text": "no", "value": 1}, "history": {"x": 1},
}
taken = 0

def apart(request):
    size = line.SIZES.unpack_from(request)[0]
    return request[8 : 8 + size], request[8 + size :]

for kind, body in KINDS.items():
    for value in VALUES:
        for name in body:
            sent = body | {name: value}
            if kind in ("planned", "cancel"):
                wire._send(kind, sent)
                continue
            try:
                wire.call(kind, sent)
                taken += 1
            except wire.HostCallError as error:
                assert "internal error" not in str(error), (kind, name, error)
for extra in ({"nth": 10**400}, {"nth": True}, {"cell": None}, {"kind": []}, {"call": []}, {"token": {}}):
    head, body = apart(wire.request("budget", {})[1])
    wire._line().send(line.packed(json.dumps(json.loads(head) | extra).encode(), body))
head, body = apart(wire.request("final", {})[1])
wire._line().send(line.packed(head, b'{"text": "no", "value": ' + b"1" * 5000 + b"}"))
print(taken > 100, wire.call("budget", {})["turns"] > 0)
"""

OWN_WORDS = """
api.SHOW_VARS = lambda: {1: 2, "kept": "int", "odd": [], "\\ud800": "str"}
api.describe = lambda: {"kind": [], "total_chars": Repr("0x" + "f" * 20000), "items": [1, ["a", True], ("t.txt", 5)], "item_count": "7",
                        "head": None, "about": 1, "form": 5, "remarks": [[], "a remark"], "more_remarks": -1, "typed": "yes"}
loaded.files_status = lambda: [1, {"name": []}, {"name": "t.txt", "characters": "many", "lazy": 7}]
"""

HEX = 'api.SHOW_VARS = lambda: Repr(\'{"a": 0x\' + "f" * 20000 + "}")'
DIES = "api.SHOW_VARS = lambda: {1: 2}\nprint('now')"
DEAD = "import os; os._exit(3)"
DEEP = "wire.call('final', {'text': 'deep', 'value': nested(300)})"
CHILD = "print('child:', rlm_query('go deep', context='x'))"
