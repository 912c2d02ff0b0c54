"""A model's chat template: read from the files of Hugging Face, kept beside a tokenizer, rendered as transformers does.

Templates are strangers' programs: they run in jinja2's immutable sandbox and see plain values only. What the rendered
text becomes as ids is the business of `ondevice.data.chat`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ondevice.data.tokenizer_base import require
from ondevice.errors import DataError
from ondevice.run.files import read_json

__all__ = ["CHAT_FILE", "PLAIN", "ChatFormat", "Message", "Rendered", "read_chat_format"]

CHAT_FILE = "chat.json"
_CONFIG, _MAP, _JINJA = "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LARGEST = 1 << 20  # letters; the longest of today's models have some ten thousand

Message = Mapping[str, Any]

PLAIN = (
    "{% for message in messages %}{{ '### ' + message['role'] | capitalize + ':\n' + message['content'] }}"
    "{{ (eos_token if message['role'] == 'assistant' else '') + '\n\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### Assistant:\n' }}{% endif %}"
)
"""For a tokenizer without a template: roles in letters, and the end-of-text token after every answer.

Not ChatML's tokens, even where a vocabulary has them: in a base that never saw them their rows are noise, and an
adapter, which leaves those rows as they are, could never learn to end an answer.
"""


class Rendered(NamedTuple):
    """The text of a conversation, and where ``{% generation %}`` blocks of the template are in it, if it has any."""

    text: str
    generated: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ChatFormat:
    """A template and the texts of the special tokens that it may name (``bos_token``, ``eos_token`` ...)."""

    template: str
    tokens: Mapping[str, str] = field(default_factory=dict)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> Rendered:
        """Raises DataError where the template is broken or refuses the messages, DeviceError without jinja2."""
        jinja2 = require("jinja2")
        try:
            compiled = _compiled(self.template)
            blocks: list[str] = []
            spans: list[tuple[int, int]] = []
            with compiled.environment.tracking(blocks, spans):
                values = {**self.tokens, "messages": _plain(messages), "tools": None, "documents": None}
                blocks.extend(compiled.generate(**values, add_generation_prompt=add_generation_prompt))
        except jinja2.TemplateSyntaxError as error:
            raise DataError(f"chat template, line {error.lineno}: {error.message}; correct the template.") from error
        except (jinja2.TemplateError, TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
            raise DataError(f"the chat template refuses these messages ({error}).") from error
        return Rendered("".join(blocks), tuple(spans))

    def to_json(self) -> dict[str, Any]:
        return {"template": self.template, "tokens": dict(self.tokens)}


def read_chat_format(folder: Path) -> ChatFormat | None:
    """The template that a folder of a model or of one of our tokenizers has; None where it has none.

    ``chat_template.jinja`` comes before the ``chat_template`` of ``tokenizer_config.json``, as in transformers.
    Raises DataError for files that are damaged.
    """
    if (folder / CHAT_FILE).is_file():
        return _ours(folder / CHAT_FILE)
    config = _object(folder / _CONFIG)
    template = config.get("chat_template")
    if (folder / _JINJA).is_file():
        template = _text(folder / _JINJA)
    elif isinstance(template, list):  # several by name
        named = {each["name"]: each["template"] for each in template if isinstance(each, dict) and "name" in each}
        template = named.get("default")
    if template is None:
        return None
    return _checked(template, _token_texts(_object(folder / _MAP)) | _token_texts(config), folder)


def _ours(path: Path) -> ChatFormat:
    raw = _object(path)
    return _checked(raw.get("template"), _token_texts(raw.get("tokens") or {}), path)


def _checked(template: Any, tokens: dict[str, str], where: Path) -> ChatFormat:
    if not isinstance(template, str) or len(template) > _LARGEST:
        raise DataError(f"{where}: its chat template is no text of less than {_LARGEST >> 20} MiB; correct the file.")
    return ChatFormat(template, tokens)


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object; copy the file anew.")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); copy the file anew.") from error


def _token_texts(raw: Mapping[str, Any]) -> dict[str, str]:
    """A special token is written as text, or as an object with its ``content``."""
    found = {name: raw[name] for name in _TOKENS if raw.get(name) is not None}
    texts = {name: each.get("content") if isinstance(each, dict) else each for name, each in found.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _plain(value: Any) -> Any:
    """JSON's types only: the sandbox does not know which methods of other objects are dangerous."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return f"<{type(value).__name__}>"


@lru_cache(maxsize=8)
def _compiled(template: str) -> Any:
    from ondevice.data.chat_sandbox import sandbox

    return sandbox().from_string(template)
