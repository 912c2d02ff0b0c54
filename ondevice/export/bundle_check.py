"""Re-checks a release bundle: every byte, and whether its parts open and belong to one model. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ondevice.data.tokenizer import load_tokenizer
from ondevice.errors import DeviceError, OndeviceError
from ondevice.export.bundle import check_bundle, read_bundle
from ondevice.infer.export_folder import ExportFolder
from ondevice.run.directory import RunDir
from ondevice.run.finding import DAMAGE, Finding, damage, note, ok
from ondevice.run.store import Store

__all__ = ["bundle_findings"]

_REMEDY = "Copy the bundle again, or export it again."


def bundle_findings(folder: Path) -> list[Finding]:
    """What is sound, lacking and damaged. Raises UsageError for a folder that is no bundle, DataError, CheckpointError
    where ``bundle.json`` itself is damaged or newer."""
    found = [_file(name, wrong) for name, wrong in check_bundle(folder) if wrong]
    bundle = read_bundle(folder)
    if not any(finding.level == DAMAGE for finding in found):
        found.append(ok("", f"{len(bundle.files)} files, every byte as released"))
        found += _parts(folder, bundle.lineage.get("checkpoint_sha256"))
    return found + [note("", f"no {name}", how) for name, how in bundle.lacking.items()]


def _file(name: str, wrong: str) -> Finding:
    if wrong == "not a file of the bundle":
        return note(name, wrong)
    return damage(name, wrong, _REMEDY)


def _parts(folder: Path, checkpoint_sha256: object) -> Iterator[Finding]:
    run = RunDir(folder / "native")
    try:
        recipe, store = run.read_recipe(), Store(run.checkpoints)
        checkpoint = store.open(store.steps()[-1])
        if checkpoint.sha256 != checkpoint_sha256:
            yield damage("native", "its checkpoint is not the one that was released", _REMEDY)
        yield ok("native", f"checkpoint of step {checkpoint.step:,}")
        if load_tokenizer(run.tokenizer).sha256 != recipe.data.tokenizer_sha256:
            yield damage("native/tokenizer", "not the one of the recipe", _REMEDY)
        ExportFolder.open(folder / "onnx", verify=True)
        yield ok("onnx", "opens")
    except DeviceError as error:
        yield note("native/tokenizer", f"not loaded: {str(error).rstrip('.')}")
    except (OndeviceError, IndexError) as error:
        yield damage("", f"does not open: {str(error).rstrip('.')}", _REMEDY)
