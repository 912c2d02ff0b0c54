"""The report of a run: finished, live, killed, copied, damaged, a week long; and its telemetry for other tools."""

from __future__ import annotations

import csv
import fcntl
import json
import math
import shutil
import struct

import pytest

from ondevice.cli.main import main
from ondevice.run.telemetry import read_records


def report(target, folder, capsys):
    assert main(["report", str(target), "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "report.html" in out
    return (folder / "report.html").read_text("utf-8"), (folder / "report.md").read_text("utf-8")


def test_a_finished_run_tells_all_of_it(told, tmp_path, capsys):
    html, text = report("told", tmp_path / "out", capsys)
    recipe = told.read_recipe()
    evals = [record for record in read_records(told.telemetry) if record["kind"] == "eval"]
    best = min(evals, key=lambda record: record["val_loss_mixed"])
    for page in (html, text):
        assert "finished" in page and "8 of 8 (100 %)" in page
        assert f"{best['val_loss_mixed']:.4f}" in page and "Go on" not in page
        assert recipe.sha256 in page and recipe.data.order_sha256 in page and told.read_identity()["id"] in page
        assert "Generations side by side" in page and "Checkpoints" in page and "Time and energy" in page
    assert html.count("<svg") >= 5 and "north" in html and "south" in html
    assert len(html) < 200_000
    assert all(len(record["generations"]) == 3 for record in evals)


def test_reports_go_home_without_out(told, capsys):
    assert main(["report", "told", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["html"].endswith("reports/told/report.html")


def test_a_copied_directory_is_enough(told, tmp_path, capsys):
    shutil.copytree(told.path, tmp_path / "elsewhere" / "copy", ignore=shutil.ignore_patterns("checkpoints"))
    shutil.rmtree(tmp_path / "home")
    html, _ = report(tmp_path / "elsewhere" / "copy", tmp_path / "out", capsys)
    assert "Run copy" in html and "8 of 8" in html


def test_a_killed_run_shows_what_still_counts(told, add_launch, tmp_path, capsys):
    add_launch([{"kind": "step", "step": 1, "loss": 9.25, "lr": 1e-3, "tokens": 64}])
    html, text = report("told", tmp_path / "out", capsys)
    assert "killed" in html and "1 of 1,000,000" in html
    assert "Evaluations" not in text  # those of the first launch were undone: it resumed from nothing


def test_a_live_run_is_reported_as_such(told, add_launch, tmp_path, capsys):
    add_launch([{"kind": "step", "step": 3, "loss": 5.0, "lr": 1e-3, "tokens": 64}])
    with open(told.lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        html, _ = report("told", tmp_path / "out", capsys)
    assert "running" in html


def test_damaged_papers_are_named_and_the_rest_is_told(told, tmp_path, capsys):
    told.recipe.write_text("{}", "utf-8")
    (told.checkpoints / "pins.json").write_text("broken", "utf-8")
    html, _ = report("told", tmp_path / "out", capsys)
    assert html.count("Not readable:") == 2 and "Validation loss" in html


def test_sensors_advice_and_strangers_words_are_shown(told, add_launch, tmp_path, capsys):
    readings = [
        {"kind": "reading", "step": k, "battery_c": 30 + k % 7, "cpu_c": 60.0, "rss_mb": 300.0 + k} for k in range(90)
    ]
    order = [{"kind": "order", "step": k, "order": "run", "duty": 0.5 + k / 100, "why": "warm"} for k in range(3)]
    advice = {"kind": "advice", "step": 5, "what": "stop", "text": "<b>The best was step 1.</b>"}
    add_launch([*readings, *order, advice])
    html, text = report("told", tmp_path / "out", capsys)
    assert "Temperature" in html and "Duty" in html
    assert "Advice at step 5: &lt;b&gt;The best was step 1.&lt;/b&gt;" in html
    assert "| warm | 3 |" in text


def test_a_week_long_run_stays_small(told, add_launch, tmp_path, capsys):
    """The size depends on what is drawn, not on how many steps there were."""
    records = []
    for k in range(1, 20_001):
        loss = 3 + math.sin(k / 900)
        records.append(
            {"kind": "step", "step": k, "tokens": 64 * k, "loss": loss, "lr": 1e-3, "grad_norm": 1.0, "tok_s": 9}
        )
        if k % 20 == 0:
            records.append({"kind": "reading", "step": k, "battery_c": 30 + k % 9, "cpu_c": 60.0, "rss_mb": 300.0})
        if k % 100 == 0:
            sources = {f"s{n}": loss + n for n in range(12)}
            evaluation = {"tokens": 64 * k, "val_loss": sources, "val_loss_mixed": loss, "generations": ["x" * 300] * 8}
            records.append({"kind": "eval", "step": k, **evaluation})
            records.append({"kind": "note", "step": k, "text": "n" * 200})
    add_launch(records)
    html, text = report("told", tmp_path / "out", capsys)
    assert len(html) < 600_000 and len(text) < 300_000
    assert "4 more sources" in html


def test_unknown_targets_are_one_sentence(told, capsys):
    assert main(["report", "tolt"]) == 2
    assert "no such run or study (did you mean 'told'?)" in capsys.readouterr().err


# Telemetry for other tools


def test_csv_has_every_step_that_counts(told, tmp_path, capsys):
    assert main(["report", "told", "--csv", str(tmp_path / "csv")]) == 0
    with open(tmp_path / "csv" / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    told_steps = {record["step"]: record for record in read_records(told.telemetry) if record["kind"] == "step"}
    assert [int(row["step"]) for row in rows] == sorted(told_steps) == list(range(1, 9))
    assert all(float(row["loss"]) == told_steps[int(row["step"])]["loss"] for row in rows)
    with open(tmp_path / "csv" / "evals.csv", newline="") as file:
        first = next(csv.DictReader(file))
    assert float(first["val_loss.north"]) > 0 and float(first["panel.repeated_4gram_ratio"]) >= 0


def test_csv_after_a_kill_has_each_step_once(told, add_launch, tmp_path, capsys):
    add_launch([{"kind": "step", "step": 1, "loss": 9.25, "note": "=1+1"}])
    assert main(["report", "told", "--csv", str(tmp_path / "csv")]) == 0
    with open(tmp_path / "csv" / "steps.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], row["loss"], row["note"]) for row in rows] == [("1", "9.25", "'=1+1")]


def test_tensorboard_events_read_back(told, tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    folder = tmp_path / "tb"
    assert main(["report", "told", "--tensorboard", str(folder)]) == 0
    raw = next(folder.glob("events.out.tfevents.*")).read_bytes()
    values, at = {}, 0
    while at < len(raw):  # length, its checksum, the event, its checksum
        (length,) = struct.unpack_from("<Q", raw, at)
        event = Event.FromString(raw[at + 12 : at + 12 + length])
        values |= {(each.tag, event.step): each.simple_value for each in event.summary.value}
        at += 16 + length
    told_steps = {record["step"]: record for record in read_records(told.telemetry) if record["kind"] == "step"}
    for step, record in told_steps.items():
        assert values["step/loss", step] == pytest.approx(record["loss"], rel=1e-6)
    assert any(tag == "eval/val_loss.north" for tag, _ in values)
    assert main(["report", "told", "--tensorboard", str(folder)]) == 3
    assert "holds event files already" in capsys.readouterr().err


def test_without_the_package_the_way_out_is_named(told, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    assert main(["report", "told", "--tensorboard", str(tmp_path / "tb")]) == 6
    assert "pip install tensorboardX" in capsys.readouterr().err
