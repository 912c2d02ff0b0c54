"""A small recipe, fit and run directory for the tests of paper, and a life for it written by hand."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.run.audit import end_of_story
from ondevice.run.create import create_run
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.files import read_json
from ondevice.run.liveness import write_status
from ondevice.run.recipe import DataRecipe, EvalRecipe, Fit, ModelShape, Recipe, SampleRecipe, TrainRecipe
from ondevice.run.schema import Limits
from ondevice.run.store import Checkpoint, Store
from ondevice.run.telemetry import TelemetryWriter


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


class Life:
    """Writes a run's files as a trainer does, step by step."""

    def __init__(self, run: RunDir) -> None:
        self.run, self.store = run, Store(run.checkpoints)
        self.lock = RunLock(run)
        self.story: TelemetryWriter | None = None
        self.previous: Checkpoint | None = None

    def again(self) -> Life:
        """Takes the lock for another launch."""
        self.lock = RunLock(self.run)
        return self

    def launch(self, resumed: int | None = None) -> Life:
        before = end_of_story(self.run.telemetry)
        pins = {str(step): reason for step, reason in self.store.pins().items()}
        self.story = TelemetryWriter(self.run.telemetry, self.run.next_launch())
        self.told(
            "launch",
            resumed or 0,
            resumed_step=resumed,
            previous_story=before
            and {**before, "size": (self.run.telemetry / f"{before['launch']:04d}.jsonl").stat().st_size},
            identity=self.run.read_identity(),
            config=self.run.config.read_text(),
            fit=read_json(self.run.fit),
            limits=dataclasses.asdict(Limits()),
            pins=pins,
            checkpoints=self.store.steps(),
        )
        self.previous = self.store.peek(resumed) if resumed is not None else None
        return self

    def told(self, kind: str, step: int, **fields: Any) -> None:
        assert self.story is not None
        self.story.write(kind, step, **fields)

    def steps(self, first: int, last: int) -> Life:
        for step in range(first, last + 1):
            self.told("step", step, loss=1.0 / step)
        return self

    def save(self, step: int, *, record: bool = True, removed: tuple[int, ...] = ()) -> Life:
        assert self.story is not None
        recipe = self.run.read_recipe()
        with self.store.draft(step) as draft:
            for name in ("model.safetensors", "optimizer.safetensors"):
                with draft.file(name) as file:
                    file.write(f"{name} of step {step}".encode())
            with draft.file("state.json") as file:
                file.write(json.dumps({"step": step, "recipe": recipe.to_json()}).encode())
            facts = {
                "recipe_sha256": recipe.sha256,
                "fit": read_json(self.run.fit),
                "telemetry": self.story.position,
                "previous": self.previous and {"step": self.previous.step, "sha256": self.previous.sha256},
            }
            self.previous = draft.commit(facts)
        self.store.prune(set(self.store.steps()) - set(removed))
        if record:
            self.told("checkpoint", step, sha256=self.previous.sha256, removed=list(removed))
        return self

    def status(self, state: str = "running", hold: str = "") -> Life:
        assert self.story is not None
        position = self.story.position
        status = {"state": state, "hold": hold, "launch": position["launch"], "telemetry": position}
        write_status(self.run, status, durable=True)
        return self

    def end(self) -> Life:
        self.told("end", 8, outcome="finished", step_s=0.1)
        return self.status("finished").gone()

    def gone(self) -> Life:
        assert self.story is not None
        self.story.close()
        self.lock.release()
        return self


@pytest.fixture
def life(run: RunDir) -> Life:
    return Life(run)


@pytest.fixture
def lived(life: Life) -> RunDir:
    """Two launches, the first one killed; checkpoints 2, 4, 6 and 8."""
    life.launch().steps(1, 5).save(2).save(4).status().gone()
    life.again().launch(4).steps(5, 8).save(6).save(8).end()
    return life.run


@pytest.fixture
def begin() -> Callable[[RunDir], Life]:
    """The life of another run."""
    return Life
