"""Bodies of completion and chat requests: what is understood, bounded and checked; anything else is refused by name.

Fields are those of OpenAI's API, plus ``top_k`` and ``repetition_penalty``, which its clients send as ``extra_body``.
What a request leaves out stays out: the server's defaults are not this module's business.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ondevice.errors import nearest
from ondevice.infer.api_error import ApiError, bad_request
from ondevice.infer.chat import ROLES, Message

__all__ = ["Asked", "parse_body", "parse_chat", "parse_completion"]

MOST_STOPS, LONGEST_STOP = 16, 256
MOST_MESSAGES = 2048
_LARGEST = 2**63 - 1

_ONE = ("n", "best_of")  # how many texts: one
_NEUTRAL: dict[str, tuple[Any, ...]] = {  # fields whose only accepted values change nothing
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}
_IGNORED = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls")
_SHARED = ("model", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "stop", "stream", "stream_options")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request. ``prompt`` is text or token ids, None for a chat; ``sampling`` the fields of `Sampling` that were
    given, ``seed`` not among them."""

    model: str
    prompt: str | tuple[int, ...] | None = None
    messages: tuple[Message, ...] = ()
    sampling: Mapping[str, Any]
    max_tokens: int | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    echo: bool = False


def parse_body(data: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises ApiError."""
    try:
        body = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise bad_request(f"The body is not JSON: {reason}.") from error
    if not isinstance(body, dict):
        raise bad_request("The body is not a JSON object.")
    return body


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def parse_completion(body: Mapping[str, Any]) -> Asked:
    """``POST /v1/completions``. Raises ApiError."""
    _check_fields(body, "prompt", "max_tokens", "echo")
    return Asked(
        prompt=_prompt(body.get("prompt")),
        max_tokens=_whole(body, "max_tokens", 0, _LARGEST),
        echo=_flag(body, "echo"),
        **_shared(body),
    )


def parse_chat(body: Mapping[str, Any]) -> Asked:
    """``POST /v1/chat/completions``. Raises ApiError."""
    _check_fields(body, "messages", "max_tokens", "max_completion_tokens")
    limits = [_whole(body, name, 1, _LARGEST) for name in ("max_completion_tokens", "max_tokens")]
    return Asked(
        messages=_messages(body.get("messages")),
        max_tokens=limits[0] if limits[0] is not None else limits[1],
        **_shared(body),
    )


def _check_fields(body: Mapping[str, Any], *own: str) -> None:
    known = (*own, *_SHARED, *_ONE, *_NEUTRAL, *_IGNORED)
    for name, value in body.items():
        if name not in known:
            raise bad_request(f"Unrecognized request argument supplied: {name}{nearest(name, known)}.", param=name)
        if name in _ONE and value not in (None, 1):
            raise bad_request(f"'{name}' must be 1: this server writes one text a request.", param=name)
        if name in _NEUTRAL and value is not None and value not in _NEUTRAL[name]:
            raise bad_request(f"'{name}' is not supported by this server; leave it out.", param=name)


def _shared(body: Mapping[str, Any]) -> dict[str, Any]:
    given = {
        "temperature": _number(body, "temperature", 0.0, 2.0),
        "top_p": _number(body, "top_p", 0.0, 1.0),
        "top_k": _whole(body, "top_k", 0, _LARGEST),
        "repetition_penalty": _number(body, "repetition_penalty", 0.01, 10.0),
    }
    if given["top_p"] == 0.0:  # the likeliest token alone
        given |= {"top_p": None, "top_k": 1}
    stream = _flag(body, "stream")
    return {
        "model": _text(body, "model"),
        "sampling": {name: value for name, value in given.items() if value is not None},
        "seed": _whole(body, "seed", -_LARGEST - 1, _LARGEST),
        "stop": _stop(body.get("stop")),
        "stream": stream,
        "include_usage": _include_usage(body.get("stream_options"), stream),
    }


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        raise bad_request(f"You must provide a {name} parameter.", param=name)
    if not isinstance(value, str):
        raise _wrong(name, "a string")
    return value


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, "true or false")
    return bool(value)


def _number(body: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _wrong(name, "a number")
    if not low <= value <= high:
        raise bad_request(f"'{name}' is {value}; it must lie between {low:g} and {high:g}.", param=name)
    return float(value)


def _whole(body: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(name, "a whole number")
    if not low <= value <= high:
        raise bad_request(f"'{name}' is {value}; it must be at least {low} and fit 64 bits.", param=name)
    return value


def _wrong(name: str, what: str) -> ApiError:
    return bad_request(f"'{name}' must be {what}.", param=name, code="invalid_type")


def _stop(value: Any) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(each, str) for each in stops):
        raise _wrong("stop", "a string or a list of strings")
    if len(stops) > MOST_STOPS or any(not 1 <= len(each) <= LONGEST_STOP for each in stops):
        raise bad_request(f"'stop' may have {MOST_STOPS} strings of 1 to {LONGEST_STOP} characters.", param="stop")
    return tuple(stops)


def _include_usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not isinstance(value, dict) or not set(value) <= {"include_usage", "include_obfuscation"}:
        raise _wrong("stream_options", "an object with include_usage")
    if not stream:
        raise bad_request("'stream_options' is only for stream = true.", param="stream_options")
    return _flag(value, "include_usage")


def _prompt(value: Any) -> str | tuple[int, ...]:
    """Text, or token ids; a list of one of them too."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(type(each) is int for each in value) and value:
        return tuple(value)
    if isinstance(value, list) and len(value) > 1:
        raise bad_request("'prompt' must be one text or the token ids of one: this server writes one text a request.",
                          param="prompt")  # fmt: skip
    raise bad_request("You must provide a prompt: a string, or a list of token ids.", param="prompt")


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise bad_request("You must provide messages: a list of at least one.", param="messages")
    if len(value) > MOST_MESSAGES:
        raise bad_request(f"{len(value)} messages are more than {MOST_MESSAGES}.", param="messages")
    return tuple(_message(each, f"messages[{index}]") for index, each in enumerate(value))


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise _wrong(where, "an object with role and content")
    role = "system" if value.get("role") == "developer" else value.get("role")
    if role not in ROLES:
        raise bad_request(f"'{where}.role' must be one of {', '.join(ROLES)} or developer.", param=f"{where}.role")
    if value.get("tool_calls") or value.get("function_call"):
        raise bad_request("Tools are not supported by this server.", param=f"{where}.tool_calls")
    return Message(role=role, content=_content(value.get("content"), f"{where}.content"))


def _content(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    parts: list[str] = []
    for part in value if isinstance(value, list) and value else [None]:
        _text_part(part, where, parts.append)
    return "".join(parts)


def _text_part(part: Any, where: str, add: Callable[[str], None]) -> None:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise bad_request(f"'{where}' must be a string or parts of type text.", param=where)
    add(part["text"])
