"""A large corpus made ready: its speed against the tokenizer library alone, and the memory it takes.

    python tools/bench/corpus.py [--size 200] [--near] [--text FILE ...] [--format text|jsonl] [--keep FOLDER]

Documents of about 700 bytes are made of lines of real text (this Python's own library, where none is given) with a
number of their own; one in 25 is an exact copy of an earlier one, one in 25 nearly one. A process of its own cleans,
splits, deduplicates (with --near by MinHash too) and tokenises them, with a vocabulary that exists. Every few seconds
it is stopped and the library encodes a slice of the same documents here, so that whatever else the machine does slows
both alike. Wanted: >= 0.7 of the library's speed, < 400 MB at its largest. The corpus is deleted afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ondevice.run.schema import CleanConfig, DataConfig, SourceConfig, TokenizerConfig

VOCABULARY = 4096
FILE_BYTES = 32_000_000
SAMPLE_DOCUMENTS = 6_000  # of the vocabulary
SLICE_DOCUMENTS = 1_500  # about a megabyte, encoded at each turn
TURN_S = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=200, metavar="MB")
    parser.add_argument("--near", action="store_true", help="leave out near copies too, at 0.8")
    parser.add_argument("--text", type=Path, action="append", default=[], metavar="FILE", help="real text (repeatable)")
    parser.add_argument("--format", choices=("text", "jsonl"), default="text")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here, and delete nothing")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(build(args.child, args)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    place = args.keep or Path(tempfile.mkdtemp(prefix="bench-corpus-"))
    try:
        compare(place, args)
    finally:
        if args.keep is None:
            shutil.rmtree(place, ignore_errors=True)


def wish(args: argparse.Namespace) -> DataConfig:
    source = SourceConfig(path="text", name="text", document="paragraph", format=args.format)
    clean = CleanConfig(unicode="nfc", min_words=3, near_duplicates=0.8 if args.near else None)
    return DataConfig(sources=(source,), clean=clean)


def lines_of(paths: list[Path]) -> list[str]:
    library = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in paths or library]
    return [line for text in texts for line in text.splitlines() if line.strip()]


def documents(lines: list[str]) -> Iterator[str]:
    """Without end; a number makes each its own, copies apart."""
    dice, number = random.Random(0), 0
    earlier = [""] * 512
    while True:
        number += 1
        kind = dice.random()
        copied = earlier[dice.randrange(512)]
        if kind < 0.04 and copied:
            text = copied
        elif kind < 0.08 and copied:
            text = f"{copied} again"
        else:
            text = "\n".join(dice.choices(lines, k=16)) + f" {number}"
            earlier[number % 512] = text
        yield text


def write_corpus(folder: Path, lines: list[str], args: argparse.Namespace) -> int:
    """Bytes of text written, in files of some megabytes."""
    folder.mkdir(parents=True)
    source, made = documents(lines), 0
    jsonl, suffix = args.format == "jsonl", "jsonl" if args.format == "jsonl" else "txt"
    while made < args.size * 1e6:
        with open(folder / f"{made // FILE_BYTES:05d}.{suffix}", "w", encoding="utf-8") as file:
            begun = made
            while made - begun < FILE_BYTES and made < args.size * 1e6:
                text = next(source)
                made += file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n" if jsonl else text + "\n\n")
    return sum(path.stat().st_size for path in folder.iterdir())


def compare(place: Path, args: argparse.Namespace) -> None:
    from tokenizers import Tokenizer

    from ondevice.data.build import train_from_sources

    lines = lines_of(args.text)
    size = write_corpus(place / "corpus" / "text", lines, args)
    (place / "sample" / "text").mkdir(parents=True)
    source = documents(lines)
    sample = [next(source) for _ in range(SAMPLE_DOCUMENTS)]
    (place / "sample" / "text" / "some.txt").write_text("\n\n".join(sample), "utf-8")
    plain = argparse.Namespace(near=False, format="text")
    train_from_sources(
        wish(plain), TokenizerConfig(kind="bpe", vocab_size=VOCABULARY), base=place / "sample", folder=place / "bpe"
    )
    library = Tokenizer.from_file(str(place / "bpe" / "tokenizer.json"))
    report(size, args, *take_turns(place, args, library, sample[:SLICE_DOCUMENTS]))


def take_turns(
    place: Path, args: argparse.Namespace, library: Any, sample: list[str]
) -> tuple[float, list[float], dict[str, Any]]:
    """Seconds the build was let work, MB/s of the library at each turn, and what the build said of itself, with the
    processor seconds that the library takes for a megabyte."""
    command = [sys.executable, __file__, "--child", str(place), "--format", args.format, *["--near"] * args.near]
    sample_mb = sum(len(text.encode()) for text in sample) / 1e6
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    worked, rates, cpu_s = 0.0, [], 0.0
    try:
        while True:
            began = time.perf_counter()
            try:
                child.wait(TURN_S)
                worked += time.perf_counter() - began
                break
            except subprocess.TimeoutExpired:
                os.kill(child.pid, signal.SIGSTOP)
                worked += time.perf_counter() - began
            began, cpu = time.perf_counter(), time.process_time()
            library.encode_batch(sample)
            cpu_s += time.process_time() - cpu
            rates.append(sample_mb / (time.perf_counter() - began))
            os.kill(child.pid, signal.SIGCONT)
    finally:
        child.kill()
    if child.returncode or child.stdout is None:
        raise SystemExit("The build failed; its own words are above.")
    return worked, rates, {**json.loads(child.stdout.read()), "library_cpu_s": cpu_s / len(rates) / sample_mb}


def build(place: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Builds the dataset in this process; gives its largest resident size and what came of the text."""
    from ondevice.data.build import build_dataset

    phases: dict[str, float] = {}

    def progress(done: int, total: int, phase: str) -> None:
        phases.setdefault(phase, time.process_time())

    began = time.process_time()
    dataset = build_dataset(
        wish(args),
        TokenizerConfig(path=str(place / "bpe")),
        base=place / "corpus",
        folder=place / "dataset",
        progress=progress,
    )
    totals = dataset.manifest["totals"]
    found = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    return {
        "peak_mb": int(found[0]) / 1e3,
        "cpu_s": time.process_time() - began,
        "phases": phases,
        "documents": totals["documents"],
        "duplicates": totals["duplicates"],
        "tokens": totals["tokens"],
        "chunks": len(dataset.manifest["chunks"]),
    }


def report(size: int, args: argparse.Namespace, worked: float, rates: list[float], said: dict[str, Any]) -> None:
    theirs, ours = statistics.median(rates), size / 1e6 / worked
    print(f"{size / 1e6:,.0f} MB of {args.format}, {said['documents']:,} documents kept, {said['duplicates']:,} copies")
    print(f"{said['tokens']:,} tokens in {said['chunks']:,} chunks; load {os.getloadavg()[0]:.1f}")
    print(f"build   {ours:6.2f} MB/s, {worked:,.0f} s, {said['cpu_s']:,.0f} s of processor time")
    print(f"library {theirs:6.2f} MB/s, median of {len(rates)} turns, {min(rates):.2f} to {max(rates):.2f}")
    cpu = said["library_cpu_s"] * size / 1e6 / said["cpu_s"]
    print(f"ratio   {ours / theirs:6.2f}, wanted >= 0.70; of processor time {cpu:.2f}")
    print(f"memory  {said['peak_mb']:6.0f} MB at its largest, wanted < 400")


if __name__ == "__main__":
    main()
