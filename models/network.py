"""The network: a functional Keras model over what `models.preprocessing` gives."""

from __future__ import annotations

from collections.abc import Mapping

import keras
from keras import layers, ops

from models.preprocessing import CATEGORICAL, NUMERIC
from models.spec import Network


@keras.saving.register_keras_serializable("fraud_pipeline")
class PiecewiseLinear(layers.Layer):
    """Piecewise-linear encoding of quantile positions (Gorishniy et al. 2022, "On Embeddings for
    Numerical Features in Tabular Deep Learning", section 3.2).

    Position q of a column with K bins becomes K numbers clip(q − k, 0, 1), k = 0 … K−1, and one
    more that is 1 where the value is missing (position −1).

    Args:
      bins: K.
    """

    def __init__(self, bins: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.bins = bins

    def call(self, positions):  # type: ignore[no-untyped-def]
        """float32 [batch, n] → float32 [batch, n × (bins + 1)]."""
        q = ops.expand_dims(positions, -1)
        steps = ops.reshape(ops.arange(self.bins, dtype="float32"), (1, 1, self.bins))
        encoded = ops.clip(q - steps, 0.0, 1.0)
        missing = ops.cast(q < 0, "float32")
        joined = ops.concatenate([encoded, missing], axis=-1)
        return ops.reshape(joined, (-1, positions.shape[1] * (self.bins + 1)))

    def get_config(self) -> dict:
        """See keras.layers.Layer."""
        return {**super().get_config(), "bins": self.bins}


def build(network: Network, numeric: int, vocabularies: Mapping[str, int]) -> keras.Model:
    """Builds the untrained network.

    Args:
      network: its sizes.
      numeric: how many numeric columns there are.
      vocabularies: by categorical column, in order, how many indices it has, "missing" and buckets
        of unseen values included.

    Returns:
      A model from {"numeric": [batch, n], "categorical": [batch, m]} to the fraud probability
      [batch, 1].
    """
    inputs = {NUMERIC: keras.Input((numeric,), name=NUMERIC)}
    parts = [PiecewiseLinear(network.bins, name="piecewise_linear")(inputs[NUMERIC])]
    if vocabularies:
        inputs[CATEGORICAL] = keras.Input((len(vocabularies),), name=CATEGORICAL, dtype="int64")
        for i, size in enumerate(vocabularies.values()):
            table = layers.Embedding(size, network.embedding, name=f"embed_{i}")
            parts.append(table(inputs[CATEGORICAL][:, i]))
    x = layers.concatenate(parts, name="encoded") if len(parts) > 1 else parts[0]
    for i, units in enumerate(network.layers):
        x = layers.Dense(units, activation="relu", name=f"hidden_{i}")(x)
        x = layers.Dropout(network.dropout, name=f"dropout_{i}")(x)
    score = layers.Dense(1, activation="sigmoid", name="score")(x)
    return keras.Model(inputs, score, name="fraud")
