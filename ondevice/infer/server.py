"""The HTTP server: OpenAI's completions and chat API over one `Engine`, in threads of the standard library.

Sizes, rates, connections and times are bounded, a web page cannot reach it through a browser, and texts are never
logged. What happens on a connection is the business of ``http_handler``.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from ondevice.errors import UsageError
from ondevice.infer.api_error import ApiError
from ondevice.infer.engine import Engine
from ondevice.infer.http_handler import Handler
from ondevice.infer.loopback import is_loopback
from ondevice.infer.turns import Rates

__all__ = ["Bounds", "ModelServer"]


_REFUSAL_S, _REFUSAL_READS = 1.0, 16


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What one server endures. ``idle_s``: how long a client may say nothing, or not take what is sent."""

    body_bytes: int = 1 << 20
    per_minute: int = 600
    connections: int = 128
    idle_s: float = 30.0


class ModelServer(ThreadingHTTPServer):
    """Takes its address at once, needs ``engine`` when it serves: what is wrong with the address is said before a model
    is opened. ``key`` is what clients must show; a server that others can reach must have one.

    >>> server = ModelServer(host="127.0.0.1", port=8000)
    >>> server.engine = Engine(...)
    >>> server.serve_forever()
    """

    engine: Engine

    daemon_threads, block_on_close = True, False
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        key: str = "",
        origins: tuple[str, ...] = (),
        bounds: Bounds | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """``origins`` are web pages (``http://localhost:3000``) whose scripts may ask; ``tell`` gets a line a request.

        Raises UsageError for an address that cannot be had, or that others can reach without a key.
        """
        if not key and not is_loopback(host):
            raise UsageError(
                f"{host} can be reached by others, so a key is needed: set ONDEVICE_API_KEY, or name a file with "
                "--api-key-file."
            )
        self.key, self.origins, self.tell = key, origins, tell
        self.bounds = bounds or Bounds()
        self.rates = Rates(self.bounds.per_minute)
        self.started = int(time.time())
        self._room = threading.BoundedSemaphore(self.bounds.connections)
        self._refusals = threading.BoundedSemaphore(self.bounds.connections)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"{host} port {port}: cannot listen there ({reason}); choose another --port.") from error

    @property
    def url(self) -> str:
        """Where clients find the API."""
        host, port = self.server_address[:2]
        name = f"[{host!s}]" if self.address_family == socket.AF_INET6 else str(host)
        return f"http://{name}:{port}/v1"

    def server_bind(self) -> None:
        """Without asking for the machine's name, which takes seconds where there is no network."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each connection, up to the bound; beyond it a short answer, and beyond that none."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        elif self._refusals.acquire(blocking=False):
            threading.Thread(target=self._refuse, args=(request,), daemon=True).start()
        else:
            self.shutdown_request(request)

    def _refuse(self, request: socket.socket) -> None:
        try:
            _answer_full(request)
        finally:
            self.shutdown_request(request)
            self._refusals.release()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle is no error; anything else is one of ours, told in a line."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            self.tell(f"fault in ondevice: {type(error).__name__}: {error}")

    def stop(self) -> None:
        """Ends texts, then the server."""
        self.engine.close()
        self.shutdown()


def _answer_full(request: socket.socket) -> None:
    """What is sent meanwhile must be read: else the close becomes a reset, and the answer is lost."""
    error = ApiError(503, "Too many connections; ask again in a moment.", retry_after_s=2.0)
    body = json.dumps(error.to_json()).encode()
    head = (
        f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Retry-After: 2\r\nConnection: close\r\n\r\n"
    )
    with suppress(OSError):
        request.settimeout(_REFUSAL_S)
        request.sendall(head.encode() + body)
        request.shutdown(socket.SHUT_WR)
        for _ in range(_REFUSAL_READS):
            if not request.recv(1 << 16):
                return
