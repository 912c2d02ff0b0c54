"""Speed and memory of the dataset build.

Speed: a build with a tokenizer that exists, against the tokenizer library's own batch encoding of the same documents,
taking turns in one process; medians and their ratio, and the ratio of the least processor seconds, which says more
where others work. Memory: peak RSS of whole builds (tokenizer training included) of a small and a large corpus, each in
a process of its own.

    python tools/bench/data_build.py            10 MB against 1 GB, some minutes
    python tools/bench/data_build.py --small    2 MB against 40 MB, half a minute
    python tools/bench/data_build.py --near     the memory part with near copies left out (of byte ids)
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ondevice.data.build import build_dataset, train_from_sources
from ondevice.data.tokenizer import import_tokenizer
from ondevice.run.schema import CleanConfig, DataConfig, SourceConfig, TokenizerConfig

KINDS = ("byte", "bpe", "sentencepiece-bpe", "sentencepiece-unigram")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a quick look")
    parser.add_argument("--kinds", default="byte,bpe", help=f"for memory, of {','.join(KINDS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--near", action="store_true", help="leave out near copies, at 0.8; no speed part")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "KIND"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(*peak_of_build(Path(args.child[0]), args.child[1], near=args.near))
        return
    with tempfile.TemporaryDirectory(prefix="bench-data-") as scratch:
        if not args.near:
            speed(Path(scratch), megabytes=4 if args.small else 16, rounds=args.rounds)
        kinds = ["byte"] if args.near else args.kinds.split(",")
        memory(Path(scratch), sizes=(2, 40) if args.small else (10, 1000), kinds=kinds, near=args.near)


def documents(megabytes: float) -> Iterator[str]:
    """Different documents of about 700 bytes, made of lines of this Python's own library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in sorted(root.glob("*.py"))]
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    dice, made = random.Random(0), 0
    while made < megabytes * 1e6:
        text = "\n".join(dice.choices(lines, k=16)) + f" {made}"
        made += len(text) + 2
        yield text


def write_corpus(folder: Path, megabytes: float) -> Path:
    folder.mkdir()
    with open(folder / "text.txt", "w", encoding="utf-8") as file:
        for text in documents(megabytes):
            file.write(text + "\n\n")
    return folder


def config(*, near: bool = False) -> DataConfig:
    clean = CleanConfig(near_duplicates=0.8 if near else None)
    return DataConfig(sources=(SourceConfig(path="text.txt", document="paragraph"),), clean=clean)


def speed(scratch: Path, *, megabytes: float, rounds: int) -> None:
    corpus = write_corpus(scratch / "speed", megabytes)
    texts = (corpus / "text.txt").read_text(encoding="utf-8").strip().split("\n\n")
    size = (corpus / "text.txt").stat().st_size / 1e6
    print(f"{'tokenizer':<22} {'library MB/s':>13} {'build MB/s':>11} {'ratio':>6} {'CPU ratio':>10}")
    for kind in KINDS:
        trained = corpus / kind
        train_from_sources(
            config(), TokenizerConfig(kind=kind, vocab_size=vocabulary(kind)), base=corpus, folder=trained
        )
        encode = library(trained, kind)
        turns = [(clock(lambda e=encode: e(texts)), clock_build(corpus, trained)) for _ in range(rounds)]
        ours = size / statistics.median(mine.wall for _, mine in turns)
        theirs = size / statistics.median(theirs.wall for theirs, _ in turns)
        cpu = min(theirs.cpu for theirs, _ in turns) / min(mine.cpu for _, mine in turns)
        shown = "" if kind == "byte" else f"{theirs:13.1f} {ours:11.1f} {ours / theirs:6.2f} {cpu:10.2f}"
        print(f"{kind:<22} {shown or f'{chr(45):>13} {ours:11.1f} {chr(45):>6}'}", flush=True)


def vocabulary(kind: str) -> int | None:
    return None if kind == "byte" else 4096


def library(trained: Path, kind: str) -> Callable[[list[str]], Any]:
    """What the library does with all documents at once."""
    if kind == "bpe":
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(trained / "tokenizer.json")).encode_batch
    if kind.startswith("sentencepiece"):
        from sentencepiece import SentencePieceProcessor

        return SentencePieceProcessor(model_file=str(trained / "tokenizer.model")).encode
    return import_tokenizer(trained).encode_batch


class Seconds(NamedTuple):
    wall: float
    cpu: float


def clock(work: Callable[[], Any]) -> Seconds:
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - start, time.process_time() - cpu)


def clock_build(corpus: Path, trained: Path) -> Seconds:
    """A whole first build with a tokenizer that exists."""
    folder = corpus / "dataset"
    wish = TokenizerConfig(path=str(trained))
    seconds = clock(lambda: build_dataset(config(), wish, base=corpus, folder=folder))
    shutil.rmtree(folder)
    return seconds


def memory(scratch: Path, *, sizes: tuple[int, int], kinds: list[str], near: bool) -> None:
    corpora = [write_corpus(scratch / f"memory-{size}", size) for size in sizes]
    print(f"\n{'peak RSS of a build':<22}" + "".join(f"{f'{size} MB':>18}" for size in sizes))
    for kind in kinds:
        cells = []
        for corpus in corpora:
            command = [sys.executable, __file__, "--child", str(corpus), kind, *(["--near"] if near else [])]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            peak, seconds = map(float, said.split())
            cells.append(f"{peak:.0f} MB, {seconds:.0f} s CPU")
        print(f"{kind:<22}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def peak_of_build(corpus: Path, kind: str, *, near: bool) -> tuple[float, float]:
    """Builds and returns this process's largest resident size in MB and its processor seconds."""
    folder = corpus / f"dataset-{kind}"
    build_dataset(config(near=near), TokenizerConfig(kind=kind), base=corpus, folder=folder)
    shutil.rmtree(folder)
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1e3, time.process_time()
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1e6 if sys.platform == "darwin" else 1e3), time.process_time()


if __name__ == "__main__":
    main()
