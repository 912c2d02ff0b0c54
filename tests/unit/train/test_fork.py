"""A fork goes on from a checkpoint exactly, changes only what was asked, and records where it came from."""

import dataclasses
import random
import shutil

import pytest
import torch

from ondevice.errors import CheckpointError, DataError, OndeviceError, ResourceError, UsageError
from ondevice.model import safetensors
from ondevice.run.config import change_limits, parse_config, write_limits
from ondevice.run.directory import RunDir
from ondevice.run.files import read_json, write_sealed
from ondevice.run.papers import changed_papers, lineage_of
from ondevice.run.recipe import Recipe
from ondevice.run.schema import Limits, SourceConfig
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.fitting import OPTIMIZER_STATE
from ondevice.train.fork import ForkWish, fork_run, plan_fork
from ondevice.train.launch import launch
from ondevice.train.schedule import learning_rate, tail_rate
from tests.displays import Silent


def _train(run):
    assert launch(run, display=Silent()).outcome == "finished"
    return run


def _fork(run, step, **wish):
    with Store(run.checkpoints).lease(step) as checkpoint:
        return fork_run(plan_fork(run, checkpoint, ForkWish(**wish)))


def _tensors(run, step):
    found = {}
    for name in ("model", "optimizer"):
        with safetensors.open_file(Store(run.checkpoints).open(step).path / f"{name}.safetensors") as file:
            found |= {f"{name}:{key}": file.tensor(key).clone() for key in file.names}
    return found


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One folder for all tests of this file, one after the other: a trained run knows where its text is."""
    return tmp_path_factory.mktemp("fork") / "now"


@pytest.fixture
def tmp_path(place):
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


@pytest.fixture
def parent(make, place):
    """24 steps at a constant rate, with every eighth step kept; trained once."""
    trained = place.with_name("trained")
    if not trained.exists():
        changes = ('train.schedule="constant"', "limits.keep_every_steps=8", "limits.save_every_steps=8")
        _train(make(*changes, "limits.drop_old_optimizer=false", "model.dropout=0.1", name="parent"))
        shutil.copytree(place, trained)
    shutil.rmtree(place)
    shutil.copytree(trained, place)
    return RunDir(place / "home" / "runs" / "parent")


def test_a_fork_that_changes_nothing_learns_what_its_parent_learned(parent):
    child = _train(_fork(parent, 16, name="child", changes=['train.schedule="constant"']))
    assert child.read_recipe().train.steps == 24  # what the parent had left
    assert _equal(_tensors(child, 24), _tensors(parent, 24))
    mine, theirs = (read_json(Store(run.checkpoints).path(24) / "state.json") for run in (child, parent))
    assert {key: mine[key] for key in ("tokens", "cursor", "rng")} == {
        key: theirs[key] for key in ("tokens", "cursor", "rng")
    }


def test_the_parent_is_recorded_as_a_hash_chain_and_stays_untouched(parent):
    before = {path: path.read_bytes() for path in parent.path.rglob("*") if path.is_file()}
    child = _fork(parent, 16, name="child", steps=8)
    grandchild = _fork(child, 16, name="grandchild", steps=4)
    assert {path: path.read_bytes() for path in parent.path.rglob("*") if path.is_file()} == before
    identity = child.read_identity()
    assert identity["parent"] == {
        "run": "parent",
        "id": parent.read_identity()["id"],
        "step": 16,
        "checkpoint_sha256": Store(parent.checkpoints).open(16).sha256,
        "recipe_sha256": parent.read_recipe().sha256,
        "lineage": None,
    }
    assert identity["lineage"] == lineage_of(identity["parent"]) is not None
    assert grandchild.read_identity()["parent"]["lineage"] == identity["lineage"]
    assert changed_papers(child, identity) == []
    shutil.rmtree(parent.path)
    assert _train(child).name == "child"  # it stands by itself


def test_a_tail_decays_from_the_rate_the_parent_had(parent):
    child = _fork(parent, 16, tail="linear", steps=6)
    train = child.read_recipe().train
    assert child.name == "parent-tail-16"
    assert (train.start_step, train.steps, train.tail_steps, train.warmup_steps) == (16, 22, 6, 0)
    peak = learning_rate(parent.read_recipe().train, 16)
    rates = [learning_rate(train, step) for step in range(16, 22)]
    assert rates == [tail_rate("linear", n / 6, peak=peak, low=train.lr_min) for n in range(6)]
    _train(child)
    steps = [record for record in read_records(child.telemetry) if record["kind"] == "step"]
    assert [record["step"] for record in steps] == list(range(17, 23))
    assert [record["lr"] for record in steps] == rates
    evals = [record["step"] for record in read_records(child.telemetry) if record["kind"] == "eval"]
    assert evals[0] == 16 and evals[-1] == 22


def test_published_tails_come_out(make):
    """Decay-only tails from step 7,000 and 8,000 with a tenth of the steps: 2e-4 to 2e-5, inverse-proportional."""
    train = dataclasses.replace(
        make().read_recipe().train, schedule="wsd", tail="inverse-proportional", lr=2e-4, lr_min=2e-5, warmup_steps=0
    )
    for start, length, step, expected in ((13500, 1350, 14200, 3.529412e-5), (8000, 800, 8600, 2.580645e-5)):
        tail = dataclasses.replace(train, start_step=start, steps=start + length, tail_steps=length)
        assert learning_rate(tail, step) == pytest.approx(expected, rel=1e-6)


def test_a_tail_without_a_length_is_a_tenth_of_the_steps(parent):
    assert _fork(parent, 24, tail="cosine").read_recipe().train.planned_steps == 2


def test_dense_checkpoints_are_saved_and_kept(parent):
    child = _train(_fork(parent, 16, tail="1-sqrt", steps=6, dense_steps=2))
    assert Store(child.checkpoints).steps() == [16, 18, 20, 22]


def test_tokens_become_steps_and_counters_go_on(parent):
    child = _train(_fork(parent, 16, tokens=6 * 32 * 3 + 1))
    train = child.read_recipe().train
    assert (train.planned_steps, train.start_tokens, train.tokens) == (4, 16 * 192, 20 * 192)
    assert read_json(Store(child.checkpoints).path(20) / "state.json")["tokens"] == 20 * 192


def test_another_key_of_the_recipe(parent):
    child = _fork(
        parent, 16, steps=2, changes=["train.lr=1e-4", "train.weight_decay=0", "train.batch=3", "fit.threads=1"]
    )
    train, before = child.read_recipe().train, parent.read_recipe().train
    assert (train.lr, train.weight_decay, train.batch) == (1e-4, 0.0, 3)
    assert train.beta2 == before.beta2 and child.read_recipe().model == parent.read_recipe().model
    fit = read_json(child.fit)
    assert fit["micro_batch"] <= 3
    _train(child)


def test_another_optimizer_begins_anew(parent):
    with Store(parent.checkpoints).lease(16) as checkpoint:
        fork = plan_fork(parent, checkpoint, ForkWish(steps=2, changes=['train.optimizer="adamw"']))
    assert not fork.keeps_optimizer and any("anew" in note for note in fork.notes)
    child = fork_run(fork)
    with safetensors.open_file(Store(child.checkpoints).path(16) / "optimizer.safetensors") as file:
        assert not list(file.names)
    assert _equal(
        {k: v for k, v in _tensors(child, 16).items() if k.startswith("model")},
        {k: v for k, v in _tensors(parent, 16).items() if k.startswith("model")},
    )
    _train(child)


def test_a_fork_with_the_state_of_an_earlier_versions_muon_goes_on_with_its_arithmetic(make, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setitem(OPTIMIZER_STATE, "muon", "muon-adamw-fp32")
        old = _train(make('train.optimizer="muon"', 'train.schedule="constant"', "train.steps=6", name="old"))
    with Store(old.checkpoints).lease(6) as checkpoint:
        kept, fresh = (
            plan_fork(old, checkpoint, ForkWish(steps=2, name=name, fresh_optimizer=name == "fresh"))
            for name in ("kept", "fresh")
        )
    assert kept.keeps_optimizer and kept.recipe.train.optimizer_state == "muon-adamw-fp32"
    assert not fresh.keeps_optimizer and fresh.recipe.train.optimizer_state == "muon-zolotarev-adamw-fp32"
    _train(fork_run(kept))


def test_added_text_is_learned_in_the_parents_vocabulary(parent, corpus):
    dice = random.Random(3)
    words = [" ".join(dice.choices("abc", k=30)) for _ in range(200)]
    (corpus / "third.txt").write_text("\n".join(words), "utf-8")
    child = _train(
        _fork(parent, 16, steps=6, add_data=(SourceConfig(path=str(corpus / "third.txt"), document="line"),))
    )
    recipe = child.read_recipe()
    assert set(recipe.data.weights) == {"first", "second", "third"}
    assert recipe.data.tokenizer_sha256 == parent.read_recipe().data.tokenizer_sha256
    last = [record for record in read_records(child.telemetry) if record["kind"] == "eval"][-1]
    assert set(last["val_loss"]) == {"first", "second", "third"}
    assert last["trained_tokens"]["third"] > 0
    assert {source.name for source in _config(child).data.sources if source.name} >= {"first", "second"}


def _config(run: RunDir):
    return parse_config(run.config.read_text("utf-8"), where=str(run.config), base=run.path)


def test_a_repeated_fork_is_the_same_run(parent):
    child = _fork(parent, 16, name="child", steps=4)
    assert _fork(parent, 16, name="child", steps=4) == child
    with pytest.raises(UsageError, match="a run of this name exists"):
        _fork(parent, 16, name="child", steps=5)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"changes": ["model.width=64"]}, "--set model.width: a fork cannot change this; the weights fit no other"),
        ({"changes": ["tokenizer.kind=char"]}, "--set tokenizer.kind: a fork cannot change this"),
        ({"changes": ["train.steps=5"]}, "say how much more with --tokens"),
        ({"changes": ["budget.minutes=5"]}, "say how much more with --tokens"),
        ({"changes": ["train.lrr=5"]}, "unknown key 'train.lrr'"),
        ({"name": "A B"}, "use lower case letters"),
        ({}, "is the last of its run, so say how far the fork goes"),
    ],
)
def test_what_no_fork_can_do_is_one_sentence(parent, wish, words):
    runs = sorted(path.name for path in parent.path.parent.iterdir())
    with pytest.raises(OndeviceError) as caught:
        _fork(parent, 24, **wish)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(path.name for path in parent.path.parent.iterdir()) == runs


def test_a_light_checkpoint_needs_a_fresh_optimizer(parent):
    Store(parent.checkpoints).lighten(8)
    with pytest.raises(CheckpointError, match=r"optimizer state was dropped.*--fresh-optimizer"):
        _fork(parent, 8)
    _train(_fork(parent, 8, steps=2, fresh_optimizer=True))


def test_recipes_of_version_1_are_read_with_their_own_hash(parent):
    recipe = dataclasses.replace(parent.read_recipe(), v=1)
    raw = recipe.to_json()
    for key in ("start_step", "start_tokens"):
        raw["train"].pop(key)
    again = Recipe.from_json(raw, where="recipe.json")
    assert again.sha256 == recipe.sha256 != parent.read_recipe().sha256
    assert again.train.start_step == 0
    raw["train"]["start_step"] = 5
    with pytest.raises(OndeviceError):
        Recipe.from_json({**raw, "v": 2}, where="recipe.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train . steps=5", "say how much more with --tokens"),
        ("train={steps=5}", "write one key at a time"),
        ("model={width=64}", "write one key at a time"),
        ("data={}", "write one key at a time"),
        ("data.split=hash:0.3", "a text stays as it was read and split"),
        ("data.deduplicate=false", "a text stays as it was read and split"),
        ("data.sources.0.path=x", "add text with --data PATH"),
        ("train.precision=auto", "say fp32 or bf16"),
    ],
)
def test_a_change_that_would_be_without_effect_or_dishonest_is_refused(parent, change, words):
    with pytest.raises(UsageError) as caught:
        _fork(parent, 16, steps=2, changes=[change])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_every_key_of_the_fit_is_taken_and_nothing_else_of_the_parents_wish(parent):
    """The fit of the checkpoint may have been made smaller after a death; the parent's config knows nothing of it."""
    store = Store(parent.checkpoints)
    manifest = read_json(store.path(16) / "manifest.json")
    del manifest["sha256"]
    manifest["facts"]["fit"]["micro_batch"] = 1
    write_sealed(store.path(16) / "manifest.json", manifest)
    assert read_json(_fork(parent, 16, name="plain", steps=2).fit)["micro_batch"] == 1
    changes = ["fit.micro_batch=2.0", "fit.loss_chunk_tokens=64", "fit.activation_checkpointing=true", "fit.threads=2"]
    changes += ["fit.kept_blocks=1", "fit.repeated_blocks=1"]
    assert read_json(_fork(parent, 16, name="asked", steps=2, changes=changes).fit) == {
        "micro_batch": 2,
        "threads": 2,
        "activation_checkpointing": True,
        "loss_chunk_tokens": 64,
        "layerwise": False,
        "kept_blocks": 1,
        "repeated_blocks": 1,
    }


