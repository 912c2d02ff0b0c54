"""Answers in the shape of OpenAI's API, whole or in pieces. Pure values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ondevice.infer.api_request import Asked
from ondevice.infer.engine import Answer
from ondevice.infer.text import stripped

__all__ = ["chunks", "model_json", "whole"]


def model_json(name: str, created: int) -> dict[str, Any]:
    """A model as ``/v1/models`` lists it."""
    return {"id": name, "object": "model", "created": created, "owned_by": "ondevice"}


def whole(asked: Asked, answer: Answer, prompt: str) -> dict[str, Any]:
    """The body of an answer that is not streamed; ``prompt`` is put before it. Writes the whole text first."""
    text = prompt + "".join(answer.pieces)
    choice: dict[str, Any] = {"index": 0, "finish_reason": answer.finish, "logprobs": None}
    if asked.prompt is None:
        choice |= {"message": {"role": "assistant", "content": text.strip(), "refusal": None}}
    else:
        choice |= {"text": text}
    return {**_head(asked, answer), "choices": [choice], "usage": _usage(answer)}


def chunks(asked: Asked, answer: Answer, prompt: str) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer, written as they are asked for."""
    head = _head(asked, answer, streamed=True)
    if asked.include_usage:
        head |= {"usage": None}
    for delta in _deltas(asked, answer, prompt):
        yield {**head, "choices": [{"index": 0, **delta, "finish_reason": None, "logprobs": None}]}
    last: dict[str, Any] = {"delta": {}} if asked.prompt is None else {"text": ""}
    yield {**head, "choices": [{"index": 0, **last, "finish_reason": answer.finish, "logprobs": None}]}
    if asked.include_usage:
        yield {**head, "choices": [], "usage": _usage(answer)}


def _deltas(asked: Asked, answer: Answer, prompt: str) -> Iterator[dict[str, Any]]:
    if asked.prompt is not None:
        if prompt:
            yield {"text": prompt}
        for piece in answer.pieces:
            yield {"text": piece}
        return
    yield {"delta": {"role": "assistant", "content": ""}}
    for piece in stripped(answer.pieces):
        yield {"delta": {"content": piece}}


def _head(asked: Asked, answer: Answer, *, streamed: bool = False) -> dict[str, Any]:
    prefix, kind = ("chatcmpl-", "chat.completion") if asked.prompt is None else ("cmpl-", "text_completion")
    if streamed and asked.prompt is None:
        kind = "chat.completion.chunk"
    return {"id": prefix + answer.id, "object": kind, "created": answer.created, "model": asked.model}


def _usage(answer: Answer) -> dict[str, int]:
    total = answer.prompt_tokens + answer.tokens
    return {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens, "total_tokens": total}
