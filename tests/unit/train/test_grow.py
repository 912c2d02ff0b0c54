"""Folders that grow: what is new becomes parts beside the old, exactly, whatever happens to old files and processes."""

import dataclasses
import os
import random
import shutil
import time

import pytest

from ondevice.data import build, build_tokens
from ondevice.data.parcel import open_dataset
from ondevice.errors import DataError, UsageError
from ondevice.run import files
from ondevice.run.config import parse_config
from ondevice.run.directory import RunDir, offline_lock
from ondevice.run.papers import changed_papers
from ondevice.run.revision import newest_config
from ondevice.run.schedule import schedule_of
from ondevice.run.telemetry import read_records
from ondevice.run.verify import verify_folder
from ondevice.train.chain import train
from ondevice.train.grow import grow
from ondevice.train.prepare import make_run, prepare
from ondevice.train.wish import make_dataset
from tests.displays import Silent
from tests.tiny import SMALLEST

WISH = """
name = "growing"
[data]
split = "hash:0.1"
[[data.sources]]
path = "notes"
document = "line"
[chain]
parts = 2
""" + SMALLEST.format(batch=6)


class PowerCut(BaseException):
    pass


def write(path, seed, lines=60, *, age_s=60.0):
    """A file of its own words that nobody has written to for a while."""
    rng = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(
        " ".join(rng.choices(["kar", "kâr", "ılık", "iz", "deniz"], k=8)) + f" {seed}" for _ in range(lines)
    )
    path.write_text(text, "utf-8")
    then = time.time() - age_s
    os.utime(path, (then, then))


@pytest.fixture
def notes(tmp_path, home):
    write(tmp_path / "notes" / "a.txt", 1)
    write(tmp_path / "notes" / "b.txt", 2)
    return tmp_path / "notes"


@pytest.fixture
def begin(notes, tmp_path):
    def made(*changes, text=WISH):
        config = parse_config(text, where="growing.toml", base=tmp_path, changes=changes)
        dataset = make_dataset(config)
        return make_run(config, prepare(config, dataset, cores=1, android=False, rate=1000.0), dataset)

    return made


def growing(run, **how):
    with offline_lock(run, what="test"):
        return grow(run, **how)


def sources(run):
    return {entry.name: entry.train_tokens for entry in open_dataset(run.read_recipe().data).sources}


def chunk_times(run):
    folder = open_dataset(run.read_recipe().data).folder
    return {path: path.stat().st_mtime_ns for path in folder.glob("chunks/*/*.chunk")}


def test_new_files_become_parts_and_no_old_chunk_is_touched(begin, notes):
    run = begin()
    train(run, display=Silent())
    before, old = sources(run), chunk_times(run)
    assert growing(run).added == (), "nothing is new"
    assert len(run.read_recipe().revises) == 0
    write(notes / "later" / "c.txt", 3)
    grown = growing(run, parts=2)
    assert [(part.name, part.stage) for part in grown.added] == [("003", "notes-2"), ("004", "notes-2")]
    assert (grown.files, grown.notes) == (1, ())
    assert sources(run) == {**before, "notes-2": sources(run)["notes-2"]}
    assert {path: stamp for path, stamp in chunk_times(run).items() if path in old} == old
    assert train(run, display=Silent()).outcome == "finished"
    write(notes / "d.txt", 4)
    assert [part.stage for part in growing(run, parts=1).added] == ["notes-3"], "the first piece is known too"
    assert train(run, display=Silent()).outcome == "finished"
    parts = schedule_of(run.read_recipe(), read_records(run.telemetry)).parts
    assert [part.state for part in parts] == ["done"] * 5
    assert not changed_papers(run, run.read_identity()) and newest_config(run).name == "config-3.toml"
    assert not [finding for finding in verify_folder(run) if finding.level == "damage"]


def test_a_copy_of_what_was_read_is_not_learned_again(begin, notes):
    run = begin()
    shutil.copy(notes / "a.txt", notes / "copy.txt")
    os.utime(notes / "copy.txt", (1.0, 1.0))
    grown = growing(run)
    assert grown.added == () and "less new text than a step learns from" in grown.notes[0]
    write(notes / "mixed.txt", 5)
    (notes / "copy.txt").write_text((notes / "a.txt").read_text() + "\n" + (notes / "mixed.txt").read_text(), "utf-8")
    os.utime(notes / "copy.txt", (1.0, 1.0))
    growing(run)
    (entry,) = [each for each in open_dataset(run.read_recipe().data).sources if each.name == "notes-2"]
    assert entry.duplicates >= 120 and entry.documents == 60


def test_files_that_changed_or_went_away_are_named_and_their_tokens_stay(begin, notes):
    run = begin()
    before = sources(run)
    write(notes / "a.txt", 9, lines=90)
    (notes / "b.txt").unlink()
    write(notes / "c.txt", 3)
    grown = growing(run)
    assert any("a.txt changed since it was read" in note for note in grown.notes)
    assert any("b.txt went away" in note for note in grown.notes)
    assert grown.files == 1 and sources(run)["notes"] == before["notes"]
    os.utime(notes / "c.txt", (5.0, 5.0))
    assert not any("c.txt" in note for note in growing(run).notes), "touched, but the same"
    shutil.rmtree(notes)
    assert "is not here any more" in growing(run).notes[0]
    assert train(run, display=Silent()).outcome == "finished"


