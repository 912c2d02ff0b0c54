"""One real step of a planned run, alone in a process: its peak memory and its seconds; `ondevice.train.measure` asks.

The base, the adapter, the optimizer's states and the first batch are the run's own; nothing that is computed here is
kept, so no bit of what is learned can depend on it. Writes nothing but one line of JSON to its standard output.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ondevice.data.cursor import Batch
from ondevice.data.parcel import open_dataset
from ondevice.device.memory import peak_rss_mb
from ondevice.errors import OndeviceError
from ondevice.run.recipe import Fit, Recipe
from ondevice.train.begin import make_state, prepare_torch
from ondevice.train.engine import Engine, micro_batches

__all__ = ["OUT_OF_MEMORY", "main", "measure_step"]

OUT_OF_MEMORY = 12  # exit code


def main(path: str) -> int:
    """Reads recipe and fit from a file and prints ``peak_mb`` and ``step_s``, or ``error``."""
    raw = json.loads(Path(path).read_text("utf-8"))
    try:
        recipe, fit = Recipe.from_json(raw["recipe"], where=path), Fit.from_json(raw["fit"], where=path)
        found: dict[str, Any] = measure_step(recipe, fit, kept=raw.get("kept"))
    except OndeviceError as error:
        found = {"error": str(error)}
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        return OUT_OF_MEMORY
    print(json.dumps(found))
    return 0


def measure_step(recipe: Recipe, fit: Fit, *, kept: Sequence[int] | None = None) -> dict[str, Any]:
    """``peak_mb`` of this process (None where the system does not tell) and ``step_s`` of a whole step of the run,
    which trains with the tokens ``kept`` of a trimmed vocabulary.

    A first update makes the optimizer's states; the gradients after it are at the peak of all later steps. Of many
    micro-batches two are enough, since the second adds to the gradients of the first; a layerwise step needs them all.
    """
    prepare_torch(fit, recipe)
    dataset = open_dataset(recipe.data)
    dataset.tokenizer()  # evaluations and samples of the run hold it
    state = make_state(recipe, dataset, fit, None, kept=kept)
    engine = Engine.of(state.model, state.optimizer, recipe, fit)
    batch = state.next_batch()
    whole = -(-len(batch.x_BT) // fit.micro_batch)
    count = whole if fit.layerwise else min(2, whole)
    _step(engine, batch, fit, count=count if fit.layerwise else 1)
    gradients_s, update_s = _step(engine, batch, fit, count=count)
    return {"peak_mb": peak_rss_mb(), "step_s": gradients_s * whole / count + update_s}


def _step(engine: Engine, batch: Batch, fit: Fit, *, count: int) -> tuple[float, float]:
    """A step of the first ``count`` micro-batches: seconds of its gradients and of its update, at a rate of 0."""
    began = time.perf_counter()
    engine.begin(batch.y_BT[: count * fit.micro_batch])
    for number, piece in enumerate(micro_batches(batch, fit.micro_batch)):
        if number < count:
            engine.accumulate(*piece)
    for _ in engine.pieces(0.0):
        pass
    done = time.perf_counter()
    engine.update(0.0)
    return done - began, time.perf_counter() - done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
