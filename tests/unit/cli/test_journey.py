"""One road from text to an exported model that answers, command by command, in one process."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest

from ondevice.run.store import Store

GREEDY = ("--temperature", "0", "--max-new-tokens", "24", "--json")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """An export of the trained run, beside it."""
    from ondevice.cli.main import main

    folder = tmp_path_factory.mktemp("exported") / "onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_HOME", str(trained / "home"))
        assert main(["export", "tiny", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def typed(monkeypatch):
    """``typed("text")``: what comes through a pipe."""

    def make(data):
        data = data if isinstance(data, bytes) else data.encode()
        stream = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="surrogateescape")
        monkeypatch.setattr(sys, "stdin", stream)

    return make


def test_train_tells_what_it_will_do_and_how_it_ended(place, call):
    result = call("train", "tiny.toml")
    assert (result.code, result.err) == (0, "")
    assert (
        "Model    llama" in result.out
        and "\nRun      tiny\n" in result.out
        and "Warning: Only 12 optimizer updates" in result.out
    )
    assert "step 0: validation loss" in result.out and "step 12 sample:" in result.out
    assert "tiny finished at step 12 of 12: every planned step is done." in result.out
    assert result.out.rstrip().endswith("Try `ondevice generate tiny` and `ondevice export tiny`.")


def test_train_json_is_one_object_a_line_and_the_outcome_last(place, call):
    result = call("train", "tiny.toml", "--json")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert {line["kind"] for line in lines} == {"say", "status", "outcome"}
    assert lines[-1] == {
        "kind": "outcome",
        "run": "tiny",
        "outcome": "finished",
        "step": 12,
        "why": "every planned step is done",
    }


def test_train_quiet_prints_the_result_alone(place, call):
    result = call("train", "tiny.toml", "--quiet")
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) == 1 and "finished at step 12" in result.out


@pytest.mark.parametrize("words", [("tiny",), ("tiny.toml",), ("tiny.toml", "--set", "train.lr=0.003")])
def test_the_same_command_on_a_finished_run_changes_nothing(own, trained, call, words):
    before = Store(own / "runs" / "tiny" / "checkpoints").latest()[0].sha256
    result = call("train", *words)
    assert result.code == 0
    assert "finished at step 12" in result.out
    assert Store(own / "runs" / "tiny" / "checkpoints").latest()[0].sha256 == before


def test_a_run_is_named_after_its_file_where_the_config_has_no_name(place, call):
    text = (place / "tiny.toml").read_text().replace('name = "tiny"\n', "")
    (place / "My Notes.toml").write_text(text)
    assert call("train", "My Notes.toml", "--set", "train.steps=1", "--quiet").code == 0
    assert [path.name for path in (place / "home" / "runs").iterdir()] == ["my-notes"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("words.txt",), "words.txt is not a run; to learn from it, write `ondevice train --data words.txt`."),
        (("words.txt", "--minutes", "1"), "`ondevice train --data words.txt`"),
        (("a folder",), "`ondevice train --data 'a folder'`"),
        (("tinny",), "tinny: no such run (did you mean 'tiny'?)."),
        (("tiny", "--minutes", "3"), "tiny is a run, and a run's recipe never changes"),
        (("nosuch.toml",), "nosuch.toml: no such config file"),
        ((), "No text to learn from: add --data PATH"),
        (("--data", ""), "The path of the text is empty"),
        (("--data", " "), "The path of the text is empty"),
        (("tiny.toml", "--name", "A B"), "'name' 'A B': use lower case letters"),
    ],
)
def test_train_on_the_wrong_thing_says_what_to_type(own, tmp_path, monkeypatch, trained, call, words, says):
    shutil.copy(trained / "words.txt", tmp_path)
    shutil.copy(trained / "tiny.toml", tmp_path)
    (tmp_path / "a folder").mkdir()
    monkeypatch.chdir(tmp_path)
    result = call("train", *words)
    assert result.code == 2
    assert says in result.error
    assert [path.name for path in (own / "runs").iterdir()] == ["tiny"]


def test_status_of_a_finished_run(reading, call):
    result = call("status", "tiny")
    assert result.out.startswith("tiny: finished\n")
    assert "step      12 of 12 (100 %)" in result.out and "saved " in result.out
    assert call("status").out == result.out  # the run that was active last
    found = call("status", "tiny", "--json").json
    assert (found["run"], found["state"], found["launches"], found["kills"]) == ("tiny", "finished", 1, 0)
    assert found["checkpoints"][-1] == 12 and set(found["val_loss"]) == {"words"}
    assert max(map(len, result.out.splitlines())) <= 40


def test_sample_last_shows_what_the_run_wrote(reading, call):
    (sample,) = call("sample", "tiny", "--last", "--json").json["samples"]
    assert sample["step"] == 12
    assert call("sample", "tiny", "--last").out == f"[step 12]\n{sample['prompt']}{sample['text']}\n"


def test_sample_of_a_run_that_is_not_training_uses_its_best_checkpoint(reading, call):
    (sample,) = call("sample", "tiny", "the", *GREEDY).json["samples"]
    assert sample["text"] == call("generate", "tiny", "the", *GREEDY).json["text"]
    assert "lowest validation loss" in sample["what"]


def test_sample_last_before_there_is_one(fresh, call):
    assert call("sample", "tiny", "--last").out == "The run has written no sample yet.\n"


def test_the_export_writes_the_same_greedy_text_as_the_run(reading, exported, call):
    pytest.importorskip("onnxruntime")
    lengths = []
    for prompt in ("the cat", "", "naïve è"):
        run, export = (call("generate", target, prompt, *GREEDY).json for target in ("tiny", exported))
        assert (run["backend"], export["backend"]) == ("torch", "onnxruntime")
        assert (run["ids"], run["text"], run["finish"]) == (export["ids"], export["text"], export["finish"])
        lengths.append(len(run["ids"]))
    assert max(lengths) > 4


def test_export_says_where_and_how_well_verified(own, call):
    result = call("export", "tiny")
    folder = own / "runs" / "tiny" / "exports"
    (made,) = folder.iterdir()
    assert result.code == 0
    assert result.out.startswith(f"{made}: step ")
    assert f'Try it:\n  ondevice generate {made} "..."\n' in result.out
    assert {"model.onnx", "export.json"} <= {path.name for path in made.iterdir()}
    again = call("export", "tiny")
    assert again.code == 2 and "exists already" in again.error
    over = call("export", "tiny", "--overwrite", "--json").json
    assert over["path"] == str(made)
    if over["parity"]:
        assert over["parity"]["max_abs_error"] <= over["parity"]["tolerance"] <= 1e-4


def test_export_overwrites_nothing_that_is_not_an_export(reading, tmp_path, call):
    (tmp_path / "precious").write_text("x")
    result = call("export", "tiny", "--out", tmp_path, "--overwrite")
    assert result.code == 2
    assert "not an export" in result.error
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("command", ["export", "generate"])
def test_a_step_that_was_not_kept_is_named_with_those_that_were(reading, call, command):
    result = call(command, "tiny", "--step", "5")
    assert result.code == 4
    kept = ", ".join(str(step) for step in Store(reading / "runs" / "tiny" / "checkpoints").steps())
    assert f"no checkpoint of step 5; there are: {kept}." in result.error


def test_generate_from_a_checkpoint_folder(reading, call):
    folder = reading / "runs" / "tiny" / "checkpoints" / "step-00000012"
    result = call("generate", folder, "the", *GREEDY).json
    assert result["what"].startswith("tiny step 12")
    assert result["ids"] == call("generate", "tiny", "the", "--step", 12, *GREEDY).json["ids"]


def test_generate_streams_the_prompt_and_then_the_text(reading, call):
    text = call("generate", "tiny", "the cat", *GREEDY).json["text"]
    result = call("generate", "tiny", "the cat", *GREEDY[:-1])
    assert result.out == f"the cat{text}\n"
    assert result.err.startswith("[tiny step ")


def test_the_same_seed_gives_the_same_text_and_another_another(reading, call):
    texts = [call("generate", "tiny", "the", "--seed", seed, "--json").json["text"] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("command", ["generate", "sample"])
def test_flags_may_stand_before_between_and_after_the_prompt(reading, call, command):
    orders = (("tiny", "the cat", *GREEDY), ("tiny", *GREEDY, "the cat"), (*GREEDY, "tiny", "the cat"))
    results = [call(command, *words).json for words in orders]
    found = [result["samples"][0] if command == "sample" else result for result in results]
    assert found[0]["prompt"] == "the cat"
    assert all(result["ids"] == found[0]["ids"] and result["prompt"] == "the cat" for result in found)


def test_a_prompt_may_begin_with_a_dash(reading, call):
    result = call("generate", *GREEDY, "--", "tiny", "--the cat")
    assert result.json["prompt"] == "--the cat"


def test_a_prompt_from_standard_input(reading, call, typed):
    typed("the cat\n")
    result = call("generate", "tiny", "-", *GREEDY).json
    assert result["prompt"] == "the cat"
    assert result["ids"] == call("generate", "tiny", "the cat", *GREEDY).json["ids"]


def test_a_prompt_that_is_not_utf8_is_refused_in_a_sentence(reading, call, typed):
    typed(b"the \xff cat")
    result = call("generate", "tiny", "-")
    assert result.code == 3
    assert "surrogate" in result.error or "UTF-8" in result.error


def test_a_prompt_longer_than_the_context_says_how_much_was_read(reading, call):
    result = call("generate", "tiny", "the cat " * 4000, "--max-new-tokens", 4, "--json").json
    assert "32000 tokens" in result["note"] and "the context 32" in result["note"]
    assert len(result["ids"]) == 4


def test_generate_stops_before_a_stop_text(reading, call):
    whole = call("generate", "tiny", "the", *GREEDY).json["text"]
    stop = whole[2:4]
    result = call("generate", "tiny", "the", "--stop", stop, *GREEDY).json
    assert result["text"] == whole[: whole.find(stop)]
    assert result["finish"] == "stop"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--temperature", "-1"), "temperature"),
        (("--temperature", "nan"), "temperature"),
        (("--top-p", "0"), "top_p"),
        (("--top-k", "-1"), "top_k"),
        (("--repetition-penalty", "0"), "repetition_penalty"),
        (("--seed", "-1"), "seed"),
        (("--max-new-tokens", "-1"), "max_new_tokens"),
        (("--stop", ""), "stop"),
    ],
)
def test_impossible_sampling_is_refused(reading, call, flags, says):
    result = call("generate", "tiny", "the", *flags)
    assert result.code == 2
    assert says in result.error


@pytest.mark.parametrize("target", ["tinny", "nosuch", "words.txt", "home/datasets"])
def test_generate_from_something_else_is_refused(reading, call, target):
    result = call("generate", target, "the")
    assert result.code == 2
    assert f"{target}: no such run" in result.error


def test_generate_before_the_first_checkpoint(fresh, call):
    result = call("generate", "tiny", "the")
    assert result.code == 4
    assert "no checkpoint to use" in result.error


def test_another_wish_under_the_same_name_is_refused_with_the_key(own, call):
    result = call("train", "tiny.toml", "--set", "train.lr=1e-2")
    assert result.code == 2
    assert "tiny: this run was started with train.lr = 0.003, not 0.01" in result.error
    assert "`ondevice train tiny`" in result.error and "--name" in result.error


def test_limits_and_fit_may_differ_under_the_same_name(own, call):
    changes = ("--set", "limits.save_every_s=1", "--set", "fit.micro_batch=2")
    assert call("train", "tiny.toml", *changes, "--quiet").code == 0


def test_lists_on_the_command_line(place, call):
    prompts = ["the cat", "a, b [c]"]
    result = call("train", "tiny.toml", "--set", f"sample.prompts={json.dumps(prompts)}", "--quiet")
    assert result.code == 0
    samples = call("sample", "tiny", "--last", "--json").json["samples"]
    assert [sample["prompt"] for sample in samples] == prompts
