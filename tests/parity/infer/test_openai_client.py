"""The real ``openai`` client against the server: whole and streamed answers, errors as its exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.infer.serving import Served, serving

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(key="s3cret") as found:
        yield found


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[Any]:
    with openai.OpenAI(base_url=served.server.url, api_key="s3cret", max_retries=0, timeout=20) as found:
        yield found


SAYS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def test_completions(client: Any) -> None:
    done = client.completions.create(model="abc", prompt="a", max_tokens=5, temperature=0, stop=["e"], seed=1)
    assert (done.choices[0].text, done.choices[0].finish_reason) == ("bcd", "stop")
    assert done.usage.prompt_tokens == 1 and done.usage.total_tokens == 1 + done.usage.completion_tokens
    pieces = client.completions.create(model="abc", prompt="a", max_tokens=5, temperature=0, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "bcdef"


def test_chats(client: Any) -> None:
    asked = {"model": "abc", "messages": SAYS, "max_completion_tokens": 4, "temperature": 0}
    done = client.chat.completions.create(**asked, extra_body={"top_k": 3, "repetition_penalty": 1.0})
    assert (done.choices[0].message.content, done.choices[0].finish_reason) == ("abcd", "length")
    pieces = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert pieces[0].choices[0].delta.role == "assistant" and pieces[-2].choices[0].finish_reason == "length"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces[:-1]) == "abcd"
    assert pieces[-1].usage.total_tokens == done.usage.total_tokens


def test_models(client: Any) -> None:
    assert [each.id for each in client.models.list()] == ["abc"]
    assert client.models.retrieve("abc").owned_by == "ondevice"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("gpt-4")


def test_its_exceptions(client: Any, served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="context is 512 tokens") as caught:
        client.completions.create(model="abc", prompt="x" * 600)
    assert caught.value.code == "context_length_exceeded" and caught.value.param == "prompt"
    with pytest.raises(openai.BadRequestError, match="not supported"):
        client.chat.completions.create(
            model="abc", messages=SAYS, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    wrong = client.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    served.readings.now["battery_c"] = 55.0
    with pytest.raises(openai.InternalServerError, match="The device rests"):
        client.completions.create(model="abc", prompt="a")


def test_a_stream_that_is_closed_ends_the_text(served: Served) -> None:
    with serving(context=1_000_000) as long:
        with openai.OpenAI(base_url=long.server.url, api_key="x", max_retries=0, timeout=20) as client:
            stream = client.completions.create(model="abc", prompt="a", max_tokens=900_000, temperature=0, stream=True)
            assert next(iter(stream)).choices[0].text == "b"
            stream.close()
            done = client.completions.create(model="abc", prompt="a", max_tokens=2, temperature=0)
        assert done.choices[0].text == "bc" and long.backend.steps < 800_000
