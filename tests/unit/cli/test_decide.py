"""A contract from the baseline to the package: what is fixed before, measured, decided, packed and re-checked."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from ondevice.cli.main import main
from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.model.build import build_model
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.safetensors import write
from ondevice.run.directory import RunDir
from ondevice.run.files import write_json
from ondevice.run.recipe import ModelShape

CONTRACT = """
task = "sorting"
instruction = "Sort"
[input]
fields = ["instruction", "input"]
[output]
form = "json"
[output.fields]
label = ["bug", "pay"]
[files]
train = "train.jsonl"
held_out = "held.jsonl"
[decision]
primary = "labels"
guards = { parse = 0.0 }
note = "Right more often than the base."
"""
CONFIG = """
name = "sort"
[data]
contract = "contract.toml"
split = "hash:0.1"
[[data.sources]]
path = "train.jsonl"
[tokenizer]
kind = "byte"
[model]
layers = 2
width = 48
heads = 2
context = 80
[train]
steps = 110
batch = 8
lr = 1e-2
warmup_steps = 5
precision = "fp32"
[eval]
count = 1
[sample]
count = 0
[fit]
micro_batch = 8
threads = 1
[limits]
min_free_disk_mb = 0
save_every_steps = 100
"""
WORDS = {"bug": "crash", "pay": "money"}


def write_rows(path, letters, count, *, held_out):
    rng, rows = random.Random(len(letters)), {}
    while len(rows) < count:
        label = rng.choice(list(WORDS))
        asked = f"{''.join(rng.choices(letters, k=3))} {WORDS[label]}"
        answer = {"expected": {"label": label}} if held_out else {"output": json.dumps({"label": label})}
        rows[asked] = {"instruction": "Sort", "input": asked, **answer}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))


def write_task(folder: Path) -> None:
    write_rows(folder / "train.jsonl", "abcdefgh", 120, held_out=False)
    write_rows(folder / "held.jsonl", "ijklm", 20, held_out=True)
    (folder / "contract.toml").write_text(CONTRACT)
    (folder / "run.toml").write_text(CONFIG)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A folder with the task and a home with the trained run."""
    folder = tmp_path_factory.mktemp("tuned")
    write_task(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_HOME", str(folder / "home"))
        patch.chdir(folder)
        assert main(["train", "run.toml", "--quiet"]) == 0
    return folder


@pytest.fixture
def here(tuned, tmp_path, monkeypatch):
    """A copy to change."""
    folder = tmp_path / "here"
    shutil.copytree(tuned, folder)
    monkeypatch.setenv("ONDEVICE_HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def task(here):
    return here / "home" / "runs" / "sort" / "evals" / "task"


def test_baseline_and_rule_come_before_the_first_step(tuned):
    folder = tuned / "home" / "runs" / "sort" / "evals" / "task"
    rule, baseline = (json.loads((folder / name).read_text()) for name in ("rule.json", "baseline.json"))
    assert rule["stated_step"] == 0 and baseline["scored_before_training"] is True
    assert rule["rule"] == {"v": 1, "primary": "labels", "guards": {"parse": 0.0}}
    assert baseline["runtime"]["decoding"] == "greedy" and baseline["scores"]["parse"]["n"] == 20
    rows = [json.loads(line) for line in (folder / "baseline.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert all(row["prompt"].endswith("### Assistant:\n") and not row["answer"].startswith("###") for row in rows)


@pytest.mark.parametrize(("worse", "says"), [([], "No row got worse"), ([3], "Read the rows that got worse")])
def test_what_to_do_after_a_discard_goes_by_its_rows(here, task, call, worse, says):
    from ondevice.study.task_decision import decision_text

    record = call("decide", "sort", "--json").json | {"verdict": "discard", "worse": worse}
    assert decision_text(task, record).partition("## Next\n\n")[2].startswith(says)


def test_a_model_that_learned_is_kept_and_the_reasons_are_written(here, task, call):
    record = call("decide", "sort", "--json").json
    assert record["verdict"] == "keep"
    assert record["compared"]["labels"]["difference"]["low"] > 0
    assert record["planned_updates"] == record["done_updates"] == 110
    assert record["stated_before_training"] and record["baseline_before_training"]
    assert len(record["better"]) == round(record["compared"]["labels"]["difference"]["estimate"] * 20) + len(
        record["worse"]
    )
    text = (task / "decision.md").read_text()
    assert text.startswith("# sorting: keep") and "labels must rise" in text and "Right more often" in text
    assert call("decide", "sort").out.startswith(text)


def test_what_learned_nothing_is_discarded_and_stays_on_record(here, task, call, monkeypatch):
    from ondevice.study import task_decision

    assert call("decide", "sort", "--json").json["verdict"] == "keep"
    monkeypatch.setattr(task_decision, "load_adapted", lambda run, checkpoint: task_decision.baseline_model(run))
    record = call("decide", "sort", "--step", "100", "--json").json
    assert record["verdict"] == "discard" and "labels does not rise" in record["why"]
    text = (task / "decision.md").read_text()
    assert text.startswith("# sorting: discard") and "Earlier decisions on the same rows" in text
    assert "step 110" in text and (task / "decision-00000110.json").exists()
    refused = call("package", "sort", "--step", "100")
    assert refused.code == 2 and "is discard, not keep" in refused.error


def test_format_gained_and_labels_lost_is_no_keep(here, task, call, monkeypatch):
    """The baseline is made to know the labels in words that do not parse; the guard is on labels."""
    (here / "contract.toml").write_text(
        CONTRACT.replace('primary = "labels"', 'primary = "parse"').replace("parse = 0.0", '"label:label" = 0.05')
    )
    shutil.rmtree(task)
    assert call("decide", "sort", "--late", "contract.toml").code == 0
    from ondevice.study import task_decision, task_score

    shutil.rmtree(task)
    real = task_score.judge_answer

    def judged(answer, expected, rule):
        found = real(answer, expected, rule)
        knows = not found.right["parse"]  # the baseline's
        return type(found)(parsed=found.parsed, right={**found.right, "label:label": knows, "labels": knows})

    monkeypatch.setattr(task_score, "judge_answer", judged)
    record = call("decide", "sort", "--late", "contract.toml", "--json").json
    assert record["compared"]["parse"]["difference"]["low"] > 0
    assert record["verdict"] == "discard" and "label:label surely falls" in record["why"]
    assert "stated after training had begun" in (task / "decision.md").read_text()
    assert task_decision.BASELINE == "baseline"


def test_without_a_rule_or_baseline_nothing_is_decided(here, task, call):
    (task / "baseline.json").unlink()
    result = call("decide", "sort")
    assert result.code == 2 and "its baseline was never scored" in result.error
    assert call("decide", "sort", "--late", "--json").json["baseline_before_training"] is False
    shutil.rmtree(task)
    assert "no rule was stated before" in call("decide", "sort").error
    assert "name the contract" in call("decide", "sort", "--late").error


def test_leaving_the_baseline_out_is_said_aloud(here, call, monkeypatch):
    quick = ("--set", "train.steps=2", "--set", "train.warmup_steps=0")
    result = call("train", "run.toml", "--name", "other", *quick, "--no-baseline")
    assert result.code == 0 and "Warning: no baseline (left out by --no-baseline)" in result.out
    assert "its baseline was never scored" in call("decide", "other").error
    assert call("train", "run.toml", "--name", "third", *quick, "--set", "data.contract=", "--no-baseline").code == 2


def test_the_rule_cannot_be_changed_afterwards(here, task, call):
    (here / "contract.toml").write_text(CONTRACT.replace('"labels"', '"parse"').replace("parse = 0.0", "keys = 0.0"))
    assert call("decide", "sort", "--json").json["rule"]["primary"] == "labels"  # the copy counts
    held = task / "held-out.jsonl"
    held.write_text(held.read_text().replace("bug", "pay", 1))
    assert "changed since the rule was stated" in call("decide", "sort").error
    result = call("verify", "sort")
    assert result.code == 4 and "held-out.jsonl" in result.out


@pytest.mark.parametrize("name", ["baseline.jsonl", "baseline.json", "rule.json"])
def test_one_changed_byte_is_noticed(here, task, call, name):
    assert call("verify", "sort").code == 0
    data = bytearray((task / name).read_bytes())
    data[len(data) // 2] ^= 1
    (task / name).write_bytes(data)
    assert call("decide", "sort").code == 3
    assert call("verify", "sort").code == 4


def test_one_changed_byte_of_the_training_rows_is_noticed(here, tuned, call):
    rule = here / "home" / "runs" / "sort" / "evals" / "task" / "rule.json"
    trained_on = next(iter(json.loads(rule.read_text())["trained_on"]))
    assert Path(trained_on) == tuned / "train.jsonl"
    before = Path(trained_on).read_bytes()
    try:
        Path(trained_on).write_bytes(before.replace(b"crash", b"crasH", 1))
        result = call("verify", "sort")
    finally:
        Path(trained_on).write_bytes(before)
    assert result.code == 4 and "changed since it was trained on" in result.out


def test_a_package_proves_itself_in_a_clean_folder(here, call, tmp_path, monkeypatch):
    assert "nothing was decided yet" in call("package", "sort").error
    assert call("decide", "sort").code == 0
    body = call("package", "sort", "--with-data", "--json").json
    assert {"task/decision.md", "model/model.safetensors", "run/recipe.json", "data/00-train.jsonl"} <= set(
        body["files"]
    )
    assert (body["seed"], body["planned_updates"], body["done_updates"]) == (body["seed"], 110, 110)
    clean = tmp_path / "clean"
    shutil.move(body["path"], clean)
    shutil.rmtree(here / "home")
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "nothing"))
    found = call("verify", clean, "--again", "--json").json
    assert found["sound"] and any("20 of 20 answers are the same" in each["text"] for each in found["findings"])
    (clean / "extra.txt").write_text("x")
    assert "was not packed" in call("verify", clean).out
    (clean / "extra.txt").unlink()
    (clean / "task" / "decision.md").write_text("# sorting: keep, surely")
    result = call("verify", clean)
    assert result.code == 4 and "task/decision.md: its bytes are not those that were packed" in result.out


def test_outputs_that_were_rewritten_with_their_hashes_do_not_prove_the_decision(here, call):
    """Whoever repacks honest hashes over dishonest judgements is noticed: they do not follow from the answers."""
    import hashlib

    from ondevice.run.files import read_sealed, write_sealed

    assert call("decide", "sort").code == 0
    folder = Path(call("package", "sort", "--json").json["path"])
    outputs, scored = folder / "task" / "tuned-00000110.jsonl", folder / "task" / "tuned-00000110.json"
    outputs.write_text(outputs.read_text().replace('"labels":true', '"labels":false'))
    body = read_sealed(scored, version=1)
    body["outputs"]["sha256"] = hashlib.sha256(outputs.read_bytes()).hexdigest()
    write_sealed(scored, body)
    index = read_sealed(folder / "package.json", version=1)
    for path in (outputs, scored):
        data = path.read_bytes()
        name = str(path.relative_to(folder))
        index["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_sealed(folder / "package.json", index)
    result = call("verify", folder)
    assert result.code == 4 and "do not follow from the answers" in result.out


def test_an_adapter_is_packed_for_peft_and_answers_again_from_its_base(here, call, tmp_path):
    shape = ModelShape(
        arch="llama", vocab_size=257, context=96, layers=2, width=32, heads=4, kv_heads=2, hidden=48, tied=True
    )
    base = tmp_path / "base"
    ByteTokenizer().save(base)
    write(base / "model.safetensors", to_hugging_face(shape, build_model(shape, seed=1).state_dict()), {"format": "pt"})
    write_json(base / "config.json", hugging_face_config(shape))
    text = CONFIG.replace("layers = 2\nwidth = 48\nheads = 2\n", f'base = "{base}"\n').replace(
        "steps = 110", "steps = 2"
    )
    (here / "lora.toml").write_text(
        text.replace("warmup_steps = 5", "warmup_steps = 0") + '[adapter]\nmethod = "lora"\n'
    )
    assert call("train", "lora.toml", "--name", "lora").code == 0
    record = call("decide", "lora", "--json").json
    assert record["verdict"] == "discard"  # a random base learns nothing in two steps
    folder = Path(call("package", "lora", "--anyway", "--json").json["path"])
    assert (folder / "adapter" / "adapter_model.safetensors").exists()
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["peft_type"] == "LORA"
    more = ("--set", f"model.adapter={folder}", "--set", "train.steps=1", "--name", "more")
    assert call("train", "lora.toml", *more).code == 0
    assert call("decide", "more", "--json").json["baseline_adapter"]["path"] == str(folder / "adapter")
    decided = (here / "home" / "runs" / "more" / "evals" / "task" / "decision.md").read_text()
    assert f"the base with the adapter that training went on with: {folder / 'adapter'}" in decided
    moved = base.rename(tmp_path / "elsewhere")
    assert "is gone" in call("verify", folder, "--again").error
    assert "20 of 20 answers are the same" in call("verify", folder, "--again", "--base", moved).out
    assert RunDir(here / "home" / "runs" / "lora").exports in folder.parents
