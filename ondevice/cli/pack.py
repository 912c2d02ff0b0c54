"""``ondevice pack`` and ``ondevice unpack``: a run from one machine to another, in one file."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.cli.build_progress import BuildProgress
from ondevice.cli.common import cores, print_json
from ondevice.cli.folding import tell
from ondevice.errors import CheckpointError, DataError, UsageError
from ondevice.run.directory import RunDir, find_run, home, safe_name
from ondevice.run.papers import environment
from ondevice.run.store import Checkpoint, Store

if TYPE_CHECKING:
    from ondevice.data.dataset import Dataset
    from ondevice.run.pack import Pack
    from ondevice.run.parcel import Listed
    from ondevice.run.recipe import Recipe

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """examples:
  ondevice pack notes                    writes notes.ondevice, data included
  ondevice pack notes --latest --out ~/storage/shared/notes.ondevice
  ondevice unpack notes.ondevice
  ondevice unpack notes.ondevice --name notes-laptop

An interrupted pack, copy or unpack goes on when the command is repeated (a pack only while the run stands still)."""

SUFFIX = ".ondevice"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    if parser.prog.endswith("unpack"):
        parser.add_argument("file", help="a file that `ondevice pack` wrote")
        parser.add_argument("--name", help="name of the run here")
    else:
        parser.add_argument("run", help="a run")
        parser.add_argument("--out", metavar="FILE", help="where to write (NAME.ondevice in this folder)")
        parser.add_argument("--latest", action="store_true", help="only the newest checkpoint, no results")
        parser.add_argument("--no-data", action="store_true", help="leave the dataset out")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    return _unpack(args) if args.command == "unpack" else _pack(args)


def _pack(args: argparse.Namespace) -> int:
    from ondevice.data.parcel import dataset_files
    from ondevice.run.parcel import run_files

    run_dir = find_run(args.run)
    target = Path(os.path.expanduser(args.out or f"{run_dir.name}{SUFFIX}")).absolute()
    if target.is_dir():
        target /= f"{run_dir.name}{SUFFIX}"
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: no such folder; make it, or name another with --out.")
    with ExitStack() as held:
        checkpoints = list(_leased(Store(run_dir.checkpoints), held, latest=args.latest))
        listed = run_files(run_dir, [checkpoint.step for checkpoint in checkpoints], results=not args.latest)
        dataset = None if args.no_data else _dataset(run_dir.read_recipe())  # as long as it lives no build removes it
        if dataset is not None:
            listed += dataset_files(dataset)
        pack, kept = _write(_about(run_dir, checkpoints, data=not args.no_data), listed, target, quiet=args.json)
    _tell_packed(pack, target, kept, as_json=args.json)
    return 0


def _write(about: dict[str, Any], listed: Listed, target: Path, *, quiet: bool) -> tuple[Pack, int]:
    from ondevice.run.pack import Pack, list_members, write_pack

    with BuildProgress(quiet=quiet) as progress:
        members = list_members(listed, lambda done, total: progress(0, 0, f"checking file {done + 1:,} of {total:,}"))
        pack = Pack(about, tuple(members))
        return pack, write_pack(pack, listed, target, lambda done, total: progress(done, total, "packing"))


def _leased(store: Store, leases: ExitStack, *, latest: bool) -> Iterator[Checkpoint]:
    """The checkpoints to take, verified and safe from pruning: all, or the newest that training can go on from."""
    newest, damage = store.latest(complete=True) if latest else (None, [])
    for sentence in damage:
        tell(f"Skipped a damaged checkpoint: {sentence}", sys.stderr)
    wanted = ([newest.step] if newest else []) if latest else store.steps()
    for step in wanted:
        try:
            yield leases.enter_context(store.lease(step))
        except CheckpointError as error:
            if os.path.lexists(store.path(step)):
                raise CheckpointError(f"{error} Leave damaged checkpoints out with --latest.") from error


def _dataset(recipe: Recipe) -> Dataset:
    from ondevice.data.parcel import open_dataset

    try:
        return open_dataset(recipe.data)
    except DataError as error:
        raise DataError(f"{error} Or pack the run without it: --no-data.") from error


def _about(run_dir: RunDir, checkpoints: list[Checkpoint], *, data: bool) -> dict[str, Any]:
    recipe, newest = run_dir.read_recipe(), max(checkpoints, key=lambda item: item.step, default=None)
    facts = newest.facts if newest else {}
    return {
        "run": run_dir.name,
        "id": run_dir.read_identity()["id"],
        "recipe_sha256": recipe.sha256,
        "step": newest.step if newest else None,
        "steps": recipe.train.steps,
        "dataset": recipe.data.dataset if data else None,
        "dataset_sha256": recipe.data.dataset_sha256,
        "exactness": {key: facts.get(key) for key in ("torch_version", "cpu_capability", "threads")},
        "environment": {**environment(), "processor": _processor()},
    }


def _processor() -> str | None:
    """What the processor is called; None where the system does not tell."""
    from ondevice.device.cpu import cpu_model, parse_cpuinfo

    try:
        return cpu_model(parse_cpuinfo(Path("/proc/cpuinfo").read_text("utf-8", "replace")))
    except (OSError, LookupError, ValueError):
        return None


def _tell_packed(pack: Pack, target: Path, kept: int, *, as_json: bool) -> None:
    about = pack.about
    if as_json:
        body = {"file": str(target), "bytes": pack.total_bytes, "kept_bytes": kept, "members": len(pack.members)}
        print_json({**body, "about": about})
        return
    where = "" if about["step"] is None else f" at step {about['step']:,}"
    tell(f"{target}: {pack.total_bytes / 2**20:,.1f} MB, {about['run']}{where}.")
    if kept == pack.total_bytes:
        tell("  It was there already, whole.")
    elif kept:
        tell(f"  {kept / 2**20:,.1f} MB were there from an interrupted pack.")
    if about["dataset"] is None:
        tell("  The dataset is not in it: the other machine needs the same one to go on.")
    tell(f"Copy it to the other machine, and there: `ondevice unpack {shlex.quote(target.name)}`")
    tell("Then go on with one of the two, not with both: they are one run.")


def _unpack(args: argparse.Namespace) -> int:
    from ondevice.run.parcel import check_staged, install, refused_for_good, staging
    from ondevice.run.unpack import read_index, stage

    path = Path(os.path.expanduser(args.file)).absolute()
    pack = read_index(path)
    name = args.name or safe_name(str(pack.about.get("run", "run")))
    if name != safe_name(name):
        raise UsageError(f"'{name}': use lower case letters, digits, '.', '_' and '-', such as '{safe_name(name)}'.")
    target, staging_folder = home() / "runs" / name, home() / "runs" / f".ondevice-unpack-{_short_hash(pack)}"
    if _is_here(RunDir(target), pack):
        if staging_folder.exists():  # a kill came after all was in its place
            with staging(staging_folder):
                pass
        _tell_unpacked(RunDir(target), pack, "is here already", as_json=args.json)
        return 0
    with BuildProgress(quiet=args.json) as progress, staging(staging_folder) as folder:
        stage(path, pack, folder, lambda done, total: progress(done, total, "unpacking"))
        staged = RunDir(folder / "run")
        with refused_for_good(folder):
            check_staged(staged, pack.about)
            _adopt_data(folder / "data", staged.read_recipe())
        made = install(staged, target)
    where = "" if pack.about.get("step") is None else f" at step {pack.about['step']:,}"
    _tell_unpacked(made, pack, f"unpacked{where}", as_json=args.json)
    return 0


def _is_here(run_dir: RunDir, pack: Pack) -> bool:
    """Whether a run is the packed one, with its newest checkpoint or later ones. Raises UsageError for another, or for
    an older state of it, which is not overwritten."""
    if not os.path.lexists(run_dir.path):
        return False
    if not run_dir.identity.is_file() or run_dir.read_identity().get("id") != pack.about.get("id"):
        raise UsageError(f"{run_dir.path}: a run of this name exists; unpack under another with --name.")
    newest, _ = Store(run_dir.checkpoints).latest(complete=True)
    step = newest.step if newest else 0
    if step < (pack.about.get("step") or 0):
        raise UsageError(
            f"{run_dir.name}: this run is here already, only as far as step {step:,}; put the older one away with "
            f"`ondevice runs rename {run_dir.name} {run_dir.name[:90]}-old` and repeat this, or use --name."
        )
    return True


def _short_hash(pack: Pack) -> str:
    import hashlib

    return hashlib.sha256(pack.index).hexdigest()[:12]


def _adopt_data(staged: Path, recipe: Recipe) -> None:
    if not staged.is_dir():
        return
    from ondevice.data.parcel import adopt_dataset

    adopt_dataset(staged, home() / "datasets", recipe.data.dataset, recipe.data.dataset_sha256)


def _tell_unpacked(run_dir: RunDir, pack: Pack, what: str, *, as_json: bool) -> None:
    differences, lacking = list(_differences(pack.about)), _lacking(run_dir.read_recipe())
    if as_json:
        body = {"inexact": differences, "data": lacking or None, "about": pack.about}
        print_json({"run": run_dir.name, "path": str(run_dir.path), **body})
        return
    tell(f"{run_dir.name} {what}.")
    if differences:
        tell("From here on its last bits may differ from those it would have had there:")
        for difference in differences:
            tell(f"  {difference}")
    else:
        tell("Same torch and same processor: it goes on bit for bit as it would have there.")
    if lacking:
        tell(f"Not yet, though: {lacking}")
    tell(f"Go on with `ondevice train {run_dir.name}`, here or there, not both.")


def _lacking(recipe: Recipe) -> str:
    """What training needs and is not here, in a sentence."""
    from ondevice.data.parcel import open_dataset

    try:
        open_dataset(recipe.data)
    except DataError as error:
        return f"{error} Or pack the run again, without --no-data."
    return ""


def _differences(about: dict[str, Any]) -> Iterator[str]:
    """What differs between the machine of the newest checkpoint and this one, and may change bits."""
    facts, there = about.get("exactness", {}), about.get("environment", {})
    here = {**environment(), "processor": _processor()}
    for key in ("machine", "processor"):
        if there.get(key) != here[key] or here[key] is None:
            yield f"{key}: {_shown(there.get(key))} -> {_shown(here[key])}"
    if here["torch"] is None:
        yield "torch: not installed here; `ondevice doctor` tells how to install it"
        return
    import torch

    for name, now in (
        ("torch_version", torch.__version__),
        ("cpu_capability", torch.backends.cpu.get_cpu_capability()),
    ):
        if facts.get(name) not in (None, now):
            yield f"{name}: {_shown(facts[name])} -> {now}"
    if isinstance(threads := facts.get("threads"), int) and threads > cores():
        yield f"threads: {threads} were used there, {cores()} can be used here"


def _shown(value: Any) -> str:
    return "unknown" if value is None else str(value)[:80]
