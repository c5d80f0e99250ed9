"""Calls of the live model with the inputs of clients: checks, limits, and the calls themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from fraud.errors import BadInput
from fraud.serving import metrics
from fraud.serving.errors import Busy, NotFound, TooLarge
from fraud.serving.models import LoadedModel
from fraud.serving.session import Function
from fraud.serving.settings import MODEL, Limits
from fraud.serving.versions import Versions

T = TypeVar("T")

DEFAULT_SIGNATURE = "serving_default"

_ROWS_AT_ONCE = 64
"""Up to so many rows a call is shorter than what it takes to hand it to another thread and back."""
_COST_OF_EXPLAINING = 40  # times that of scoring
_MOST_EXPLAINED = 1000
_LISTED_NAMES = 5


@dataclass(frozen=True)
class Answer:
    """What the model answered.

    Attributes:
      version: that answered.
      outputs: by name.
    """

    version: str
    outputs: dict[str, np.ndarray]


class Inference:
    """Answers requests with the live model.

    Args:
      versions: which model that is.
      limits: how much is taken.
    """

    def __init__(self, versions: Versions, limits: Limits) -> None:
        self.versions, self.limits = versions, limits
        self._in_progress = 0
        self._stopping = False
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="batch")

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return self.versions.live is not None and not self._stopping

    def stop(self) -> None:
        """Makes `is_ready` false, so that no more requests are sent here."""
        self._stopping = True

    @contextmanager
    def admission(self) -> Iterator[None]:
        """A place among the requests that are being answered.

        Raises:
          Busy: there is none.
        """
        if self._in_progress >= self.limits.concurrent_requests:
            raise Busy(
                f"{self._in_progress} requests are being answered, which is the limit; try again"
            )
        self._in_progress += 1
        metrics.IN_PROGRESS.inc()
        try:
            yield
        finally:
            self._in_progress -= 1
            metrics.IN_PROGRESS.dec()

    async def call(
        self, model: LoadedModel, signature: str, inputs: Mapping[str, np.ndarray]
    ) -> Answer:
        """Calls a signature.

        Args:
          model: leased from `versions`.
          signature: its name; "" for `DEFAULT_SIGNATURE`.
          inputs: by name.

        Raises:
          BadInput: an input is unknown, missing, of a wrong type or shape, or infinite.
          TooLarge: there are too many rows.
          NotFound: there is no such signature.
        """
        function = self.function(model, signature)
        checked = check_inputs(function, inputs, self.limits.batch_rows)
        rows = work = len(next(iter(checked.values())))
        name = signature or DEFAULT_SIGNATURE
        if "contribution" in function.outputs:
            check_explained(rows)
            work *= _COST_OF_EXPLAINING
        if work <= _ROWS_AT_ONCE:
            outputs = model.call(name, checked)
        else:
            outputs = await self.in_thread(self._threads, model, model.call, name, checked)
        metrics.ROWS.labels(model.version).inc(rows)
        if "alert" in outputs:
            metrics.ALERTS.labels(model.version).inc(float(outputs["alert"].sum()))
        return Answer(model.version, outputs)

    async def in_thread(
        self,
        threads: ThreadPoolExecutor,
        model: LoadedModel,
        function: Callable[..., T],
        *arguments: Any,
    ) -> T:
        """Calls a function that uses a model in another thread.

        The model stays leased until the function returns, even if this is cancelled before.
        """
        self.versions.retain(model)
        try:
            future = threads.submit(function, *arguments)
        except BaseException:
            self.versions.release(model)
            raise
        future.add_done_callback(lambda _: self.versions.release(model))
        return await asyncio.wrap_future(future)

    @staticmethod
    def function(model: LoadedModel, signature: str) -> Function:
        """A signature of a model; "" for `DEFAULT_SIGNATURE`.

        Raises:
          NotFound: there is none of this name.
        """
        name = signature or DEFAULT_SIGNATURE
        if name not in model.signatures:
            known = ", ".join(sorted(model.signatures))
            raise NotFound(f"no signature {name[:100]!r}; known are {known}")
        return model.signatures[name]


def check_model_name(name: str) -> None:
    """Checks the name of the model in a request.

    Raises:
      NotFound: it is another one.
    """
    if name != MODEL:
        raise NotFound(f"no model {name[:100]!r}; the only model is {MODEL!r}")


def check_inputs(
    function: Function, inputs: Mapping[str, np.ndarray], most_rows: int
) -> dict[str, np.ndarray]:
    """Checks the inputs of a signature.

    Args:
      function: the signature.
      inputs: by name; [n], or [n, 1] as some clients send.
      most_rows: the largest n.

    Returns:
      The inputs, [n] each.

    Raises:
      BadInput: an input is unknown, missing, of a wrong type or shape, or infinite.
      TooLarge: there are too many rows.
    """
    check_names(function, inputs)
    if missing := sorted(function.inputs.keys() - inputs.keys()):
        raise BadInput(f"{_list(missing)}: missing")
    checked: dict[str, np.ndarray] = {}
    rows = None
    for name, info in function.inputs.items():
        array = inputs[name]
        if array.dtype != info.numpy_type:
            raise BadInput(f"{name}: expected {_kind(info.numpy_type)}, got {_kind(array.dtype)}")
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim != 1:
            raise BadInput(f"{name}: expected the shape [n], got {list(array.shape)}")
        if rows is None:
            rows, first = len(array), name
        elif len(array) != rows:
            raise BadInput(f"{name}: {len(array)} values, but {first} has {rows}")
        checked[name] = array
    if not rows:
        raise BadInput("there are no transactions in the request")
    check_rows(rows, most_rows)
    floats = {name: array for name, array in checked.items() if array.dtype.kind == "f"}
    if floats and np.isinf(np.concatenate([*floats.values()])).any():  # at once: ten times faster
        name = next(name for name, array in floats.items() if np.isinf(array).any())
        raise BadInput(f"{name}: infinite; send NaN for what is not known")
    return checked


def check_names(function: Function, names: Iterable[str]) -> None:
    """Checks that inputs are of a signature, before anything is done with their values.

    Raises:
      BadInput: one is not.
    """
    if unknown := sorted({*names} - function.inputs.keys()):
        raise BadInput(f"{_list(unknown)}: no input of this signature")


def check_rows(rows: int, most_rows: int) -> None:
    """Checks how many transactions a request has.

    Raises:
      TooLarge: more than the most.
    """
    if rows > most_rows:
        raise TooLarge(f"{rows} transactions; send at most {most_rows} in a request")


def check_explained(rows: int) -> None:
    """Checks how many transactions of a request are to be explained.

    Raises:
      TooLarge: more than the most.
    """
    if rows > _MOST_EXPLAINED:
        raise TooLarge(f"{rows} transactions; explain at most {_MOST_EXPLAINED} at once")


def _list(names: list[str]) -> str:
    shown = ", ".join(name[:100] for name in names[:_LISTED_NAMES])
    return shown + (f" and {len(names) - _LISTED_NAMES} more" if len(names) > _LISTED_NAMES else "")


def _kind(type_: np.dtype) -> str:
    return "text" if type_.kind == "O" else type_.name
