"""A release bundle: one folder with everything that a model's readers, loaders and doubters need, and its hashes.

::

    bundle/
      bundle.json           what is where, every file with bytes and SHA-256; written last, sealed
      README.md             release note and model card
      LICENSE               the model's licence, where its maker names one
      native/               a run with this one checkpoint: weights, papers, tokenizer, every line of telemetry
      hf/                   the folder of Hugging Face: safetensors, tokenizer, generation config
      onnx/                 an ONNX export with its parity
      reports/              losses, benchmarks, decoding sweep, probes, raw generations; the study that was won

Copies what the run has and says what it lacks; measures nothing itself. `check_bundle` re-checks every byte.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import DataError, UsageError
from ondevice.export.place import check_place, folder_in_place
from ondevice.infer.export_folder import BUNDLE_FILE
from ondevice.infer.generation_config import GENERATION_CONFIG, copy_generation_config
from ondevice.run.directory import RunDir
from ondevice.run.files import make_folder, read_sealed, sha256_of, write_atomic, write_sealed
from ondevice.run.manifest import DROPPABLE, MANIFEST
from ondevice.run.store import Checkpoint
from ondevice.run.studies import StudyDir

__all__ = ["Bundle", "BundleInfo", "check_bundle", "read_bundle", "write_bundle"]

_VERSION = 1
_LARGEST_LICENCE = 1 << 20
_PAPER = re.compile(
    r"(run|fit|limits|schedule|vocabulary)\.json|vocabulary\.safetensors|recipe(-\d+)?\.json|config(-\d+)?\.toml"
)
_REPORTS = {  # files in a run's evals, and the command that makes them
    "benchmark": (("panel-*.json",), "eval"),
    "selection": (("selection.json", "quality.json"), "select"),
    "probes and generations": (("*.jsonl",), "eval"),
    "decoding": (("sweep-*.json", "sweep-*.csv"), "sweep"),
    "generation settings": ((GENERATION_CONFIG,), "sweep"),
}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """``parts`` maps what the bundle holds to where; ``lacking`` names what the run did not have and what makes it."""

    folder: Path
    parts: Mapping[str, str]
    lacking: Mapping[str, str]
    lineage: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]  # name -> bytes, SHA-256


@dataclass(frozen=True, kw_only=True)
class BundleInfo:
    """What was written."""

    folder: Path
    bytes: int
    files: int
    lacking: Mapping[str, str]


def write_bundle(
    run: RunDir,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    exports: Mapping[str, Callable[[Path], object]],
    card: str,
    lineage: Mapping[str, Any],
    licence: Path | None = None,
    study: StudyDir | None = None,
    overwrite: bool = False,
) -> BundleInfo:
    """Builds the folder beside its place and renames it, so it is whole or absent.

    ``exports`` writes one subfolder each (``hf``, ``onnx``). ``study`` is the one that the run won. Raises
    UsageError for a folder that exists or a licence that is none, ResourceError for a full disk, and as the exports do;
    in each case nothing is left behind.
    """
    check_place(folder, marker=BUNDLE_FILE, overwrite=overwrite)
    text = _licence(licence)
    need = 4 * sum(path.stat().st_size for path in checkpoint.path.iterdir() if path.name == "model.safetensors")
    with folder_in_place(folder, need_bytes=need) as temporary:
        parts, lacking = _copy_all(run, checkpoint, temporary)
        for name, write in exports.items():
            write(temporary / name)
            parts[name] = name
        if study is not None:
            for path in (study.design, study.record):
                _copy(path, temporary / "reports" / path.name)
            parts["study"] = "reports/study.json"
        write_atomic(temporary / "README.md", card.encode())
        parts["release note"] = "README.md"
        if text is None:
            lacking["licence"] = "name its file with --licence"
        else:
            write_atomic(temporary / "LICENSE", text)
            parts["licence"] = "LICENSE"
        sizes = {path.relative_to(temporary).as_posix(): path.stat().st_size for path in _files(temporary)}
        files = {name: {"bytes": size, "sha256": sha256_of(temporary / name)} for name, size in sizes.items()}
        body = {"v": _VERSION, "parts": parts, "lacking": lacking, "lineage": dict(lineage), "files": files}
        write_sealed(temporary / BUNDLE_FILE, body)
        return BundleInfo(folder=folder, bytes=sum(sizes.values()), files=len(files), lacking=lacking)


def _licence(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = path.read_bytes()
        if not data.strip() or len(data) > _LARGEST_LICENCE:
            raise UsageError(f"{path}: not the text of a licence (empty, or more than 1 MiB); name another file.")
        data.decode("utf-8")
    except OSError as error:
        raise UsageError(f"{path}: the licence cannot be read ({error.strerror}); name its file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not text in UTF-8; name the file of a licence.") from error
    return data


def _copy_all(run: RunDir, checkpoint: Checkpoint, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Files of the run, copied durably: what there is, and what is lacking with the command that makes it."""
    _copy_native(run, checkpoint, folder / "native")
    parts = {
        "native checkpoint": f"native/checkpoints/{checkpoint.path.name}",
        "tokenizer": "native/tokenizer",
        "training config": "native/config.toml",
        "telemetry": "native/telemetry",
    }
    lacking = {}
    for name, (patterns, command) in _REPORTS.items():
        found = [path for pattern in patterns for path in sorted(run.evals.glob(pattern)) if path.is_file()]
        for path in found:
            _copy(path, folder / "reports" / path.name)
        if found:
            parts[name] = "reports"
        else:
            lacking[name] = f"`ondevice {command} {run.name}` makes it"
    return parts, lacking


