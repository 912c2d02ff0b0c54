"""A model of one rule behind the real server, for tests of the server: it writes a fixed text, token by token."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.device.readings import Reading
from ondevice.device.world import Machine
from ondevice.infer.chat import chat_of
from ondevice.infer.engine import Engine
from ondevice.infer.manners import Manners
from ondevice.infer.prefix import PrefixBackend
from ondevice.infer.sampling import Sampling
from ondevice.infer.server import Bounds, ModelServer
from ondevice.run.schema import Limits


class Readings:
    """A device whose temperatures a test sets."""

    def __init__(self) -> None:
        self.now: dict[str, Any] = {"battery_c": 25.0, "cpu_c": 40.0, "plugged": True, "battery_percent": 90.0}

    def read(self) -> Reading:
        import time

        return Reading(t=time.time(), **self.now)


class Alphabet:
    """After a byte the next one, after z again a. ``gate`` holds every step until it is set."""

    name = "alphabet"

    def __init__(self, context: int = 512) -> None:
        self.context, self.vocab_size = context, 257
        self.gate = threading.Event()
        self.gate.set()
        self.steps = 0
        self.read: list[list[int]] = []

    def start(self, batch: int) -> None:
        self.held = 0

    def step(self, ids_BT: np.ndarray) -> np.ndarray:
        assert self.gate.wait(30)
        self.held += ids_BT.shape[1]
        assert self.held <= self.context
        self.steps += 1
        self.read.append(ids_BT[0].tolist())
        last = int(ids_BT[0, -1])
        following = last + 1 if ord("a") <= last < ord("z") else ord("a")
        logits = np.full((1, self.vocab_size), -9.0, np.float32)
        logits[0, following], logits[0, following ^ 1] = 9.0, 8.0
        return logits

    def logits(self, ids_BT: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class Served:
    """A running server and how to ask it without any client library."""

    def __init__(self, server: ModelServer, backend: Alphabet, readings: Readings, told: list[str]) -> None:
        self.server, self.backend, self.readings, self.told = server, backend, readings, told
        self.host, self.port = server.server_address[:2]

    def ask(
        self, path: str, body: Any = None, *, method: str = "", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers (lower case) and JSON."""
        connection = http.client.HTTPConnection(str(self.host), int(self.port), timeout=20)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            sent = {"Content-Type": "application/json", **(headers or {})}
            connection.request(method or ("GET" if body is None else "POST"), path, data, sent)
            answer = connection.getresponse()
            text = answer.read()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, names, json.loads(text) if text else None
        finally:
            connection.close()

    def write(self, **body: Any) -> tuple[int, dict[str, str], Any]:
        """A completion."""
        return self.ask("/v1/completions", {"model": "abc", "prompt": "a", "max_tokens": 5, "temperature": 0, **body})


@contextmanager
def serving(*, context: int = 512, queue: int = 16, wait_s: float = 20.0, **options: Any) -> Iterator[Served]:
    """A server on a free port."""
    backend, tokenizer, told, readings = Alphabet(context), ByteTokenizer(), [], Readings()
    engine = Engine(
        PrefixBackend(backend),
        tokenizer,
        name="abc",
        chat=chat_of(tokenizer),
        defaults=Sampling(),
        manners=Manners(Machine(readings), Limits()),
        most_waiting=queue,
        wait_s=wait_s,
    )
    options.setdefault("bounds", Bounds(idle_s=5.0))
    server = ModelServer(port=0, tell=told.append, **options)
    server.engine = engine
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Served(server, backend, readings, told)
    finally:
        backend.gate.set()
        server.stop()
        server.server_close()
        thread.join()
