"""One connection to the server: requests in, answers out, whole or streamed, errors in OpenAI's shape.

Trusts no client. What may be asked is the business of ``api_request``, how it is written that of `Engine`.
"""

from __future__ import annotations

import hmac
import json
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ondevice import __version__
from ondevice.errors import OndeviceError
from ondevice.infer import api_reply
from ondevice.infer.api_error import ApiError
from ondevice.infer.api_request import Asked, parse_body, parse_chat, parse_completion
from ondevice.infer.engine import Answer, ClientGone
from ondevice.infer.loopback import is_loopback

if TYPE_CHECKING:
    from ondevice.infer.server import ModelServer

__all__ = ["Handler"]

_PARSERS: dict[str, Callable[[Mapping[str, Any]], Asked]] = {
    "/v1/completions": parse_completion,
    "/v1/chat/completions": parse_chat,
}
_DRAIN_BYTES, _DRAIN_S = 8 << 20, 2.0


class Handler(BaseHTTPRequestHandler):
    """One connection; may carry several requests."""

    server: ModelServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"ondevice/{__version__}", ""
    error_content_type = "application/json"

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.bounds.idle_s)
        self._began_s, self._streaming, self._unread = 0.0, False, False

    def do_GET(self) -> None:
        self._serve(self._get)

    def do_POST(self) -> None:
        self._serve(self._post)

    def do_OPTIONS(self) -> None:
        self._serve(self._preflight)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _serve(self, act: Callable[[str], None]) -> None:
        self._began_s, self._streaming = time.monotonic(), False
        self._unread = self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers
        try:
            self._check_origin()
            act(unquote(urlsplit(self.path).path))
        except ApiError as error:
            self._fail(error)
        except ClientGone:
            self.close_connection = True
            self.log_request("gone")
        except OndeviceError as error:
            self._fail(ApiError(500, str(error)))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            self.log_request("gone")

    def _check_origin(self) -> None:
        """A page in a browser may not ask, unless it was allowed; nor under a name that a page pointed here."""
        origin = self.headers.get("Origin")
        if origin is not None and origin not in self.server.origins:
            raise ApiError(403, f"Pages of {origin} may not ask; allow them with --allow-origin.")
        host = (self.headers.get("Host") or "").strip()
        name = urlsplit(f"//{host}").hostname if host else ""
        if not self.server.key and name and not is_loopback(name):
            raise ApiError(403, f"This server is asked under the name {name}; use its address, {self.server.url}.")

    def _check_key(self) -> None:
        if not self.server.key:
            return
        kind, _, shown = (self.headers.get("Authorization") or "").partition(" ")
        known = hmac.compare_digest(shown.strip().encode("utf-8", "replace"), self.server.key.encode())
        if kind.lower() != "bearer" or not known:
            raise ApiError(401, "The API key is missing or wrong.", code="invalid_api_key")

    def _check_rate(self) -> None:
        wait_s = self.server.rates.wait_s(str(self.client_address[0]), time.monotonic())
        if wait_s > 0.0:
            raise ApiError(
                429,
                f"More than {self.server.bounds.per_minute} requests a minute; ask again later.",
                code="rate_limit_exceeded",
                retry_after_s=wait_s,
            )

    def _get(self, path: str) -> None:
        if path == "/health":
            self._send(200, {"status": "ok", "device": self.server.engine.manners.order.kind})
            return
        self._check_key()
        model = api_reply.model_json(self.server.engine.name, self.server.started)
        if path == "/v1/models":
            self._send(200, {"object": "list", "data": [model]})
        elif path.startswith("/v1/models/"):
            self._check_model(path.removeprefix("/v1/models/"))
            self._send(200, model)
        else:
            raise _no_such_place("GET", path)

    def _check_model(self, name: str) -> None:
        if name != self.server.engine.name:
            raise ApiError(
                404,
                f"The model '{name}' does not exist; this server has '{self.server.engine.name}'.",
                param="model",
                code="model_not_found",
            )

    def _preflight(self, path: str) -> None:
        self.send_response(204)
        self._send_origin()
        self.send_header("Access-Control-Allow-Methods", "GET, POST")
        self.send_header("Access-Control-Allow-Headers", "authorization, content-type")
        self.end_headers()

    def _post(self, path: str) -> None:
        self._check_key()
        if path not in _PARSERS:
            raise _no_such_place("POST", path)
        self._check_rate()
        asked = _PARSERS[path](parse_body(self._body()))
        self._check_model(asked.model)
        with self.server.engine.answer(asked, gone=self._gone) as answer:
            prompt = self.server.engine.echoed(asked)
            if asked.stream:
                self._stream(api_reply.chunks(asked, answer, prompt))
            else:
                self._send(200, api_reply.whole(asked, answer, prompt))
        self._tell(answer)

    def _body(self) -> bytes:
        kind = (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, "Content-Type must be application/json.")
        if "Transfer-Encoding" in self.headers:
            raise ApiError(411, "Send a Content-Length; chunked requests are not read.")
        length = self.headers.get("Content-Length") or ""
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise ApiError(411, "Content-Length is missing or no number.")
        if int(length) > self.server.bounds.body_bytes:
            raise ApiError(413, f"The request has {length} bytes; at most {self.server.bounds.body_bytes} are read.")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ClientGone
        self._unread = False
        return body

    def _gone(self) -> bool:
        """Whether the client closed its end."""
        try:
            poll = select.poll()  # select itself ends at descriptor 1023
            poll.register(self.connection, select.POLLIN)
            return bool(poll.poll(0)) and not self.connection.recv(1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    # --- answers ------------------------------------------------------------------------------------------------------

    def _send(self, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self._send_origin()
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_origin(self) -> None:
        origin = self.headers.get("Origin") if getattr(self, "headers", None) else None
        if origin in self.server.origins:
            self.send_header("Access-Control-Allow-Origin", str(origin))
            self.send_header("Vary", "Origin")

    def _stream(self, events: Iterator[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        if self.request_version == "HTTP/1.1":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.close_connection = True
        self._send_origin()
        self.end_headers()
        self._streaming = True
        for event in events:
            self._event(json.dumps(event, ensure_ascii=False))
        self._event("[DONE]")
        self._end_stream()

    def _event(self, text: str) -> None:
        data = f"data: {text}\n\n".encode("utf-8", "replace")
        chunked = self.request_version == "HTTP/1.1"
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)

    def _end_stream(self) -> None:
        if self.request_version == "HTTP/1.1":
            self.wfile.write(b"0\r\n\r\n")

    def _fail(self, error: ApiError) -> None:
        """An error as an answer; in the middle of a stream as an event, since its status is sent already."""
        try:
            if self._streaming:
                self._event(json.dumps(error.to_json(), ensure_ascii=False))
                self._end_stream()
                return
            if self._unread:
                self.close_connection = True
            retry = {} if error.retry_after_s is None else {"Retry-After": f"{max(1, round(error.retry_after_s))}"}
            self._send(error.status, error.to_json(), retry)
            self._drain()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _drain(self) -> None:
        """Reads what a refused client still sends: closed at once, its answer would be lost."""
        if not self._unread:
            return
        self.connection.settimeout(_DRAIN_S)
        until_s, left = time.monotonic() + _DRAIN_S, _DRAIN_BYTES
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while left > 0 and time.monotonic() < until_s:
                got = len(self.connection.recv(1 << 16))
                left -= got
                if not got:
                    return

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, such as a line that is no request."""
        status = 405 if code == 501 else code
        self.close_connection, self._unread = True, True
        if self.request_version == "HTTP/0.9":  # what http.server takes a line for that it cannot read
            self.request_version = "HTTP/1.0"
        with suppress(ConnectionError, TimeoutError):
            self._send(status, ApiError(status, f"{message or 'The request cannot be read'}.").to_json())
            self._drain()

    def _tell(self, answer: Answer) -> None:
        took_s = time.monotonic() - self._began_s
        self.server.tell(
            f"{self.client_address[0]} {self.path} {answer.prompt_tokens}+{answer.tokens} tokens in {took_s:.1f} s, "
            f"{answer.finish or 'not finished'}"
        )

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Refusals and departures; what was written is told with its tokens."""
        if str(code) not in ("200", "204"):
            self.server.tell(f"{self.client_address[0]} {getattr(self, 'path', '?')} {getattr(code, 'value', code)}")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: http.server would log to standard error what a client sent."""


def _no_such_place(method: str, path: str) -> ApiError:
    there = "GET /v1/models, POST /v1/completions, POST /v1/chat/completions"
    return ApiError(404, f"Unknown request: {method} {path[:200]}; there are {there}.", code="unknown_url")
