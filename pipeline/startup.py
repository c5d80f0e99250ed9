"""Imports TFX without the libraries that a run never uses.

Keras, Beam, TFMA and TFX import optional libraries (notebooks, scikit-learn, databases, cloud
clients) whenever they are installed, and installing TFX installs them all. They account for half of
the import time.
"""

from __future__ import annotations

import gc
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

_OPTIONAL_IN_KERAS = ("IPython", "matplotlib", "sklearn")
_OPTIONAL_IN_BEAM = ("apache_beam.io.gcp.bigquery", "bson", "pymongo")
_LAZY_MODULES = (
    "scipy.stats",  # confidence intervals
    "tensorflow_model_analysis.metrics.bleu",  # text metrics, which import nltk and sacrebleu
    "tensorflow_model_analysis.metrics.rouge",
    "tensorflow_model_analysis.notebook.visualization",  # imports ipywidgets and IPython
    "tfx.components.infra_validator.model_server_runners.kubernetes_runner",
    "tfx.components.infra_validator.model_server_runners.local_docker_runner",
)


def import_tfx() -> None:
    """Imports TFX's components, and with them TensorFlow, Beam and TFMA.

    Everything skipped here can still be imported afterwards. The one difference is that
    `apache_beam.io` lacks the names of Google's services; import them from
    `apache_beam.io.gcp.bigquery`.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    if "tfx.components" in sys.modules:
        _import_all()  # what exists by now may be garbage one day
        return
    with _exempt_from_collection():
        _import_all()


def _import_all() -> None:
    with _lazy_imports():
        with _hidden(_OPTIONAL_IN_KERAS):
            importlib.import_module("tensorflow")
            importlib.import_module("keras_tuner")
        with _hidden(_OPTIONAL_IN_BEAM):
            importlib.import_module("apache_beam")
        # Hide nothing here: if one import of TFMA fails, it drops all of its names.
        importlib.import_module("tfx.components")
        importlib.import_module("fraud.pipeline.beam_caches").install()


@contextmanager
def _exempt_from_collection() -> Iterator[None]:
    """Exempts everything that exists at the end of the block from garbage collection.

    The modules are never garbage, but they have so many objects that looking at them takes half a
    second, and a run collects garbage after each node.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Makes imports of the named modules fail inside the block, unless already imported.

    Libraries that treat these modules as optional go on without them; their warnings about it are
    suppressed.
    """
    not_imported = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(not_imported))  # type: ignore[arg-type]
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)
        for name in not_imported:
            del sys.modules[name]


@contextmanager
def _lazy_imports() -> Iterator[None]:
    """Delays running the modules in `_LAZY_MODULES` imported inside the block until first use."""
    finder = _LazyFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _LazyFinder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in _LAZY_MODULES else None
        if spec is not None and spec.loader is not None:
            spec.loader = _LazyLoader(spec.loader)
        return spec


class _LazyLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _LazyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Does nothing: `_LazyModule` runs the module on first use."""


class _LazyModule(types.ModuleType):
    """A module that runs when a missing attribute is first accessed.

    The module of `importlib.util.LazyLoader` runs on any attribute access, even of `__file__`.
    Python's `inspect` reads that attribute of every imported module, and Beam and TensorFlow call
    `inspect`.
    """

    _lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            raise AttributeError(name)
        with self._lock:
            spec = self.__spec__
            if spec is not None and isinstance(spec.loader, _LazyLoader):
                spec.loader = spec.loader.loader
                spec.loader.exec_module(self)
                self.__class__ = types.ModuleType  # type: ignore[assignment]
        return types.ModuleType.__getattribute__(self, name)
