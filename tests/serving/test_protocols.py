"""Clients of other makes, unchanged, against a running server."""

from __future__ import annotations

import base64
import socket
import time

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
import tritonclient.grpc
import tritonclient.http
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tritonclient.grpc import service_pb2

from fraud.serving.api.open_inference_messages import MESSAGES

AMOUNTS = [50.0, 25.0, 1000.0]
SCORES = [0.6, 0.3, 1.0]
ALERTS = [1.0, 0.0, 1.0]
PREDICT = "/v1/models/fraud:predict"


def example(amount):
    of_amount = tf.train.Feature(float_list=tf.train.FloatList(value=[amount]))
    features = tf.train.Features(feature={"TX_AMOUNT": of_amount})
    return tf.train.Example(features=features).SerializeToString()


def post(server, path, document, **options):
    return httpx.post(f"{server.url}{path}", json=document, timeout=30, **options)


def test_an_answer_without_a_body_is_sent(server):
    with httpx.Client() as client:
        for _ in range(2):
            assert client.head(f"{server.url}/healthz").status_code == 405
            assert client.get(f"{server.url}/healthz").status_code == 200


def test_rest_row_by_row(server):
    rows = [{"TX_AMOUNT": amount, "CHANNEL": "web"} for amount in AMOUNTS]
    answer = post(server, PREDICT, {"signature_name": "predict", "instances": rows})
    assert answer.status_code == 200
    assert [row["score"] for row in answer.json()["predictions"]] == pytest.approx(SCORES)
    assert [row["alert"] for row in answer.json()["predictions"]] == ALERTS
    assert answer.headers["x-model-version"] == "7"


def test_rest_column_by_column_and_null_is_missing(server):
    columns = {"TX_AMOUNT": [50, None], "CHANNEL": ["web", None]}
    path = "/v1/models/fraud/versions/7:predict"
    answer = post(server, path, {"signature_name": "predict", "inputs": columns})
    assert answer.json()["outputs"]["score"] == pytest.approx([0.6, 0.25])


def test_rest_with_serialized_examples_and_reasons(server):
    encoded = [{"b64": base64.b64encode(example(amount)).decode()} for amount in AMOUNTS]
    answer = post(server, PREDICT, {"instances": encoded})
    assert [row["score"] for row in answer.json()["predictions"]] == pytest.approx(SCORES)
    answer = post(server, PREDICT, {"signature_name": "explain", "inputs": {"examples": encoded}})
    assert answer.json()["outputs"]["reason"] == [["TX_AMOUNT"]] * 3


def test_rest_status_and_metadata(server):
    status = httpx.get(f"{server.url}/v1/models/fraud").json()
    expected = {"error_code": "OK", "error_message": ""}
    assert status["model_version_status"] == [
        {"version": "7", "state": "AVAILABLE", "status": expected}
    ]
    document = httpx.get(f"{server.url}/v1/models/fraud/versions/7/metadata").json()
    predict = document["metadata"]["signature_def"]["signature_def"]["predict"]
    assert predict["inputs"]["TX_AMOUNT"]["dtype"] == "DT_FLOAT"
    assert predict["inputs"]["CHANNEL"]["tensor_shape"]["dim"] == [{"size": "-1", "name": ""}]
    assert predict["outputs"].keys() == {"score", "alert"}


def test_tensorflow_servings_stubs(server):
    with grpc.insecure_channel(server.grpc) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "fraud"
        request.inputs["examples"].CopyFrom(tf.make_tensor_proto([example(a) for a in AMOUNTS]))
        response = stub.Predict(request, timeout=30)
        assert tf.make_ndarray(response.outputs["score"]) == pytest.approx(SCORES)
        assert response.model_spec.version.value == 7

        request.model_spec.signature_name = "predict"
        request.model_spec.version.value = 7
        request.inputs.clear()
        request.inputs["TX_AMOUNT"].CopyFrom(tf.make_tensor_proto(np.float32([50, np.nan])))
        request.inputs["CHANNEL"].CopyFrom(tf.make_tensor_proto(["web", ""]))
        request.output_filter.append("score")
        response = stub.Predict(request, timeout=30)
        assert tf.make_ndarray(response.outputs["score"]) == pytest.approx([0.6, 0.25])
        assert list(response.outputs) == ["score"]

        asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        asked.model_spec.name = "fraud"
        metadata = stub.GetModelMetadata(asked, timeout=30).metadata["signature_def"]
        signatures = get_model_metadata_pb2.SignatureDefMap()
        assert metadata.Unpack(signatures)
        predict = signatures.signature_def["predict"]
        assert predict.inputs["TX_AMOUNT"].dtype == tf.float32.as_datatype_enum

        asked = get_model_status_pb2.GetModelStatusRequest()
        asked.model_spec.name = "fraud"
        models = model_service_pb2_grpc.ModelServiceStub(channel)
        [status] = models.GetModelStatus(asked, timeout=30).model_version_status
        assert (status.version, status.state) == (7, status.AVAILABLE)
        assert status.status.error_code == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_tritons_client(server, protocol, shape):
    module = getattr(tritonclient, protocol)
    client = module.InferenceServerClient(getattr(server, protocol))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fraud")
    assert not client.is_model_ready("fraud", "6")
    as_json = {} if protocol == "http" else {"as_json": True}
    metadata = client.get_model_metadata("fraud", **as_json)
    assert {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]} == {
        "TX_AMOUNT": "FP32",
        "CHANNEL": "BYTES",
    }
    amount = module.InferInput("TX_AMOUNT", shape, "FP32")
    amount.set_data_from_numpy(np.array(AMOUNTS, np.float32).reshape(shape))
    channel = module.InferInput("CHANNEL", shape, "BYTES")
    channel.set_data_from_numpy(np.array([b"web", b"", b"phone"], object).reshape(shape))
    result = client.infer("fraud", [amount, channel], request_id="mine")
    assert result.as_numpy("score") == pytest.approx(SCORES)
    assert result.as_numpy("alert").tolist() == ALERTS
    chosen = [module.InferRequestedOutput("score")]
    result = client.infer("fraud", [amount, channel], model_version="7", outputs=chosen)
    assert result.as_numpy("score") == pytest.approx(SCORES)
    assert result.as_numpy("alert") is None
    client.close()


