"""The network: a functional Keras model on the outputs of `preprocessing.transform_fn`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import keras
import numpy as np
from keras import layers, ops

from fraud.models.preprocessing.transform_fn import CATEGORICAL, NUMERIC
from fraud.models.spec import ResolvedNetwork

PIECEWISE_LINEAR = "piecewise_linear"
ENCODED = "encoded"
MEMBER_LOGITS = "member_logits"
LOGIT = "logit"
SCORE = "score"

MOST_ONE_HOT = 32
"""Vocabularies of at most this many indices are one-hot; larger ones have an embedding."""


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
class OneHot(layers.Layer):
    """An index into a small vocabulary as a vector with a single 1.

    Args:
      size: number of indices.
    """

    def __init__(self, size: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.size = size

    @property
    def output_dim(self) -> int:
        """Width of the encoding, like that of keras.layers.Embedding."""
        return self.size

    def call(self, index):  # type: ignore[no-untyped-def]
        """int64 [batch] → float32 [batch, size]."""
        return ops.one_hot(index, self.size, dtype="float32")

    def get_config(self) -> dict:
        """See keras.layers.Layer."""
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable("fraud_pipeline")
class FraudRate(layers.Layer):
    """By how much a category raises the log-odds of fraud above the average, see `rates`.

    It is not trained. There are several estimates of it: an index below `size` has the one for new
    transactions; in training, index + (g + 1) · size has the one for rows of group g.

    Args:
      size: number of indices.
      groups: number of groups.
      members: number of members of the network, each of which has an estimate.
    """

    def __init__(self, size: int, groups: int, members: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.size, self.groups, self.members = size, groups, members

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """See keras.layers.Layer."""
        self.log_odds = self.add_weight(
            name="log_odds",
            shape=(1 + self.groups, self.size, self.members),
            initializer="zeros",
            trainable=False,
        )

    def call(self, index):  # type: ignore[no-untyped-def]
        """int64 [batch] → float32 [batch, members]."""
        return ops.take(ops.reshape(self.log_odds, (-1, self.members)), index, axis=0)

    def get_config(self) -> dict:
        """See keras.layers.Layer."""
        settings = {"size": self.size, "groups": self.groups, "members": self.members}
        return {**super().get_config(), **settings}


@keras.saving.register_keras_serializable("fraud_pipeline")
class ColumnDropout(layers.Layer):
    """Dropout of whole columns: in training, all numbers that encode a column are 0 together.

    Args:
      rate: fraction of columns dropped from each example.
      widths: how many numbers encode each column, in the order of the input.
      seed: of what is dropped.
    """

    def __init__(self, rate: float, widths: Sequence[int], seed: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.rate, self.widths, self.seed = rate, tuple(widths), seed
        self.columns = layers.Dropout(rate, seed=seed)

    def call(self, encoded, training=False):  # type: ignore[no-untyped-def]
        """float32 [batch, sum of widths] → the same."""
        if not training:
            return encoded
        kept = self.columns(ops.ones((ops.shape(encoded)[0], len(self.widths))), training=True)
        column = np.repeat(np.arange(len(self.widths)), self.widths)
        return encoded * ops.take(kept, column, axis=1)

    def get_config(self) -> dict:
        """See keras.layers.Layer."""
        settings = {"rate": self.rate, "widths": self.widths, "seed": self.seed}
        return {**super().get_config(), **settings}


@keras.saving.register_keras_serializable("fraud_pipeline")
class Members(layers.Layer):
    """Several networks of the same shape side by side: dense ReLU layers that end in one logit.

    They share nothing but their input, and of that not the embeddings: what is learned from a card
    that one member holds out must not reach that member. The first layer of all is a single matrix
    product, and so are the others, in batches, so a few members cost little more than one.

    Args:
      hidden: units of the hidden layers.
      members: number of networks.
      dropout: fraction of hidden units dropped in training.
      seed: of the initial weights and of dropout.
      own: begin and end of each part of the input of which every member reads its own share: the
        first share is the first member's, and so on.
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        members: int,
        dropout: float,
        seed: int,
        own: Sequence[tuple[int, int]] = (),
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden, self.members, self.dropout, self.seed = tuple(hidden), members, dropout, seed
        self.own = tuple((int(begin), int(end)) for begin, end in own)
        self.dropouts = [layers.Dropout(dropout, seed=seed + i) for i in range(len(self.hidden))]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """See keras.layers.Layer."""
        total = int(input_shape[-1] or 0)
        of_members = sum(end - begin for begin, end in self.own)
        shared, own = total - of_members, of_members // self.members
        widths = (shared + own, *self.hidden, 1)
        self.kernels, self.biases = [], []
        for i, (width, units) in enumerate(itertools.pairwise(widths)):
            # Glorot's limit for one member; Keras would take the axis of members for more inputs.
            limit = np.sqrt(6 / (width + units))
            uniform = keras.initializers.RandomUniform(-limit, limit, seed=self.seed + i)
            # The first layer is one matrix product, which needs its inputs on the first axis.
            shape = (self.members, width, units) if i else (shared, self.members, units)
            kernel = self.add_weight(name=f"kernel_{i}", shape=shape, initializer=uniform)
            self.kernels.append(kernel)
            self.biases.append(
                self.add_weight(
                    name=f"bias_{i}", shape=(self.members, 1, units), initializer="zeros"
                )
            )
            if not i and own:
                uniform = keras.initializers.RandomUniform(-limit, limit, seed=self.seed + 50)
                shape = (self.members, own, units)
                self.own_kernel = self.add_weight(name="own", shape=shape, initializer=uniform)
        edges = [0, *itertools.chain.from_iterable(self.own), total]
        self.shared = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]

    def call(self, encoded, training=False):  # type: ignore[no-untyped-def]
        """float32 [batch, n] → float32 [batch, members]."""
        x = self._first(encoded) + self.biases[0]
        for dropout, kernel, bias in zip(
            self.dropouts, self.kernels[1:], self.biases[1:], strict=True
        ):
            x = dropout(self.activate(x), training=training)
            x = ops.matmul(x, kernel) + bias
        return ops.transpose(x[:, :, 0])

    def _first(self, encoded):  # type: ignore[no-untyped-def]
        """The first layer's product: [batch, n] → [members, batch, units]."""
        width, members, units = self.kernels[0].shape
        kernel = ops.reshape(self.kernels[0], (width, members * units))
        if not self.own:
            x = ops.matmul(encoded, kernel)
            return ops.transpose(ops.reshape(x, (-1, members, units)), (1, 0, 2))
        own = ops.concatenate(
            [ops.reshape(encoded[:, a:b], (-1, members, (b - a) // members)) for a, b in self.own],
            axis=-1,
        )
        x = ops.matmul(ops.transpose(own, (1, 0, 2)), self.own_kernel)
        if width:
            shared = ops.concatenate([encoded[:, a:b] for a, b in self.shared], axis=-1)
            of_shared = ops.reshape(ops.matmul(shared, kernel), (-1, members, units))
            x = x + ops.transpose(of_shared, (1, 0, 2))
        return x

    def activate(self, x):  # type: ignore[no-untyped-def]
        """The activation of the hidden layers."""
        return ops.relu(x)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        """See keras.layers.Layer."""
        return input_shape[0], self.members

    def get_config(self) -> dict:
        """See keras.layers.Layer."""
        settings = {"hidden": self.hidden, "members": self.members, "own": self.own}
        return {**super().get_config(), **settings, "dropout": self.dropout, "seed": self.seed}


@keras.saving.register_keras_serializable("fraud_pipeline")
class MeanProbability(layers.Layer):
    """The logit of the mean of the members' probabilities."""

    def call(self, logits):  # type: ignore[no-untyped-def]
        """float32 [batch, members] → float32 [batch, 1]."""
        if logits.shape[-1] == 1:
            return logits
        # log p̄ − log (1 − p̄), without rounding p̄ to 0 or 1; the number of members cancels out.
        fraud = ops.logsumexp(ops.log_sigmoid(logits), axis=-1, keepdims=True)
        return fraud - ops.logsumexp(ops.log_sigmoid(-logits), axis=-1, keepdims=True)


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


def build_network(
    network: ResolvedNetwork, numeric: int, vocabularies: Mapping[str, int], groups: int = 0
) -> keras.Model:
    """Builds the untrained network.

    Args:
      network: its settings.
      numeric: number of numeric columns.
      vocabularies: number of indices of each categorical column, in order, including "missing" and
        the buckets of unseen values.
      groups: number of groups of the examples that it will be trained on, see `rates`; a model that
        only scores needs none.

    Returns:
      A model from {"numeric": [batch, n], "categorical": [batch, m]}, of which one is left out if
      there are no such columns, to the fraud probability [batch, 1].
    """
    inputs, parts = {}, []
    widths = [network.bins + 1] * numeric
    own: list[tuple[int, int]] = []
    if numeric:
        inputs[NUMERIC] = keras.Input((numeric,), name=NUMERIC)
        parts.append(PiecewiseLinear(network.bins, name=PIECEWISE_LINEAR)(inputs[NUMERIC]))
    if vocabularies:
        inputs[CATEGORICAL] = keras.Input((len(vocabularies),), name=CATEGORICAL, dtype="int64")
        for i, size in enumerate(vocabularies.values()):
            encode = (
                OneHot(size, name=category_layer(i))
                if size <= MOST_ONE_HOT
                else layers.Embedding(
                    size, network.members * network.embedding_dim, name=category_layer(i)
                )
            )
            index = inputs[CATEGORICAL][:, i]
            rate = FraudRate(size, groups, network.members, name=rate_layer(i))
            parts += [encode(index % size), rate(index)]
            begin = sum(widths)
            widths.append(encode.output_dim + network.members)
            if size > MOST_ONE_HOT:
                own.append((begin, begin + encode.output_dim))
            own.append((begin + encode.output_dim, begin + widths[-1]))
    joined = layers.concatenate(parts) if len(parts) > 1 else parts[0]
    encoded = layers.Identity(name=ENCODED)(joined)
    if network.column_dropout:
        encoded = ColumnDropout(network.column_dropout, widths, network.seed + 50)(encoded)
    logits = [
        Members(
            hidden,
            network.members,
            network.dropout,
            network.seed + 100 * t,
            own if network.members > 1 else (),
            name=f"tower_{t}",
        )(encoded)
        for t, hidden in enumerate(network.towers)
    ]
    members = layers.average(logits) if len(logits) > 1 else logits[0]
    members = layers.Identity(name=MEMBER_LOGITS)(members)
    logit = MeanProbability(name=LOGIT)(members)
    return keras.Model(inputs, Calibrated(name=SCORE)(logit), name="fraud")


def category_layer(column: int) -> str:
    """The name of the layer that encodes a categorical column, by its number."""
    return f"category_{column}"


def rate_layer(column: int) -> str:
    """The name of the layer with the fraud rates of a categorical column, by its number."""
    return f"rate_{column}"


def member_logits(model: keras.Model) -> keras.Model:
    """The part of a `build_network` model that is trained: from its inputs to [batch, members]."""
    return keras.Model(model.inputs, model.get_layer(MEMBER_LOGITS).output)
