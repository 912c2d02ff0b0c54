"""Where a training step spends its processor time, by our own names, forward and backward.

A node of the backward graph belongs to the region in which its forward ran: autograd numbers nodes as they are made.
The clock is switched by a hook before each node; what adds up gradients belongs to the node before it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ondevice.train import engine as engine_module

__all__ = ["Regions"]


class Regions:
    """Measures one engine from now on. Only for one thread: processor time is of the whole process."""

    def __init__(self, engine: Any) -> None:
        self._spent: dict[str, float] = defaultdict(float)
        self._region, self._since = "rest", time.process_time()
        self._nodes: list[tuple[int, str]] = []  # number of the first node, and the region from there on
        for name, module in engine.model.named_modules():
            region = _region_of(name)
            if region is not None:
                module.forward = self._wrapped(module.forward, region)
        engine.optimizer.step = self._wrapped(engine.optimizer.step, "optimizer")
        whole = self._wrapped(engine_module.linear_cross_entropy, "head and loss")

        def loss(*args: Any, **keys: Any) -> torch.Tensor:
            result: torch.Tensor = whole(*args, **keys)
            self._hook(result)
            return result

        engine_module.linear_cross_entropy = loss

    def taken(self) -> dict[str, float]:
        """Seconds by region since the last call."""
        self._switch("rest")
        spent, self._spent, self._nodes = dict(self._spent), defaultdict(float), []
        return spent

    @contextmanager
    def named(self, region: str) -> Iterator[None]:
        """What runs inside is counted under ``region``, but for what has a name of its own."""
        before = self._switch(region)
        try:
            yield
        finally:
            self._switch(before)

    def _wrapped(self, function: Callable[..., Any], region: str) -> Callable[..., Any]:
        def call(*args: Any, **keys: Any) -> Any:
            outer = self._region.removesuffix(" forward")
            self._nodes.append((_next_node(), region))
            with self.named(f"{region} forward" if region != "optimizer" else region):
                result = function(*args, **keys)
            self._nodes.append((_next_node(), outer))
            return result

        return call

    def _switch(self, region: str) -> str:
        now = time.process_time()
        self._spent[self._region] += now - self._since
        before, self._region, self._since = self._region, region, now
        return before

    def _hook(self, loss: torch.Tensor) -> None:
        """Every node of the graph under the loss switches the clock before it runs."""
        seen, waiting = set(), [loss.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen or "AccumulateGrad" in node.name():
                continue
            seen.add(node)
            region = self._made_in(node._sequence_nr())
            node.register_prehook(lambda grads, region=region: self._enter(region))
            waiting += [after for after, _ in node.next_functions]

    def _made_in(self, number: int) -> str:
        region = "rest"
        for first, name in self._nodes:
            if first > number:
                break
            region = name
        return region

    def _enter(self, region: str) -> None:
        self._switch(f"{region} backward")


def _next_node() -> int:
    return int(torch._C._autograd._get_sequence_nr())


def _region_of(name: str) -> str | None:
    last = name.rsplit(".", 1)[-1]
    if last in ("attn", "mlp"):
        return {"attn": "attention"}.get(last, last)
    if last.startswith("norm"):
        return "norm"
    return "embedding" if last in ("embed", "position") else None
