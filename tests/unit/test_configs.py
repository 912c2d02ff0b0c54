"""Every shipped preset: described, parsed, planned, and trained for a few steps on a tiny text."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import ondevice
from ondevice.cli.main import main
from ondevice.run.config import load_config, parse_config, preset_folder, preset_names, to_toml
from ondevice.run.postmortem import ANDROID_SHARE
from ondevice.run.recipe import ModelShape
from ondevice.run.store import Store
from ondevice.train.fitting import choose_fit
from ondevice.train.sizing import Corpus, Machine, choose_batch, choose_shape, expected_tokens

FOLDER = Path(ondevice.__file__).parents[1] / "configs"
FILES = sorted(FOLDER.glob("*.toml"))
NAMES = [path.stem for path in FILES]
# Presets that begin with a model of a person's own, and the shape that they are written for.
BASES = {
    "finetune-gpt2-phone": ModelShape(
        arch="gpt2", vocab_size=50257, context=256, layers=12, width=768, heads=12, kv_heads=12, hidden=3072
    ),
    "lora-135m-phone": ModelShape(
        arch="llama", vocab_size=49152, context=512, layers=30, width=576, heads=9, kv_heads=3, hidden=1536
    ),
    "qlora-0.5b-phone": ModelShape(
        arch="llama",
        vocab_size=151_936,
        context=256,
        layers=24,
        width=896,
        heads=14,
        kv_heads=2,
        hidden=4864,
        qkv_bias=True,
    ),
}
FROM_NOTHING = [name for name in NAMES if name not in BASES]
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "another", "dog", "run", "home", "to", "be", "or", "not"]

# What a plan may meet: a few pages and a whole library, a phone with little memory and a laptop with much.
CORPORA = [
    Corpus(train_tokens=30_000, val_tokens=2_000, vocab_size=300, sources=1),
    Corpus(train_tokens=80_000_000, val_tokens=4_000_000, vocab_size=8192, sources=12),
]
MACHINES = [
    Machine(flops_s=2e9, memory_mb=500.0, cores=2),
    Machine(flops_s=4e11, memory_mb=16_000.0, cores=16),
]


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A file of plausible lines; ONDEVICE_HOME and the working folder are beside it."""
    rng = random.Random(3)
    lines = [" ".join(rng.choices(WORDS, k=rng.randint(3, 12))).capitalize() + "." for _ in range(1200)]
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(lines), "utf-8")
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return path


def test_the_presets_on_offer_are_those_in_the_repository():
    assert preset_folder() == FOLDER
    assert preset_names() == NAMES
    assert {"quickstart", "shakespeare-char"} <= set(NAMES)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_the_first_line_says_what_it_is_for(path):
    first = path.read_text("utf-8").splitlines()[0]
    assert first.startswith("# ") and first.endswith(".")
    assert 30 < len(first) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_it_parses_and_survives_being_written(name):
    config = load_config(name)
    assert parse_config(to_toml(config), where=name, base=Path("/")) == config
    assert not config.data.sources, "a preset says nothing about whose text it is"


@pytest.mark.parametrize("corpus", CORPORA, ids=["pages", "library"])
@pytest.mark.parametrize("machine", MACHINES, ids=["phone", "laptop"])
@pytest.mark.parametrize("name", FROM_NOTHING)
def test_it_can_be_planned(name, machine, corpus):
    config, why = load_config(name), {}
    shape = choose_shape(config, corpus, machine, why)
    batch = choose_batch(config, shape, expected_tokens(config, corpus, shape, machine), why)
    fit = choose_fit(config, shape, machine, batch=batch, why=why)
    assert shape.vocab_size == corpus.vocab_size
    assert shape.width % shape.heads == 0 and shape.heads % shape.kv_heads == 0
    assert batch >= 1 and 1 <= fit.micro_batch <= batch
    assert 1 <= fit.threads <= machine.cores
    for key in ("layers", "width", "heads", "context", "hidden"):
        wished = getattr(config.model, key)
        assert wished is None or getattr(shape, key) == wished
    assert all(reason for reason in why.values())


@pytest.mark.parametrize("name", BASES)
def test_what_a_phone_gives_is_planned_and_written_beside_the_preset(name):
    config, shape = load_config(name), BASES[name]
    assert shape.context == config.model.context
    for phone_gb in (4, 6, 8):
        machine = Machine(flops_s=1e9, memory_mb=ANDROID_SHARE * phone_gb * 1024, cores=8)
        why: dict[str, str] = {}
        choose_fit(config, shape, machine, batch=config.train.batch, why=why)
        assert f"# {phone_gb} GB: {why['fit']}\n" in (FOLDER / f"{name}.toml").read_text("utf-8")


@pytest.mark.parametrize("name", BASES)
def test_without_its_base_it_asks_for_one(name, text, capsys):
    assert main(["plan", name, "--data", str(text)]) != 0
    assert "no such folder; model.base names one" in capsys.readouterr().err


@pytest.mark.parametrize("name", FROM_NOTHING)
def test_it_trains(name, text, capsys):
    """Only the length of the run is changed, and its size where the preset leaves that to the machine."""
    config = load_config(name)
    changes = ["train.steps=3", "limits.min_free_disk_mb=0", "fit.threads=1", "sample.max_new_tokens=8"]
    if config.model.layers is None:
        changes += ["model.layers=2", "model.width=64"]
    if config.model.context is None:
        changes += ["model.context=64"]
    if config.train.batch is None:
        changes += ["train.batch=4"]
    words = [word for change in changes for word in ("--set", change)]
    assert main(["train", name, "--data", str(text), "--quiet", *words]) == 0, capsys.readouterr().err
    store = Store(text.parent / "home" / "runs" / (config.name or name) / "checkpoints")
    assert store.steps()[-1] == 3
    assert "finished at step 3 of 3" in capsys.readouterr().out
    assert main(["generate", config.name or name, "the", "--max-new-tokens", "4", "--threads", "1"]) == 0
    assert capsys.readouterr().out.startswith("the")
