"""The manifest is believed only when it is whole."""

import json

import pytest

from ondevice.data.build import build_dataset
from ondevice.data.dataset import Dataset
from ondevice.errors import DataError, UsageError
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "notes.txt").write_text("some text\n\nmore text\n\n" * 50 + "the end", encoding="utf-8")
    data = DataConfig(sources=(SourceConfig(path="notes.txt"),))
    build_dataset(data, TokenizerConfig(kind="byte"), base=tmp_path, folder=tmp_path / "d")
    return tmp_path / "d"


def _change(folder, change):
    path = folder / "dataset.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_it_opens_and_names_its_sources(folder):
    dataset = Dataset.open(folder)
    assert [entry.name for entry in dataset.sources] == ["notes"]
    assert dataset.vocab_size == dataset.tokenizer().vocab_size == 257
    assert dataset.stream("notes", "train") is dataset.stream("notes", "train")
    with pytest.raises(UsageError, match="did you mean 'notes'"):
        dataset.stream("note", "train")
    with pytest.raises(UsageError, match="train or val"):
        dataset.stream("notes", "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(v=2), "update ondevice"),
        (lambda m: m["sources"][0].update(train_tokens=1), "do not agree"),
        (lambda m: m["totals"].update(tokens=1), "do not agree"),
        (lambda m: m["chunks"][0].update(tokens=1), "changed after it was written"),
        (lambda m: m["chunks"].pop(), "changed after it was written"),
        (lambda m: m.pop("chunks"), "not a dataset's manifest"),
        (lambda m: m["sources"][0].update(extra=1), "not a dataset's manifest"),
        (lambda m: m["tokenizer"].update(sha256="0"), "changed after it was written"),
    ],
)
def test_a_manifest_that_is_not_whole_is_refused(folder, change, message):
    _change(folder, change)
    with pytest.raises(DataError, match=message):
        Dataset.open(folder)


def test_another_tokenizer_is_refused(folder):
    from ondevice.data.tokenizer_char import CharTokenizer

    tokenizer_folder = next(folder.glob("tokenizer-*"))
    CharTokenizer("abc").save(tokenizer_folder)
    with pytest.raises(DataError, match="not the tokenizer that made this dataset"):
        Dataset.open(folder).tokenizer()


def test_no_dataset_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="no dataset here; make one with `ondevice data build`"):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        Dataset.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != "use.lock"] == ["dataset.json"]
