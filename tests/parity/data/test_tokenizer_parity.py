"""Our ids are the reference's: GPT-2 against transformers, sentencepiece models against the JSON written for them."""

import importlib.util
import os
import random
from pathlib import Path

import pytest

from ondevice.data.tokenizer import import_tokenizer, train_tokenizer
from ondevice.run.schema import TokenizerConfig

tokenizers = pytest.importorskip("tokenizers")
DATA = Path(os.environ.get("ONDEVICE_TEST_DATA", Path(__file__).parents[3].parent / "shared" / "data"))
LETTERS = [
    "a",
    "b",
    "aa",
    "the ",
    " ",
    "  ",
    "\n",
    "\t",
    "in",
    "ing",
    "e",
    "😀",
    "ş",
    "İ",
    "'s",
    "9",
    "00",
    ".",
    "é",
    "日本",
]
SEVERE = [*LETTERS, "\u2581", "<0x41>", "<unk>", "<|endoftext|>", "\0", "\r\n", "|", "<"]


def _need(name):
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there (set ONDEVICE_TEST_DATA)")
    return path


def _hard_texts(letters, count):
    dice = random.Random(1)
    mixed = ["".join(dice.choices(letters, k=dice.randint(0, 60))) for _ in range(count)]
    runs = [mark * n + tail for mark in "a -=\n." for n in range(1, 30) for tail in ("", "x")]
    return mixed + runs


def _real_texts():
    names = ["help_en.txt", "help_tr.txt", "tinyshakespeare.txt"]
    texts = [_need(name).read_text(encoding="utf-8") for name in names]
    return [text[i : i + 30_000] for text in texts for i in range(0, len(text), 200_000)]


def test_gpt2_gives_the_ids_of_transformers():
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("the transformers package is not installed")
    from transformers import GPT2TokenizerFast

    folder = _need("gpt2_tokenizer")
    reference = GPT2TokenizerFast.from_pretrained(str(folder))
    ours = import_tokenizer(folder)
    assert (ours.vocab_size, ours.eot_id) == (50_257, 50_256)
    texts = _hard_texts(LETTERS, 400) + _real_texts()
    expected = [reference.encode(text, verbose=False) for text in texts]
    assert [ids.tolist() for ids in ours.encode_batch(texts)] == expected
    assert ours.byte_lengths()[expected[-1]].sum() == len(texts[-1].encode())


@pytest.mark.parametrize("kind", ["sentencepiece-bpe", "sentencepiece-unigram"])
@pytest.mark.parametrize("corpus", ["tinyshakespeare.txt", "pud_tr.txt", ""])
def test_the_json_of_a_sentencepiece_model_gives_its_ids(kind, corpus, tmp_path):
    pytest.importorskip("sentencepiece")
    text = (
        _need(corpus).read_text(encoding="utf-8")
        if corpus
        else "的一是不了人我在有他这为之大来以个中上们" * 300 + "。说到\n"
    )
    config = TokenizerConfig(kind=kind, min_frequency=1)
    ours = train_tokenizer(config, [text[:400_000]], tmp_path, vocab_size=1000)
    engine = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    engine.encode_special_tokens = True
    texts = _hard_texts(SEVERE, 2000) + _real_texts()[::3]
    theirs = [e.ids for e in engine.encode_batch_fast(texts, add_special_tokens=False)]
    assert [ids.tolist() for ids in ours.encode_batch(texts)] == theirs
    assert [engine.decode(ids) for ids in theirs] == texts
