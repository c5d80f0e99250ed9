"""Imports without what a run never uses: two fifths of the time that importing TFX takes.

Nothing of it is a dependency of ours. It comes along because some module of TFX, TFMA, Beam or
Keras has a part that could use it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_DONE_WITHOUT = (
    "IPython",  # notebooks: Keras, TFDV
    "apache_beam.io.gcp.bigquery",  # and Beam's other sources in Google's cloud; files need none
    "bson",  # MongoDB: Beam
    "matplotlib",  # plots: Keras
    "pymongo",
    "sklearn",  # wrappers for it: Keras
)
"""Whoever imports these can do without; Python says that they are not installed."""

_DEFERRED = (
    "docker",  # containers: TFX
    "scipy.stats",  # confidence intervals: TFMA
    "tensorflow_model_analysis.metrics.bleu",  # metrics of texts, with nltk and sacrebleu
    "tensorflow_model_analysis.metrics.rouge",
)
"""These are imported when something of theirs is used."""

_COMPONENTS = "tfx.components"


@contextmanager
def lean_imports() -> Iterator[None]:
    """Within it, importing TFX, TFMA, Beam and Keras for the first time is quicker.

    Afterwards everything can be imported as ever; a module that was imported without another one
    goes on without it.
    """
    absent = [name for name in _DONE_WITHOUT if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    for name in _DEFERRED:
        sys.modules.setdefault(name, _Deferred(name))
    sys.modules.setdefault(_COMPONENTS, _Components(_COMPONENTS))
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


class _Deferred(types.ModuleType):
    """Stands for a module until something of it is used."""

    def __getattr__(self, name: str) -> Any:
        # Python itself, Beam and TensorFlow look at names like __file__ of all modules there are.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _Components(types.ModuleType):
    """`tfx.components`, which imports a component when it is asked for and not all of them at once:
    InfraValidator alone brings the clients of Docker and Kubernetes.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        spec = importlib.util.find_spec("tfx")
        assert spec is not None and spec.submodule_search_locations is not None
        self.__path__ = [f"{tfx}/components" for tfx in spec.submodule_search_locations]

    def __getattr__(self, name: str) -> Any:
        folder = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        try:
            return getattr(importlib.import_module(f"{_COMPONENTS}.{folder}.component"), name)
        except ModuleNotFoundError:
            raise AttributeError(name) from None
