"""A folder of Hugging Face, measured by our own decoder: the losses of the run it was made of, and bad folders."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ondevice.cli.main import main
from ondevice.errors import CheckpointError, DataError, ResourceError, UsageError
from ondevice.infer import batch
from ondevice.run.store import Store
from ondevice.study import evaluation, foreign_target
from ondevice.study.evaluation import Wish, evaluate
from ondevice.study.journal import Journal
from ondevice.study.retokenised import Retokenised
from ondevice.study.target import open_target

SMALL = Wish(per_source=2, prompt_tokens=16, max_new_tokens=8)


@pytest.fixture
def folder(own):
    step = Store(own.checkpoints).steps()[-1]
    assert main(["export", "tiny", "--format", "hf", "--step", str(step), "--json"]) == 0
    return own.exports / f"hf-{step:08d}"


@pytest.fixture
def elsewhere(folder, tmp_path):
    """The same folder, where no run is beside it."""
    return shutil.copytree(folder, tmp_path / "downloaded")


def measured(target, wish=SMALL, **options):
    with open_target(str(target), **options) as opened:
        return evaluate(opened, wish)


def test_it_has_the_losses_and_the_texts_of_its_checkpoint(own, folder, elsewhere):
    ours = measured(own.path, step=Store(own.checkpoints).steps()[-1])
    dataset = own.read_recipe().data.dataset
    for found in (measured(folder), measured(elsewhere, data=dataset)):
        assert found["backend"] == "torch" and found["step"] is None
        assert found["val_loss"] == pytest.approx(ours["val_loss"], abs=1e-5)
        assert found["bits_per_byte"] == pytest.approx(ours["bits_per_byte"], abs=1e-5)
        assert found["degeneration"]["all"]["n"] == 4 and 0 <= found["quality"]["all"]["score"] <= 100
        assert found["probes"] == ours["probes"] or found["probes"]["all"]["n"] == ours["probes"]["all"]["n"]
    rows = [json.loads(line) for line in next((elsewhere / "evals").glob("*.jsonl")).read_text("utf-8").splitlines()]
    first = next(own.evals.glob("panel-*.jsonl")).read_text("utf-8").splitlines()
    assert [row["text"] for row in rows] == [json.loads(line)["text"] for line in first]


def test_a_shorter_context_is_another_result(elsewhere, own):
    dataset = own.read_recipe().data.dataset
    whole, short = measured(elsewhere, data=dataset), measured(elsewhere, data=dataset, context=16)
    assert (whole["context"], short["context"]) == (64, 16)
    assert whole["generations"]["file"] != short["generations"]["file"]
    with pytest.raises(UsageError, match="65"):
        measured(elsewhere, context=65)
    with pytest.raises(UsageError, match="--context"):
        measured(own.path, context=16)
    with pytest.raises(UsageError, match="--step"):
        measured(elsewhere, step=3)


def test_bad_folders_are_refused_in_one_sentence(elsewhere, tmp_path, monkeypatch):
    def broken(name):
        return shutil.copytree(elsewhere, tmp_path / name)

    with pytest.raises(UsageError, match="--prompts"):
        measured(elsewhere)  # nothing says what to measure it on
    with pytest.raises(UsageError, match="no such dataset or run"):
        measured(elsewhere, data="nowhere")
    config = json.loads((elsewhere / "config.json").read_text("utf-8"))
    (broken("alien") / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}), "utf-8")
    with pytest.raises(CheckpointError, match="mamba"):
        measured(tmp_path / "alien")
    (broken("mute") / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="mute"):
        measured(tmp_path / "mute")
    weights = broken("cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cut"):
        measured(tmp_path / "cut")
    monkeypatch.setattr(foreign_target, "_available_mb", lambda: 0.01)
    with pytest.raises(ResourceError):
        measured(elsewhere)


def test_text_is_encoded_again_without_loss(own):
    with open_target(str(own.path)) as target:
        again = Retokenised(target.dataset, target.tokenizer)
        for entry in target.dataset.sources:
            stream = target.dataset.stream(entry.name, "val")
            other = again.stream(entry.name, "val")
            assert other.read(0, len(other)).tolist() == stream.read(0, len(stream)).tolist()
        with pytest.raises(ValueError, match="train"):
            again.stream("first", "train")


def test_examples_are_not_encoded_again():
    with pytest.raises(UsageError, match="--no-losses"):
        Retokenised(SimpleNamespace(examples=object(), folder=Path("mails")), None)


def test_what_a_kill_cut_off_goes_on_where_it_was(own, monkeypatch):
    """The second call writes only the texts that the first had not, and the result is that of one call."""
    wish = Wish(per_source=3, prompt_tokens=16, max_new_tokens=8, cache_mb=0.05)  # a few prompts at a time
    whole = measured(own.path, wish)
    texts = (own.evals / whole["generations"]["file"]).read_bytes()
    for path in own.evals.glob("panel-*"):
        path.unlink()
    groups = []

    def counted(*args, **options):
        if len(groups) == 1:
            raise KeyboardInterrupt
        groups.append(len(args[1]))
        return batch.generate_batch(*args, **options)

    monkeypatch.setattr(evaluation, "generate_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        measured(own.path, wish)
    part = next(own.evals.glob("*.part"))
    part.write_bytes(part.read_bytes() + b'{"key": "torn')
    groups.insert(0, 0)  # never again one group only
    monkeypatch.setattr(evaluation.Evaluation, "batches", None)  # losses are in the journal
    assert measured(own.path, wish) == whole
    assert sum(groups) == 6 and (own.evals / whole["generations"]["file"]).read_bytes() == texts
    assert not list(own.evals.glob("*.part"))


def test_a_journal_belongs_to_one_question(tmp_path):
    path = tmp_path / "a.part"
    Journal(path, key="one").put("x", [1.5, None])
    assert Journal(path, key="one").get("x") == [1.5, None]
    assert Journal(path, key="two").get("x") is None
    path.write_bytes(b"\xff\n[1]\n" + path.read_bytes()[:-9])
    assert Journal(path, key="one").get("x") is None
    Journal(path, key="one").put("y", 2)
    assert Journal(path, key="one").get("y") == 2
