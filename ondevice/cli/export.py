"""``ondevice export RUN``: the model as an ONNX folder, verified against torch."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice.cli.common import cores, print_json
from ondevice.cli.folding import tell
from ondevice.errors import DataError, UsageError
from ondevice.run.directory import RunDir
from ondevice.run.store import Checkpoint, Store
from ondevice.run.studies import find_run_or_study

if TYPE_CHECKING:
    import numpy as np

    from ondevice.export.onnx import ExportInfo
    from ondevice.study.winner import Winner

__all__ = ["EXAMPLES", "add_arguments", "export_run", "run", "run_or_winner"]

EXAMPLES = """examples:
  ondevice export notes                      the best checkpoint, to runs/notes/exports/onnx-<step>
  ondevice export notes --step 1200 --out ~/storage/shared/notes-onnx
  ondevice export notes --quantize auto      as few bits as cost at most 3 % of perplexity on validation text
  ondevice export notes --format genai --quantize int4      a folder that onnxruntime-genai loads
  ondevice export notes --format hf          a folder that transformers loads, with a model card
  ondevice export notes --format gguf --type q8_0      one file for llama.cpp and its relatives
  ondevice export notes --format bundle --licence LICENSE   all of it for others, with reports and hashes
  ondevice export decay-tails --format bundle               of the run that won a study
  ondevice export tuned --format peft        the adapter alone, as the PEFT library loads it"""

_WINDOW = 256  # tokens


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="name or path of the run, or of a study whose winner is taken")
    parser.add_argument("--step", type=int, metavar="N", help="this checkpoint instead of the best by validation loss")
    parser.add_argument(
        "--format",
        choices=("onnx", "genai", "hf", "gguf", "peft", "bundle"),
        default="onnx",
        help="what to write (onnx)",
    )
    parser.add_argument(
        "--quantize",
        choices=("int8", "int4", "auto"),
        help="store matrices in fewer bits; auto takes the smallest that validation text allows",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--in-place",
        action="store_true",
        help="use onnxruntime's own attention, which keeps one cache: least memory, fastest; needs onnxruntime 1.22",
    )
    form.add_argument(
        "--native",
        action="store_true",
        help="use operators of opset 23 where onnxruntime runs them: faster, needs onnxruntime 1.23 to load",
    )
    parser.add_argument(
        "--separate-adapter",
        action="store_true",
        help="keep an adapter beside its matrices, unrounded and exchangeable, instead of merging it (--format onnx)",
    )
    parser.add_argument("--type", choices=("f32", "f16", "q8_0", "q4_0"), help="how a GGUF file stores matrices (f16)")
    parser.add_argument("--licence", metavar="FILE", help="the model's licence, for a bundle")
    parser.add_argument("--out", metavar="FOLDER", help="where to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export in that place")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    from ondevice.infer.export_folder import IN_PLACE, NATIVE, PORTABLE
    from ondevice.infer.open import choose_checkpoint

    run_dir, winner = run_or_winner(args.run)
    if args.format == "bundle":
        from ondevice.cli.export_bundle import export_bundle

        return export_bundle(args, run_dir, winner)
    if args.licence:
        raise UsageError("--licence is for --format bundle.")
    checkpoint, why = choose_checkpoint(run_dir, args.step)
    if (args.native or args.in_place) and args.format != "onnx":
        raise UsageError("--native and --in-place are for --format onnx and bundle.")
    if args.separate_adapter and (args.format != "onnx" or run_dir.read_recipe().adapter is None):
        raise UsageError("--separate-adapter is for --format onnx, of a run that trained an adapter.")
    if args.quantize and args.format not in ("onnx", "genai"):
        raise UsageError("--quantize is for --format onnx, genai and bundle.")
    if args.type and args.format != "gguf":
        raise UsageError("--type is for --format gguf; --quantize is for --format onnx.")
    bits = args.quantize or args.type
    ways = ("in-place" if args.in_place else "", "adapter" if args.separate_adapter else "")
    kind = "-".join(each for each in (args.format, bits, *ways) if each)
    folder = default_folder(run_dir, checkpoint, kind)
    if args.out:
        folder = Path(os.path.expanduser(args.out)).absolute()
    if args.format != "onnx":
        return _export_files(args, run_dir, checkpoint, folder)
    info = export_run(
        run_dir,
        checkpoint,
        folder,
        overwrite=args.overwrite,
        quantize=args.quantize or "fp32",
        form=NATIVE if args.native else IN_PLACE if args.in_place else PORTABLE,
        separate=args.separate_adapter,
    )
    if args.json:
        print_json({"path": str(folder), "step": checkpoint.step, "why": why, **export_facts(info)})
    else:
        tell(f"{folder}: step {checkpoint.step} ({why}), {info.bytes / 2**20:,.1f} MB.")
        tell(export_verdict(info))
        if cost := export_cost(info):
            tell(cost)
        if info.trial.not_native:
            tell(f"Written with portable operators: {info.trial.not_native}")
        tell(f'Try it:\n  ondevice generate {folder} "..."')
    return 0


def run_or_winner(name: str) -> tuple[RunDir, Winner | None]:
    """The run of that name, else the winner of the study of that name. Raises UsageError, DataError."""
    found = find_run_or_study(name)
    if isinstance(found, RunDir):
        return found, None
    from ondevice.study.winner import winner_of

    winner = winner_of(found)
    run_dir = found.run(winner.run)
    run_dir.read_identity()
    tell(f"{winner.run}, {winner.sentence}.", sys.stderr)
    return run_dir, winner


def default_folder(run_dir: RunDir, checkpoint: Checkpoint, kind: str = "onnx") -> Path:
    return run_dir.exports / f"{kind}-{checkpoint.step:08d}"


def _export_files(args: argparse.Namespace, run_dir: RunDir, checkpoint: Checkpoint, folder: Path) -> int:
    """The formats that other libraries load."""
    write, what = {
        "peft": (_export_adapter, "the adapter"),
        "hf": (_export_hugging_face, "a Hugging Face folder"),
        "gguf": (_export_gguf, "a GGUF file"),
        "genai": (_export_genai, "a folder for onnxruntime-genai"),
    }[args.format]
    with Store(run_dir.checkpoints).lease(checkpoint.step) as leased:
        files = write(args, run_dir, leased, folder)
    if args.json:
        print_json({"path": str(folder), "step": checkpoint.step, "files": files})
    else:
        tell(f"{folder}: {what} of step {checkpoint.step}, {sum(files.values()) / 2**20:,.1f} MB.")
    return 0


def _export_adapter(args: argparse.Namespace, run_dir: RunDir, leased: Checkpoint, folder: Path) -> dict[str, int]:
    from ondevice.export.adapter import export_adapter

    return export_adapter(run_dir.read_recipe(), leased, folder, overwrite=args.overwrite)


def _export_hugging_face(args: argparse.Namespace, run_dir: RunDir, leased: Checkpoint, folder: Path) -> dict[str, int]:
    from ondevice.data.tokenizer import load_tokenizer
    from ondevice.export.hugging_face import export_hugging_face
    from ondevice.export.model_card import model_card
    from ondevice.export.story import read_story
    from ondevice.infer.generation_config import copy_generation_config
    from ondevice.infer.open import load_decoder
    from ondevice.model.counts import count_parameters

    story = read_story(run_dir, step=leased.step, checkpoint_sha256=leased.sha256)
    model = load_decoder(run_dir, leased)
    files = export_hugging_face(
        model.shape,
        dict(model.named_parameters()),
        folder,
        tokenizer=load_tokenizer(run_dir.tokenizer),
        card=model_card(story, model.shape, parameters=count_parameters(model.shape)),
        overwrite=args.overwrite,
    )
    copy_generation_config(run_dir.evals, folder)
    return files


def _export_gguf(args: argparse.Namespace, run_dir: RunDir, leased: Checkpoint, folder: Path) -> dict[str, int]:
    from ondevice.data.tokenizer import load_tokenizer
    from ondevice.export.gguf import FILE, export_gguf
    from ondevice.infer.open import load_decoder

    model = load_decoder(run_dir, leased)
    info = export_gguf(
        model.shape,
        dict(model.named_parameters()),
        folder,
        tokenizer=load_tokenizer(run_dir.tokenizer),
        name=run_dir.name,
        kind=args.type or "f16",
        overwrite=args.overwrite,
    )
    return {FILE: info.bytes}


def _export_genai(args: argparse.Namespace, run_dir: RunDir, leased: Checkpoint, folder: Path) -> dict[str, int]:
    from ondevice.data.tokenizer import load_tokenizer
    from ondevice.export.genai import export_genai
    from ondevice.infer.open import load_decoder
    from ondevice.infer.presets import choose_settings
    from ondevice.infer.torch_backend import TorchBackend

    model = load_decoder(run_dir, leased)
    info = export_genai(
        model.shape,
        dict(model.named_parameters()),
        folder,
        tokenizer=load_tokenizer(run_dir.tokenizer),
        settings=choose_settings(run_dir.evals, preset_name=None, given={}).sampling,
        reference=TorchBackend(model).logits,
        quantize=args.quantize or "fp32",
        text=validation_text(run_dir) if args.quantize else (),
        threads=cores() if args.quantize else 1,
        overwrite=args.overwrite,
    )
    if info.tried is None:
        tell("Not tried with onnxruntime-genai, which is not installed here.", sys.stderr)
    elif unlike := info.tried["texts_with_other_ids"]:
        tell(f"Its tokenizer gives other ids for texts such as {unlike[0]!r}.", sys.stderr)
    return info.files


def export_facts(info: ExportInfo) -> dict[str, object]:
    """What ``--json`` says of an export."""
    return {
        "bytes": info.bytes,
        "nodes": info.nodes,
        "parameters": info.parameters,
        "plan": info.trial.plan.name,
        "opset": info.trial.opset,
        "form": info.trial.form,
        "parity": info.parity.to_json() if info.parity else None,
        "perplexity": info.trial.perplexity.to_json() if info.trial.perplexity else None,
        "decode_tok_s": info.trial.tok_s,
        "unchecked": info.unchecked,
    }


def export_verdict(info: ExportInfo) -> str:
    """Whether the file was proven, in a sentence."""
    if info.parity is None:
        return f"Not verified here: {info.unchecked}"
    if info.parity.tolerance is None:
        return (
            f"{info.trial.plan.name}, run with onnxruntime {info.parity.onnxruntime}: logits differ by "
            f"{info.parity.relative_error:.1%} of their spread, the likeliest token is the same at "
            f"{info.parity.same_argmax:.0%} of random positions."
        )
    return (
        f"Verified with onnxruntime {info.parity.onnxruntime}: largest logit error {info.parity.max_abs_error:.1e} "
        f"(allowed {info.parity.tolerance:.0e})."
    )


def export_cost(info: ExportInfo) -> str:
    """What fewer bits cost and save, in a sentence; empty where nothing was measured or nothing changed."""
    trial = info.trial
    if trial.perplexity is None or not (trial.plan.quantized or trial.tried):
        return ""
    cost = trial.perplexity
    lost = "".join(f" {name} was tried: {growth:+.1%}." for name, growth in trial.tried.items())
    return (
        f"Perplexity on {cost.tokens:,} tokens of validation text: {cost.before:.3f} before, {cost.after:.3f} after "
        f"({cost.change:+.2%} ± {cost.change_stderr:.2%}); {trial.bytes / trial.fp32_bytes:.2f}x the size.{lost}"
    )


def export_run(
    run_dir: RunDir,
    checkpoint: Checkpoint,
    folder: Path,
    *,
    overwrite: bool,
    quantize: str = "fp32",
    form: str = "portable",
    separate: bool = False,
) -> ExportInfo:
    """Exports a checkpoint while holding a lease on it; ``separate`` keeps its adapter beside the matrices. Raises as
    `export_onnx`."""
    from ondevice.data.tokenizer import load_tokenizer
    from ondevice.export.onnx import export_onnx
    from ondevice.infer.generation_config import copy_generation_config
    from ondevice.infer.open import load_adapted, load_decoder
    from ondevice.infer.torch_backend import TorchBackend
    from ondevice.model.lora import beside

    with Store(run_dir.checkpoints).lease(checkpoint.step) as leased:
        model = load_adapted(run_dir, leased) if separate else load_decoder(run_dir, leased)
        info = export_onnx(
            model.shape,
            beside(model) if separate else dict(model.named_parameters()),
            folder,
            metadata=lineage(run_dir, leased),
            tokenizer=load_tokenizer(run_dir.tokenizer).save,
            reference=TorchBackend(model).logits,
            quantize=quantize,
            form=form,
            text=validation_text(run_dir) if quantize != "fp32" else (),
            threads=cores() if quantize != "fp32" else 1,
            overwrite=overwrite,
        )
    copy_generation_config(run_dir.evals, folder)
    return info


def lineage(run_dir: RunDir, checkpoint: Checkpoint) -> dict[str, object]:
    """Where an export comes from."""
    return {
        "run": run_dir.name,
        "run_id": run_dir.read_identity()["id"],
        "step": checkpoint.step,
        "checkpoint_sha256": checkpoint.sha256,
        "recipe_sha256": run_dir.read_recipe().sha256,
    }


def validation_text(run_dir: RunDir) -> list[np.ndarray]:
    """Windows of the run's validation text; none where its dataset is not on this machine."""
    from ondevice.data.parcel import open_dataset
    from ondevice.evaluate.windows import validation_windows
    from ondevice.export.measure import text_tokens
    from ondevice.model.counts import count_parameters

    recipe = run_dir.read_recipe()
    try:
        dataset = open_dataset(recipe.data)
    except DataError as error:
        tell(f"The cost on validation text is not measured: {error}", sys.stderr)
        return []
    length = min(recipe.model.context, _WINDOW)
    return validation_windows(dataset, length=length, tokens=text_tokens(count_parameters(recipe.model)))
