"""``ondevice export RUN``: the model as an ONNX folder, verified against torch."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice.cli.common import print_json
from ondevice.run.directory import RunDir, find_run
from ondevice.run.store import Checkpoint, Store

if TYPE_CHECKING:
    from ondevice.export.onnx import ExportInfo

__all__ = ["EXAMPLES", "add_arguments", "export_run", "run"]

EXAMPLES = """examples:
  ondevice export notes                      the best checkpoint, to runs/notes/exports/onnx-<step>
  ondevice export notes --step 1200 --out ~/storage/shared/notes-onnx
  ondevice export tuned --format peft        the adapter alone, as the PEFT library loads it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run")
    parser.add_argument("--step", type=int, help="this checkpoint instead of the best by validation loss")
    parser.add_argument("--format", choices=("onnx", "peft"), default="onnx", help="what to write (onnx)")
    parser.add_argument("--out", metavar="FOLDER", help="where to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in that place")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.infer.open import choose_checkpoint

    run_dir = find_run(args.run)
    checkpoint, why = choose_checkpoint(run_dir, args.step)
    folder = default_folder(run_dir, checkpoint, args.format)
    if args.out:
        folder = Path(os.path.expanduser(args.out)).absolute()
    if args.format == "peft":
        return _export_adapter(args, run_dir, checkpoint, folder)
    info = export_run(run_dir, checkpoint, folder, overwrite=args.overwrite)
    if args.json:
        print_json({"path": str(folder), "step": checkpoint.step, "why": why, **export_facts(info)})
    else:
        print(f"{folder}: step {checkpoint.step} ({why}), {info.bytes / 2**20:,.1f} MB.")
        print(export_verdict(info))
        print(f'Try it: ondevice generate {folder} "..."')
    return 0


def default_folder(run_dir: RunDir, checkpoint: Checkpoint, kind: str = "onnx") -> Path:
    return run_dir.exports / f"{kind}-{checkpoint.step:08d}"


def _export_adapter(args: argparse.Namespace, run_dir: RunDir, checkpoint: Checkpoint, folder: Path) -> int:
    from ondevice.export.adapter import export_adapter

    with Store(run_dir.checkpoints).lease(checkpoint.step) as leased:
        files = export_adapter(run_dir.read_recipe(), leased, folder, overwrite=args.overwrite)
    if args.json:
        print_json({"path": str(folder), "step": checkpoint.step, "files": files})
    else:
        print(f"{folder}: the adapter of step {checkpoint.step}, {sum(files.values()) / 2**20:,.1f} MB.")
    return 0


def export_facts(info: ExportInfo) -> dict[str, object]:
    """What ``--json`` says of an export."""
    return {
        "bytes": info.bytes,
        "nodes": info.nodes,
        "parameters": info.parameters,
        "parity": info.parity.to_json() if info.parity else None,
        "unchecked": info.unchecked,
    }


def export_verdict(info: ExportInfo) -> str:
    """Whether the file was proven, in a sentence."""
    if info.parity is None:
        return f"Not verified here: {info.unchecked}"
    return (
        f"Verified with onnxruntime {info.parity.onnxruntime}: largest logit error {info.parity.max_abs_error:.1e} "
        f"(allowed {info.parity.tolerance:.0e})."
    )


def export_run(run_dir: RunDir, checkpoint: Checkpoint, folder: Path, *, overwrite: bool) -> ExportInfo:
    """Exports a checkpoint while holding a lease on it. Raises as `export_onnx`."""
    from ondevice.data.tokenizer import load_tokenizer
    from ondevice.export.onnx import export_onnx
    from ondevice.infer.generation_config import copy_generation_config
    from ondevice.infer.open import load_decoder
    from ondevice.infer.torch_backend import TorchBackend

    with Store(run_dir.checkpoints).lease(checkpoint.step) as leased:
        model = load_decoder(run_dir, leased)
        info = export_onnx(
            model.shape,
            dict(model.named_parameters()),
            folder,
            metadata={
                "run": run_dir.name,
                "run_id": run_dir.read_identity()["id"],
                "step": leased.step,
                "checkpoint_sha256": leased.sha256,
                "recipe_sha256": run_dir.read_recipe().sha256,
            },
            tokenizer=load_tokenizer(run_dir.tokenizer).save,
            reference=TorchBackend(model).logits,
            overwrite=overwrite,
        )
    copy_generation_config(run_dir.evals, folder)
    return info
