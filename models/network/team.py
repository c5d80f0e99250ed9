"""The workers that train a network together, each on a share of every batch."""

from __future__ import annotations

import zlib
from contextlib import AbstractContextManager

import keras
import tensorflow as tf
from numpy.typing import NDArray

from fraud.errors import BadInput


class Team:
    """One process, or several that add up their gradients after every step.

    All workers draw the same batches and start from the same weights; each computes the gradients
    of every n-th row. So the weights are those of one process with the same batches, except for
    rounding and for which units dropout drops.

    Args:
      strategy: how the workers exchange numbers; the default one is a process of its own.
      index: the number of this worker, from 0.

    Attributes:
      index: the number of this worker.
      size: the number of workers.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None, index: int = 0) -> None:
        self._strategy = strategy or tf.distribute.get_strategy()
        self.index, self.size = index, self._strategy.num_replicas_in_sync

    @classmethod
    def joined(cls, workers: int, index: int) -> Team:
        """Joins the cluster that TF_CONFIG describes; waits until all workers have.

        TensorFlow must not have been used in this process before.

        Raises:
          BadInput: the workers have several GPUs each.
        """
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        if strategy.num_replicas_in_sync != workers:
            raise BadInput(
                f"{workers} workers have {strategy.num_replicas_in_sync} GPUs, but each can use "
                "one; let each see one by CUDA_VISIBLE_DEVICES, and start one worker for each"
            )
        return cls(strategy, index)

    @property
    def part(self) -> slice:
        """The rows of a batch that this worker computes."""
        return slice(self.index, None, self.size)

    def scope(self) -> AbstractContextManager:
        """Within it, variables are created that are the same in all workers."""
        return self._strategy.scope()

    def prepare(self, model: keras.Model, steps: int) -> None:
        """Makes a compiled model's `fit` train together, a number of steps per execution.

        Keras's own train function fails with MultiWorkerMirroredStrategy: its `fit` cannot handle
        the batches of such a strategy (keras-team/keras#20585). So to `fit` this is a model without
        a strategy (created outside `scope`), and a worker's share of a batch is a plain tensor.
        """
        if self.size == 1:
            return
        strategy = self._strategy
        with strategy.scope():
            model.optimizer.build(model.trainable_variables)

        @tf.function
        def execution(iterator: tf.data.Iterator) -> dict[str, tf.Tensor]:
            logs = strategy.run(model.train_step, (next(iterator),))
            for _ in tf.range(steps - 1):
                batch = iterator.get_next_as_optional()
                if batch.has_value():
                    logs = strategy.run(model.train_step, (batch.get_value(),))
            return logs

        model.train_function = execution

    def mean(self, value: float) -> float:
        """The mean of a number that each worker has computed, which is the same in all of them.

        What is decided by it is decided by all in the same way, also where the processors of two
        workers do not round alike.
        """
        if self.size == 1:
            return value
        return float(self._reduced(tf.constant(value, tf.float64)))

    def require_same(self, *arrays: NDArray) -> None:
        """Checks that all workers have read the same.

        Args:
          arrays: what all must have, without values that may be rounded.

        Raises:
          BadInput: another worker has other arrays.
        """
        checksum = 0
        for array in arrays:
            checksum = zlib.crc32(array.tobytes(), checksum)
        if self.mean(checksum) != checksum:
            raise BadInput(
                "the workers have read other examples than one another; see that the root is the "
                "same folder on all of them, and run again"
            )

    @tf.function
    def _reduced(self, value: tf.Tensor) -> tf.Tensor:
        shares = self._strategy.run(lambda: value)
        return self._strategy.reduce(tf.distribute.ReduceOp.MEAN, shares, axis=None)
