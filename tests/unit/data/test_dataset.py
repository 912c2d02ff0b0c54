"""The manifest is believed only when it is whole."""

import json
import subprocess
import sys

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


FEW_FILES = """
import resource, sys
from pathlib import Path
from ondevice.data.dataset import Dataset
resource.setrlimit(resource.RLIMIT_NOFILE, (96, 96))
dataset = Dataset.open(Path(sys.argv[1]))
for _ in range(2):
    for entry in dataset.sources:
        for split in ("train", "val"):
            stream = dataset.stream(entry.name, split)
            assert len(stream.read(0, len(stream))) == getattr(entry, f"{split}_tokens")
print(len(dataset.sources))
"""


def test_many_sources_need_few_open_files(tmp_path):
    for number in range(120):
        (tmp_path / f"{number}.txt").write_text(f"text number {number} with a few words.\n" * 60, encoding="utf-8")
    data = DataConfig(sources=tuple(SourceConfig(path=f"{number}.txt", name=f"s{number}") for number in range(120)))
    build_dataset(data, TokenizerConfig(kind="byte"), base=tmp_path, folder=tmp_path / "d")
    command = [sys.executable, "-c", FEW_FILES, str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("120", "")


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


@pytest.mark.parametrize("old", ['"documents": ', '"created": "2', '"seal": "', '"seal"', '"note": "'])
def test_any_changed_byte_is_noticed(folder, old):
    path = folder / "dataset.json"
    data = bytearray(path.read_bytes())
    data[data.index(old.encode()) + len(old) - 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError):
        Dataset.open(folder)


def test_a_manifest_from_before_the_seal_is_read(folder):
    _change(folder, lambda m: m.pop("seal"))
    assert Dataset.open(folder).sources


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
