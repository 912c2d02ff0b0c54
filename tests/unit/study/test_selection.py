"""Selection: roles by the rule, flags, regressions, three sentences; and over the checkpoints of a real tiny run."""

import json
from dataclasses import replace

import pytest

from ondevice.cli.main import main
from ondevice.cli.select import _tell_how
from ondevice.errors import CheckpointError, UsageError
from ondevice.infer.open import choose_checkpoint
from ondevice.run.quality import read_quality
from ondevice.run.store import Store
from ondevice.study import evaluation
from ondevice.study.evaluation import Wish
from ondevice.study.select_run import _told_losses, select_run
from ondevice.study.selection import Candidate, SelectionRule, select
from ondevice.study.story import validation_points

SMALL = Wish(per_source=2, prompt_tokens=16, max_new_tokens=6)
FLAGS = ("--per-source", "2", "--max-new-tokens", "6", "--json")


def candidate(step, loss, mean, *, groups=("a",) * 10 + ("b",) * 10):
    quality = () if mean is None else tuple(mean + 0.01 * (place % 5 - 2) for place in range(20))
    return Candidate(step=step, loss=loss, quality=quality, groups=groups)


def test_roles_follow_the_rule():
    rows = [candidate(1, 2.0, 40.0), candidate(2, 1.02, 60.0), candidate(3, 1.0, 50.0), candidate(4, 1.5, 70.0)]
    assert select(rows).roles == {"scalar": 3, "behaviour": 4, "practical": 2}
    assert select(rows, SelectionRule(loss_tolerance=0.0)).roles["practical"] == 3
    assert select(rows, SelectionRule(loss_tolerance=1.0)).roles["practical"] == 4


def test_equals_go_to_the_earliest():
    rows = [candidate(2, 1.0, 50.0), candidate(1, 1.0, 50.0)]
    assert set(select(rows).roles.values()) == {1}


def test_a_later_step_with_less_loss_and_worse_text_is_said():
    rows = [candidate(1000, 2.6, 44.0), candidate(2000, 2.0, 50.0), candidate(2700, 1.62, 44.0)]
    found = select(rows)
    assert found.flags.divergences[0].worse == 2700 and found.flags.non_monotonic == 2000
    assert len(found.sentences) == 3
    assert "step 2,700 has 19% less loss than step 2,000 and scores 12% worse" in found.sentences[1]


def test_without_quality_the_loss_decides_and_without_loss_the_quality():
    assert select([candidate(1, 2.0, None), candidate(2, 1.0, None)]).roles == {"scalar": 2, "practical": 2}
    assert select([candidate(1, None, 9.0), candidate(2, None, 8.0)]).roles == {"behaviour": 1, "practical": 1}
    with pytest.raises(CheckpointError):
        select([candidate(1, None, None)])


def test_a_group_that_is_forgotten_is_listed():
    before, after = candidate(1, 2.0, 50.0), candidate(2, 1.9, 50.0)
    worse = tuple(value - (8 + place / 10 if place >= 10 else 0) for place, value in enumerate(after.quality))
    found = select([before, Candidate(step=2, loss=1.9, quality=worse, groups=after.groups)]).regressions
    assert [(each.before, each.after, each.group) for each in found] == [(1, 2, "b")]
    assert found[0].difference.high < -8 and found[0].prompts[0] == 19


def test_every_kept_checkpoint_is_judged_once(own, monkeypatch):
    steps = Store(own.checkpoints).steps()
    assert len(steps) >= 4
    result = select_run(own, SMALL)
    assert [row["step"] for row in result["checkpoints"]] == steps
    assert set(read_quality(own.evals)) == set(steps)
    assert result["trajectory"]["advice"]["what"] in ("go on", "stop", "start the tail")
    with monkeypatch.context() as patch:  # an interrupted selection goes on where it was
        patch.setattr("ondevice.study.evaluation.generate_batch", None)
        assert select_run(own, SMALL) == result


def test_a_damaged_one_is_left_out_and_named(own):
    steps = Store(own.checkpoints).steps()
    path = Store(own.checkpoints).path(steps[1]) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    result = select_run(own, SMALL)
    assert [each["step"] for each in result["skipped"]] == [steps[1]]
    assert len(result["checkpoints"]) == len(steps) - 1


