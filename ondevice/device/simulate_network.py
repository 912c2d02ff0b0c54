"""A network of heat capacities joined by conductances to each other and to the ambient.

The symmetric network is taken apart into independent modes once, so a step of any length with constant heat is exact
and costs a few multiplications. It knows nothing of phones, cores or clocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, expm1
from operator import mul

__all__ = ["ThermalNetwork"]


class ThermalNetwork:
    """Temperatures of named nodes, in degrees Celsius; `modes` is the whole state and may be read and put back."""

    def __init__(
        self,
        capacity_j_k: dict[str, float],
        conductance_w_k: dict[str, float],
        to_ambient_w_k: dict[str, float],
    ) -> None:
        """Conductances are by ``"node-node"``; some node must lead to the ambient."""
        import numpy as np

        self.nodes = tuple(capacity_j_k)
        place = {name: index for index, name in enumerate(self.nodes)}
        ambient = np.array([to_ambient_w_k.get(name, 0.0) for name in self.nodes])
        laplace = np.diag(ambient)
        for pair, conductance in conductance_w_k.items():
            a, b = (place[name] for name in pair.split("-"))
            laplace[[a, b, a, b], [a, b, b, a]] += conductance * np.array([1, 1, -1, -1])
        root = np.sqrt(np.array(list(capacity_j_k.values())))
        rates, vectors = np.linalg.eigh(laplace / np.outer(root, root))
        self.rates: list[float] = rates.tolist()  # 1/s
        self.shape: dict[str, list[float]] = dict(zip(self.nodes, (vectors / root[:, None]).tolist(), strict=True))
        self._from_temperatures: list[list[float]] = (vectors.T * root).tolist()
        self._ambient: list[float] = (vectors.T @ (ambient / root)).tolist()  # of one degree
        self._growth: dict[float, tuple[list[float], list[float]]] = {}
        self.modes = [0.0] * len(self.nodes)

    def drive(self, heat_w: dict[str, float], *, ambient_c: float = 0.0) -> list[float]:
        """How heat and the ambient push each mode; drives add up."""
        pushed = [ambient_c * value for value in self._ambient]
        for name, watts in heat_w.items():
            pushed = [total + watts * share for total, share in zip(pushed, self.shape[name], strict=True)]
        return pushed

    def advance(self, dt_s: float, drive: Sequence[float]) -> None:
        """Moves on by ``dt_s`` seconds of constant drive, exactly."""
        kept, gained = self.growth(dt_s)
        self.modes = [mode * k + push * g for mode, k, push, g in zip(self.modes, kept, drive, gained, strict=True)]

    def growth(self, dt_s: float) -> tuple[list[float], list[float]]:
        """What a step of ``dt_s`` keeps of each mode, and what it gains of one unit of drive."""
        found = self._growth.get(dt_s)
        if found is None:
            kept = [exp(-rate * dt_s) for rate in self.rates]
            found = kept, [-expm1(-rate * dt_s) / rate for rate in self.rates]
            if len(self._growth) < 64:
                self._growth[dt_s] = found
        return found

    def temperature(self, node: str) -> float:
        """Degrees Celsius."""
        return sum(map(mul, self.shape[node], self.modes))

    def start(self, temperatures_c: dict[str, float]) -> None:
        """Puts every node at its temperature."""
        values = [temperatures_c[name] for name in self.nodes]
        self.modes = [sum(map(mul, row, values)) for row in self._from_temperatures]

    def settle(self, drive: Sequence[float]) -> None:
        """Goes to where a constant drive leads in the end."""
        self.modes = [push / rate for push, rate in zip(drive, self.rates, strict=True)]
