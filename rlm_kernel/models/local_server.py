"""The process that runs the embedded model: `python -m rlm_kernel.models.local_server --weights FILE --name
NAME`.

Started by `local.LocalServer` alone. It serves an OpenAI-compatible API on a free loopback port, prints one
line of JSON on stdout when it is ready, `{"address": "http://127.0.0.1:PORT"}`, and lives until its stdin is
closed: so it cannot outlive the process that holds the other end. Logs go to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading

# Prompts of earlier conversations that the server may keep in memory, in MiB, apart from those in its slots.
PROMPT_CACHE_MIB = 256
WARNINGS_AND_ERRORS = 2


def physical_cores() -> int:
    """Cores this process may use, hyperthreads not counted: a second thread on one core slows matrix products
    down.
    """
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in usable:
        try:
            with open(
                f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", encoding="ascii"
            ) as siblings:
                cores.add(siblings.read())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))


def _end_with_stdin(file_descriptor: int) -> None:
    while os.read(file_descriptor, 4096):
        pass
    # The native threads have nothing to save, and joining them can take as long as the request in progress.
    os._exit(0)


def _serve(arguments: argparse.Namespace, ready_to: int) -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = arguments.weights
    parameters.model_alias = {arguments.name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = arguments.port
    parameters.n_parallel = arguments.slots
    parameters.n_ctx = arguments.slots * arguments.context
    parameters.cpuparams.n_threads = arguments.threads
    parameters.cpuparams_batch.n_threads = arguments.threads
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.warmup = True
    parameters.verbosity = WARNINGS_AND_ERRORS
    # A page in the user's browser must not be able to read what the server answers or holds.
    parameters.cors_origins = "null"
    parameters.endpoint_slots = False
    parameters.slot_save_path = arguments.prefixes
    parameters.ui = False
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError as error:
        sys.exit(f"llama.cpp cannot load {arguments.weights}: {error}")
    os.write(ready_to, json.dumps({"address": server.listening_address}).encode() + b"\n")
    os.close(ready_to)
    threading.Event().wait()


def main() -> None:
    """The process of a local model: serve it until stdin is closed."""
    parser = argparse.ArgumentParser(
        description="Serve the embedded local model on loopback until stdin is closed."
    )
    parser.add_argument("--weights", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--context", type=int, default=8192, help="tokens in each slot")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument(
        "--prefixes", default="", help="folder, with a slash at its end, for what slots have read"
    )
    arguments = parser.parse_args()
    # Native code may print on descriptor 1: keep the real stdout for the ready line, and let the rest join
    # the logs.
    ready_to = os.dup(1)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_stdin, args=(0,), daemon=True).start()
    _serve(arguments, ready_to)


if __name__ == "__main__":
    main()
