"""A dataset that travels: its files, where a copy is put, and that a crafted one leads nowhere."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from ondevice.data.build import build_dataset
from ondevice.data.dataset import Dataset, seal_manifest, tokens_hash
from ondevice.data.parcel import adopt_dataset, dataset_files, dataset_places, open_dataset
from ondevice.errors import DataError
from ondevice.run.files import json_bytes
from ondevice.run.pack import is_member_name
from ondevice.run.recipe import DataRecipe
from ondevice.run.schema import DataConfig, SourceConfig, TokenizerConfig


@pytest.fixture
def built(tmp_path):
    (tmp_path / "notes.txt").write_text("some text\n\nmore text\n\n" * 50 + "the end", encoding="utf-8")
    data = DataConfig(sources=(SourceConfig(path="notes.txt"),))
    return build_dataset(data, TokenizerConfig(kind="byte"), base=tmp_path, folder=tmp_path / "home/datasets/notes-1")


@pytest.fixture
def staged(built, tmp_path):
    """A copy as an unpack stages it."""
    for name, path, size in dataset_files(built):
        assert is_member_name(name) and size is None
        target = tmp_path / "staged" / name.removeprefix("data/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path / "staged"


def _recipe(name, sha256):
    return DataRecipe(
        dataset=name,
        dataset_sha256=sha256,
        tokenizer_sha256="",
        order="shuffled",
        order_sha256="",
        seed=1,
        weights={},
        train_tokens=1,
    )


def test_a_copy_keeps_its_name_and_its_tokens(built, staged, tmp_path):
    place, new = adopt_dataset(staged, tmp_path / "there", "notes-1", built.sha256)
    assert (place, new) == (tmp_path / "there/notes-1", True) and not staged.exists()
    Dataset.open(place).verify()
    assert place.parent.stat().st_mode & 0o777 == 0o700


def test_datasets_may_lie_on_another_disk(built, staged, tmp_path, monkeypatch):
    rename = Path.rename

    def refuse(path, target):
        if path == staged:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    (tmp_path / "there/.notes-1.new").mkdir(parents=True)
    place, _ = adopt_dataset(staged, tmp_path / "there", "notes-1", built.sha256)
    Dataset.open(place).verify()
    assert [path.name for path in place.parent.iterdir()] == ["notes-1"]


def test_one_that_is_there_is_not_brought_twice(built, staged, tmp_path):
    assert adopt_dataset(staged, tmp_path / "home/datasets", "notes-1", built.sha256) == (built.folder, False)
    assert staged.exists()


def test_another_of_that_name_stays_and_the_copy_stands_beside(built, staged, tmp_path, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "away"))
    taken = tmp_path / "away/datasets/notes-1"
    taken.mkdir(parents=True)
    (taken / "mine").write_text("precious")
    place, _ = adopt_dataset(staged, taken.parent, "notes-1", built.sha256)
    assert place.name == f"notes-1-{built.sha256[:8]}" and (taken / "mine").read_text() == "precious"
    assert open_dataset(_recipe("notes-1", built.sha256)).folder == place


def test_what_is_in_the_way_of_both_names_is_left_alone(built, staged, tmp_path):
    for name in ("notes-1", f"notes-1-{built.sha256[:8]}"):
        (tmp_path / "there" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="is in the way and not this dataset; rename it"):
        adopt_dataset(staged, tmp_path / "there", "notes-1", built.sha256)


def test_a_dataset_from_elsewhere_is_put_among_the_others(built, staged, tmp_path):
    """Its absolute path there means nothing here, even where something lies at it."""
    (tmp_path / "theirs/notes").mkdir(parents=True)
    place, _ = adopt_dataset(staged, tmp_path / "there", str(tmp_path / "theirs/notes"), built.sha256)
    assert place == tmp_path / "there/notes" and not list((tmp_path / "theirs/notes").iterdir())


def test_another_dataset_than_the_runs_is_refused(staged, tmp_path):
    with pytest.raises(DataError, match="holds another dataset than its run was trained on"):
        adopt_dataset(staged, tmp_path / "there", "notes-1", "0" * 64)
    assert not (tmp_path / "there").exists()


def test_a_changed_chunk_is_refused(built, staged, tmp_path):
    chunk = staged / built.manifest["chunks"][0]["file"]
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\x07")
    with pytest.raises(DataError):
        adopt_dataset(staged, tmp_path / "there", "notes-1", built.sha256)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/..", "a\0b", "x" * 2000, 5, None, ["a"]])
def test_no_dataset_has_such_a_name(tmp_path, name):
    with pytest.raises(DataError, match="no dataset is called that") as caught:
        dataset_places(tmp_path, name, "0" * 64)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("sha256", ["", "../" * 9, "g" * 64, 5, None])
def test_no_hash_leads_anywhere(tmp_path, sha256):
    with pytest.raises(DataError, match="the recipe that names it is not sound"):
        dataset_places(tmp_path, "notes", sha256)


def _sealed_again(staged, change):
    """What a stranger can do who knows how a manifest is sealed."""
    path = staged / "dataset.json"
    manifest = json.loads(path.read_text())
    del manifest["seal"]
    change(manifest)
    names = [entry["name"] for entry in manifest["sources"]]
    manifest["sha256"] = tokens_hash(manifest["tokenizer"]["sha256"], names, manifest["chunks"])
    path.write_bytes(json_bytes(seal_manifest(manifest), indent=1))
    return manifest["sha256"]


@pytest.mark.parametrize("file", ["../outside", "/etc/passwd", "chunks/../../outside", "a\0b", 5])
def test_a_chunk_elsewhere_is_not_looked_at(staged, tmp_path, file, monkeypatch):
    sha256 = _sealed_again(staged, lambda manifest: manifest["chunks"][0].update(file=file))
    monkeypatch.setattr(Dataset, "verify", lambda _: pytest.fail("believed"))
    with pytest.raises(DataError, match="holds no whole dataset"):
        adopt_dataset(staged, tmp_path / "there", "notes-1", sha256)


def test_a_chunk_that_is_a_pipe_does_not_hang(built, staged, tmp_path):
    chunk = staged / built.manifest["chunks"][0]["file"]
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(DataError):
        adopt_dataset(staged, tmp_path / "there", "notes-1", built.sha256)


@pytest.mark.parametrize("folder", ["..", "/etc", "", "../../home", None])
def test_a_tokenizer_elsewhere_is_not_looked_at(staged, tmp_path, folder):
    sha256 = _sealed_again(staged, lambda manifest: manifest["tokenizer"].update(folder=folder))
    with pytest.raises(DataError, match="holds no whole dataset"):
        adopt_dataset(staged, tmp_path / "there", "notes-1", sha256)


def test_nothing_comes_along_that_is_not_named(built, staged, tmp_path):
    (staged / "tokenizer_pin.json").write_text("{}")
    with pytest.raises(DataError, match=r"tokenizer_pin\.json is not part of one"):
        adopt_dataset(staged, tmp_path / "there", "notes-1", built.sha256)


@pytest.mark.parametrize("text", ["[]", "5", "{}", '{"chunks": 5, "tokenizer": {"folder": "a"}}', '{"chunks": [5]}'])
def test_a_manifest_of_another_form_is_one_sentence(staged, tmp_path, text):
    (staged / "dataset.json").write_text(text)
    with pytest.raises(DataError, match="not a dataset's manifest"):
        adopt_dataset(staged, tmp_path / "there", "notes-1", "0" * 64)


def test_a_dataset_that_is_gone_says_how_to_make_it_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"is not here; `ondevice data build` with the config.toml in the run's"):
        open_dataset(_recipe("notes-1", "0" * 64))


def test_a_dataset_that_changed_is_told_from_one_that_is_gone(built, tmp_path, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    with pytest.raises(DataError, match="the dataset changed since this run began"):
        open_dataset(_recipe("notes-1", "0" * 64))
    assert open_dataset(_recipe("notes-1", built.sha256)).sha256 == built.sha256
