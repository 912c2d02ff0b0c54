"""Reading an export folder: ``export.json`` and the files it names. ``ondevice.export.onnx`` is its only writer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import DataError, UsageError
from ondevice.run.files import read_json, sha256_of
from ondevice.run.recipe import ModelShape

__all__ = [
    "BUNDLE_FILE",
    "DATA_FILE",
    "EXPORT_FILE",
    "EXPORT_VERSION",
    "IN_PLACE",
    "MODEL_FILE",
    "NATIVE",
    "PARITY_FILE",
    "PORTABLE",
    "ExportFolder",
    "release",
]

EXPORT_FILE = "export.json"
BUNDLE_FILE = "bundle.json"  # of a release bundle, which holds exports and more
EXPORT_VERSION = 1
_IN_PLACE_VERSION = 2  # programs that know only version 1 would hand the cache over wrongly
PORTABLE, NATIVE, IN_PLACE = "portable", "native", "in place"
"""Forms of a graph: ``ondevice.export.graph_parts`` says what they are."""
MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
PARITY_FILE = "parity.json"


@dataclass(frozen=True, kw_only=True)
class ExportFolder:
    """An export whose files are all there. ``lineage`` is what the exporting command wrote about its origin."""

    folder: Path
    shape: ModelShape
    opset: int
    onnxruntime: str  # the oldest version that runs it
    form: str
    lineage: dict[str, Any]

    @staticmethod
    def version(form: str) -> int:
        """The version of ``export.json`` that a graph of this form gets."""
        return _IN_PLACE_VERSION if form == IN_PLACE else EXPORT_VERSION

    @property
    def model(self) -> Path:
        return self.folder / MODEL_FILE

    @classmethod
    def open(cls, folder: Path, *, verify: bool = False) -> ExportFolder:
        """Reads ``export.json`` and checks the size of every file, with ``verify`` its SHA-256 too.

        Raises UsageError when there is no export, DataError when it is damaged or of a newer format.
        """
        if not (folder / EXPORT_FILE).is_file():
            raise UsageError(f"{folder}: not an export (no {EXPORT_FILE}); make one with `ondevice export`.")
        where = folder / EXPORT_FILE
        raw = read_json(where)
        known = (EXPORT_VERSION, _IN_PLACE_VERSION)
        if not isinstance(raw, dict) or raw.get("v") not in known or raw.get("format") != "onnx":
            raise DataError(
                f"{where}: not an ONNX export of version {EXPORT_VERSION} or {_IN_PLACE_VERSION}; "
                "update ondevice or export again."
            )
        try:
            export = cls(
                folder=folder,
                shape=ModelShape.from_json(raw["shape"]),
                opset=int(raw["opset"]),
                onnxruntime=str(raw["onnxruntime"]),
                form=str(raw.get("form", PORTABLE)),
                lineage=dict(raw["lineage"]),
            )
            files = {name: (int(each["bytes"]), str(each["sha256"])) for name, each in raw["files"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: damaged ({type(error).__name__}: {error}); export again.") from error
        for name, (size, sha256) in files.items():
            _check_file(folder / name, size, sha256 if verify else None)
        return export


def _check_file(path: Path, size: int, sha256: str | None) -> None:
    if not path.is_file():
        raise DataError(f"{path}: missing from the export; copy it again or export again.")
    if path.stat().st_size != size:
        raise DataError(f"{path}: has {path.stat().st_size} bytes instead of {size}; copy it again or export again.")
    if sha256 is not None and sha256_of(path) != sha256:
        raise DataError(
            f"{path}: its SHA-256 is not the recorded one, so it is damaged; copy it again or export again."
        )


def release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, to compare: ``"1.29.0+dev" -> (1, 29, 0)``."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])
