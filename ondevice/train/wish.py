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
from ondevice.errors import DataError, OndeviceError, UsageError
from ondevice.run.config import read_wish
from ondevice.run.directory import RunDir, home, list_runs, safe_name
from ondevice.run.schema import Config, DataConfig, SourceConfig, TokenizerConfig
from ondevice.run.studies import study_runs
from ondevice.train.adapter_wish import filled
from ondevice.train.sizing import Corpus

_DATA_KEYS = frozenset(
    ("sources", "split", "order", "seed", "max_unique_tokens", "deduplicate", "bad_utf8", "chunk_tokens")
)
_SOURCE_KEYS = frozenset(
    ("path", "name", "format", "language", "weight", "document", "text_field", "title_field", "include", "exclude")
)

__all__ = [
    "base_folder",
    "corpus_of",
    "dataset_folder",
    "make_dataset",
    "resume_or_refuse",
    "run_name",
]


def dataset_folder(config: Config) -> Path:
    """Where the dataset of a config lives: named after its sources, plus a hash of what decides its tokens."""
    if not config.data.sources:
        raise UsageError("no text to learn from: name a file or folder, or add a [[data.sources]] table to the config.")
    wish = json.dumps([_data_wish(config), dataclasses.asdict(_tokenizer(config))], sort_keys=True)
    names = "-".join(safe_name(source.name or Path(source.path).stem) for source in config.data.sources[:3])
    return home() / "datasets" / f"{names[:40]}-{hashlib.sha256(wish.encode()).hexdigest()[:8]}"


def _data_wish(config: Config) -> dict[str, object]:
    """What decides the tokens. A key that came later counts only where it is given, so that older datasets are found
    under their name."""
    order = dict.fromkeys(("order", "seed", "max_unique_tokens", "temperature", "stages", "curriculum"))
    plain = SourceConfig(path="")
    wish = _given(config.data, DataConfig(), _DATA_KEYS) | {"order": "shuffled", "seed": 0, "max_unique_tokens": None}
    wish = {key: value for key, value in wish.items() if key not in order or key in _DATA_KEYS}
    sources = [_given(source, plain, _SOURCE_KEYS) for source in config.data.sources]
    aside = ("group", "score")
    return wish | {"sources": [{key: value for key, value in each.items() if key not in aside} for each in sources]}


def base_folder(config: Config) -> Path | None:
    """The folder of the model to begin with; None where none is wished for. Raises DataError where it is not there."""
    if not config.model.base:
        return None
    folder = Path(config.model.base)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; model.base names one with config.json and weights.")
    return folder


def _tokenizer(config: Config) -> TokenizerConfig:
    """A model that begins with others' weights speaks in their tokens."""
    if config.model.base and not config.tokenizer.path:
        return TokenizerConfig(path=config.model.base)
    return config.tokenizer


def _given(
    table: DataConfig | SourceConfig, plain: DataConfig | SourceConfig, first: frozenset[str]
) -> dict[str, object]:
    """Keys that were there from the first, and later ones that are not at their default."""
    now, default = dataclasses.asdict(table), dataclasses.asdict(plain)
    return {key: value for key, value in now.items() if key in first or value != default[key]}


def run_name(config: Config) -> str:
    """The name of the run a config wishes for."""
    if config.name:
        if config.name != safe_name(config.name):
            raise UsageError(f"'name' {config.name!r}: use lower case letters, digits, '.', '_' and '-'.")
        return config.name
    return dataset_folder(config).name


def make_dataset(config: Config, progress: Callable[[int, int, str], None] | None = None) -> Dataset:
    """Builds the dataset, or opens it where nothing changed. Raises DataError or ResourceError."""
    base_folder(config)
    return build_dataset(
        config.data,
        _tokenizer(config),
        base=Path.cwd(),
        folder=dataset_folder(config),
        progress=progress,
        keep=_needed_by_runs(),
    )


def _needed_by_runs() -> set[str]:
    """Datasets that runs were begun on: a text may grow while a run learns what it was."""
    needed = set()
    for run in [*list_runs(), *study_runs()]:
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
        largest_tokens=None if dataset.examples else max((entry.train_tokens for entry in dataset.sources), default=0),
        packed=dataset.examples is not None,
    )


def resume_or_refuse(config: Config, *, folder: Path | None = None) -> RunDir | None:
    """The run a config made earlier, None if there is none yet. Raises UsageError when it was made by another wish.

    ``folder`` holds the runs of a study; None: that of all runs."""
    run = RunDir((folder or home() / "runs") / run_name(config))
    if not run.identity.is_file():
        return None
    run.read_identity()
    changed = _first_difference(_wish(read_wish(run.config)), _wish(config))
    if changed:
        key, old, new = changed
        if folder is None:
            then = f"Go on with `ondevice train {run.name}`, or choose another name with --name."
        else:
            then = "Put that back in the file of the study (paths: the same --base), or give the study another name."
        raise UsageError(
            f"{run.name}: this run was started with {key} = {old!r}, not {new!r}, and a run's recipe never changes. "
            f"{then}"
        )
    return run


def _wish(config: Config) -> dict[str, object]:
    """The part of a config that decides what is learned; what an adapter has where nothing is said was written out by
    earlier versions."""
    if not config.model.adapter:
        config = dataclasses.replace(config, adapter=filled(config.adapter))
    flat: dict[str, object] = {}
    for section in ("data", "chain", "tokenizer", "model", "adapter", "train", "budget", "eval", "sample"):
        for key, value in dataclasses.asdict(getattr(config, section)).items():
            flat[f"{section}.{key}"] = value
    return flat


def _first_difference(before: dict[str, object], now: dict[str, object]) -> tuple[str, object, object] | None:
    return next((_inside(key, before[key], now[key]) for key in now if before[key] != now[key]), None)


def _inside(key: str, old: object, new: object) -> tuple[str, object, object]:
    """Which value of a table or a list of tables differs, by its own key; tables are counted from 1."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return next(_inside(f"{key}.{name}", old[name], new[name]) for name in new if old[name] != new[name])
    if isinstance(old, tuple) and isinstance(new, tuple) and all(isinstance(each, dict) for each in (*old, *new)):
        if len(old) != len(new):
            return f"the number of {key}", len(old), len(new)
        pairs = enumerate(zip(old, new, strict=True), start=1)
        return next(_inside(f"{key}[{number}]", *pair) for number, pair in pairs if pair[0] != pair[1])
    return key, old, new