def test_the_limits_that_hold_now_come_along(parent):
    write_limits(parent.limits, change_limits(Limits(), {"keep_last": 7}))
    assert _config(_fork(parent, 16, name="a", steps=2)).limits.keep_last == 7
    parent.limits.write_bytes(b"damaged")
    assert _config(_fork(parent, 16, name="b", steps=2)).limits.keep_last == 3


@pytest.mark.parametrize("paper", ["config.toml", "recipe.json", "tokenizer"])
def test_a_damaged_parent_is_repaired_first(parent, paper):
    path = parent.path / paper
    path = next(path.iterdir()) if path.is_dir() else path
    text = path.read_bytes()
    path.write_bytes(text.replace(b"0.1", b"0.2") if b"0.1" in text else text + b" ")
    with pytest.raises(OndeviceError, match=r"ondevice doctor parent|changed by hand"):
        _fork(parent, 16, steps=2)


def test_added_text_of_a_known_name_gets_another(parent, corpus):
    (corpus / "more").mkdir()
    for number, name in enumerate(("first", "second")):
        (corpus / "more" / f"{name}.txt").write_text("\n".join(f"{number} {n} abc" for n in range(300)), "utf-8")
    added = [SourceConfig(path=str(corpus / "more" / f"{name}.txt"), document="line") for name in ("first", "second")]
    child = _fork(parent, 16, name="child", steps=2, add_data=tuple(added[:1]))
    assert set(child.read_recipe().data.weights) == {"first", "second", "more-first"}
    again = _fork(child, 16, steps=2, add_data=tuple(added[1:]))
    assert set(again.read_recipe().data.weights) == {"first", "second", "more-first", "more-second"}
    with pytest.raises(UsageError, match="the parent learns from this text already"):
        _fork(parent, 16, steps=2, add_data=(SourceConfig(path=str(corpus / "more/../first.txt")),))


