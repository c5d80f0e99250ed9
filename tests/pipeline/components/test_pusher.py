import os
from pathlib import Path

import pytest
from tfx.proto import pusher_pb2
from tfx.types.standard_artifacts import Model, ModelBlessing, PushedModel
from tfx.utils import proto_utils

from fraud import files
from fraud.files import digest
from fraud.pipeline.components.pusher import PusherExecutor


@pytest.fixture
def push(tmp_path):
    model = Model()
    model.uri = str(tmp_path / "model")
    saved = tmp_path / "model" / "Format-Serving"
    (saved / "variables").mkdir(parents=True)
    (saved / "saved_model.pb").write_bytes(b"graph")
    (saved / "variables" / "variables.index").write_bytes(b"weights")
    base = tmp_path / "root" / "pushed"
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(base))
    )

    def pushed(blessed=1, **decision):
        blessing = ModelBlessing()
        blessing.set_int_custom_property("blessed", blessed)
        result = PushedModel()
        result.uri = str(tmp_path / "artifact")
        PusherExecutor().Do(
            {"model": [model], "model_blessing": [blessing]},
            {"pushed_model": [result]},
            {"push_destination": proto_utils.proto_to_json(destination), **decision},
        )
        return result

    pushed.base, pushed.weights = base, saved / "variables" / "variables.index"
    return pushed


def test_a_push_is_whole_and_recorded(push):
    result = push()
    version = result.get_string_custom_property("pushed_version")
    assert os.listdir(push.base) == [version]
    files = {str(p.relative_to(push.base)) for p in Path(push.base).rglob("*") if p.is_file()}
    assert files == {f"{version}/saved_model.pb", f"{version}/variables/variables.index"}
    assert result.get_int_custom_property("pushed") == 1
    assert result.get_string_custom_property("pushed_destination") == str(push.base / version)
    assert result.get_string_custom_property("outcome") == "pushed"
    assert result.get_string_custom_property("digest") == digest(push.base / version)


def test_two_pushes_within_a_second_are_two_versions(push):
    push()
    push.weights.write_bytes(b"others")
    push()
    assert len(os.listdir(push.base)) == 2


def test_identical_weights_are_not_pushed_again_even_without_a_driver(push):
    version = push().get_string_custom_property("pushed_version")
    again = push()
    assert again.get_string_custom_property("outcome") == "not_pushed"
    reason = f"identical to version {version}, which is live"
    assert again.get_string_custom_property("reason") == reason
    assert os.listdir(push.base) == [version]


def test_what_is_not_blessed_is_not_pushed(push):
    result = push(blessed=0)
    assert result.has_custom_property("pushed")
    assert result.get_int_custom_property("pushed") == 0
    assert result.get_string_custom_property("outcome") == "not_blessed"
    assert not push.base.exists()


def test_a_push_that_dies_half_way_leaves_nothing_that_looks_like_a_model(push, monkeypatch):
    def dies(staged):
        os.unlink(Path(staged) / "saved_model.pb")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(files, "sync_tree", dies)
        push()
    assert os.listdir(push.base) == []
    push()
    assert len(os.listdir(push.base)) == 1


def test_what_the_driver_decided_holds(push):
    result = push(outcome="replay", reason="replay: as of")
    assert result.get_int_custom_property("pushed") == 0
    assert result.get_string_custom_property("outcome") == "replay"
    assert result.get_string_custom_property("reason") == "replay: as of"
    assert not push.base.exists()