def test_tritons_client_with_json_and_another_signature(server):
    client = tritonclient.http.InferenceServerClient(server.http)
    examples = tritonclient.http.InferInput("examples", [1], "BYTES")
    examples.set_data_from_numpy(np.array([b""], object), binary_data=False)
    outputs = [
        tritonclient.http.InferRequestedOutput(name, binary_data=False)
        for name in ("reason", "contribution")
    ]
    parameters = {"signature_name": "explain"}
    result = client.infer("fraud", [examples], outputs=outputs, parameters=parameters)
    assert result.as_numpy("reason").tolist() == [["TX_AMOUNT"]]
    client.close()


def test_open_inference_in_json_and_in_messages_without_raw_bytes(server):
    tensors = [
        {"name": "TX_AMOUNT", "shape": [2, 1], "datatype": "FP32", "data": [[50], [None]]},
        {"name": "CHANNEL", "shape": [2], "datatype": "BYTES", "data": ["web", ""]},
    ]
    answer = post(server, "/v2/models/fraud/infer", {"id": "mine", "inputs": tensors}).json()
    assert (answer["id"], answer["model_version"]) == ("mine", "7")
    outputs = {output["name"]: output for output in answer["outputs"]}
    assert outputs["score"]["data"] == pytest.approx([0.6, 0.25])
    assert outputs["score"]["shape"] == [2]

    request = service_pb2.ModelInferRequest(model_name="fraud")
    amount = request.inputs.add(name="TX_AMOUNT", shape=[2], datatype="FP32")
    amount.contents.fp32_contents.extend([50, float("nan")])
    channel = request.inputs.add(name="CHANNEL", shape=[2], datatype="BYTES")
    channel.contents.bytes_contents.extend([b"web", b""])
    with grpc.insecure_channel(server.grpc) as channel_to_server:
        call = channel_to_server.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            service_pb2.ModelInferRequest.SerializeToString,
            service_pb2.ModelInferResponse.FromString,
        )
        response = call(request, timeout=30)
    by_name = {output.name: output for output in response.outputs}
    assert list(by_name["score"].contents.fp32_contents) == pytest.approx([0.6, 0.25])


def test_a_client_that_would_rather_speak_http_2(server):
    """As Java's does by default."""
    host, port = server.http.split(":")
    body = b'{"signature_name": "predict", "inputs": {"TX_AMOUNT": [50], "CHANNEL": ["web"]}}'
    head = (
        f"POST /v1/models/fraud:predict HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        f"Content-Length: {len(body)}\r\nHost: {host}\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"
        "Upgrade: h2c\r\n\r\n"
    ).encode()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        for parts in ((head + body,), (head, body)):
            for part in parts:
                connection.sendall(part)
                time.sleep(0.1)
            answer = connection.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            assert b'"score":[0.6' in answer


def test_grpc_health(server):
    with grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=30) == b"\x08\x01"  # SERVING


def test_our_messages_are_those_of_tritons_client():
    """Field by field: a client of ours and theirs would read the same bytes alike."""

    def fields(descriptor):
        return {field.name: (field.number, field.type, field.label) for field in descriptor.fields}

    compared = 0
    for name, message in MESSAGES.items():
        theirs = getattr(service_pb2, name, None)
        if theirs is None:  # of gRPC's health service
            continue
        pairs = [(message.DESCRIPTOR, theirs.DESCRIPTOR)]
        pairs += [
            (nested, theirs.DESCRIPTOR.nested_types_by_name[nested.name])
            for nested in message.DESCRIPTOR.nested_types
        ]
        for ours, their_own in pairs:
            assert fields(ours).items() <= fields(their_own).items(), ours.full_name
            compared += 1
    assert compared >= 18
