"""``ondevice export RUN --format bundle``: a release, of the checkpoint that selection calls practical; of a study, of
the run that won it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.cli.common import for_terminal, print_json
from ondevice.cli.folding import tell
from ondevice.errors import OndeviceError, UsageError
from ondevice.run.directory import RunDir
from ondevice.run.store import Checkpoint, Store
from ondevice.run.studies import StudyDir

if TYPE_CHECKING:
    from ondevice.study.winner import Winner

__all__ = ["export_bundle"]


def export_bundle(args: argparse.Namespace, run_dir: RunDir, winner: Winner | None) -> int:
    """Writes the bundle and says what it lacks."""
    from ondevice.cli.export import export_run, lineage
    from ondevice.export.bundle import write_bundle
    from ondevice.infer.export_folder import IN_PLACE, NATIVE, PORTABLE

    if args.type:
        raise UsageError("--type is for --format gguf; a bundle holds ONNX, in the bits of --quantize.")
    checkpoint, why = _chosen(run_dir, args.step)
    study = {} if winner is None else {"study": winner.to_json()}
    folder = run_dir.exports / f"bundle-{checkpoint.step:08d}"
    if args.out:
        folder = Path(os.path.expanduser(args.out)).absolute()
    form = NATIVE if args.native else IN_PLACE if args.in_place else PORTABLE

    def write_onnx(place: Path) -> None:
        export_run(run_dir, checkpoint, place, overwrite=False, quantize=args.quantize or "fp32", form=form)

    with Store(run_dir.checkpoints).lease(checkpoint.step) as leased:
        info = write_bundle(
            run_dir,
            leased,
            folder,
            exports={"hf": lambda place: _write_hugging_face(run_dir, leased, place), "onnx": write_onnx},
            card=_card(run_dir, leased, why, winner),
            lineage={**lineage(run_dir, leased), "chosen": why, **study},
            study=_study_of(run_dir) if winner else None,
            licence=Path(os.path.expanduser(args.licence)) if args.licence else None,
            overwrite=args.overwrite,
        )
    if args.json:
        print_json({"path": str(folder), "step": checkpoint.step, "why": why, "bytes": info.bytes,
                    "files": info.files, "lacking": dict(info.lacking), **study})  # fmt: skip
        return 0
    tell(f"{folder}: step {checkpoint.step} ({why}), {info.files} files, {info.bytes / 2**20:,.1f} MB.")
    for name, how in info.lacking.items():
        tell(f"It has no {name}: {how}.")
    tell(f"Check it anywhere: ondevice verify {for_terminal(str(folder))}")
    return 0


def _chosen(run_dir: RunDir, step: int | None) -> tuple[Checkpoint, str]:
    """The checkpoint that was asked for, else the one that selection found practical, else the best by loss."""
    from ondevice.infer.open import choose_checkpoint

    practical = _selected(run_dir).get("practical") if step is None else None
    if type(practical) is int and practical in Store(run_dir.checkpoints).steps():
        return Store(run_dir.checkpoints).open(practical), "selected for use"
    return choose_checkpoint(run_dir, step)


def _selected(run_dir: RunDir) -> Mapping[str, Any]:
    from ondevice.run.files import read_sealed
    from ondevice.study.select_run import SELECTION_FILE
    from ondevice.study.selection import SELECTION_VERSION

    try:
        found: Mapping[str, Any] = read_sealed(run_dir.evals / SELECTION_FILE, version=SELECTION_VERSION)["roles"]
    except (OndeviceError, KeyError):
        return {}
    return found


def _study_of(run_dir: RunDir) -> StudyDir:
    """The study that a cell belongs to."""
    return StudyDir(run_dir.path.parent.parent)


def _write_hugging_face(run_dir: RunDir, leased: Checkpoint, folder: Path) -> None:
    from ondevice.data.tokenizer import load_tokenizer
    from ondevice.export.hugging_face import export_hugging_face
    from ondevice.infer.generation_config import copy_generation_config
    from ondevice.infer.open import load_decoder

    model = load_decoder(run_dir, leased)
    tokenizer, card = load_tokenizer(run_dir.tokenizer), _card(run_dir, leased, "", None)
    export_hugging_face(model.shape, dict(model.named_parameters()), folder, tokenizer=tokenizer, card=card)
    copy_generation_config(run_dir.evals, folder)


def _card(run_dir: RunDir, leased: Checkpoint, why: str, winner: Winner | None) -> str:
    from ondevice.export.model_card import model_card
    from ondevice.export.story import read_story
    from ondevice.model.counts import count_parameters

    story = read_story(run_dir, step=leased.step, checkpoint_sha256=leased.sha256)
    shape = story.recipe.model
    won = f"\nIts run is {winner.sentence}. `reports/study.json` has the other arms.\n" if winner else ""
    note = f"""## This release

Step {leased.step:,} ({why}). `ondevice verify .` re-checks every byte; `ondevice generate . "Once"`, `ondevice chat .`
and `ondevice serve .` use it; transformers loads `hf/`, onnxruntime `onnx/`. `reports/` holds what was measured,
`native/telemetry/` every step of the training. `bundle.json` names all files with their hashes, and what is lacking.
{won}"""
    return model_card(story, shape, parameters=count_parameters(shape), note=note if why else "")
