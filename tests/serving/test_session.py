"""Calls of a loaded model: the tensors of single transactions are kept from call to call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fraud.serving.models import LoadedModel
from fraud.serving.session import InvalidInput, fields_of

AMOUNTS = np.array([50.0, 25.0, np.nan, 40.0, 5.0] * 40, np.float32)
CHANNELS = np.array([b"web", b"", b"x" * 500, b"pos", b"a text of more than 22 bytes"] * 40, object)


@pytest.fixture
def model(saved_models):
    model = LoadedModel(saved_models.plain[0])
    yield model
    model.close()


def test_one_by_one_and_side_by_side_are_as_together(model):
    together = model.score({"TX_AMOUNT": AMOUNTS, "CHANNEL": CHANNELS}).score

    def one(row):
        at = slice(row, row + 1)
        return model.score({"TX_AMOUNT": AMOUNTS[at], "CHANNEL": CHANNELS[at]}).score

    np.testing.assert_array_equal(np.concatenate([one(row) for row in range(200)]), together)
    with ThreadPoolExecutor(8) as threads:
        scores = list(threads.map(one, range(200)))
    np.testing.assert_array_equal(np.concatenate(scores), together)


def test_a_refused_call_spoils_none_after_it(model):
    one = {"TX_AMOUNT": AMOUNTS[:1], "CHANNEL": CHANNELS[:1]}
    expected = model.score(one).score
    with pytest.raises(TypeError):
        model.score({**one, "CHANNEL": np.array([None], object)})
    with pytest.raises(InvalidInput):
        model.signatures["serving_default"](examples=np.array([b"no example"], object))
    np.testing.assert_array_equal(model.score(one).score, expected)


def test_a_field_of_a_message_is_found_among_fields_of_all_kinds():
    varint, fixed64, fixed32 = b"\x08\xac\x02", b"\x11" + bytes(8), b"\x1d" + bytes(4)
    text, long_text = b"\x1a\x02hi", b"\x2a\xac\x02" + b"x" * 300
    whole = varint + text + fixed64 + long_text + fixed32 + text
    assert fields_of(whole, 1) == varint
    assert fields_of(whole, 2) == fixed64
    assert fields_of(whole, 3) == text + fixed32 + text
    assert fields_of(whole, 5) == long_text
    assert fields_of(whole, 4) == fields_of(b"", 1) == b""
