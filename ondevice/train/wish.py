"""What a config wishes for, before anything is measured: its dataset, its run, and whether that run exists already.

No torch here: building data, or going on with a run, must not wait for it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ondevice.data.build import build_dataset
from ondevice.data.dataset import Dataset
from ondevice.errors import OndeviceError, UsageError
from ondevice.run.config import parse_config
from ondevice.run.directory import RunDir, home, list_runs, safe_name
from ondevice.run.schema import Config
from ondevice.train.sizing import Corpus

__all__ = ["corpus_of", "dataset_folder", "make_dataset", "resume_or_refuse", "run_name"]


def dataset_folder(config: Config) -> Path:
    """Where the dataset of a config lives: named after its sources, plus a hash of what decides its tokens."""
    if not config.data.sources:
        raise UsageError("no text to learn from: name a file or folder, or add a [[data.sources]] table to the config.")
    data = dataclasses.replace(config.data, order="shuffled", seed=0, max_unique_tokens=None)
    wish = json.dumps([dataclasses.asdict(data), dataclasses.asdict(config.tokenizer)], sort_keys=True)
    names = "-".join(safe_name(source.name or Path(source.path).stem) for source in config.data.sources[:3])
    return home() / "datasets" / f"{names[:40]}-{hashlib.sha256(wish.encode()).hexdigest()[:8]}"


def run_name(config: Config) -> str:
    """The name of the run a config wishes for."""
    if config.name:
        if config.name != safe_name(config.name):
            raise UsageError(f"'name' {config.name!r}: use lower case letters, digits, '.', '_' and '-'.")
        return config.name
    return dataset_folder(config).name


def make_dataset(config: Config, progress: Callable[[int, int, str], None] | None = None) -> Dataset:
    """Builds the dataset, or opens it where nothing changed. Raises DataError or ResourceError."""
    return build_dataset(
        config.data,
        config.tokenizer,
        base=Path.cwd(),
        folder=dataset_folder(config),
        progress=progress,
        keep=_needed_by_runs(),
    )


def _needed_by_runs() -> set[str]:
    """Datasets that runs were begun on: a text may grow while a run learns what it was."""
    needed = set()
    for run in list_runs():
        with suppress(OndeviceError, OSError):
            needed.add(run.read_recipe().data.dataset_sha256)
    return needed


def corpus_of(dataset: Dataset) -> Corpus:
    """What the plan needs to know of a dataset."""
    return Corpus(
        train_tokens=sum(entry.train_tokens for entry in dataset.sources),
        val_tokens=sum(entry.val_tokens for entry in dataset.sources),
        vocab_size=dataset.tokenizer().vocab_size,
        sources=len(dataset.sources),
    )


def resume_or_refuse(config: Config) -> RunDir | None:
    """The run a config made earlier, None if there is none yet. Raises UsageError when it was made by another wish."""
    run = RunDir(home() / "runs" / run_name(config))
    if not run.identity.is_file():
        return None
    run.read_identity()
    before = parse_config(run.config.read_text("utf-8"), where=str(run.config), base=Path.cwd())
    changed = _first_difference(_wish(before), _wish(config))
    if changed:
        key, old, new = changed
        raise UsageError(
            f"{run.name}: this run was started with {key} = {old!r}, not {new!r}, and a run's recipe never changes. "
            f"Go on with `ondevice train {run.name}`, or choose another name with --name."
        )
    return run


def _wish(config: Config) -> dict[str, object]:
    """The part of a config that decides what is learned."""
    flat: dict[str, object] = {}
    for section in ("data", "tokenizer", "model", "train", "budget", "eval", "sample"):
        for key, value in dataclasses.asdict(getattr(config, section)).items():
            flat[f"{section}.{key}"] = value
    return flat


def _first_difference(before: dict[str, object], now: dict[str, object]) -> tuple[str, object, object] | None:
    return next(((key, before[key], now[key]) for key in now if before[key] != now[key]), None)
