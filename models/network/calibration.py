"""Platt scaling: scores become probabilities."""

from __future__ import annotations

import keras
import numpy as np

from fraud.models.network.architecture import SCORE


def calibrate(model: keras.Model, logit: np.ndarray, labels: np.ndarray) -> None:
    """Fits slope and intercept of a model's `Calibrated` layer by Newton's method.

    Args:
      model: from `build_network`; changed in place.
      logit: float [n], of examples that the network was not trained on.
      labels: 0 or 1, [n].
    """
    z = logit.astype(np.float64)
    # Platt's corrected targets keep the fit finite if the classes are separable.
    frauds, genuine = labels.sum(), (1 - labels).sum()
    target = np.where(labels == 1, (frauds + 1) / (frauds + 2), 1 / (genuine + 2))
    slope, intercept = _newton(np.stack([z, np.ones_like(z)]), target, np.array([1.0, 0.0]))
    if slope <= 0:  # It would reverse the ranking: too few examples to fit more than an intercept.
        slope, (intercept,) = 1.0, _newton(np.ones((1, z.size)), target, np.zeros(1), offset=z)
    model.get_layer(SCORE).set_weights([np.float32(slope), np.float32(intercept)])


def _newton(
    columns: np.ndarray, target: np.ndarray, start: np.ndarray, offset: np.ndarray | float = 0.0
) -> np.ndarray:
    """Coefficients [k] of the logistic regression of `target` [n] on `columns` [k, n]."""
    fit = start
    for _ in range(100):
        p = 1 / (1 + np.exp(-(fit @ columns + offset)))
        gradient = columns @ (p - target)
        hessian = (columns * (p * (1 - p))) @ columns.T + 1e-9 * np.eye(start.size)
        step = np.clip(np.linalg.solve(hessian, gradient), -1, 1)
        fit = fit - step
        if np.abs(step).max() < 1e-8:
            break
    return fit
