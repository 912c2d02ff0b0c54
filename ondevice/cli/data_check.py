"""``ondevice data check``: what is wrong with files of examples, with file and line."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondevice.cli.common import at_least, looks_like_config, print_json
from ondevice.cli.folding import tell
from ondevice.errors import DataError, UsageError

if TYPE_CHECKING:
    from ondevice.data.check import CheckReport
    from ondevice.data.contract import Contract

__all__ = ["add_check_arguments", "check"]

_SHOWN = 20


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", nargs="+", help="files of rows (.jsonl), or one config (.toml) or contract.toml")
    parser.add_argument("--held-out", action="append", default=[], metavar="FILE", help="rows kept for judging")
    parser.add_argument("--contract", metavar="FILE", help="what every row must be (contract.toml)")
    parser.add_argument("--examples", choices=("auto", "instruction", "chat", "completion"), default="auto")
    parser.add_argument("--tokenizer", metavar="PATH", help="a tokenizer or model folder, to count tokens")
    parser.add_argument("--context", type=at_least(2), metavar="N", help="say which rows are longer than N tokens")


def check(args: argparse.Namespace) -> int:
    """Prints the report; 3 where there are errors, as for any bad data."""
    from ondevice.data.check import check_examples
    from ondevice.data.tokenizer import import_tokenizer

    job = _job(args)
    path = job.pop("tokenizer")
    if args.context and not path:
        raise UsageError("--context counts tokens, so it needs --tokenizer, or a config that names a model.")
    report = check_examples(**job, tokenizer=import_tokenizer(Path(path)) if path else None)
    if args.json:
        print_json({**dataclasses.asdict(report), "errors": report.errors, "warnings": report.warnings})
    else:
        for line in _lines(report, job["contract"]):
            tell(line)
    return DataError.exit_code if report.errors else 0


def _job(args: argparse.Namespace) -> dict[str, Any]:
    """What to read: files as they are named, those of a contract, or the sources of a config."""
    first, contract = args.target[0], args.contract
    if len(args.target) > 1 and any(looks_like_config(name) for name in args.target):
        raise UsageError("name one config or contract, or one or more files of rows.")
    if looks_like_config(first) and not contract and _is_contract(first):
        return _of_contract(args, first)
    if looks_like_config(first):
        return _of_config(args, first)
    job = _files(args, [Path(os.path.expanduser(name)) for name in args.target])
    return {**job, "contract": _contract(contract)}


def _is_contract(name: str) -> bool:
    """A contract speaks of a task and of outputs, which no config does."""
    import tomllib

    try:
        raw = tomllib.loads(Path(os.path.expanduser(name)).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return "task" in raw or "output" in raw


def _files(args: argparse.Namespace, train: list[Path]) -> dict[str, Any]:
    held_out = [Path(os.path.expanduser(name)) for name in args.held_out]
    for path in (*train, *held_out):
        if not path.exists():
            raise DataError(f"{path}: no such file; name one of JSON Lines.")
    common = {"kind": args.examples, "context": args.context, "tokenizer": args.tokenizer}
    return {"train": train, "held_out": held_out, **common}


def _of_contract(args: argparse.Namespace, name: str) -> dict[str, Any]:
    contract = _contract(name)
    assert contract is not None
    if contract.train is None:
        raise UsageError(f"{name}: names no rows; add train = '...' under [files], or check FILE --contract {name}.")
    args.held_out = args.held_out or ([str(contract.held_out)] if contract.held_out else [])
    return {**_files(args, [contract.train]), "contract": contract}


def _of_config(args: argparse.Namespace, name: str) -> dict[str, Any]:
    from ondevice.run.config import load_config

    config = load_config(name)
    if not config.data.sources:
        raise UsageError(f"{name}: has no [[data.sources]], so there is nothing to check.")
    args.tokenizer = args.tokenizer or config.tokenizer.path or config.model.base or None
    args.context = args.context or (config.model.context if args.tokenizer else None)
    if args.examples == "auto" and config.data.examples != "off":
        args.examples = config.data.examples
    contract = _contract(args.contract or config.data.contract or None)
    args.held_out = args.held_out or ([str(contract.held_out)] if contract and contract.held_out else [])
    return {**_files(args, [Path(source.path) for source in config.data.sources]), "contract": contract}


def _contract(name: str | None) -> Contract | None:
    from ondevice.data.contract import read_contract

    return read_contract(Path(os.path.expanduser(name))) if name else None


def _lines(report: CheckReport, contract: Contract | None) -> Iterator[str]:
    for fault in report.faults[:_SHOWN]:
        yield f"{fault.level}: {fault.where}: {fault.text}"
    if len(report.faults) > _SHOWN:
        yield f"... and more; --json has {len(report.faults)} of them."
    if contract is not None:
        yield f"Contract {contract.task}{f': {contract.scope}' if contract.scope else ''}"
    for path, count in report.rows.items():
        yield f"Rows     {count:,} sound in {path}"
    yield from _length_lines(report.lengths)
    yield from _label_lines(report.labels)
    for name, count in report.counts.items():
        level, kind = name.split(" ")
        yield f"{level.capitalize():<8} {kind}: {count:,}"
    found = ", ".join(
        f"{count:,} {word}{'s' if count != 1 else ''}"
        for count, word in ((report.errors, "error"), (report.warnings, "warning"))
    )
    yield f"{found}." if report.counts else "Nothing is wrong."


def _length_lines(lengths: dict[str, Any]) -> Iterator[str]:
    for name in ("example", "answer"):
        if each := lengths.get(name):
            spread = f"{each['least']:,} to {each['most']:,}, half at most {each['median']:,}"
            yield f"Length   {name}s: {spread}, {each['p95']:,} at 95 % ({lengths['unit']})"
    if lengths:
        yield f"Learned  {lengths['learned_share']:.0%} of all {lengths['unit']}"


def _label_lines(labels: dict[str, Any]) -> Iterator[str]:
    for name, sides in labels.items():
        counts = ", ".join(f"{label} {count:,}" for label, count in sides["train"].items())
        yield f"Labels   {name or 'answer'}: {counts}"
