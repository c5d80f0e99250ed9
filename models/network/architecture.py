"""The network: a functional Keras model on the outputs of `preprocessing.transform_fn`."""

from __future__ import annotations

from collections.abc import Mapping

import keras
from keras import layers, ops

from fraud.models.preprocessing.transform_fn import CATEGORICAL, NUMERIC
from fraud.models.spec import Network

PIECEWISE_LINEAR = "piecewise_linear"
ENCODED = "encoded"
LOGIT = "logit"
SCORE = "score"


@keras.saving.register_keras_serializable("fraud_pipeline")
class PiecewiseLinear(layers.Layer):
    """Piecewise-linear encoding of positions among quantiles.

    Position q of a column with K bins becomes K numbers clip(q − k, 0, 1), k = 0 … K−1, plus one
    that is 1 if the value is missing (position −1). Gorishniy et al. 2022, "On Embeddings for
    Numerical Features in Tabular Deep Learning", section 3.2.

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


@keras.saving.register_keras_serializable("fraud_pipeline")
class Calibrated(layers.Layer):
    """Logit z → probability σ(slope · z + intercept): Platt scaling (Platt 1999).

    Training leaves slope and intercept alone; `calibration.calibrate` fits them afterwards.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """See keras.layers.Layer."""
        self.slope = self.add_weight(name="slope", shape=(), initializer="ones", trainable=False)
        self.intercept = self.add_weight(
            name="intercept", shape=(), initializer="zeros", trainable=False
        )

    def call(self, logit):  # type: ignore[no-untyped-def]
        """float32 [batch, 1] → float32 [batch, 1]."""
        return ops.sigmoid(self.slope * logit + self.intercept)


def build_network(network: Network, numeric: int, vocabularies: Mapping[str, int]) -> keras.Model:
    """Builds the untrained network.

    Args:
      network: its settings.
      numeric: number of numeric columns.
      vocabularies: number of indices of each categorical column, in order, including "missing" and
        the buckets of unseen values.

    Returns:
      A model from {"numeric": [batch, n], "categorical": [batch, m]} to the fraud probability
      [batch, 1].
    """
    inputs = {NUMERIC: keras.Input((numeric,), name=NUMERIC)}
    parts = [PiecewiseLinear(network.bins, name=PIECEWISE_LINEAR)(inputs[NUMERIC])]
    if vocabularies:
        inputs[CATEGORICAL] = keras.Input((len(vocabularies),), name=CATEGORICAL, dtype="int64")
        for i, size in enumerate(vocabularies.values()):
            table = layers.Embedding(size, network.embedding_dim, name=f"embed_{i}")
            parts.append(table(inputs[CATEGORICAL][:, i]))
    joined = layers.concatenate(parts) if len(parts) > 1 else parts[0]
    encoded = layers.Identity(name=ENCODED)(joined)
    logits = []
    for t, units_of_tower in enumerate(network.towers):
        x = encoded
        for i, units in enumerate(units_of_tower):
            x = layers.Dense(units, activation="relu", name=f"tower_{t}_hidden_{i}")(x)
            if network.dropout:
                x = layers.Dropout(network.dropout, name=f"tower_{t}_dropout_{i}")(x)
        logits.append(layers.Dense(1, name=f"tower_{t}_logit")(x))
    logit = layers.average(logits) if len(logits) > 1 else logits[0]
    logit = layers.Identity(name=LOGIT)(logit)
    return keras.Model(inputs, Calibrated(name=SCORE)(logit), name="fraud")


def logit_model(model: keras.Model) -> keras.Model:
    """The part of a `build_network` model that is trained: from its inputs to the logit."""
    return keras.Model(model.inputs, model.get_layer(LOGIT).output)