def test_the_parents_text_must_be_there_to_add_to_it(parent, corpus):
    (corpus / "third.txt").write_text("abc def\n" * 200, "utf-8")
    (corpus / "first.txt").rename(corpus / "gone.txt")
    with pytest.raises(DataError, match=r"first\.txt: the text that the parent learned is not here"):
        _fork(parent, 16, steps=2, add_data=(SourceConfig(path=str(corpus / "third.txt")),))
    _train(_fork(parent, 16, steps=2))  # its tokens are there


def test_a_tail_from_the_lowest_rate_is_said_or_refused(parent):
    low = _train(_fork(parent, 16, name="low", steps=3, tail="linear"))
    with Store(low.checkpoints).lease(19) as checkpoint:
        notes = plan_fork(low, checkpoint, ForkWish(tail="linear", steps=2)).notes
    assert any("does not lower it" in note for note in notes)
    zero = _train(_fork(parent, 16, name="zero", steps=3, tail="linear", changes=["train.lr_min=0"]))
    with pytest.raises(UsageError, match="had come down to 0; fork an earlier step"):
        _fork(zero, 19, tail="linear", steps=2)
    with pytest.raises(UsageError, match=r"never reaches; take another, such as --tail linear"):
        _fork(zero, 19, tail="inverse-proportional", steps=2, changes=["train.lr=1e-4"])
    assert _fork(zero, 19, tail="linear", steps=2, changes=["train.lr=1e-4"]).read_recipe().train.lr == 1e-4


