"""Which version answers, without a server around it."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest

from fraud.errors import BadInput
from fraud.serving import versions
from fraud.serving.errors import NotFound, NotReady
from fraud.serving.inference import Inference
from fraud.serving.models import LoadedModel
from fraud.serving.settings import Limits
from fraud.serving.versions import Versions, Watch
from tests.serving.conftest import push

FIFTY = {"TX_AMOUNT": np.array([50], np.float32), "CHANNEL": np.array([b"web"], object)}


@pytest.fixture
def pushed(tmp_path):
    return tmp_path / "pushed"


@pytest.fixture
def watched(pushed):
    """A watch that looks when it is told to, its versions, and all their statuses."""
    statuses = []
    loaded = Versions(statuses.append)
    yield Watch(pushed, loaded), loaded, statuses
    loaded.replace(None)


def score(loaded):
    with loaded.lease() as model:
        return float(model.score(FIFTY).score[0])


def test_nothing_answers_before_the_first_version(watched, pushed, saved_models):
    watch, loaded, _ = watched
    watch.look()  # there is not even a folder
    with pytest.raises(NotReady), loaded.lease():
        pass
    push(saved_models.plain[0], pushed, 1)
    watch.look()
    assert loaded.live == "1"
    assert score(loaded) == pytest.approx(0.6)


def test_the_newest_version_answers_whichever_model_that_is(watched, pushed, saved_models):
    watch, loaded, _ = watched
    six, seven = saved_models.plain
    push(six, pushed, 9)
    push(six, pushed, 10)  # not the last in alphabetical order
    (pushed / "staging").mkdir()
    watch.look()
    assert loaded.live == "10"
    push(seven, pushed, 11)
    watch.look()
    assert (loaded.live, score(loaded)) == ("11", pytest.approx(0.7))
    push(six, pushed, 12)  # a rollback
    watch.look()
    assert (loaded.live, score(loaded)) == ("12", pytest.approx(0.6))
    with pytest.raises(NotFound, match="version 11 is not loaded; version 12 is live"):
        loaded.lease("11").__enter__()


def test_a_request_keeps_the_version_that_it_began_with(watched, pushed, saved_models):
    watch, loaded, statuses = watched
    push(saved_models.plain[0], pushed, 1)
    watch.look()
    with loaded.lease() as model:
        push(saved_models.plain[1], pushed, 2)
        swap = threading.Thread(target=watch.look)
        swap.start()
        while loaded.live != "2":
            pass
        assert model.version == "1"
        assert float(model.score(FIFTY).score[0]) == pytest.approx(0.6)
        assert ("1", "END") not in [(s.version, s.state) for s in statuses]
        assert swap.is_alive()  # waits for this request
    swap.join(60)
    assert ("1", "END") in [(s.version, s.state) for s in statuses]


def test_work_in_a_thread_keeps_its_version_though_its_request_is_given_up(
    watched, pushed, saved_models
):
    watch, loaded, statuses = watched
    push(saved_models.plain[0], pushed, 1)
    watch.look()
    inference = Inference(loaded, Limits())
    began, may_end = threading.Event(), threading.Event()

    def work():
        began.set()
        may_end.wait(60)

    async def give_up():
        with loaded.lease() as model:
            task = asyncio.ensure_future(inference.in_thread(threads, model, work))
            while not began.is_set():
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(give_up())
        swap = threading.Thread(target=loaded.replace, args=(None,))
        swap.start()
        swap.join(0.2)
        assert swap.is_alive()
        may_end.set()
        swap.join(60)
    assert ("1", "END") in [(s.version, s.state) for s in statuses]


def broken_graph(folder):
    (folder / "saved_model.pb").write_bytes(b"\xff" * 100)


def broken_variables(folder):
    next(folder.glob("variables/*.data*")).write_bytes(b"")


def no_graph(folder):
    (folder / "saved_model.pb").unlink()


def names_of_another_model(folder):
    (folder / "assets.extra" / "inputs.json").write_text('{"AGE": "AGE"}')


def unreadable_warmup(folder):
    (folder / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"\x05")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (broken_graph, "cannot be loaded"),
        (broken_variables, "cannot be loaded"),
        (no_graph, "there is no saved_model.pb"),
        (names_of_another_model, "not the inputs of the model"),
        (unreadable_warmup, "record 1 is cut short"),
    ],
)
def test_a_broken_version_is_refused_and_the_old_one_stays(
    watched, pushed, saved_models, damage, message
):
    watch, loaded, statuses = watched
    push(saved_models.plain[0], pushed, 1)
    watch.look()
    damage(push(saved_models.plain[1], pushed, 2))
    watch.look()
    assert (loaded.live, score(loaded)) == ("1", pytest.approx(0.6))
    assert loaded.statuses[0].version == "2"
    assert message in loaded.statuses[0].error
    count = len(statuses)
    watch.look()
    assert len(statuses) == count  # not tried again and again

    shutil.rmtree(pushed / "2")
    push(saved_models.plain[1], pushed, 2)  # repaired
    watch.look()
    assert (loaded.live, score(loaded)) == ("2", pytest.approx(0.7))


def test_a_refused_version_is_tried_again_after_a_while(watched, pushed, saved_models, monkeypatch):
    watch, loaded, statuses = watched
    broken_graph(push(saved_models.plain[0], pushed, 1))
    watch.look()
    monkeypatch.setattr(versions, "SECONDS_TO_RETRY", 0.0)
    watch.look()
    assert [s.state for s in statuses] == ["LOADING", "END"] * 2
    assert loaded.live is None


def test_a_version_that_is_not_at_fault_is_soon_tried_again(pushed, saved_models, monkeypatch):
    """Such as one that comes while the server of the state is down."""
    problems = [BadInput("no state for it"), NotReady("its server is down")]

    def check(model):
        if problems:
            raise problems[-1]

    loaded = Versions()
    watch = Watch(pushed, loaded, check)
    push(saved_models.plain[0], pushed, 1)
    watch.look()
    monkeypatch.setattr(versions, "SECONDS_TO_WAIT", 0.0)
    problems.pop()
    watch.look()
    problems.pop()
    watch.look()
    assert loaded.live is None  # refused for good reason, and not tried again at once
    monkeypatch.setattr(versions, "SECONDS_TO_RETRY", 0.0)
    watch.look()
    assert loaded.live == "1"
    loaded.replace(None)


def test_a_folder_that_cannot_be_read_for_a_moment_ends_nothing(
    pushed, saved_models, monkeypatch, caplog
):
    monkeypatch.setattr(versions, "SECONDS_BETWEEN_LOOKS", 0.01)
    pushed.write_text("no folder")
    loaded = Versions()
    watch = Watch(pushed, loaded)
    watch.start()
    wait_for(lambda: "cannot look for versions" in caplog.messages)
    pushed.unlink()
    push(saved_models.plain[0], pushed, 1)
    wait_for(lambda: loaded.live == "1")
    watch.stop()


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_version_that_the_service_cannot_use_is_refused(pushed, saved_models):
    def check(model):
        if model.version == "2":
            raise BadInput("no state for it")

    loaded = Versions()
    watch = Watch(pushed, loaded, check)
    push(saved_models.plain[0], pushed, 1)
    push(saved_models.plain[1], pushed, 2)
    watch.look()  # falls back to the version before
    assert loaded.live == "1"
    assert [(s.version, s.error) for s in loaded.statuses] == [("2", "no state for it"), ("1", "")]
    loaded.replace(None)


def test_versions_may_need_different_inputs(watched, pushed, saved_models):
    watch, loaded, _ = watched
    push(saved_models.plain[0], pushed, 1)
    watch.look()
    push(saved_models.other_inputs, pushed, 2)
    watch.look()
    with loaded.lease() as model:
        assert model.input_names.keys() == {"TX_AMOUNT", "velocity"}
        numbers = {"TX_AMOUNT": np.float32([50]), "velocity": np.float32([1])}
        assert float(model.score(numbers).score[0]) == pytest.approx(0.8)


def test_a_version_whose_folder_is_deleted_is_replaced_by_the_newest_that_is_left(
    watched, pushed, saved_models
):
    watch, loaded, _ = watched
    push(saved_models.plain[0], pushed, 1)
    push(saved_models.plain[1], pushed, 2)
    watch.look()
    shutil.rmtree(pushed / "2")
    watch.look()
    assert loaded.live == "1"
    shutil.rmtree(pushed / "1")
    watch.look()
    assert (loaded.live, score(loaded)) == ("1", pytest.approx(0.6))  # better than nothing


def test_explanations_and_scores_agree(saved_models):
    model = LoadedModel(saved_models.plain[0])
    columns = {
        "TX_AMOUNT": np.array([50, np.nan, 25], np.float32),
        "CHANNEL": np.array([b"web", b"", b"x"], object),
    }
    explained = model.explain(columns)
    assert explained.scores.score == pytest.approx([0.6, 0.25, 0.3])
    assert explained.scores.score == pytest.approx(model.score(columns).score)
    assert explained.scores.alert.tolist() == [True, False, False]
    assert explained.columns == [["TX_AMOUNT"]] * 3
    model.close()


def test_a_model_without_a_specification_says_so(saved_models):
    model = LoadedModel(saved_models.plain[0])
    with pytest.raises(BadInput, match="train it again"):
        _ = model.columns
    model.close()
