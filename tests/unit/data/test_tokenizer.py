"""Every kind of tokenizer gives back every text, never makes the end-of-text id from text, and survives its folder."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.data import tokenizer_base
from ondevice.data.tokenizer import (
    EOT,
    StreamDecoder,
    choose_kind,
    derive_vocab_size,
    import_tokenizer,
    load_tokenizer,
    train_tokenizer,
)
from ondevice.errors import DataError, DeviceError
from ondevice.run.schema import TokenizerConfig

TEXT = "".join(
    f"Chapter {i}: the kâr of İstanbul isn't kar.\n\n  if x <= {i * 7}:\n\treturn 'ğüşiöç' + \"日本\"\n"
    for i in range(300)
)
HARD = [
    "",
    " ",
    "\n",
    "\r\n\t\0\x7f",
    "  two  spaces  ",
    EOT,
    f"a{EOT}{EOT} b",
    "<unk><0x41><s></s>",
    "\u2581 \u2581\u2581x\u2585",
    "e\u0301 😀👩‍👩‍👧 \u200b\ufeff\ufffd",
    "\n\n\n   \n \n",
    "x" * 300,
    "日本語の文章。" * 30,
    "'s 're 12345,67 <|x|>",
]
EXACT = ["byte", "bpe", "sentencepiece-bpe", "sentencepiece-unigram"]
PACKAGES = {"bpe": "tokenizers", "sentencepiece-bpe": "sentencepiece", "sentencepiece-unigram": "sentencepiece"}


def _skip_if_missing(kind):
    if kind in PACKAGES and importlib.util.find_spec(PACKAGES[kind]) is None:
        pytest.skip(f"the {PACKAGES[kind]} package is not installed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Tokenizers by kind, trained once."""
    made = {}

    def get(kind):
        _skip_if_missing(kind)
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            config = TokenizerConfig(kind=kind, min_frequency=1)
            made[kind] = (train_tokenizer(config, [TEXT], folder, vocab_size=400), folder)
        return made[kind]

    return get


@pytest.mark.parametrize("kind", EXACT)
def test_hard_texts_come_back_and_bytes_add_up(kind, trained):
    tokenizer, _ = trained(kind)
    lengths = tokenizer.byte_lengths()
    assert lengths.dtype == np.int32 and lengths.shape == (tokenizer.vocab_size,) and lengths[tokenizer.eot_id] == 0
    for text, ids in zip(HARD, tokenizer.encode_batch(HARD), strict=True):
        assert tokenizer.decode(ids.tolist()) == text
        assert tokenizer.decode_bytes(ids.tolist()) == text.encode()
        assert ids.tolist() == tokenizer.encode(text)
        assert lengths[ids].sum() == len(text.encode())
        assert tokenizer.eot_id not in ids


@pytest.mark.parametrize("kind", EXACT)
def test_any_text_comes_back(kind, trained):
    tokenizer, _ = trained(kind)

    @settings(max_examples=80, deadline=None)
    @given(st.text(max_size=200))
    def check(text):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert tokenizer.eot_id not in ids
        decoder = StreamDecoder(tokenizer)
        assert "".join([decoder.feed(i) for i in ids]) + decoder.flush() == text

    check()


@pytest.mark.parametrize("kind", EXACT)
def test_long_texts_are_cut_where_no_token_is(kind, trained):
    tokenizer, _ = trained(kind)
    text = (TEXT * 3)[:60_000] + "y" * 20_000
    assert tokenizer.decode(tokenizer.encode(text)) == text
    spaced = " some words of text"
    assert tokenizer.encode(spaced * 2_000) == tokenizer.encode(spaced) * 2_000


@pytest.mark.parametrize("kind", [*EXACT, "char"])
def test_the_folder_gives_the_same_tokenizer(kind, trained):
    tokenizer, folder = trained(kind)
    again = load_tokenizer(folder)
    assert (again.kind, again.sha256, again.vocab_size, again.eot_id) == (
        tokenizer.kind,
        tokenizer.sha256,
        tokenizer.vocab_size,
        tokenizer.eot_id,
    )
    assert again.encode(TEXT[:500]) == tokenizer.encode(TEXT[:500])
    assert import_tokenizer(folder).sha256 == tokenizer.sha256


