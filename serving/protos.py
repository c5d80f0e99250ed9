"""TensorFlow's and TensorFlow Serving's messages, without TensorFlow's Python modules.

The generated modules of the messages are in the package `tensorflow`, whose import takes seconds
and hundreds of megabytes, of which the server needs nothing.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def _only_the_folder() -> Iterator[None]:
    """Lets modules below `tensorflow` be imported without running `tensorflow` itself."""
    if "tensorflow" in sys.modules:
        yield
        return
    found = importlib.util.find_spec("tensorflow")
    package = ModuleType("tensorflow")
    package.__path__ = list((found and found.submodule_search_locations) or [])
    sys.modules["tensorflow"] = package
    try:
        yield
    finally:
        if sys.modules.get("tensorflow") is package:
            del sys.modules["tensorflow"]


with _only_the_folder():
    from tensorflow.core.example.example_pb2 import Example
    from tensorflow.core.framework.tensor_pb2 import TensorProto
    from tensorflow.core.framework.types_pb2 import DataType
    from tensorflow.core.protobuf.config_pb2 import ConfigProto
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_log_pb2,
        prediction_service_pb2_grpc,
    )

__all__ = [
    "ConfigProto",
    "DataType",
    "Example",
    "MetaGraphDef",
    "SignatureDef",
    "TensorProto",
    "get_model_metadata_pb2",
    "get_model_status_pb2",
    "model_service_pb2_grpc",
    "predict_pb2",
    "prediction_log_pb2",
    "prediction_service_pb2_grpc",
]
