"""The server asked by plain sockets: its shapes, its refusals, clients that leave, crowds, a device that is too hot."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from ondevice.errors import UsageError
from ondevice.infer.server import Bounds
from tests.unit.infer.serving import Served, serving


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as found:
        yield found


def until(true: Callable[[], bool]) -> None:
    """Waits until something is so."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)


def test_a_completion_is_shaped_as_openai_has_it(served: Served) -> None:
    status, headers, body = served.write(prompt="ab", max_tokens=4)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert body["object"] == "text_completion" and body["id"].startswith("cmpl-") and body["model"] == "abc"
    assert body["choices"] == [{"index": 0, "finish_reason": "length", "logprobs": None, "text": "cdef"}]
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    assert abs(body["created"] - time.time()) < 60


@pytest.mark.parametrize(
    ("given", "text", "finish"),
    [
        ({"stop": "e"}, "bcd", "stop"),
        ({"stop": ["zz", "de"]}, "bc", "stop"),
        ({"echo": True}, "abcdef", "length"),
        ({"prompt": [97, 98]}, "cdefg", "length"),
        ({"prompt": ["b"]}, "cdefg", "length"),
        ({"prompt": [97, 98], "echo": True, "max_tokens": 1}, "abc", "length"),
        ({"max_tokens": 0}, "", "length"),
        ({"n": 1, "best_of": 1, "presence_penalty": 0, "user": "me", "logit_bias": {}}, "bcdef", "length"),
        ({"prompt": "x" * 510, "max_tokens": 99}, "yz", "length"),  # what the context of 512 has room for
    ],
)
def test_what_may_be_asked(served: Served, given: dict[str, object], text: str, finish: str) -> None:
    status, _, body = served.write(**given)
    assert status == 200
    assert (body["choices"][0]["text"], body["choices"][0]["finish_reason"]) == (text, finish)


def test_a_seed_gives_the_same_text_and_none_another(served: Served) -> None:
    hot = {"temperature": 2, "top_k": 0, "top_p": 1, "max_tokens": 40, "repetition_penalty": 1.2}

    def text(**more: object) -> str:
        return served.write(**hot, **more)[2]["choices"][0]["text"]

    assert text(seed=3) == text(seed=3) != text(seed=4)
    assert text(seed=-1) == text(seed=-1)
    assert text() != text()


def test_chats_are_read_as_a_transcript_and_answers_stripped(served: Served) -> None:
    served.backend.read.clear()
    said = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    asked = {"model": "abc", "max_tokens": 3, "temperature": 0, "messages": said}
    status, _, body = served.ask("/v1/chat/completions", asked)
    assert status == 200 and body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "abc", "refusal": None}
    assert bytes(served.backend.read[0]) == b"### System:\nBe brief.\n\n### User:\nHi\n\n### Assistant:\n"


BAD = [
    ({"prompt": None}, "prompt", "provide a prompt"),
    ({"prompt": 7}, "prompt", "provide a prompt"),
    ({"prompt": []}, "prompt", "provide a prompt"),
    ({"prompt": [1.5]}, "prompt", "provide a prompt"),
    ({"prompt": ["a", "b"]}, "prompt", "one text a request"),
    ({"prompt": [5000]}, "prompt", "outside the vocabulary"),
    ({"prompt": "\ud800"}, "prompt", "surrogate"),
    ({"prompt": "x" * 512}, "prompt", "context is 512 tokens"),
    ({"model": None}, "model", "provide a model"),
    ({"model": "gpt-4"}, "model", "this server has 'abc'"),
    ({"max_tokens": -1}, "max_tokens", "at least 0"),
    ({"max_tokens": 1.5}, "max_tokens", "whole number"),
    ({"max_tokens": True}, "max_tokens", "whole number"),
    ({"temperature": 2.5}, "temperature", "between 0 and 2"),
    ({"temperature": "hot"}, "temperature", "a number"),
    ({"top_p": -0.1}, "top_p", "between 0 and 1"),
    ({"n": 2}, "n", "must be 1"),
    ({"logprobs": 5}, "logprobs", "not supported"),
    ({"stop": ""}, "stop", "1 to 256"),
    ({"stop": ["a"] * 17}, "stop", "16 strings"),
    ({"stop": 5}, "stop", "a string or a list"),
    ({"stream": "yes"}, "stream", "true or false"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "only for stream"),
    ({"seed": 2**70}, "seed", "64 bits"),
    ({"temprature": 1}, "temprature", "did you mean 'temperature'"),
    ({"messages": []}, "messages", "Unrecognized request argument"),
]