@pytest.mark.parametrize("kind", [*EXACT, "char"])
def test_training_twice_gives_the_same(kind, trained, tmp_path):
    tokenizer, _ = trained(kind)
    config = TokenizerConfig(kind=kind, min_frequency=1)
    assert train_tokenizer(config, [TEXT], tmp_path, vocab_size=400).sha256 == tokenizer.sha256


def test_training_does_not_depend_on_the_process(trained, tmp_path):
    tokenizer, _ = trained("bpe")
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from ondevice.data.tokenizer_bpe import train_bpe;"
        "text = Path(sys.argv[1]).read_text(encoding='utf-8');"
        "print(train_bpe([text], vocab_size=400, exact=False, min_frequency=1).sha256)"
    )
    out = subprocess.run([sys.executable, "-c", code, tmp_path / "text"], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == tokenizer.sha256


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece-bpe", "sentencepiece-unigram", "char"])
def test_a_flipped_byte_is_noticed(kind, trained, tmp_path):
    tokenizer, _ = trained(kind)
    tokenizer.save(tmp_path)
    for name in tokenizer.files():
        path = tmp_path / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.raises(DataError, match=name):
            load_tokenizer(tmp_path)
        tokenizer.save(tmp_path)


def test_a_newer_meta_file_is_refused(trained, tmp_path):
    trained("byte")[0].save(tmp_path)
    path = tmp_path / "tokenizer_meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "v": 2}))
    with pytest.raises(DataError, match="update ondevice"):
        load_tokenizer(tmp_path)
    path.write_text("[]")
    with pytest.raises(DataError, match="meta"):
        load_tokenizer(tmp_path)


class TestChar:
    def test_the_vocabulary_is_in_code_point_order(self, tmp_path):
        config = TokenizerConfig(kind="char", min_frequency=1)
        tokenizer = train_tokenizer(config, ["bca\n", "aé"], tmp_path, vocab_size=None)
        assert tokenizer.symbols == ("\n", "a", "b", "c", "é")
        assert (tokenizer.eot_id, tokenizer.unk_id, tokenizer.vocab_size) == (5, 6, 7)

    def test_known_symbols_come_back(self, trained):
        tokenizer, _ = trained("char")

        @settings(max_examples=60, deadline=None)
        @given(st.text(alphabet=tokenizer.symbols))
        def check(text):
            ids = tokenizer.encode(text)
            assert tokenizer.decode(ids) == text
            assert tokenizer.byte_lengths()[ids].sum() == len(text.encode())

        check()

    def test_unknown_symbols_are_counted(self, trained):
        tokenizer, _ = trained("char")
        assert tokenizer.count_unknown("a😀bÿ") == 2
        assert tokenizer.decode(tokenizer.encode("a😀b")) == "a\ufffdb"

    def test_rare_symbols_and_a_smaller_vocabulary(self, tmp_path):
        config = TokenizerConfig(kind="char", min_frequency=2)
        assert train_tokenizer(config, ["aabbc"], tmp_path, vocab_size=None).symbols == ("a", "b")
        config = TokenizerConfig(kind="char", min_frequency=1, vocab_size=4)
        assert train_tokenizer(config, ["abbccc"], tmp_path, vocab_size=None).symbols == ("b", "c")

    def test_a_vocabulary_beyond_the_text_is_refused(self, tmp_path):
        config = TokenizerConfig(kind="char", min_frequency=1, vocab_size=50)
        with pytest.raises(DataError, match="at most 5"):
            train_tokenizer(config, ["abc"], tmp_path, vocab_size=None)


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece-bpe", "sentencepiece-unigram"])
def test_a_vocabulary_beyond_the_text_names_the_largest(kind, tmp_path):
    _skip_if_missing(kind)
    with pytest.raises(DataError, match=r"vocab_size = 9000 .*at most \d+") as error:
        train_tokenizer(TokenizerConfig(kind=kind, vocab_size=9000), ["abc def " * 30], tmp_path, vocab_size=None)
    largest = int(str(error.value).split("at most ")[1].split()[0])
    config = TokenizerConfig(kind=kind, vocab_size=largest)
    assert train_tokenizer(config, ["abc def " * 30], tmp_path, vocab_size=None).vocab_size == largest
    # A derived size is a wish: the largest possible is taken.
    tokenizer = train_tokenizer(TokenizerConfig(kind=kind), ["abc def " * 30], tmp_path, vocab_size=1024)
    assert tokenizer.vocab_size == largest


@pytest.mark.parametrize(("kind", "size"), [("bpe", 100), ("sentencepiece-bpe", 200), ("byte", 4096)])
def test_an_impossible_vocabulary_is_refused(kind, size, tmp_path):
    _skip_if_missing(kind)
    with pytest.raises(DataError, match=str(size)):
        train_tokenizer(TokenizerConfig(kind=kind, vocab_size=size), [TEXT], tmp_path, vocab_size=None)


@pytest.mark.parametrize("kind", ["char", "sentencepiece-bpe", "sentencepiece-unigram"])
def test_no_text_is_refused(kind, tmp_path):
    _skip_if_missing(kind)
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(TokenizerConfig(kind=kind), [], tmp_path, vocab_size=None)


@pytest.mark.parametrize("kind", EXACT)
def test_half_a_surrogate_pair_is_refused_in_one_sentence(kind, trained):
    with pytest.raises(DataError, match="surrogate"):
        trained(kind)[0].encode("a\ud800b")


def test_characters_come_out_whole():
    from ondevice.data.tokenizer_byte import ByteTokenizer

    decoder = StreamDecoder(ByteTokenizer())
    assert [decoder.feed(i) for i in "é😀".encode()] == ["", "é", "", "", "", "😀"]
    assert decoder.feed(0xF0) == "" and decoder.flush() == "\ufffd"


def test_auto_takes_the_best_installed_package(monkeypatch):
    def installed(*names):
        monkeypatch.setattr("ondevice.data.tokenizer.find_spec", lambda name: name if name in names else None)

    installed("tokenizers", "sentencepiece")
    assert choose_kind("auto") == "bpe"
    installed("sentencepiece")
    assert choose_kind("auto") == "sentencepiece-bpe"
    installed()
    assert choose_kind("auto") == "byte"
    assert choose_kind("char") == "char"


@pytest.mark.parametrize(
    ("platform", "package", "command"),
    [
        ("linux", "tokenizers", "`pip install tokenizers`"),
        ("android", "tokenizers", "`pkg upgrade && pkg install tur-repo && pkg install python-tokenizers`"),
        ("android", "sentencepiece", "`pkg upgrade && pkg install clang cmake && "),
    ],
)
def test_a_missing_package_names_the_command(monkeypatch, platform, package, command):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DeviceError) as error:
        tokenizer_base.require(package)
    assert command in str(error.value)


