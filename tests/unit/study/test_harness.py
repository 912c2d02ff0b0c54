"""A run as a model of lm-evaluation-harness: alone, and (slow, where the package is here) under the harness itself."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from ondevice.cli.main import main
from ondevice.errors import DataError, DeviceError, UsageError
from ondevice.evaluate.losses import Evaluation
from ondevice.study import harness
from ondevice.study.harness import HarnessModel, run_tasks
from ondevice.study.target import open_target

TEXTS = ["the cat sat on a mat and saw another dog run home very early", "the dog", "a" * 64 + "b" * 64]


@pytest.fixture
def target(own):
    with open_target(str(own.path)) as opened:
        yield opened


def asked(*args):
    return [SimpleNamespace(args=each) for each in args]


class Text:
    """A `ValidationText` of one document that stands after end-of-text."""

    def __init__(self, target, text):
        self.sources = target.dataset.sources[:1]
        self._target, self._ids = target, np.array([target.tokenizer.eot_id, *target.tokenizer.encode(text)])

    def tokenizer(self):
        return self._target.tokenizer

    def stream(self, source, split):
        return SimpleStream(self._ids)


class SimpleStream:
    def __init__(self, ids):
        self._ids = ids

    def __len__(self):
        return len(self._ids)

    def read(self, start, count):
        return self._ids[start : start + count]


def our_nats(target, text):
    """The sum that our own evaluation finds of the same text."""
    evaluation = Evaluation(target.model, Text(target, text), max_tokens=0, batch=2, loss_chunk_tokens=64)
    for _ in evaluation.batches():
        pass
    (loss,) = evaluation.losses.values()
    return loss.nats * loss.tokens


def test_a_whole_text_has_the_loss_of_our_own_evaluation(target):
    """Where the last window is full or the only one, both read the same windows."""
    found = HarnessModel(target).loglikelihood_rolling(asked(*[(text,) for text in TEXTS]))
    for nats, text in zip(found, TEXTS, strict=True):
        assert -nats / len(text) == pytest.approx(our_nats(target, text) / len(text), abs=1e-5)


def test_a_continuation_and_its_context_make_the_whole(target):
    model = HarnessModel(target)
    (whole,) = model.loglikelihood_rolling(asked(("the cat sat on",)))
    (alone, _), (tail, _) = model.loglikelihood(asked(("", "the cat sat on"), ("the cat ", "sat on")))
    assert alone == pytest.approx(whole, abs=1e-4)
    with_space = model.loglikelihood(asked(("the cat", " sat on")))[0][0]
    assert tail == pytest.approx(with_space, abs=1e-9)  # the space belongs to what follows
    assert model.loglikelihood(asked((" ", "x")))[0][0] < 0


def test_texts_end_before_their_stopping_text(target):
    model = HarnessModel(target)
    plain, cut, empty = model.generate_until(
        asked(
            ("the cat", {"until": [], "max_gen_toks": 30}),
            ("the cat", {"until": [" ", "\n\n"], "max_gen_toks": 30}),
            ("the cat", {"until": "zzzz", "max_gen_toks": 3, "do_sample": False}),
        )
    )
    assert cut == plain.split(" ")[0].split("\n\n")[0] and plain.startswith(empty)
    sampled = model.generate_until(asked(("the cat", {"temperature": 1.0, "do_sample": True, "max_gen_toks": 30})))
    assert sampled == model.generate_until(
        asked(("the cat", {"temperature": 1.0, "do_sample": True, "max_gen_toks": 30}))
    )
    with pytest.raises(UsageError, match="temperature"):
        model.generate_until(asked(("the cat", {"temperature": -1.0, "do_sample": True})))


def test_without_the_package_one_sentence_says_so(target, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(DeviceError, match=r"ondevice\[harness\]"):
        run_tasks(target, [tmp_path / "a.yaml"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"task: [", "not YAML"),
        (b"- 1", "names no task"),
        (b"output_type: multiple_choice", "names no task"),
        (None, "cannot be read"),
    ],
)
def test_bad_task_files_are_named(tmp_path, content, says):
    pytest.importorskip("yaml")
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=says):
        harness._task_name(path)
    path.write_bytes(b"task: mine\nprocess_results: !function mine.results\n")
    assert harness._task_name(path) == "mine"


TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{validation: "{data}"}}
validation_split: validation
output_type: {kind}
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_harness_finds_our_losses(own, target, tmp_path, capfd, monkeypatch):
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    rows = [{"text": text, "context": "the cat", "choices": [" sat", " zzz"], "gold": 0} for text in TEXTS]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    more = {
        "loglikelihood_rolling": 'doc_to_text: ""\ndoc_to_target: "{{text}}"\nmetric_list: [{metric: bits_per_byte}]\n',
        "multiple_choice": 'doc_to_text: "{{context}}"\ndoc_to_choice: choices\ndoc_to_target: gold\n'
        "metric_list: [{metric: acc}]\n",
        "generate_until": 'doc_to_text: "{{context}}"\ndoc_to_target: " sat"\nmetric_list: [{metric: exact_match}]\n'
        'generation_kwargs: {until: ["\\n"], max_gen_toks: 8}\n',
    }
    files = []
    for kind, rest in more.items():
        files.append(tmp_path / f"{kind}.yaml")
        files[-1].write_text(TASK.format(name=f"own_{kind}", data=data, kind=kind) + rest, "utf-8")
    assert main(["harness", "tiny", "--tasks", *map(str, files), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    nats = sum(our_nats(target, text) for text in TEXTS)
    bits = nats / np.log(2) / sum(len(text.encode()) for text in TEXTS)
    assert found["results"]["own_loglikelihood_rolling"]["bits_per_byte,none"] == pytest.approx(bits, abs=1e-3)
    model = HarnessModel(target)
    sat, zzz = model.loglikelihood(asked(("the cat", " sat"), ("the cat", " zzz")))
    assert found["results"]["own_multiple_choice"]["acc,none"] == float(sat > zzz)
    assert "exact_match,none" in found["results"]["own_generate_until"]
    assert set(found["n"].values()) == {3}
    broken = tmp_path / "broken.yaml"
    broken.write_text(TASK.format(name="broken", data=tmp_path / "none.jsonl", kind="generate_until"), "utf-8")
    with pytest.raises(DataError, match="cannot run this task"):
        run_tasks(target, [broken])
    with pytest.raises(UsageError, match="two task files"):
        run_tasks(target, [files[0], files[0]])
