"""The evaluation of a checkpoint and of its export: complete, the same twice, read again instead of made again."""

import argparse
import json
import os
from collections import Counter
from dataclasses import replace

import pytest

from ondevice.cli import eval_target
from ondevice.errors import CheckpointError, DataError, UsageError
from ondevice.evaluate.losses import SourceLoss, language_losses
from ondevice.infer.sampling import Sampling
from ondevice.run.store import Store
from ondevice.study import evaluation, select_run
from ondevice.study.evaluation import Wish, default_prompts, evaluate
from ondevice.study.judges import Judges
from ondevice.study.prompts import Prompt, PromptSet, cut_prompts, overlap, read_prompts
from ondevice.study.selection import select
from ondevice.study.target import open_target

SMALL = Wish(per_source=3, prompt_tokens=16, max_new_tokens=8)


def measured(run, wish=SMALL, **options):
    with open_target(str(run.path), **options) as target:
        return evaluate(target, wish)


def test_a_checkpoint_is_measured_in_every_way(own):
    result = measured(own)
    assert set(result["val_loss"]) == {"first", "code.python"} == set(result["quality"]["groups"])
    assert result["val_loss_by_language"] == {"python": pytest.approx(result["val_loss"]["code.python"])}
    assert result["val_loss_mixed"] == pytest.approx(sum(result["val_loss"].values()) / 2)
    assert result["degeneration"]["all"]["n"] == 6 == len(result["quality"]["scores"])
    assert 0 <= result["quality"]["all"]["score"] <= 100
    assert result["probes"]["all"]["median_rank"] >= 1
    assert result["confusion"]["python"]["python"] > 0
    rows = [json.loads(line) for line in (own.evals / result["generations"]["file"]).read_text("utf-8").splitlines()]
    assert [row["group"] for row in rows] == ["first"] * 3 + ["code.python"] * 3
    assert all(len(row["ids"]) <= 8 and row["quality"]["score"] <= 100 for row in rows)


def test_it_is_read_again_and_made_again_where_it_was_damaged(own, monkeypatch):
    first = measured(own)
    files = {path: path.read_bytes() for path in own.evals.glob("panel-*")}
    assert len(files) == 2
    with monkeypatch.context() as patch:
        patch.setattr("ondevice.study.evaluation.generate_batch", None)
        assert measured(own) == first
    raw = next(path for path in files if path.suffix == ".jsonl")
    raw.write_bytes(b"cut")
    assert measured(own) == first
    assert {path: path.read_bytes() for path in own.evals.glob("panel-*")} == files


def test_other_settings_are_another_result(own):
    names = {measured(own)["generations"]["file"]}
    names.add(measured(own, Wish(per_source=3, prompt_tokens=16, max_new_tokens=9))["generations"]["file"])
    names.add(measured(own, step=Store(own.checkpoints).steps()[0])["generations"]["file"])
    assert len(names) == 3


def test_a_damaged_checkpoint_is_named(own):
    step = Store(own.checkpoints).steps()[-1]
    path = Store(own.checkpoints).path(step)
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=f"step-{step:08d}"), open_target(str(path)):
        pass


def test_without_its_dataset_only_given_prompts_are_written(own, tmp_path):
    os.rename(tmp_path / "home" / "datasets", tmp_path / "elsewhere")
    recipe_place = own.read_recipe().data.dataset
    if os.path.isabs(recipe_place):
        pytest.skip("the dataset is found where it was made")
    with open_target(str(own.path)) as target:
        if target.dataset is not None:
            pytest.skip("the dataset is found where it was made")
        with pytest.raises(UsageError, match="--prompts"):
            default_prompts(target, SMALL)
        given = Wish(prompts=PromptSet((Prompt(prompt="the cat"),), "here"), max_new_tokens=4)
        result = evaluate(target, given)
    assert result["val_loss"] == {} and "skipped" in result["quality"] and result["probes"] is None


def test_an_export_has_the_losses_of_its_checkpoint(own):
    pytest.importorskip("onnxruntime")
    from ondevice.cli.main import main

    step = Store(own.checkpoints).steps()[-1]
    assert main(["export", "tiny", "--step", str(step), "--json"]) == 0
    torch_result = measured(own, step=step)
    with open_target(str(own.exports / f"onnx-{step:08d}"), threads=1) as target:
        result = evaluate(target, SMALL)
    assert result["backend"] == "onnxruntime" and result["step"] == step
    for name, loss in torch_result["val_loss"].items():
        assert result["val_loss"][name] == pytest.approx(loss, abs=1e-4)
    assert (own.evals / result["generations"]["file"]).exists()


def test_prompts_are_cut_where_code_follows(own):
    with open_target(str(own.path)) as target:
        found = default_prompts(target, SMALL)
    code = [prompt for prompt in found.prompts if prompt.language == "python"]
    assert len(code) == 3 and all((prompt.before + prompt.prompt).startswith("def part_") for prompt in code)
    assert all(0 < len(prompt.expected) <= 8 for prompt in found.prompts)