def test_a_sentencepiece_model_runs_without_the_package(trained, monkeypatch):
    tokenizer, folder = trained("sentencepiece-unigram")
    _skip_if_missing("bpe")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "ondevice.data.tokenizer_sentencepiece.find_spec", lambda name: None if name == "sentencepiece" else real(name)
    )
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    other = load_tokenizer(folder)
    assert other.sha256 == tokenizer.sha256
    assert [ids.tolist() for ids in other.encode_batch(HARD)] == [ids.tolist() for ids in tokenizer.encode_batch(HARD)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 1024), (299_999, 1024), (300_000, 2048), (10_000_000, 4096), (100_000_000, 8192), (10**13, 32_768)],
)
def test_the_vocabulary_grows_with_the_corpus(size, expected):
    assert derive_vocab_size(size) == expected


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, ondevice.data; loaded = set(sys.modules);"
        "import ondevice.data.tokenizer, ondevice.data.cursor, ondevice.data.build;"
        "print(sorted({'numpy', 'torch', 'tokenizers', 'sentencepiece'} & loaded),"
        " sorted({'torch', 'tokenizers', 'sentencepiece', 'transformers'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["[]", "[]"]


@pytest.mark.parametrize(
    ("version", "refused"), [("0.1.99", True), ("0.2.2", True), ("0.2.3", False), ("0.10.0", False)]
)
def test_sentencepiece_that_would_end_the_process_is_refused(version, refused):
    from ondevice.data.tokenizer_sentencepiece import _refuse_fatal

    if refused:
        with pytest.raises(DeviceError, match=f"sentencepiece {version} is too old"):
            _refuse_fatal(version)
    else:
        _refuse_fatal(version)