def test_the_first_launch_goes_on_exactly_where_the_parents_machine_was(parent, monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)  # as in a process that never trained
    try:
        child = _fork(parent, 16, steps=2)
    finally:
        torch.set_num_threads(before)
    mine, theirs = (Store(run.checkpoints).open(16).facts for run in (child, parent))
    assert mine["threads"] == theirs["threads"]
    _train(child)
    assert next(iter(read_records(child.telemetry)))["inexact"] == []


def test_other_limits_make_another_fork(parent):
    _fork(parent, 16, name="child", steps=4)
    with pytest.raises(UsageError, match="a run of this name exists"):
        _fork(parent, 16, name="child", steps=4, dense_steps=1)


def test_the_optimizer_of_a_light_checkpoint_is_missed_before_text_is_read(parent, corpus):
    Store(parent.checkpoints).lighten(8)
    (corpus / "third.txt").write_text("abc def\n" * 200, "utf-8")
    datasets = sorted((parent.path.parents[1] / "datasets").iterdir())
    with pytest.raises(CheckpointError, match="--fresh-optimizer"):
        _fork(parent, 8, steps=2, add_data=(SourceConfig(path=str(corpus / "third.txt")),))
    assert sorted((parent.path.parents[1] / "datasets").iterdir()) == datasets


def test_a_full_disk_is_said_before_anything_is_made(parent, monkeypatch):
    runs = sorted(path.name for path in parent.path.parent.iterdir())
    monkeypatch.setattr("ondevice.train.fork.shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(ResourceError, match=r"0\.0 MB are free and the fork needs 0\.\d MB"):
        _fork(parent, 16, steps=2)
    assert sorted(path.name for path in parent.path.parent.iterdir()) == runs
