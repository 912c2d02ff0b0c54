"""Writes the files of a model in the bits of a plan and measures them; of several plans, the smallest good enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.errors import DataError, DeviceError, UsageError
from ondevice.export.graph import Graph, WrittenFile
from ondevice.export.graph_gpt2 import build_gpt2
from ondevice.export.graph_llama import build_llama
from ondevice.export.measure import Perplexity, decode_rate, session_logits, token_losses
from ondevice.export.onnx_format import OPSET
from ondevice.export.plan import CANDIDATES, FP32, MOST_GROWTH, PLANS, Plan
from ondevice.export.verify import LogitsFn, Parity, WrongGraphError, verify_onnx
from ondevice.infer.export_folder import DATA_FILE, IN_PLACE, MODEL_FILE, PORTABLE
from ondevice.infer.onnx_session import OLDEST, OnnxSession, import_onnxruntime
from ondevice.run.recipe import ModelShape

__all__ = ["Bench", "Trial", "build_graph", "graphs_for"]

_ROTATED = 16
_EXTERNAL_ABOVE = 64 << 20  # bytes: mapped weights need no copy in memory; protobuf itself ends at 2 GiB


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A plan as it was written. ``parity`` is None when it could not be checked (``unchecked`` says why),
    ``perplexity`` where there was no text; ``tried`` are the plans that lost too much, with the growth
    of perplexity; ``mapped``, whether it was measured with weights as they lie in the file, which is slower;
    ``not_native``, why it has not the form that was asked for."""

    plan: Plan
    files: tuple[WrittenFile, ...]
    nodes: int
    fp32_bytes: int
    parity: Parity | None = None
    unchecked: str = ""
    perplexity: Perplexity | None = None
    tok_s: float | None = None
    threads: int = 1
    mapped: bool = False
    opset: int = OPSET
    form: str = PORTABLE
    not_native: str = ""
    tried: Mapping[str, float] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.files)

    def to_json(self) -> dict[str, Any]:
        """What ``parity.json`` says."""
        checked = {"checked": True, **self.parity.to_json()} if self.parity else {"checked": False}
        return {
            **checked,
            **({} if self.parity else {"reason": self.unchecked}),
            "plan": self.plan.name,
            "opset": self.opset,
            "form": self.form,
            "bytes": self.bytes,
            "fp32_bytes": self.fp32_bytes,
            "size": round(self.bytes / self.fp32_bytes, 4),
            "perplexity": self.perplexity.to_json() if self.perplexity else None,
            "decode_tok_s": self.tok_s and round(self.tok_s, 1),
            "threads": self.threads,
            "memory_mapped": self.mapped,
            "lost_too_much": {name: round(growth, 5) for name, growth in self.tried.items()},
        }


def build_graph(shape: ModelShape, state: Mapping[str, Any], plan: Plan = FP32, *, form: str = PORTABLE) -> Graph:
    """The graph of a decoder in one of `FORMS`, its matrices in the bits of a plan.

    Raises UsageError for an unknown architecture, CheckpointError for weights that do not fit the shape."""
    builders = {"gpt2": build_gpt2, "llama": build_llama}
    if shape.arch not in builders:
        raise UsageError(f"No ONNX graph for the architecture {shape.arch!r}; known: {', '.join(builders)}.")
    return builders[shape.arch](shape, state, plan, form=form)


def _check_form(form: str, shape: ModelShape) -> None:
    """Raises DeviceError for a form that no onnxruntime computes for such a shape."""
    if form == IN_PLACE and shape.arch == "llama" and shape.head_dim % _ROTATED:
        raise DeviceError(
            f"onnxruntime's own attention rotates heads of multiples of {_ROTATED}, this model has {shape.head_dim}."
        )