def test_more_prompts_than_documents_are_all_different(own):
    with open_target(str(own.path)) as target:
        many = cut_prompts(target.dataset, per_source=90, prompt_tokens=16, new_tokens=8).prompts
        documents = {entry.name: entry.val_documents for entry in target.dataset.sources}
    counts = Counter(prompt.group for prompt in many)
    assert all(documents[name] < count <= 90 for name, count in counts.items()), "some are cut in several places"
    assert len({(each.group, each.prompt) for each in many}) == len(many)


def test_prompts_longer_than_the_context_are_noted(own):
    long = Wish(prompts=PromptSet((Prompt(prompt="the cat " * 40),), "here"), max_new_tokens=4)
    result = measured(own, long)
    assert "only its last" in result["notes"][0]


def test_prompts_that_want_an_answer_give_a_task_score(own, monkeypatch):
    def write(target, prompts, wish, *rest):
        written, _ = real(target, prompts, wish, *rest)
        return written, ['{"label": "spam"}', '{"label": "ham"}', "no json"]

    real = evaluation.write_all
    answer = json.dumps({"label": "spam"})
    prompts = PromptSet(tuple(Prompt(prompt=f"the cat {k}", answer=answer) for k in range(3)), "given")
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "write_all", write)
        found = measured(own, replace(SMALL, prompts=prompts))["task"]
    assert found["n"] == 3 and found["parse"]["estimate"] == pytest.approx(2 / 3)
    assert found["label:label"]["estimate"] == found["labels"]["estimate"] == pytest.approx(1 / 3)
    assert found["labels"]["low"] == pytest.approx(0.0615, abs=1e-4)  # Wilson's, of 1 in 3
    assert measured(own)["task"] is None


def test_what_surely_got_worse_in_a_group_is_listed(own, monkeypatch):
    """Groups reach the selection: one whose quality falls by the same amount for every prompt is a regression."""

    def judged(self, prompts, written, texts, **options):
        scores = [80.0 if falls or prompt.group == "first" else 20.0 for prompt in prompts]
        return [{"v": 1, "score": score + 0.01 * k} for k, score in enumerate(scores)]

    falls = True
    monkeypatch.setattr(Judges, "judge", judged)
    steps = Store(own.checkpoints).steps()[-2:]
    panels = []
    for step in steps:
        panels.append(measured(own, step=step))
        falls = False
    found = select([select_run._candidate(panel) for panel in panels])
    assert [each.group for each in found.regressions] == ["code.python"]


def test_splitting_leaves_nothing_on_both_sides():
    prompts = tuple(Prompt(prompt=str(k % 7), group="ab"[k % 2]) for k in range(20))
    tuning, holdout = PromptSet(prompts, "x").split()
    assert overlap(tuning.prompts, holdout.prompts) == []
    assert len(tuning.prompts) + len(holdout.prompts) == 20 and min(len(tuning.prompts), len(holdout.prompts)) >= 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "no prompts"),
        (b'{"prompt": "a"}\n[1]\n', ':2: expected an object such as {"prompt": "Once"}, found a list'),
        (b'{"prompt": "a"}\n{"promt": "b"}\n', ":2: there is no field 'prompt'"),
        (b'{"prompt": 1}', ":1: the field 'prompt' holds a number, not text"),
        (b'{"prompt": "a", "colour": "b"}', ':1: unknown key "colour"'),
        (b'{"prompt": "a"', ":1: not valid JSON (Expecting ',' delimiter at column 15); correct"),
        (b'{"prompt": "a", "answer": "[1]"}', ':1: "answer" is not a JSON object as text'),
        (b'{"prompt": "\\ud800"}', ":1: the field 'prompt' holds half of a surrogate pair"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_bad_prompt_files_are_named_with_their_line(tmp_path, text, says):
    path = tmp_path / "p.jsonl"
    path.write_bytes(text)
    with pytest.raises(DataError) as error:
        read_prompts(path)
    assert says in str(error.value) and "p.jsonl" in str(error.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(tmp_path / "none.jsonl")


def test_language_losses_weigh_tokens():
    losses = {
        "a": SourceLoss(nats=1.0, tokens=10, bytes=1),
        "b": SourceLoss(nats=4.0, tokens=30, bytes=1),
        "c": SourceLoss(nats=9.0, tokens=30, bytes=1),
    }
    assert language_losses(losses, {"a": "en", "b": "en", "c": ""}) == {"en": 3.25}


def arguments(*words):
    parser = argparse.ArgumentParser()
    eval_target.add_target_flags(parser)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


def test_words_and_json(own, capsys):
    assert eval_target.eval_target("tiny", arguments("--per-source", "2", "--max-new-tokens", "4")) == 0
    shown = capsys.readouterr().out
    assert "of 100, code.python (n 2)" in shown and "nats a token" in shown and "Generations: " in shown
    assert eval_target.eval_target("tiny", arguments("--per-source", "2", "--max-new-tokens", "4", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["degeneration"]["all"]["n"] == 4
    for words in (["--stop", "x"], ["--max-new-tokens", "0"], ["--temperature", "-1"]):
        with pytest.raises(UsageError):
            eval_target.wish_from(arguments(*words))
    assert eval_target.wish_from(arguments("--temperature", "0")).sampling == Sampling(temperature=0.0)
