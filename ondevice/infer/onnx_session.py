"""One onnxruntime session of one of our graphs, with its key-value cache kept as onnxruntime's own values.

The cache of a step is handed to the next without a copy through numpy. Knows the input and output names of
ARCHITECTURE.md and left padding; knows nothing of folders or sampling.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.device.host import platform_name
from ondevice.errors import DataError, DeviceError
from ondevice.infer.export_folder import release
from ondevice.run.recipe import ModelShape

__all__ = ["OLDEST_NATIVE", "OLDEST_ONNXRUNTIME", "OnnxSession", "import_onnxruntime"]

OLDEST_ONNXRUNTIME = "1.20"
OLDEST_NATIVE = "1.23"
"""The first that runs attention of opset 23."""

_ERRORS_ONLY = 3


def import_onnxruntime(oldest: str = OLDEST_ONNXRUNTIME) -> Any:
    """The onnxruntime module. Raises DeviceError with the command that installs it when missing or too old."""
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(f"onnxruntime is not installed; run `{_install_command()}`.") from error
    if release(onnxruntime.__version__) < release(oldest):
        raise DeviceError(
            f"onnxruntime {onnxruntime.__version__} is too old for this model, which needs {oldest}; "
            f"run `{_install_command()}`."
        )
    return onnxruntime


def _install_command() -> str:
    """Termux has a package and no wheel; everywhere else PyPI has wheels."""
    if platform_name() == "android":
        return "pkg upgrade && pkg install python-onnxruntime"
    return "pip install --upgrade onnxruntime"


class OnnxSession:
    """A session and its cache. ``low_memory`` trades speed for memory: weights are used as they lie in the file
    (mapped, when they are external) instead of being repacked, and freed buffers go back to the system."""

    def __init__(
        self,
        model: Path,
        shape: ModelShape,
        *,
        threads: int | None = None,
        low_memory: bool = False,
        oldest: str = OLDEST_ONNXRUNTIME,
    ) -> None:
        self._ort = import_onnxruntime(oldest)
        self.version: str = self._ort.__version__
        self._shape = shape
        self._session = _open(self._ort, model, _options(self._ort, threads, low_memory=low_memory))
        layers = range(shape.layers)
        self._past_names = [f"past_key_values.{i}.{part}" for i in layers for part in ("key", "value")]
        self._present_names = [f"present.{i}.{part}" for i in layers for part in ("key", "value")]
        self.start(1)

    @property
    def length(self) -> int:
        """Columns in the cache, padding included."""
        return int(self._mask_BS.shape[1])

    def start(self, batch: int) -> None:
        """Empties the cache."""
        empty = np.zeros((batch, self._shape.kv_heads, 0, self._shape.head_dim), dtype=np.float32)
        self._mask_BS = np.zeros((batch, 0), dtype=np.int64)
        self._past = [self._ort.OrtValue.ortvalue_from_numpy(empty) for _ in self._past_names]

    def keep(self, rows: Sequence[int]) -> None:
        """Leaves only some sequences, in the given order."""
        chosen = list(rows)
        self._mask_BS = self._mask_BS[chosen]
        self._past = [self._ort.OrtValue.ortvalue_from_numpy(each.numpy()[chosen]) for each in self._past]

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Gives the cache back at the end, whatever happened to it inside."""
        mask_BS, past = self._mask_BS, self._past
        try:
            yield
        finally:
            self._mask_BS, self._past = mask_BS, past

    def run(self, ids_BT: np.ndarray, *, mask_BT: np.ndarray | None = None) -> np.ndarray:
        """Appends tokens and gives the logits after each, ``[B, T, V]``. ``mask_BT`` is false at padding."""
        mask = np.ones_like(ids_BT) if mask_BT is None else mask_BT
        mask_BS = np.concatenate([self._mask_BS, mask], axis=1, dtype=np.int64)
        positions_BS = np.maximum(mask_BS.cumsum(axis=1) - 1, 0)
        arrays = {
            "input_ids": np.ascontiguousarray(ids_BT, dtype=np.int64),
            "attention_mask": mask_BS,
            "position_ids": np.ascontiguousarray(positions_BS[:, self.length :]),
        }
        feeds = {name: self._ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
        feeds.update(zip(self._past_names, self._past, strict=True))
        values = self._session.run_with_ort_values(["logits", *self._present_names], feeds)
        self._past, self._mask_BS = values[1:], mask_BS
        logits: np.ndarray = values[0].numpy()
        return logits


def _options(ort: Any, threads: int | None, *, low_memory: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    options.enable_mem_pattern = False  # the shapes of the cache change at every step
    # Threads spin while a step runs, which makes decoding faster, and sleep between steps, which spares the battery.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if low_memory:
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def _open(ort: Any, model: Path, options: Any) -> Any:
    if not model.is_file():
        raise DataError(f"{model}: no such file; export again.")
    try:
        return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        if "opset" in str(error).lower():
            raise DeviceError(
                f"onnxruntime {ort.__version__} is too old for {model.name}; run `{_install_command()}`."
            ) from error
        raise DataError(f"{model}: onnxruntime cannot load it ({_first_line(error)}); export again.") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
