"""What watching costs: a synthetic week (a million records, several launches, kills) and a run that goes on.

    python tools/bench/feed.py [--records 1000000] [--folder FOLDER]

Measured in a fresh process each: time until the first snapshot can be painted, until everything is read, the longest
time one slice holds the interpreter, and the peak memory; then, with a trainer of paper that writes two steps a second,
the share of one core that following costs at four polls a second. The week is written once and kept with --folder.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WEEK_S = 7 * 86_400
LAUNCHES = 6
READING_EVERY, EVAL_EVERY, SAVE_EVERY, ORDER_EVERY = 50, 2000, 1000, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--part", choices=("read", "follow"))
    args = parser.parse_args()
    if args.part:
        {"read": read, "follow": follow}[args.part](args.folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch) / "week"
        if not folder.exists():
            make_week(folder, args.records)
        size_mb = sum(path.stat().st_size for path in folder.rglob("*.jsonl")) / 2**20
        print(f"{args.records:,} records, {size_mb:,.0f} MB")
        for part in ("read", "follow"):
            subprocess.run([sys.executable, "-P", __file__, "--part", part, "--folder", str(folder)], check=True)


def make_week(folder: Path, records: int) -> None:
    """A run directory as six launches of a trainer leave it, five of them killed."""
    from ondevice.run.files import write_json
    from ondevice.run.telemetry import chained, first_chain

    (folder / "telemetry").mkdir(parents=True)
    write_json(folder / "run.json", {"layout": 1})
    told, step = 0, 0
    for launch in range(1, LAUNCHES + 1):
        chain = first_chain(launch)
        with open(folder / "telemetry" / f"{launch:04d}.jsonl", "wb") as file:
            saved = step // SAVE_EVERY * SAVE_EVERY
            for record in _launch(launch, saved, records // LAUNCHES, told * WEEK_S / records, WEEK_S / records):
                line, chain = chained(record, chain)
                file.write(line)
                told, step = told + 1, record["step"]


def _launch(number: int, resumed: int, records: int, t: float, every_s: float) -> Iterator[dict[str, Any]]:
    dice, step = random.Random(number), resumed
    t0 = 1_700_000_000.0 + t

    def record(kind: str, count: int, **fields: Any) -> dict[str, Any]:
        return {"v": 1, "t": round(t0 + count * every_s, 3), "kind": kind, "step": step, **fields}

    yield record("launch", 0, launch=number, resumed_step=resumed or None, steps=1_200_000)
    for count in range(1, records):
        if count % READING_EVERY == 0:
            cpu_c, battery_c = 60 + dice.gauss(0, 4), 36 + dice.gauss(0, 1)
            yield record("reading", count, cpu_c=cpu_c, battery_c=battery_c, rss_mb=412.0, disk_free_mb=9000.0)
        elif count % EVAL_EVERY == 1:
            loss = 1.7 + 3.6 * math.exp(-step / 2e5)
            yield record("eval", count, val_loss={"notes": loss, "code": loss - 0.3}, val_loss_mixed=loss - 0.1)
        elif count % SAVE_EVERY == 2:
            yield record("checkpoint", count, save_s=0.41, bytes=40_000_000, removed=[step - 3000], lightened=[])
        elif count % ORDER_EVERY == 3:
            yield record("order", count, order="run", duty=dice.random(), why="The battery is at 38.4 C.")
        else:
            step += 1
            loss, norm, step_s = 1.7 + 3.6 * math.exp(-step / 2e5) + dice.gauss(0, 0.05), 0.5 + dice.random(), 0.5
            rate = {"step_s": round(step_s + dice.random() / 20, 5), "tok_s": round(15360 + dice.random(), 1)}
            lr = 1e-3 * (1 - step / 1.2e6)
            yield record("step", count, tokens=step * 7680, loss=loss, lr=lr, grad_norm=norm, **rate)


def read(folder: Path) -> None:
    """First paint, completion and memory of one feed, slices as the terminal UI takes them."""
    began = time.perf_counter()
    from tui.feed import Feed

    feed = Feed([folder])
    imported = time.perf_counter()
    snapshot = feed.snapshot()
    first, cpu = time.perf_counter(), time.process_time()
    snapshots = 1
    while snapshot.catching_up:
        snapshot, snapshots = feed.snapshot(), snapshots + 1
    done = time.perf_counter()
    run = snapshot.runs[0]
    drawn = time.perf_counter()
    for name in ("loss", "loss_smooth", "grad_norm", "val:", "battery_c", "duty"):
        run.plots.series(name, x="time", max_points=400)
    drawn = time.perf_counter() - drawn
    from ondevice.device.memory import peak_rss_mb  # last, so that its own cost is not counted

    print(
        json.dumps(
            {
                "import_s": round(imported - began, 2),
                "first_paint_s": round(first - began, 2),
                "complete_s": round(done - began, 2),
                "cpu_s": round(time.process_time() - cpu, 2),
                "snapshots": snapshots,
                "six_plots_ms": round(1000 * drawn, 1),
                "peak_rss_mb": round(peak_rss_mb() or 0.0, 1),
                "state": run.state,
                "step": run.step,
                "kills": run.kills,
                "loss_points": len(run.plots.by_step["loss"]),
            }
        )
    )


def follow(folder: Path, *, seconds: float = 15.0) -> None:
    """Share of one core while a trainer of paper writes two steps and one status a second."""
    from ondevice.run.directory import RunDir
    from ondevice.run.liveness import write_status
    from ondevice.run.telemetry import TelemetryWriter
    from tui.feed import Feed

    run = RunDir(folder)
    feed = Feed([folder], budget_s=30.0)
    feed.snapshot()
    for path in (folder / "telemetry").glob("9999.jsonl"):
        path.unlink()
    writer, stop, wrote = TelemetryWriter(run.telemetry, 9999), threading.Event(), [0.0]

    def write() -> None:
        step = 1_000_000
        writer.write("launch", step, launch=9999, resumed_step=step, steps=1_200_000)
        while not stop.wait(0.5):
            began = time.thread_time()
            step += 1
            values = {"loss": 1.7, "lr": 1e-3, "grad_norm": 0.5, "step_s": 0.5, "tok_s": 15360.0}
            writer.write("step", step, tokens=step * 7680, **values)
            write_status(run, {"heartbeat_t": time.time(), "state": "running", "step": step}, durable=False)
            wrote[0] += time.thread_time() - began

    thread = threading.Thread(target=write)
    thread.start()
    cpu, until, polls = time.process_time(), time.monotonic() + seconds, 0
    while time.monotonic() < until:
        feed.snapshot()
        polls += 1
        time.sleep(0.25)
    used = time.process_time() - cpu - wrote[0]
    stop.set()
    thread.join()
    writer.close()
    writer.path.unlink()
    print(json.dumps({"follow_percent_of_core": round(100 * used / seconds, 2), "polls": polls}))


if __name__ == "__main__":
    main()
