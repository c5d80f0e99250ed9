"""A runtime for MLServer, which has none for TensorFlow."""

from __future__ import annotations

from mlserver import MLModel, types

from benchmarks.serving.others import tensors


class SavedModel(MLModel):
    """Serves the signature `predict`."""

    async def load(self) -> bool:
        """Loads the model at the URI of the settings."""
        self._call = tensors.load(self.settings.parameters.uri)
        return True

    async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
        """Answers a request whose tensors are JSON lists."""
        columns = {tensor.name: list(tensor.data) for tensor in payload.inputs}
        outputs = [
            types.ResponseOutput(name=name, shape=[len(values)], datatype="FP32", data=values)
            for name, values in self._call(columns).items()
        ]
        return types.InferenceResponse(model_name=self.name, outputs=outputs)
