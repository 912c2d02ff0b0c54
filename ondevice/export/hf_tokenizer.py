"""Any of our tokenizers as the files that transformers reads: the same ids for every text, and the text back.

Names of special tokens in a text stay text, as they do here (``split_special_tokens``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ondevice.data.tokenizer import Tokenizer
from ondevice.data.tokenizer_base import EOT
from ondevice.data.tokenizer_bpe import byte_letters
from ondevice.errors import OndeviceError
from ondevice.run.files import write_atomic, write_json

__all__ = ["HARD_TEXTS", "eot_name", "tokenizer_json", "write_hf_tokenizer"]

JSON_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
_UNKNOWN = "\ufffd"

HARD_TEXTS = (
    "",
    " ",
    "  two spaces, a\ttab\nand\r\nlines\n\n",
    "\n leading line, trailing space ",
    "naïve café ŞİŞLİ 日本語 🙂👩‍👩‍👧 e\u0301",
    "def f(x):\n\treturn  x**2  # 3.14\n",
    f"{EOT} is text here, so are <unk> and <0x41>",
    "don't   won't 1234567 \u2581 \u00a0 \0 end",
)
"""Texts on which tokenizers like to differ."""


def write_hf_tokenizer(tokenizer: Tokenizer, folder: Path, *, context: int) -> None:
    """Writes ``tokenizer.json`` and ``tokenizer_config.json``, and compares where the tokenizers package is installed.

    Raises OndeviceError where a text would get other ids, ResourceError.
    """
    spec = tokenizer_json(tokenizer)
    content = json.dumps(spec, ensure_ascii=False)
    _compare(tokenizer, content)
    write_atomic(folder / JSON_FILE, content.encode())
    name = eot_name(spec, tokenizer.eot_id)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name,
        "eos_token": name,
        "pad_token": name,
        "add_bos_token": False,
        "add_eos_token": False,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    if tokenizer.chat is not None:  # its names of special tokens must become those tokens
        settings |= {**tokenizer.chat.tokens, "chat_template": tokenizer.chat.template, "split_special_tokens": False}
    write_json(folder / CONFIG_FILE, settings)


def eot_name(spec: dict[str, Any], eot_id: int) -> str:
    """The end-of-text token's name in a ``tokenizer.json``."""
    found = [token["content"] for token in spec["added_tokens"] if token["id"] == eot_id]
    return str(found[0]) if found else EOT


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of a ``tokenizer.json`` that gives the tokenizer's ids."""
    if tokenizer.kind == "byte":
        return _bytes(tokenizer.eot_id)
    files = tokenizer.files()
    if tokenizer.kind == "char":
        return _characters(json.loads(files["symbols.json"]), tokenizer.eot_id)
    spec: dict[str, Any] = json.loads(files[JSON_FILE])
    after = spec.get("post_processor")
    if after and after["type"] != "ByteLevel":  # it would put a token before every text
        spec["post_processor"] = None
    return {**spec, "truncation": None, "padding": None}


def _bytes(eot_id: int) -> dict[str, Any]:
    """A byte-level BPE without merges: id i is byte i."""
    vocab = {letter: byte for byte, letter in byte_letters().items()}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "vocab": {**vocab, EOT: eot_id}, "merges": [], "fuse_unk": False, "byte_fallback": False}
    return _spec(model, level, level, {eot_id: EOT})


def _characters(symbols: list[str], eot_id: int) -> dict[str, Any]:
    """One word a character; an unknown one is U+FFFD, as it decodes here."""
    vocab = {symbol: index for index, symbol in enumerate(symbols)}
    if _UNKNOWN in vocab:
        raise OndeviceError("The character tokenizer knows U+FFFD itself, which this format cannot tell from unknown.")
    model = {"type": "WordLevel", "vocab": {**vocab, EOT: eot_id, _UNKNOWN: eot_id + 1}, "unk_token": _UNKNOWN}
    split = {"type": "Split", "pattern": {"Regex": "(?m:.)"}, "behavior": "Isolated", "invert": False}
    return _spec(model, split, {"type": "Fuse"}, {eot_id: EOT})


def _spec(model: dict[str, Any], before: Any, decoder: Any, special: dict[int, str]) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": token, "content": name, **flags} for token, name in special.items()],
        "normalizer": None,
        "pre_tokenizer": before,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _compare(tokenizer: Tokenizer, content: str) -> None:
    """Raises OndeviceError where the written file gives other ids; does nothing without the tokenizers package."""
    try:
        import tokenizers
    except ImportError:
        return
    engine = tokenizers.Tokenizer.from_str(content)
    engine.encode_special_tokens = True
    for text in HARD_TEXTS:
        if engine.encode(text, add_special_tokens=False).ids != tokenizer.encode(text):
            raise OndeviceError(
                f"The tokenizer cannot be written for transformers: {text!r} would get other ids; this is a fault of "
                "ondevice, please report it with the tokenizer's kind."
            )