def graphs_for(
    shape: ModelShape, state: Mapping[str, Any], quantize: str, *, form: str = PORTABLE
) -> list[tuple[Plan, Graph]]:
    """The graphs to try, the smallest first; one for a plan that is named. Raises UsageError, CheckpointError."""
    if quantize != "auto" and quantize not in PLANS:
        raise UsageError(f"No plan {quantize!r} of bits; choose {', '.join(PLANS)} or auto.")
    plans = CANDIDATES if quantize == "auto" else (PLANS[quantize],)
    graphs = [(plan, build_graph(shape, state, plan, form=form)) for plan in plans]
    return sorted(graphs, key=lambda each: each[1].data_bytes)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What plans are measured with: the model itself as ``reference``, windows of token ids as ``text``."""

    shape: ModelShape
    parameters: int
    reference: LogitsFn | None
    text: Sequence[np.ndarray]
    threads: int
    external: bool | None
    form: str = PORTABLE

    def try_form(
        self,
        form: str,
        graphs: Sequence[tuple[Plan, Graph]],
        portable: Sequence[tuple[Plan, Graph]],
        folder: Path,
    ) -> Trial:
        """`try_plans` of graphs in a form; of the portable ones where this onnxruntime cannot run those rightly."""
        try:
            _check_form(form, self.shape)
            import_onnxruntime(OLDEST[form])
            trial = dataclasses.replace(self, form=form).try_plans(graphs, folder)
            why = trial.unchecked if trial.parity is None else ""
        except (DataError, DeviceError, WrongGraphError) as error:
            why = str(error)
        return dataclasses.replace(self.try_plans(portable, folder), not_native=why) if why else trial

    def try_plans(self, graphs: Sequence[tuple[Plan, Graph]], folder: Path) -> Trial:
        """Writes one plan after another into ``folder`` until one is good enough; of one plan, whatever it is.

        Raises UsageError for several plans without text, and as `export_onnx`.
        """
        if len(graphs) == 1:
            return self._measured(self._write(*graphs[0], folder), folder)
        if self.reference is None or not self.text:
            raise UsageError("The plan of bits is chosen by validation text, and there is none; name int8 or int4.")
        tried: dict[str, float] = {}
        for plan, graph in graphs:
            trial = self._measured(self._write(plan, graph, folder), folder)
            if trial.perplexity is None:
                raise DeviceError(f"The plan of bits is chosen with onnxruntime: {trial.unchecked}")
            if plan == FP32 or trial.perplexity.change <= MOST_GROWTH:
                break
            tried[plan.name] = trial.perplexity.change
        return dataclasses.replace(trial, tried=tried)

    def _write(self, plan: Plan, graph: Graph, folder: Path) -> Trial:
        for name in (MODEL_FILE, DATA_FILE):
            (folder / name).unlink(missing_ok=True)  # onnxruntime may still have the last plan's file mapped
        outside = graph.data_bytes > _EXTERNAL_ABOVE if self.external is None else self.external
        files = graph.save(folder, external=outside, metadata={"arch": self.shape.arch, "plan": plan.name})
        whole = 4 * self.parameters
        return Trial(
            plan=plan,
            files=tuple(files),
            nodes=graph.nodes,
            fp32_bytes=whole,
            threads=self.threads,
            opset=graph.opset,
            form=self.form,
        )

    def _measured(self, trial: Trial, folder: Path) -> Trial:
        if self.reference is None:
            return dataclasses.replace(trial, unchecked="no reference model was given")
        # Repacked weights are what int4 computes with; of fp32 they would be one more copy of the whole model.
        lean = not trial.plan.quantized
        try:
            session = OnnxSession(
                folder / MODEL_FILE,
                self.shape,
                threads=self.threads,
                low_memory=lean,
                in_place=self.form == IN_PLACE,
            )
        except DeviceError as error:  # a phone without onnxruntime may still export for another machine
            return dataclasses.replace(trial, unchecked=str(error))
        perplexity = None
        if self._before is not None:
            perplexity = Perplexity.of(self._before, token_losses(session_logits(session), self.text))
        return dataclasses.replace(
            trial,
            parity=verify_onnx(session, self.reference, shape=self.shape, quantized=trial.plan.quantized),
            perplexity=perplexity,
            tok_s=decode_rate(session, self.shape),
            mapped=lean,
        )

    @cached_property
    def _before(self) -> np.ndarray | None:
        return token_losses(self.reference, self.text) if self.reference and len(self.text) else None
