"""`score`: what it needs, what it writes, and features from the server's state."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fraud.errors import BadInput
from fraud.features.batch import add_features, feature_names
from fraud.models.specification import InputSpecification
from fraud.pipeline import cli
from fraud.pipeline.commands import score
from fraud.pipeline.root import Root
from fraud.serving.batch import with_scores
from fraud.serving.state import StateDefinition, Transactions, create_state
from tests.pipeline.ingestion import transactions
from tests.pipeline.ingestion.test_to_score import INPUTS


def test_nothing_is_written_if_nothing_is_live(tmp_path, capsys):
    out = tmp_path / "out.parquet"
    code = cli.main(["score", "in.csv", "--out", str(out), "--root", str(tmp_path / "root")])
    assert code == 2
    assert "nothing is live in" in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture
def table():
    return transactions.make(300).drop(["TX_FRAUD", "NOTE"])


def test_features_come_from_the_state_and_nothing_is_recorded(table, tmp_path, monkeypatch):
    root = Root(tmp_path)
    dataset = INPUTS.dataset
    state = create_state(str(root.state), StateDefinition.of(INPUTS))

    def of(rows):
        entities = {name: rows[name] for name in dataset.entities}
        times, amounts = rows[dataset.timestamp].to_numpy(), rows[dataset.amount].to_numpy()
        return Transactions(times, amounts, entities, rows[dataset.id])

    state.record(of(table.slice(0, 250)))
    state.close()
    monkeypatch.setattr(score, "_STATE_ROWS", 40)
    expected = add_features(table, dataset, INPUTS.features, INPUTS.label_delay_days)
    for _ in range(2):  # the second time shows that the first recorded nothing
        found = score._with_state(str(root.state), table, INPUTS)
        for name in feature_names(INPUTS.features, dataset):
            np.testing.assert_array_equal(
                found[name].to_numpy()[:251], expected[name].to_numpy()[:251], err_msg=name
            )
    assert score._with_state(str(root.state), table.slice(0, 0), INPUTS).num_rows == 0


def test_without_a_state_a_history_is_asked_for(table, tmp_path):
    with pytest.raises(BadInput, match="or give earlier transactions: --history DIR"):
        score._with_state(str(tmp_path / "state"), table, INPUTS)


def scored(rows):
    return pa.table(
        {
            "prediction_score": pa.array(np.linspace(0, 1, rows, dtype=np.float32)),
            "prediction_alert": pa.array([False] * rows),
            "prediction_version": pa.array(["1"] * rows),
        }
    )


def test_the_output_replaces_no_input(tmp_path):
    day = tmp_path / "history" / "date=2026-03-01" / "part.parquet"
    day.parent.mkdir(parents=True)
    day.touch()
    link = tmp_path / "link.parquet"
    link.symlink_to(day)
    for out, source in ((day, day), (link, day), (day, tmp_path / "history")):
        with pytest.raises(BadInput, match=f"--out {out}: is one of the files of {source}"):
            score._check_is_no_input(out, str(source))
    score._check_is_no_input(tmp_path / "new.parquet", str(tmp_path / "history"))
    score._check_is_no_input(tmp_path / "history" / "new.parquet", str(tmp_path / "history"))
    score._check_is_no_input(link, "s3://bucket/history")


def test_the_output_has_transactions_and_scores_but_no_features(table, tmp_path):
    out = tmp_path / "new" / "out.parquet"
    score._make_place(out)
    score._write(iter([with_scores(table, scored(len(table)), ("AGE",))]), out)
    written = parquet.read_table(out)
    names = [name for name in table.column_names if name != "AGE"]
    assert written.column_names == [*names, *scored(1).column_names]
    assert str(written.schema.field("TX_DATETIME").type) == "timestamp[us, tz=UTC]"
    first = written["TX_DATETIME"][0].as_py().replace(tzinfo=None)
    assert first == table["TX_DATETIME"][0].as_py()
    assert [path.name for path in out.parent.iterdir()] == ["out.parquet"]


def test_a_column_with_the_name_of_a_score_is_refused(table):
    clash = table.rename_columns(["prediction_score", *table.column_names[1:]])
    with pytest.raises(BadInput, match="'prediction_score' has the name of a column that is"):
        with_scores(clash, scored(len(table)), ())


def test_an_output_that_cannot_be_written_leaves_the_old_one(table, tmp_path):
    out = tmp_path / "out.parquet"
    out.write_text("old")

    def tables():
        yield table
        raise OSError(5, "Input/output error")

    with pytest.raises(BadInput, match=r"out.parquet: cannot be written: Input/output error"):
        score._write(tables(), out)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_the_file_does_not_depend_on_how_rows_come(table, tmp_path, monkeypatch):
    monkeypatch.setattr(score, "_GROUP_ROWS", 70)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    score._write(iter([table]), whole)
    score._write((table.slice(start, 41) for start in range(0, len(table), 41)), parts)
    groups = [parquet.ParquetFile(file).metadata for file in (whole, parts)]
    for metadata in groups:
        rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert rows == [70, 70, 70, 70, 20]
    assert parquet.read_table(parts) == parquet.read_table(whole) == table


def test_a_runner_of_beam_scores(table, tmp_path, monkeypatch, capsys):
    """With a history; what it cannot do is said in one message, and nothing is left."""
    calls = []

    def on_beam(arguments, config, folder, plan, inputs):
        calls.append((config.beam.runner, len(plan.scored.files)))
        return score._Done(300, 3, "", None)

    monkeypatch.setattr(score, "live_version", lambda config, root: "7")
    monkeypatch.setattr(score, "_score_on_beam", on_beam)
    monkeypatch.setattr(InputSpecification, "read", lambda folder: INPUTS)
    config = tmp_path / "beam.yaml"
    options = ["--job_endpoint=127.0.0.1:1", "--job_server_timeout=1"]
    config.write_text(json.dumps({"beam": {"runner": "PortableRunner", "options": options}}))
    data = transactions.write_days(transactions.make(), tmp_path / "data")
    words = ["score", str(data), "--root", str(tmp_path / "root"), "--json"]
    words += ["--out", str(tmp_path / "out" / "scored.parquet")]
    assert cli.main([*words, "--config", str(config), "--history", str(data)]) == 0
    assert calls == [("PortableRunner", 12)]
    assert set(json.loads(capsys.readouterr().out)["seconds"]) == {"total"}
    # Features from the state are read in this process.
    assert cli.main([*words, "--config", str(config)]) == 2
    assert "--history DIR" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(score, "live_version", lambda config, root: "7")
    monkeypatch.setattr(InputSpecification, "read", lambda folder: INPUTS)
    assert cli.main([*words, "--config", str(config), "--history", str(data)]) == 1
    message = capsys.readouterr().err
    assert "scoring on PortableRunner failed" in message and "Traceback" not in message
    assert not list((tmp_path / "out").iterdir())


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"below: cannot be written: (Not a dir|File exists)"):
        score._make_place(tmp_path / "file" / "below")
    with pytest.raises(BadInput, match="is a folder; name the file to write"):
        score._make_place(tmp_path)