def _copy_native(run: RunDir, checkpoint: Checkpoint, folder: Path) -> None:
    """A run of its own: without optimizer state, which is most of the bytes and only for who trains on."""
    for path in sorted(run.path.iterdir()):
        if path.is_file() and _PAPER.fullmatch(path.name):
            _copy(path, folder / path.name)
    _copy_folder(run.tokenizer, folder / "tokenizer")
    _copy_folder(run.telemetry, folder / "telemetry")
    copy_generation_config(run.evals, folder / "evals")
    target = folder / "checkpoints" / checkpoint.path.name
    for path in sorted(checkpoint.path.iterdir()):
        if path.name not in (MANIFEST, *DROPPABLE):
            _copy(path, target / path.name)
    write_sealed(target / MANIFEST, {**checkpoint.manifest, "dropped": list(DROPPABLE)})


def _copy_folder(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            _copy(path, target / path.relative_to(source))


def _copy(source: Path, target: Path) -> None:
    make_folder(target.parent)
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def read_bundle(folder: Path) -> Bundle:
    """What ``bundle.json`` says. Raises UsageError for a folder that is none, DataError for one that is damaged."""
    where = folder / BUNDLE_FILE
    if not where.is_file():
        raise UsageError(f"{folder}: not a release bundle (no {BUNDLE_FILE}).")
    raw = read_sealed(where, version=_VERSION)
    try:
        return Bundle(
            folder=folder,
            parts={str(name): str(place) for name, place in raw["parts"].items()},
            lacking={str(name): str(how) for name, how in raw["lacking"].items()},
            lineage=dict(raw["lineage"]),
            files={str(name): (int(each["bytes"]), str(each["sha256"])) for name, each in raw["files"].items()},
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: damaged ({type(error).__name__}: {error}); copy the bundle again.") from error


def check_bundle(folder: Path) -> Iterator[tuple[str, str]]:
    """Each file with what is wrong with it, "" where nothing is; strangers among the files too.

    Raises as `read_bundle`.
    """
    bundle = read_bundle(folder)
    for name, (size, sha256) in bundle.files.items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            yield name, "not inside the bundle"
        elif not path.is_file():
            yield name, "missing"
        elif path.stat().st_size != size:
            yield name, f"has {path.stat().st_size:,} bytes instead of {size:,}"
        elif sha256_of(path) != sha256:
            yield name, "its SHA-256 is not the recorded one"
        else:
            yield name, ""
    known = {*bundle.files, BUNDLE_FILE}
    for path in _files(folder):
        if (name := path.relative_to(folder).as_posix()) not in known:
            yield name, "not a file of the bundle"
