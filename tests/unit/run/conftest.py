"""A small recipe, fit and run directory for the tests of paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice.run.create import create_run
from ondevice.run.directory import RunDir
from ondevice.run.recipe import DataRecipe, EvalRecipe, Fit, ModelShape, Recipe, SampleRecipe, TrainRecipe


def make_recipe() -> Recipe:
    return Recipe(
        model=ModelShape(
            arch="llama", vocab_size=65, context=64, layers=2, width=32, heads=4, kv_heads=2, hidden=96, dropout=0.1
        ),
        data=DataRecipe(
            dataset="notes-1f2e",
            dataset_sha256="a" * 64,
            tokenizer_sha256="b" * 64,
            order="shuffled",
            order_sha256="c" * 64,
            seed=7,
            weights={"notes": 1.0, "mail": 0.5},
            train_tokens=100_000,
        ),
        train=TrainRecipe(
            steps=100,
            tokens=76_800,
            batch=12,
            optimizer="adamw",
            optimizer_state="adamw-fp32",
            lr=1e-3,
            lr_min=1e-4,
            schedule="cosine",
            warmup_steps=2,
            tail="linear",
            tail_steps=0,
            weight_decay=0.1,
            beta1=0.9,
            beta2=0.99,
            eps=1e-8,
            clip=1.0,
            seed=7,
            precision="fp32",
        ),
        eval=EvalRecipe(steps=(0, 50, 100), max_tokens=4096),
        sample=SampleRecipe(
            steps=(50, 100),
            prompts=("Dear", "ROMEO:"),
            max_new_tokens=64,
            temperature=0.8,
            top_k=50,
            top_p=0.95,
            repetition_penalty=1.0,
            seed=1,
        ),
        why={"train.lr": "derived from the width"},
    )


def make_fit() -> Fit:
    return Fit(micro_batch=4, threads=2, activation_checkpointing=False, loss_chunk_tokens=2048)


@pytest.fixture
def recipe() -> Recipe:
    return make_recipe()


@pytest.fixture
def home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def new_run(home_folder: Path) -> Callable[[str], RunDir]:
    """``new_run("notes")`` makes a run of that name under the test's own home."""

    def make(name: str) -> RunDir:
        return create_run(
            home_folder / "runs" / name,
            config_toml="",
            recipe=make_recipe(),
            fit=make_fit(),
            save_tokenizer=lambda folder: folder.mkdir(),
        )

    return make


@pytest.fixture
def run(new_run: Callable[[str], RunDir]) -> RunDir:
    return new_run("notes")
