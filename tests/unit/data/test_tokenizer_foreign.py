"""Tokenizers made elsewhere are read when they are exact and refused, in one sentence, when they are not."""

import json

import pytest

from ondevice.data.tokenizer import import_tokenizer
from ondevice.data.tokenizer_model_file import read_model, without_added_spaces
from ondevice.errors import DataError

tokenizers = pytest.importorskip("tokenizers")
TEXT = "the cat sat on the mat and the dog sat on the log\n" * 40


def _byte_level(**options):
    engine = tokenizers.Tokenizer(tokenizers.models.BPE())
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})
    engine.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["</s>", "<pad>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator([TEXT], trainer)
    return engine


def test_a_byte_level_tokenizer_json_is_read(tmp_path):
    engine = _byte_level()
    engine.enable_truncation(5)
    engine.enable_padding(length=9)
    engine.save(str(tmp_path / "tokenizer.json"))
    tokenizer = import_tokenizer(tmp_path)
    text = "the dog\n\nisn't é 😀 </s><pad>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eot_id == 0 and tokenizer.byte_lengths()[1] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec.update(normalizer={"type": "Lowercase"}),
        lambda spec: spec["pre_tokenizer"].update(add_prefix_space=True),
        lambda spec: spec.update(decoder=None),
        lambda spec: spec.update(decoder={"type": "Sequence", "decoders": [{"type": "Fuse"}]}),
    ],
)
def test_an_inexact_tokenizer_json_is_refused(change, tmp_path):
    spec = json.loads(_byte_level().to_str())
    change(spec)
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(DataError, match="does not give back the text"):
        import_tokenizer(tmp_path)


def test_a_tokenizer_without_an_end_of_text_is_refused(tmp_path):
    spec = json.loads(_byte_level().to_str())
    for token in spec["added_tokens"]:
        token["content"] = f"<x{token['id']}>"
    spec["model"]["vocab"] = {f"<x{i}>" if i < 2 else name: i for name, i in spec["model"]["vocab"].items()}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(DataError, match="end-of-text"):
        import_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", ["", "{}", '{"version": "1.0"}', "[1, 2]", "\x00"])
def test_rubbish_is_refused(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        import_tokenizer(tmp_path)


def test_a_missing_tokenizer_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no tokenizer\.json"):
        import_tokenizer(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        import_tokenizer(tmp_path / "nothing.model")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(DataError, match=r"merges\.txt"):
        import_tokenizer(tmp_path)


class TestModelFiles:
    @pytest.fixture
    def train(self, tmp_path):
        sentencepiece = pytest.importorskip("sentencepiece")

        def make(**options):
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(TEXT.splitlines()),
                model_prefix=str(tmp_path / "m"),
                vocab_size=300,
                minloglevel=4,
                **options,
            )
            return tmp_path / "m.model"

        return make

    def test_a_model_that_adds_spaces_is_run_without_them(self, train):
        path = train(model_type="bpe", byte_fallback=True, normalization_rule_name="identity")
        tokenizer = import_tokenizer(path)
        for text in ("the cat", "  the  cat ", "\u2581", "日本\n"):
            assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.eot_id == 2  # sentencepiece's own default for </s>

    def test_flags_are_read_and_merged(self, train):
        data = train(model_type="bpe", byte_fallback=True, normalization_rule_name="identity").read_bytes()
        model = read_model(data, "m")
        assert (model.kind, model.byte_fallback, model.identity) == ("bpe", True, True)
        assert (model.dummy_prefix, model.remove_spaces) == (True, True)
        quiet = read_model(without_added_spaces(data), "m")
        assert (quiet.dummy_prefix, quiet.remove_spaces, quiet.pieces) == (False, False, model.pieces)

    def test_a_model_that_changes_text_is_refused(self, train):
        with pytest.raises(DataError, match=r"normalisation rule and has no byte_fallback"):
            import_tokenizer(train(model_type="unigram", hard_vocab_limit=False))

    def test_a_model_of_another_type_is_refused(self, train):
        with pytest.raises(DataError, match="type bpe or unigram"):
            import_tokenizer(train(model_type="char", hard_vocab_limit=False))

    @pytest.mark.parametrize(
        "data", [b"", b"\x00", b"rubbish of some length", b"\x0a\xff\xff\xff\xff\x0f", b"\x80" * 40]
    )
    def test_rubbish_is_refused(self, data, tmp_path):
        (tmp_path / "m.model").write_bytes(data)
        with pytest.raises(DataError, match="sentencepiece model"):
            import_tokenizer(tmp_path / "m.model")