def test_the_curve_forgets_what_a_kill_undid(own):
    points = validation_points(own)
    assert [point.step for point in points] == sorted({point.step for point in points})
    assert points[-1].tokens == points[-1].step * 4 * 64
    assert [point.step for point in validation_points(own, "first")] == [point.step for point in points]


def test_winners_are_pinned_and_earlier_ones_unpinned(own, capsys):
    store = Store(own.checkpoints)
    first, last = store.steps()[0], store.steps()[-1]
    store.pin(first, "selected: lowest loss")
    store.pin(store.steps()[1], "mine")
    assert main(["select", "tiny", "--steps", str(last), *FLAGS]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["pinned"] == [last] and result["not_pinned"] == ""
    pins = Store(own.checkpoints).pins()
    assert pins[last] == "selected: lowest loss, best text, for use"
    assert first not in pins and pins[store.steps()[1]] == "mine"
    assert main(["verify", "tiny"]) == 0


def test_words_say_it_in_three_sentences(own, capsys):
    assert main(["select", "tiny", "--no-pin", *FLAGS[:-1]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("") + 3].startswith("For use take step ")
    table = [line for line in lines if line.startswith(" ")]
    assert max(map(len, table)) <= 40 and any("for use" in line for line in table)  # the width of a phone
    assert Store(own.checkpoints).pins() == {}


def test_how_to_use_another_than_other_commands_take_is_said(own, capsys):
    taken = choose_checkpoint(own)[0].step
    other = next(step for step in Store(own.checkpoints).steps() if step != taken)
    _tell_how(own, taken)
    assert capsys.readouterr().out == ""
    _tell_how(own, other)
    assert f"`ondevice export tiny --step {other}`" in capsys.readouterr().out


def test_text_that_gets_better_while_the_loss_rises_does_not_follow_it():
    rows = [candidate(1, 4.5, 80.0), candidate(2, 4.4, 92.0), candidate(3, 7.7, 96.0)]
    assert select(rows).sentences[1].startswith("Loss and quality part: the loss was lowest at step 2")
    assert "follows" in select(rows[:2]).sentences[1]


def test_one_checkpoint_has_nothing_to_follow():
    who, parting, release = select([candidate(7, 2.0, 50.0)]).sentences
    assert who.startswith("Of 1 checkpoint, ") and "nothing to compare" in parting and "step 7" in release


def test_bad_requests(own, capsys):
    with pytest.raises(UsageError, match="no checkpoint of step 999"):
        select_run(own, SMALL, steps=[999])
    assert main(["select", "tiny", "--tolerance", "2"]) == 2
    assert main(["select", "nothing"]) == 2
    for step in Store(own.checkpoints).steps():
        (Store(own.checkpoints).path(step) / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoints"):
        select_run(own, SMALL)


def test_what_the_trainer_measured_is_not_measured_again(own, monkeypatch):
    """Losses of the story are those that a measurement finds, and a step that it says nothing of is measured."""
    told = _told_losses(own)
    steps = [step for step in Store(own.checkpoints).steps() if step in told]
    measured = select_run(own, replace(SMALL, loss_tokens=own.read_recipe().eval.max_tokens), steps=steps[-2:])
    for path in own.evals.glob("*"):
        path.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(evaluation.Evaluation, "batches", None)
        taken = select_run(own, SMALL, steps=steps[-2:])
    for ours, theirs in zip(taken["checkpoints"], measured["checkpoints"], strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], abs=1e-5)
        assert ours["val_loss_mixed"] == pytest.approx(theirs["val_loss_mixed"], abs=1e-5)
    panel = json.loads(next(own.evals.glob("panel-*.json")).read_text("utf-8"))
    assert panel["losses_from"] == "telemetry"
    untold = [step for step in Store(own.checkpoints).steps() if step not in told]
    assert untold and select_run(own, SMALL, steps=untold[:1])["checkpoints"][0]["val_loss_mixed"] > 0


def test_what_a_kill_undid_is_not_told(own):
    told = _told_losses(own)
    last = max(told)
    launch = {"v": 1, "t": 1.0, "kind": "launch", "step": last - 1, "resumed_step": last - 1}
    (own.telemetry / "0002.jsonl").write_text(json.dumps(launch) + "\n", "utf-8")
    assert set(_told_losses(own)) == {step for step in told if step < last}
