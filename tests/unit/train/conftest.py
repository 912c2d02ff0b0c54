"""A tiny corpus and config, so that whole runs take a second."""

import dataclasses
import random

import pytest
import torch

from ondevice.run.config import parse_config
from ondevice.train.prepare import make_run, prepare
from ondevice.train.wish import make_dataset
from tests.tiny import word_lines

TINY = """
name = "tiny"
[data]
split = "hash:0.1"
[tokenizer]
kind = "byte"
[model]
layers = 2
width = 32
heads = 2
context = 32
[train]
steps = 24
batch = 6
lr = 3e-3
warmup_steps = 4
precision = "fp32"
[eval]
count = 4
max_tokens = 512
[sample]
count = 2
max_new_tokens = 8
[fit]
micro_batch = 4
threads = 1
[limits]
min_free_disk_mb = 0
"""


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other over tiny matrices are most of the time on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def corpus(tmp_path):
    rng = random.Random(7)
    for name in ("first", "second"):
        (tmp_path / f"{name}.txt").write_text(word_lines(rng), "utf-8")
    return tmp_path


@pytest.fixture
def make(home, corpus):
    """``make("train.steps=5", name="x")`` -> a run directory, prepared and not started."""

    def build(*changes, name="tiny"):
        sources = "".join(
            f'\n[[data.sources]]\npath = "{corpus / source}.txt"\nname = "{source}"\ndocument = "line"\n'
            for source in ("first", "second")
        )
        config = parse_config(TINY + sources, where="tiny.toml", base=corpus, changes=changes)
        config = dataclasses.replace(config, name=name)
        dataset = make_dataset(config)
        return make_run(config, prepare(config, dataset, cores=1, android=False, rate=1000.0), dataset)

    return build


@pytest.fixture
def make_chain(home, corpus):
    """``make_chain("chain.retries=1", name="x")`` -> a run of four parts of four or five steps, not started."""
    plain = TINY.replace("steps = 24\n", "").replace("count = 2\n", "count = 0\n")

    def build(*changes, name="tiny", sources=("first", "second"), stages=""):
        named = "".join(
            f'\n[[data.sources]]\npath = "{corpus / source}.txt"\nname = "{source}"\ndocument = "line"\n'
            for source in sources
        )
        chain = "\n[chain]\nparts = 4\n" + stages
        wish = ("data.max_unique_tokens=3264", "eval.max_tokens=64", *changes)
        config = parse_config(plain + named + chain, where="tiny.toml", base=corpus, changes=wish)
        config = dataclasses.replace(config, name=name)
        dataset = make_dataset(config)
        return make_run(config, prepare(config, dataset, cores=1, android=False, rate=1000.0), dataset)

    return build
