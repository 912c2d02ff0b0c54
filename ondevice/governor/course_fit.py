"""The likeliest course through samples that only say between which edges a temperature lay.

The logarithm of such a likelihood, with noise of a logistic distribution, is concave in what the course is linear in.
So a few steps of Newton's method find its height, each cut where it leads too far, and the curvature there says how
sure it is (Laplace's approximation, also of the evidence). Knows nothing of bodies and weather.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NOISE_C", "Fit"]

NOISE_C = 0.1  # deviation of a sample before it is rounded
ROUNDS, STEP_C, SHORTER, SHORTENED, GAINED = 5, 0.6, 0.35, 4, 0.02
LOGISTIC = 1.0 / 1.7  # scale of a logistic distribution that is like a normal one of deviation 1


class Fit:
    """The likeliest unknowns of every model at once. Shapes: rows [model, sample, 5], squares [model, 5, 5], the rest
    [sample] or [model, 5]."""

    def __init__(
        self,
        rows: np.ndarray,
        lows_c: np.ndarray,
        highs_c: np.ndarray,
        counts: np.ndarray,
        squares: np.ndarray,
        pulls: np.ndarray,
        mean: np.ndarray,
        deviation: np.ndarray,
    ) -> None:
        self._rows, self._lows, self._highs, self._counts = rows, lows_c, highs_c, counts
        self._mean, self._precision, self._squares, self._pulls = mean, deviation**-2, squares, pulls
        self._scale = NOISE_C * LOGISTIC

    def likeliest(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[model, 5], [model, 5, 5] and [model]: unknowns, covariance, logarithm of the evidence."""
        import numpy as np

        value = self._value(theta)
        for _ in range(ROUNDS):
            gradient, curvature = self._slopes(theta)
            step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
            furthest = np.abs(np.einsum("kmi,ki->km", self._rows, step)).max(axis=1)
            length = np.minimum(1.0, STEP_C / np.maximum(furthest, 1e-9))
            gained = np.zeros_like(value)
            for _ in range(SHORTENED):
                there = theta + length[:, None] * step
                found = self._value(there)
                better = (found > value) & (gained == 0)
                theta = np.where(better[:, None], there, theta)
                gained = np.where(better, found - value, gained)
                if np.all((gained > 0) | (length * furthest < 1e-4)):
                    break
                length = length * SHORTER
            value = value + gained
            if gained.max() < GAINED:
                break
        _, curvature = self._slopes(theta)
        spread = np.linalg.inv(curvature)
        evidence = value - 0.5 * np.linalg.slogdet(curvature)[1] + 0.5 * np.log(self._precision).sum(axis=1)
        return theta, spread, evidence

    def _edges(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        course = np.einsum("kmi,ki->km", self._rows, theta)
        return (self._highs - course) / self._scale, (self._lows - course) / self._scale

    def _value(self, theta: np.ndarray) -> np.ndarray:
        """[model]: logarithm of the likelihood and the prior, but for a constant of each sample."""
        import numpy as np

        high, low = self._edges(theta)
        told = -(np.logaddexp(0.0, -high) + np.logaddexp(0.0, low)) @ self._counts
        finer = np.einsum("ki,ki->k", theta, self._pulls - 0.5 * np.einsum("kij,kj->ki", self._squares, theta))
        return np.asarray(told + finer - 0.5 * ((theta - self._mean) ** 2 * self._precision).sum(axis=1))

    def _slopes(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient [model, 5] and negative curvature [model, 5, 5] of the value."""
        import numpy as np

        high, low = (0.5 * (1 + np.tanh(0.5 * edge)) for edge in self._edges(theta))
        pull = self._counts * (high + low - 1) / self._scale
        bend = self._counts * (high * (1 - high) + low * (1 - low)) / self._scale**2
        gradient = np.einsum("km,kmi->ki", pull, self._rows) - self._precision * (theta - self._mean)
        curvature = np.einsum("km,kmi,kmj->kij", bend, self._rows, self._rows, optimize=True)
        gradient += self._pulls - np.einsum("kij,kj->ki", self._squares, theta)
        return gradient, curvature + self._squares + np.einsum("ki,ij->kij", self._precision, np.eye(5))