@pytest.mark.parametrize(("given", "param", "said"), BAD, ids=lambda value: str(value)[:32])
def test_what_is_wrong_is_named(served: Served, given: dict[str, object], param: str, said: str) -> None:
    status, _, body = served.write(**given)
    assert status == (404 if given.get("model") else 400)
    assert body["error"]["param"] == param and said in body["error"]["message"]
    assert body["error"]["type"] in ("invalid_request_error", "not_found_error")


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (None, "provide messages"),
        ([], "provide messages"),
        (["hi"], "object with role"),
        ([{"role": "tool", "content": "x"}], "one of system, user, assistant"),
        ([{"role": "user"}], "string or parts of type text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "parts of type text"),
        ([{"role": "assistant", "content": "", "tool_calls": [{}]}], "Tools are not supported"),
        ([{"role": "user", "content": "x" * 600}], "context is 512"),
        ([{"role": "user", "content": ""}] * 3000, "more than 2048"),
    ],
)
def test_messages_that_are_none(served: Served, messages: object, said: str) -> None:
    status, _, body = served.ask("/v1/chat/completions", {"model": "abc", "messages": messages})
    assert status == 400 and said in body["error"]["message"]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"]
)
def test_bodies_that_are_none(served: Served, data: bytes) -> None:
    status, _, body = served.ask("/v1/completions", data, method="POST")
    assert status == 400 and body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 404),
        ("POST", "/v1/embeddings", {}, 404),
        ("GET", "/v1/completions", {}, 404),
        ("GET", "/v1/models/other", {}, 404),
        ("DELETE", "/v1/models/abc", {}, 405),
        ("POST", "/v1/completions", {"Content-Type": "text/plain"}, 415),
        ("POST", "/v1/completions", {"Transfer-Encoding": "chunked"}, 411),
        ("GET", "/v1/models", {"Origin": "https://evil.example"}, 403),
        ("GET", "/v1/models", {"Host": "evil.example"}, 403),
    ],
)
def test_places_and_headers_that_are_wrong(
    served: Served, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    data = b"{}" if method == "POST" and "Transfer-Encoding" not in headers else None
    got, _, body = served.ask(path, data, method=method, headers=headers)
    assert got == status and body["error"]["message"]


def test_models_and_health(served: Served) -> None:
    _, _, body = served.ask("/v1/models")
    assert [each["id"] for each in body["data"]] == ["abc"] and body["object"] == "list"
    assert served.ask("/v1/models/abc")[2] == body["data"][0]
    assert served.ask("/health")[2] == {"status": "ok", "device": "run"}


def events(data: bytes) -> list[str]:
    return [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]


def raw(served: Served, data: bytes, *, wait: bool = True) -> bytes:
    """What comes back for bytes, until the server closes."""
    with socket.create_connection((served.host, served.port), timeout=10) as connection:
        connection.sendall(data)
        got = b""
        while wait and (piece := connection.recv(65536)):
            got += piece
        return got


def request(body: object, *, version: str = "1.0", path: str = "/v1/completions") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def test_streams_are_events(served: Served) -> None:
    body = {"model": "abc", "prompt": "a", "max_tokens": 3, "temperature": 0, "stream": True}
    head, _, data = raw(served, request({**body, "stream_options": {"include_usage": True}})).partition(b"\r\n\r\n")
    assert b"text/event-stream" in head
    *pieces, usage, done = events(data)
    assert done == "[DONE]"
    choices = [json.loads(piece)["choices"][0] for piece in pieces]
    assert "".join(each["text"] for each in choices) == "bcd"
    assert [each["finish_reason"] for each in choices] == [None, None, None, "length"]
    last = json.loads(usage)
    assert last["choices"] == [] and last["usage"]["total_tokens"] == 4


@pytest.mark.parametrize(
    "data", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n"]
)
def test_lines_that_are_no_request_get_an_answer(served: Served, data: bytes) -> None:
    head, _, body = raw(served, data).partition(b"\r\n\r\n")
    assert b" 400 " in head or b" 414 " in head or b" 505 " in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_too_long_a_body_is_refused_unread() -> None:
    with serving(bounds=Bounds(body_bytes=1000, idle_s=5.0)) as served:
        status, headers, body = served.write(prompt="x" * 2_000_000)
        assert status == 413 and headers["connection"] == "close" and "at most 1000" in body["error"]["message"]


def test_a_client_that_says_nothing_is_left_after_a_while() -> None:
    with serving(bounds=Bounds(idle_s=0.2)) as served:
        assert raw(served, request({})[:-1] + b"") == b""
        assert raw(served, b"POST") == b""
        assert served.write()[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_text(stream: bool) -> None:
    with serving(context=100_000) as served:
        body = {"model": "abc", "prompt": "a", "max_tokens": 90_000, "temperature": 0, "stream": stream}
        with socket.create_connection((served.host, served.port), timeout=10) as connection:
            connection.sendall(request(body, version="1.1"))
            until(lambda: served.backend.steps > 50)
        until(lambda: served.server.engine.turns.taken == 0)
        assert served.backend.steps < 80_000
        assert served.write()[2]["choices"][0]["text"] == "bcdef"


def test_who_waits_may_leave_and_gives_its_place_free() -> None:
    with serving(queue=1) as served:
        served.backend.gate.clear()
        turns = served.server.engine.turns
        first = threading.Thread(target=served.write)
        first.start()
        until(lambda: turns.taken == 1)
        with socket.create_connection((served.host, served.port), timeout=10) as connection:
            connection.sendall(request({"model": "abc", "prompt": "a"}))
            until(lambda: turns.taken == 2)
            status, headers, body = served.write()
            assert status == 429 and int(headers["retry-after"]) >= 1 and body["error"]["type"] == "rate_limit_error"
        until(lambda: turns.taken == 1)
        served.backend.gate.set()
        first.join()


def test_a_turn_that_does_not_come_is_given_up() -> None:
    with serving(wait_s=0.05) as served:
        served.backend.gate.clear()
        first = threading.Thread(target=served.write)
        first.start()
        until(lambda: served.server.engine.turns.taken == 1)
        status, _, body = served.write()
        assert status == 503 and "No turn came" in body["error"]["message"]
        served.backend.gate.set()
        first.join()


def test_two_hundred_at_once_are_answered_or_told_to_wait() -> None:
    with serving(queue=8, bounds=Bounds(connections=64, per_minute=100_000, idle_s=10.0)) as served:
        served.backend.gate.clear()
        codes: list[int] = []

        def ask() -> None:
            codes.append(served.write()[0])

        crowd = [threading.Thread(target=ask) for _ in range(200)]
        for each in crowd:
            each.start()
        until(lambda: len(codes) >= 200 - 64)
        served.backend.gate.set()
        for each in crowd:
            each.join()
        counted = Counter(codes)
        assert set(counted) <= {200, 429, 503} and sum(counted.values()) == 200
        assert 9 <= counted[200] <= 64 and counted[429] + counted[503] >= 136
        assert served.write()[0] == 200


def test_connections_beyond_the_bound_get_a_short_answer() -> None:
    with serving(bounds=Bounds(connections=2, idle_s=5.0)) as served:
        served.backend.gate.clear()
        crowd = [threading.Thread(target=served.write) for _ in range(2)]
        for each in crowd:
            each.start()
        until(lambda: served.server.engine.turns.taken == 2)
        status, headers, body = served.write()
        assert status == 503 and headers["retry-after"] == "2" and "Too many connections" in body["error"]["message"]
        served.backend.gate.set()
        for each in crowd:
            each.join()
        until(lambda: served.write()[0] == 200)


def test_requests_a_minute_are_bounded() -> None:
    with serving(bounds=Bounds(per_minute=3, idle_s=5.0)) as served:
        codes = [served.write()[0] for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        _, headers, body = served.write()
        assert int(headers["retry-after"]) <= 20 and body["error"]["code"] == "rate_limit_exceeded"


def test_a_key_is_asked_for_where_there_is_one() -> None:
    with serving(key="s3cret") as served:
        assert served.write()[0] == 401
        for shown in ("Bearer wrong", "Basic s3cret", "Bearer", "Bearer s3crét"):
            assert served.ask("/v1/models", headers={"Authorization": shown})[0] == 401
        assert served.ask("/v1/models", headers={"Authorization": "Bearer s3cret"})[0] == 200
        assert served.ask("/v1/models", headers={"Authorization": "Bearer s3cret", "Host": "phone.lan"})[0] == 200


def test_others_may_reach_it_only_with_a_key() -> None:
    with pytest.raises(UsageError, match="a key is needed"), serving(host="0.0.0.0"):
        pass
    with serving(host="0.0.0.0", key="k") as served:
        assert served.server.url.startswith("http://0.0.0.0:")


def test_a_taken_port_is_said(served: Served) -> None:
    from ondevice.infer.server import ModelServer

    with pytest.raises(UsageError, match="cannot listen"):
        ModelServer(port=int(served.port))


def test_pages_that_are_allowed_may_ask() -> None:
    with serving(origins=("http://localhost:3000",)) as served:
        page = {"Origin": "http://localhost:3000"}
        status, headers, _ = served.ask("/v1/completions", method="OPTIONS", headers=page)
        assert status == 204 and headers["access-control-allow-origin"] == "http://localhost:3000"
        assert served.ask("/v1/models", headers=page)[1]["access-control-allow-origin"] == "http://localhost:3000"


def test_a_hot_device_answers_later() -> None:
    with serving() as served:
        served.readings.now["battery_c"] = 55.0
        status, headers, body = served.write()
        assert status == 503 and int(headers["retry-after"]) >= 1 and "The device rests" in body["error"]["message"]
        assert served.backend.steps == 0


def test_the_server_leaves_in_the_middle_of_texts() -> None:
    with serving(context=1_000_000) as served:
        got: list[bytes] = []
        body = {"model": "abc", "prompt": "a", "max_tokens": 900_000, "temperature": 0, "stream": True}
        client = threading.Thread(target=lambda: got.append(raw(served, request(body))))
        client.start()
        until(lambda: served.backend.steps > 50)
        served.server.stop()
        client.join()
        assert json.loads(events(got[0])[-1])["error"]["type"] == "overloaded_error"


def test_texts_are_not_told_but_counts_are(served: Served) -> None:
    served.told.clear()
    served.write(prompt="secret", max_tokens=2)
    served.write(max_tokens=-1)
    until(lambda: any("6+2 tokens" in line for line in served.told) and any(" 400" in line for line in served.told))
    assert not any("secret" in line for line in served.told)
