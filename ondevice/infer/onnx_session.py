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
from ondevice.infer.export_folder import IN_PLACE, NATIVE, PORTABLE, release
from ondevice.run.recipe import ModelShape

__all__ = ["OLDEST", "OLDEST_ONNXRUNTIME", "OnnxSession", "import_onnxruntime"]

OLDEST_ONNXRUNTIME = "1.20"
OLDEST = {PORTABLE: OLDEST_ONNXRUNTIME, NATIVE: "1.23", IN_PLACE: "1.22"}
"""The oldest onnxruntime for each form: 1.23 has attention of opset 23, 1.22 takes a mask in its own attention."""

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
        in_place: bool = False,
    ) -> None:
        """``in_place``: the graph writes into caches of fixed length that are handed to it. Raises DeviceError for an
        onnxruntime that is missing or too old, DataError for a file that it cannot load."""
        self._ort = import_onnxruntime(oldest)
        self.version: str = self._ort.__version__
        self._shape, self._in_place = shape, in_place
        self._session = _open(self._ort, model, _options(self._ort, threads, low_memory=low_memory))
        layers = range(shape.layers)
        self._past_names = [f"past_key_values.{i}.{part}" for i in layers for part in ("key", "value")]
        self._present_names = [f"present.{i}.{part}" for i in layers for part in ("key", "value")]
        self._past: list[Any] = []
        self.start(1)

    @property
    def context(self) -> int:
        """The most tokens a cache may hold."""
        return self._shape.context

    @property
    def length(self) -> int:
        """Columns in the cache, padding included."""
        return int(self._mask_BS.shape[1])

    def start(self, batch: int, *, capacity: int | None = None) -> None:
        """Empties the cache; ``capacity`` is the most tokens it will hold, by default the context."""
        length = (capacity or self._shape.context) if self._in_place else 0
        dims = (batch, self._shape.kv_heads, length, self._shape.head_dim)
        self._mask_BS = np.zeros((batch, 0), dtype=np.int64)
        if not self._in_place or self._dims() != dims:
            self._past = []  # not two at a time
            self._past = [self._value(np.zeros(dims, dtype=np.float32)) for _ in self._past_names]

    def _dims(self) -> tuple[int, ...]:
        return tuple(self._past[0].shape()) if self._past else ()

    def _value(self, array: np.ndarray) -> Any:
        """A value of onnxruntime over an array, which it uses where it lies."""
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))

    def keep(self, rows: Sequence[int]) -> None:
        """Leaves only some sequences, in the given order."""
        chosen = list(rows)
        self._mask_BS = self._mask_BS[chosen]
        self._past = [self._value(each.numpy()[chosen]) for each in self._past]

    @contextmanager
    def set_aside(self) -> Iterator[None]:
        """Gives the cache back at the end, whatever happened to it inside."""
        mask_BS, past = self._mask_BS, self._past
        self._past = []  # a cache of fixed length is not written into meanwhile
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
        feeds = {name: self._value(array) for name, array in arrays.items()}
        feeds.update(zip(self._past_names, self._past, strict=True))
        run = self._run_in_place if self._in_place else self._run_growing
        try:
            logits: np.ndarray = run(feeds).numpy()
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise DataError(
                f"onnxruntime {self.version} cannot run the model ({_first_line(error)}); export again."
            ) from error
        self._mask_BS = mask_BS
        return logits

    def _run_growing(self, feeds: dict[str, Any]) -> Any:
        values = self._session.run_with_ort_values(["logits", *self._present_names], feeds)
        self._past = values[1:]
        return values[0]

    def _run_in_place(self, feeds: dict[str, Any]) -> Any:
        """The same buffers are what was and what is."""
        binding = self._session.io_binding()
        for name, value in feeds.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits")
        for name, value in zip(self._present_names, self._past, strict=True):
            binding.bind_ortvalue_output(name, value)
        self._session.run_with_iobinding(binding)
        return binding.get_outputs()[0]


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