def test_files_that_are_being_written_wait(begin, notes, monkeypatch):
    run = begin()
    write(notes / "c.txt", 3, age_s=2.0)
    write(notes / "d.txt.part", 4)
    (notes / "empty.txt").touch()
    grown = growing(run)
    assert grown.added == () and "c.txt, d.txt.part may still be written to" in grown.notes[0]
    write(notes / "far.txt", 6, age_s=-90_000.0)
    assert growing(run, settle_s=1.0).files == 2, "another clock's time says nothing"
    write(notes / "e.txt", 7)
    plain = build_tokens.tokenise_source

    def tokenise(*args, **more):
        with open(notes / "e.txt", "a") as file:
            file.write("more while it is read")
        return plain(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(build, "tokenise_source", tokenise)
        grown = growing(run)
        assert grown.added == () and any("changed while it was read" in note for note in grown.notes)
    os.utime(notes / "e.txt", (5.0, 5.0))
    assert growing(run).files == 1


def test_a_kill_at_any_write_ends_in_the_same_revision(begin, notes, tmp_path, monkeypatch):
    text = WISH.replace('document = "line"', 'document = "line"\n', 1).replace("[data]", "[data]\nchunk_tokens = 1024")
    run = begin(text=text)
    for number in range(3):
        write(notes / f"new-{number}.txt", 20 + number, lines=24)
    home, saved = tmp_path / "home", tmp_path / "saved"
    shutil.copytree(home, saved)
    growing(run, parts=2)
    wanted = run.read_recipe()
    plain_write, plain_chunk, point, finished = files.write_atomic, build_tokens.write_chunk, 0, False
    while not finished:
        point += 1
        shutil.rmtree(home)
        shutil.copytree(saved, home)
        os.chmod(run.path, 0o700)
        left = [point]

        def count(left=left):
            left[0] -= 1
            if left[0] == 0:
                raise PowerCut

        def crashing(path, data, *, durable=True, count=count):
            count()
            plain_write(path, data, durable=durable)

        def crashing_chunk(*args, count=count, **more):
            count()
            return plain_chunk(*args, **more)

        with monkeypatch.context() as patch:
            patch.setattr(files, "write_atomic", crashing)
            patch.setattr("ondevice.run.revision.write_atomic", crashing)
            patch.setattr(build_tokens, "write_chunk", crashing_chunk)
            try:
                growing(run, parts=2)
                finished = True
            except PowerCut:
                growing(run, parts=2)
        recipe = run.read_recipe()
        assert recipe.sha256 == wanted.sha256 and len(recipe.revises) == 1
        assert open_dataset(recipe.data).sha256 == wanted.data.dataset_sha256
    assert point > 8


def test_a_run_that_grows_by_itself_goes_on_until_nothing_is_new(begin, notes):
    run, said = begin("chain.grow=true"), Silent()
    write(notes / "c.txt", 3)
    assert train(run, display=said).outcome == "finished"
    assert any("parts are added, of 1 new files" in word for word in said.said)
    assert {part.stage for part in run.read_recipe().data.parts} == {"all", "notes-2"}
    assert schedule_of(run.read_recipe(), read_records(run.telemetry)).current is None


def test_another_build_of_the_folder_leaves_what_a_grown_run_needs(begin, notes, tmp_path):
    run = begin()
    write(notes / "c.txt", 3)
    growing(run)
    write(notes / "d.txt", 4)
    make_dataset(parse_config(WISH, where="growing.toml", base=tmp_path))
    open_dataset(run.read_recipe().data).verify()
    write(notes / "e.txt", 5)
    assert growing(run).files == 2
    shutil.copy(notes / "a.txt", notes / "f.txt")
    os.utime(notes / "f.txt", (1.0, 1.0))
    assert growing(run).added == (), "that it is a copy is still known"


def test_what_cannot_grow_says_so(begin, notes, tmp_path):
    run = begin()
    dataset = open_dataset(run.read_recipe().data)
    for record in dataset.folder.glob("chunks/*/source.json"):
        record.unlink()
    write(notes / "c.txt", 3)
    with pytest.raises(DataError, match="does not tell which files 'notes' was read from"):
        growing(run)
    (notes / "binary.txt").write_bytes(bytes(range(256)) * 90)
    with pytest.raises(UsageError, match="is for a chain"):
        begin("chain.grow=true", "chain.parts=0")
    single = WISH.replace('path = "notes"', 'path = "notes/a.txt"').replace("growing", "single")
    with pytest.raises(UsageError, match="single files, which do not grow"):
        growing(begin(text=single))


def test_a_damaged_new_file_is_left_and_the_rest_of_the_text_is_not(begin, notes):
    other = notes.parent / "other"
    write(other / "x.txt", 30)
    text = WISH.replace("[chain]", '[[data.sources]]\npath = "other"\nformat = "jsonl"\n[chain]')
    (other / "x.txt").rename(other / "x.jsonl")
    (other / "x.jsonl").write_text("".join(f'{{"text": "row {n} of x"}}\n' for n in range(90)), "utf-8")
    run = begin(text=text)
    (other / "y.jsonl").write_text('{"text": "fine"}\n{"text": \n', "utf-8")
    os.utime(other / "y.jsonl", (1.0, 1.0))
    write(notes / "c.txt", 3)
    grown = growing(run)
    assert {part.stage for part in grown.added} == {"notes-2"}
    assert any("y.jsonl:2" in note and "left for the next look" in note for note in grown.notes)


def test_a_wish_that_is_the_same_is_kept_once(begin, notes):
    run = begin()
    write(notes / "c.txt", 3)
    growing(run)
    from ondevice.run.revision import revise

    recipe = run.read_recipe()
    again = dataclasses.replace(recipe, revises=(*recipe.revises, recipe.sha256))
    revise(run, again, config_toml=newest_config(run).read_text("utf-8"))
    assert newest_config(run).name == "config-2.toml" and not changed_papers(run, run.read_identity())
    assert RunDir(run.path).read_recipe() == again
