"""A run's telemetry as TensorBoard event files, through tensorboardX: every number of every record that still counts.

Tags are the telemetry's own names (``step/loss``, ``eval/val_loss.en``), steps and times those of the records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ondevice.errors import DataError, DeviceError
from ondevice.report.csv_files import counted, flat
from ondevice.run.directory import RunDir
from ondevice.run.files import make_folder
from ondevice.run.telemetry import as_number, read_records

__all__ = ["write_tensorboard"]

_KINDS = ("step", "eval", "reading")


def write_tensorboard(run: RunDir, folder: Path) -> int:
    """Gives how many numbers were written. The folder must hold no events yet, or TensorBoard would mix them.

    Raises DeviceError without the package, DataError for a folder with events in it.
    """
    writer_of = _writer()
    if folder.is_dir() and any(folder.glob("events.out.tfevents.*")):
        raise DataError(f"{folder}: holds event files already, and TensorBoard would mix them; name another folder.")
    make_folder(folder)
    written = 0
    with writer_of(logdir=str(folder)) as writer:
        for record in counted(read_records(run.telemetry)):
            if record["kind"] not in _KINDS:
                continue
            for name, value in flat(record).items():
                if name not in ("t", "step", "sim_t") and (number := as_number(value)) is not None:
                    tag = f"{record['kind']}/{name}"
                    writer.add_scalar(tag, number, global_step=record["step"], walltime=record["t"])
                    written += 1
            if record["kind"] == "eval":
                for place, text in enumerate(record.get("generations") or ()):
                    writer.add_text(f"generation/{place}", str(text), record["step"], walltime=record["t"])
    return written


def _writer() -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise DeviceError(
            "TensorBoard files need the package tensorboardX: `pip install tensorboardX`; --csv needs nothing."
        ) from error
    return SummaryWriter
