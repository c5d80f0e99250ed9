"""Importing TFX without what a run never uses.

Modules of Keras, Beam, TFMA and TFX could use notebooks, scikit-learn, databases and clients of
cloud services, and import them where they are installed, as they are beside TFX. That is half of
the time.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

_OF_KERAS = ("IPython", "matplotlib", "sklearn")
_OF_BEAM = ("apache_beam.io.gcp.bigquery", "bson", "pymongo")
_LATER = (
    "scipy.stats",  # confidence intervals
    "tensorflow_model_analysis.metrics.bleu",  # metrics of texts, with nltk and sacrebleu
    "tensorflow_model_analysis.metrics.rouge",
    "tensorflow_model_analysis.notebook.visualization",  # with ipywidgets and IPython
    "tfx.components.infra_validator.model_server_runners.kubernetes_runner",
    "tfx.components.infra_validator.model_server_runners.local_docker_runner",
)


def import_tfx() -> None:
    """Imports TFX's components, and with them TensorFlow, Beam and TFMA.

    All that is left out can be imported afterwards, except that `apache_beam.io` has no
    names of Google's services (`apache_beam.io.gcp.bigquery` has them).
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with _later():
        with _absent(_OF_KERAS):
            importlib.import_module("tensorflow")
            importlib.import_module("keras_tuner")
        with _absent(_OF_BEAM):
            importlib.import_module("apache_beam")
        # Here nothing may be absent: TFMA passes over all of its names if one cannot be imported.
        importlib.import_module("tfx.components")


@contextmanager
def _absent(names: tuple[str, ...]) -> Iterator[None]:
    """Within it, modules not imported yet are not installed, for those who can do without.

    What these log about it is not shown.
    """
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _later() -> Iterator[None]:
    """Within it, the modules of `_LATER` are imported without being run."""
    finder = _LaterFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _LaterFinder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in _LATER else None
        if spec is not None and spec.loader is not None:
            spec.loader = _LaterLoader(spec.loader)
        return spec


class _LaterLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _LaterModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """The module is run when something of it is used."""


class _LaterModule(types.ModuleType):
    """A module that is run when a name is asked for that it does not have yet.

    importlib.util.LazyLoader's is run at any look, such as that at `__file__` which Python's
    `inspect`, and so Beam and TensorFlow, take at all modules there are.
    """

    _lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        with self._lock:
            spec = self.__spec__
            if spec is not None and isinstance(spec.loader, _LaterLoader):
                spec.loader = spec.loader.loader
                spec.loader.exec_module(self)
                self.__class__ = types.ModuleType  # type: ignore[assignment]
        return types.ModuleType.__getattribute__(self, name)
