"""``ondevice quickstart [PATH]``: text on this machine to a trained, measured, exported model that answers.

Every stage finds what an earlier, interrupted call left and goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.cli.common import print_json_line, text_source
from ondevice.cli.folding import tell
from ondevice.cli.progress import QuietDisplay, make_display
from ondevice.cli.train import start_run, train_run
from ondevice.errors import DeviceError, UsageError
from ondevice.run.config import load_config
from ondevice.run.directory import RunDir, home, safe_name
from ondevice.run.files import read_json, write_json
from ondevice.run.recipe import Fit
from ondevice.run.schema import Config, SourceConfig

if TYPE_CHECKING:
    from ondevice.run.store import Checkpoint

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice quickstart              learns Python from the standard library's own sources, in 5 minutes
  ondevice quickstart ~/notes      learns your notes instead
  ondevice quickstart --minutes 1

Interrupted (Ctrl-C, a killed terminal, an empty battery)? The same command goes on."""

_STDLIB = SourceConfig(
    path=".",
    name="stdlib",
    format="code",
    include=("*.py",),
    exclude=("site-packages/*", "dist-packages/*", "config-*/*", "test/*", "*/test/*", "*/tests/*", "*/idle_test/*"),
)
PROMPTS = {"stdlib": "def read_lines(path):\n", "": "The "}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", nargs="?", help="a file or folder of text; the Python standard library where left out")
    parser.add_argument("--minutes", type=float, metavar="N", help="time to train (5)")
    parser.add_argument("--name", help="name of the run")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change any key, such as model.width=128"
    )
    parser.add_argument("--quiet", action="store_true", help="print only the result")
    parser.add_argument("--json", action="store_true", help="print JSON lines, the result last")


def run(args: argparse.Namespace) -> int:
    display = make_display(quiet=args.quiet, as_json=args.json)
    try:
        run_dir = start_run(_config(args), display, changes=args.set, quiet=args.quiet or args.json)
        if _finished(run_dir):
            display.say(f"{run_dir.name} is trained already; here is how it did.")
        else:
            train_run(run_dir, display=display, as_json=args.json)
        result = _result(run_dir, display, prompt=_prompt(args))
    finally:
        display.close()
    if args.json:
        print_json_line({"kind": "result", **result})
    else:
        tell("\n".join(_lines(run_dir, result, path=args.path)))
    return 0


def _config(args: argparse.Namespace) -> Config:
    changes = [*args.set, *([f"budget.minutes={args.minutes}"] if args.minutes is not None else [])]
    config = load_config("quickstart", changes=changes)
    if args.path is not None:
        source = text_source(args.path)
        name = args.name or f"quickstart-{safe_name(Path(source.path).name)}"
    else:
        name = args.name or "quickstart"
        source = _standard_library_of(name)
    data = dataclasses.replace(config.data, sources=(source,))
    return dataclasses.replace(config, name=name, data=data)


def _standard_library_of(name: str) -> SourceConfig:
    """The standard library, where the run of that name found it: an upgrade of Python moves it, and the run goes on
    with the tokens it began with."""
    from ondevice.run.config import read_wish

    run_dir = RunDir(home() / "runs" / name)
    sources = read_wish(run_dir.config).data.sources if run_dir.config.is_file() else ()
    if len(sources) == 1 and sources[0] == dataclasses.replace(_STDLIB, path=sources[0].path):
        return sources[0]
    return _standard_library()


def _standard_library() -> SourceConfig:
    """The sources of the running Python: real code, on every machine that can run this."""
    folder = sysconfig.get_paths()["stdlib"]
    if not any(Path(folder).glob("*.py")):
        raise UsageError(f"{folder}: this Python has no library sources; name a folder: `ondevice quickstart ~/notes`.")
    return dataclasses.replace(_STDLIB, path=folder)


def _prompt(args: argparse.Namespace) -> str:
    return PROMPTS["" if args.path else "stdlib"]


def _finished(run_dir: RunDir) -> bool:
    from ondevice.run.store import Store

    steps = run_dir.read_recipe().train.steps
    return steps in Store(run_dir.checkpoints).steps()


def _result(run_dir: RunDir, display: QuietDisplay, *, prompt: str) -> dict[str, Any]:
    """Measures, exports and tries the best checkpoint; what was measured before is read, not measured again."""
    from ondevice.infer.open import choose_checkpoint

    checkpoint, why = choose_checkpoint(run_dir)
    path = run_dir.evals / f"quickstart-{checkpoint.step:08d}.json"
    if path.exists():
        known = dict(read_json(path))
        if _still_holds(known, checkpoint):
            return known
    display.say("Measuring on text it has never seen ...")
    result: dict[str, Any] = {
        "run": run_dir.name,
        "step": checkpoint.step,
        "why": why,
        "checkpoint_sha256": checkpoint.sha256,
        "sources": _scores(run_dir, checkpoint),
        "passes": _passes(run_dir),
        "prompt": prompt,
        "sample": _text(run_dir, checkpoint, prompt),
    }
    display.say("Exporting to ONNX ...")
    result["export"] = _export(run_dir, checkpoint)
    result["onnx"] = _text_by_onnx(result["export"]["path"], prompt)
    write_json(path, result)
    return result


def _still_holds(known: dict[str, Any], checkpoint: Checkpoint) -> bool:
    """Whether an earlier result is of this checkpoint, its export is there, and nothing more could be said now."""
    if known.get("checkpoint_sha256") != checkpoint.sha256 or not Path(known["export"]["path"]).is_dir():
        return False
    return known["onnx"]["text"] is not None or find_spec("onnxruntime") is None


