"""Explanations of scores: integrated gradients over the encoded columns, computed in the graph.

Sundararajan, Taly, Yan 2017, "Axiomatic Attribution for Deep Networks": the contribution of input i
to F(x) − F(x′) is (xᵢ − x′ᵢ) ∫₀¹ ∂F/∂xᵢ (x′ + α (x − x′)) dα. F is the logit, x the network's
encoding of the transaction, x′ that of a typical genuine one; a column's contribution is the sum
over the numbers that encode it. Contributions add up to F(x) − F(x′) (completeness), up to the
error of approximating the integral by a sum.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from fraud.models.network.architecture import (
    ENCODED,
    LOGIT,
    PIECEWISE_LINEAR,
    category_layer,
    rate_layer,
)
from fraud.models.preprocessing.transform_fn import CATEGORICAL, NUMERIC
from fraud.models.streamed import Streamed

STEPS = 200
TOP = 5
TYPICAL_OF = 1_000_000  # genuine transactions; more would not move a median


class Explainer:
    """Attributes a logit to the network's columns.

    Args:
      model: from `build_network`.
      typical: the network's inputs for a typical genuine transaction, [1, columns] each.
      numeric, categorical: names of the columns, in the network's order.
    """

    def __init__(
        self,
        model: keras.Model,
        typical: dict[str, np.ndarray],
        numeric: tuple[str, ...],
        categorical: tuple[str, ...],
    ) -> None:
        encoded = model.get_layer(ENCODED).output
        self._encode = keras.Model(model.inputs, encoded)
        self._logit = keras.Model(encoded, model.get_layer(LOGIT).output)
        self._typical = tf.constant(self._encode(typical))
        self._names = tf.constant([*numeric, *categorical])
        self._widths = [model.get_layer(PIECEWISE_LINEAR).bins + 1 for _ in numeric]
        for i in range(len(categorical)):
            rates = model.get_layer(rate_layer(i)).members
            self._widths.append(model.get_layer(category_layer(i)).output_dim + rates)

    def contributions(self, inputs: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes the contribution of each column of the network's inputs, [batch, columns] each.

        Returns:
          The contributions, float32 [batch, columns], in units of the logit; and the logit of the
          typical transaction, a scalar.
        """
        x = self._encode(inputs)
        difference = x - self._typical
        total = tf.zeros_like(x)
        # The midpoint rule. A loop in the graph keeps only one step in memory.
        for step in tf.range(STEPS):
            alpha = (tf.cast(step, tf.float32) + 0.5) / STEPS
            with tf.GradientTape() as tape:
                point = self._typical + alpha * difference
                tape.watch(point)
                logit = self._logit(point)
            total += tape.gradient(logit, point)
        of_numbers = difference * total / STEPS
        of_columns = tf.stack(
            [tf.reduce_sum(part, axis=1) for part in tf.split(of_numbers, self._widths, axis=1)], 1
        )
        return of_columns, self._logit(self._typical)[0, 0]

    def importance(self, inputs: dict[str, np.ndarray]) -> dict[str, float]:
        """How much each column moves the logit: the mean of the absolute contributions.

        Args:
          inputs: the network's inputs of some examples, [n, columns] each.

        Returns:
          Column → importance, the largest first; empty without examples.
        """
        size = len(next(iter(inputs.values())))
        if not size:
            return {}
        contributions, _ = tf.function(self.contributions)(
            {name: tf.constant(array) for name, array in inputs.items()}
        )
        means = tf.reduce_mean(tf.abs(contributions), axis=0).numpy()
        names = [name.decode() for name in self._names.numpy()]
        order = np.argsort(-means, kind="stable")
        return {names[i]: float(means[i]) for i in order}

    def reasons(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The columns that raised the score most.

        Returns:
          `reason` string and `contribution` float32, [batch, TOP] each, largest first.
        """
        contributions, _ = self.contributions(inputs)
        strongest = tf.math.top_k(contributions, min(TOP, len(self._widths)))
        return {
            "reason": tf.gather(self._names, strongest.indices),
            "contribution": strongest.values,
        }


def typical_genuine(
    inputs: Mapping[str, np.ndarray | Streamed], labels: np.ndarray
) -> dict[str, np.ndarray]:
    """The typical genuine transaction: the median or the most common category of every column.

    Of more than `TYPICAL_OF` genuine transactions, as many evenly spaced ones are read.

    Args:
      inputs: `numeric` and `categorical`, [n, columns].
      labels: [n].

    Returns:
      Inputs of the same names, [1, columns] each.
    """
    genuine = np.flatnonzero(labels == 0)
    if genuine.size > TYPICAL_OF:
        genuine = genuine[np.linspace(0, genuine.size - 1, TYPICAL_OF).astype(np.int64)]
    typical = {}
    if NUMERIC in inputs:
        # Column by column: all at once, the median would copy them once more.
        middle = [np.median(column) for column in inputs[NUMERIC][genuine].T]
        typical[NUMERIC] = np.array([middle], np.float32)
    if CATEGORICAL in inputs:
        common = [np.bincount(column).argmax() for column in inputs[CATEGORICAL][genuine].T]
        typical[CATEGORICAL] = np.array([common], np.int64)
    return typical