def _scores(run_dir: RunDir, checkpoint: Checkpoint) -> dict[str, dict[str, float | int | None]]:
    """Loss and baselines of every source on all of its validation text."""
    import torch

    from ondevice.data.parcel import open_dataset
    from ondevice.evaluate.baselines import baselines
    from ondevice.evaluate.losses import Evaluation
    from ondevice.infer.open import load_decoder

    recipe = run_dir.read_recipe()
    dataset = open_dataset(recipe.data)
    torch.set_num_threads(Fit.from_json(checkpoint.facts["fit"], where=str(checkpoint.path)).threads)
    model = load_decoder(run_dir, checkpoint)
    evaluation = Evaluation(model, dataset, max_tokens=0, batch=8, loss_chunk_tokens=2048)
    for _ in evaluation.batches():
        pass
    known = baselines(dataset)
    return {
        name: {
            "loss": loss.nats,
            "unigram_loss": known[name].unigram_nats,
            "perplexity": loss.perplexity,
            "bits_per_byte": loss.bits_per_byte,
            "zlib_bits_per_byte": known[name].zlib_bits_per_byte,
            "lzma_bits_per_byte": known[name].lzma_bits_per_byte,
            "tokens": loss.tokens,
            "bytes": loss.bytes,
        }
        for name, loss in evaluation.losses.items()
        if name in known
    }


def _passes(run_dir: RunDir) -> float:
    """How often the whole run reads its text."""
    from ondevice.data.parcel import open_dataset

    recipe = run_dir.read_recipe()
    return recipe.train.tokens / max(1, sum(source.train_tokens for source in open_dataset(recipe.data).sources))


def _text(run_dir: RunDir, checkpoint: Checkpoint, prompt: str) -> str:
    from ondevice.infer.open import open_checkpoint
    from ondevice.infer.sampling import Sampling
    from ondevice.infer.text import stream_text

    opened = open_checkpoint(run_dir, checkpoint)
    return "".join(stream_text(opened.backend, opened.tokenizer, prompt, settings=Sampling(), max_new_tokens=96))


def _export(run_dir: RunDir, checkpoint: Checkpoint) -> dict[str, Any]:
    from ondevice.cli.export import default_folder, export_facts, export_run, export_verdict

    folder = default_folder(run_dir, checkpoint)
    info = export_run(run_dir, checkpoint, folder, overwrite=True)
    return {"path": str(folder), "verdict": export_verdict(info), **export_facts(info)}


def _text_by_onnx(folder: str, prompt: str) -> dict[str, Any]:
    """What onnxruntime writes, or why it cannot."""
    from ondevice.infer.open import open_target
    from ondevice.infer.sampling import Sampling
    from ondevice.infer.text import stream_text

    try:
        opened = open_target(folder)
    except DeviceError as error:
        return {"text": None, "why": str(error)}
    began = time.monotonic()
    stream = stream_text(opened.backend, opened.tokenizer, prompt, settings=Sampling(), max_new_tokens=96)
    text = "".join(stream)
    return {"text": text, "tok_s": round(len(stream.ids) / (time.monotonic() - began), 1)}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _against_unigram(score: dict[str, Any]) -> str:
    gain = score["unigram_loss"] - score["loss"]
    word = "better" if gain >= 0 else "worse"
    return f"by counting tokens alone; it is {word} by {abs(gain):.3f}"


def _next_lines(name: str, path: str | None, passes: float) -> Iterator[str]:
    """Commands to go on with. More minutes are no advice where the text was read too often already."""
    from ondevice.train.sizing import MANY_EPOCHS

    text = shlex.quote(path) + " " if path else ""
    yield f'  ondevice generate {name} "..."'
    yield f"  ondevice report {name}"
    if passes <= MANY_EPOCHS:
        yield f"  ondevice quickstart {text}--minutes 60 --name longer"
    if path is None:
        yield "  ondevice quickstart ~/notes"
    if passes > MANY_EPOCHS:
        yield f"This text was read {passes:.0f} times: more text would help it, more minutes hardly."
    activate = Path(sys.prefix) / "bin" / "activate"
    if shutil.which("ondevice") is None and activate.is_file():
        yield f"First, so that the shell finds `ondevice`: `. {shlex.quote(str(activate))}`"


def _lines(run_dir: RunDir, result: dict[str, Any], *, path: str | None) -> list[str]:
    lines = ["", f"Checkpoint of step {result['step']:,}: {result['why']}.", ""]
    for name, score in result["sources"].items():
        lines += [
            f"{name}: {score['tokens']:,} tokens it never saw",
            f"  loss         {score['loss']:.3f} nats a token, less is better",
            f"  unigram      {score['unigram_loss']:.3f} {_against_unigram(score)}",
            f"  bits a byte  {_shown(score['bits_per_byte'])}",
            f"  zlib -9      {_shown(score['zlib_bits_per_byte'])} to pack this text",
            f"  lzma         {_shown(score['lzma_bits_per_byte'])}",
        ]
    lines += ["", "It writes (torch):", result["prompt"] + result["sample"], ""]
    lines += [f"ONNX: {result['export']['path']}", result["export"]["verdict"], ""]
    onnx = result["onnx"]
    if onnx["text"] is None:
        lines.append(f"onnxruntime was not tried: {onnx['why']}")
    else:
        lines += [f"It writes (onnxruntime, {onnx['tok_s']:,.0f} tok/s):", result["prompt"] + onnx["text"]]
    return [*lines, "", "Next:", *_next_lines(run_dir.name, path, result.get("passes", 0.0))]
