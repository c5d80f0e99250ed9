import json

from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.pipeline import config, summary


def artifact(**properties) -> mlmd.Artifact:
    made = mlmd.Artifact()
    for name, held in properties.items():
        kind = {float: "double_value", int: "int_value", str: "string_value"}[type(held)]
        setattr(made.custom_properties[name], kind, held)
    return made


def made(**differs):
    return {
        "run_id": "r",
        "outcome": "pushed",
        "reasons": [],
        "notes": [],
        "pushed_version": "17",
        "pushed_path": "root/pushed/17",
        "model_card": None,
        "live_version": "17",
        "windows": {"train": ["2026-02-12", "2026-02-21"]},
        "rows": {"train": 1000},
        "positives": {"train": 10},
        "tuned": None,
        "validation": {},
        "metrics": {},
        "champion_metrics": {},
        "seconds": {"Trainer": 2.0},
        "root": "root",
        **differs,
    }


def test_validation_is_what_the_trainer_measured():
    model = artifact(threshold=0.5, brier=0.25, is_external=0, tfx_version="1")
    assert summary._validation(model) == {"brier": 0.25, "threshold": 0.5}


def test_the_summary_shows_threshold_and_calibration_in_one_line():
    found = {"threshold": 0.51239, "brier": 0.0049, "expected_calibration_error": 0.001}
    lines = summary.render(made(validation=found)).splitlines()
    (line,) = [line for line in lines if "Brier" in line]
    assert line == "  model     threshold 0.5124 · Brier 0.0049 · ECE 0.0010, on held-out cards"


def test_what_was_not_measured_is_not_shown_as_a_number():
    assert "Brier –" in summary.render(made(validation={"threshold": 0.5}))
    assert "Brier" not in summary.render(made(outcome="gate_stopped"))


def test_the_page_of_a_pushed_model_is_named():
    assert "  card      root/card.html\n" in summary.render(made(model_card="root/card.html"))
    assert "card" not in summary.render(made(outcome="not_blessed"))


def test_what_a_tuner_found_becomes_a_configuration(tmp_path):
    (tmp_path / "found").mkdir()
    found = {"space": [], "values": {"learning_rate": 1e-05, "towers": "[[64, 32], [8]]"}}
    (tmp_path / "found" / "best_hyperparameters.txt").write_text(json.dumps(found))
    file = tmp_path / "tuned.yaml"
    file.write_text(summary._as_configuration(mlmd.Artifact(uri=str(tmp_path / "found")), "r1"))
    network = config.load(file).network
    assert network.learning_rate == 1e-05
    assert network.towers == ((64, 32), (8,))
    assert "run r1" in file.read_text()


def test_the_file_of_a_search_is_named():
    assert "  tuned     root/runs/r/tuned.yaml\n" in summary.render(
        made(tuned="root/runs/r/tuned.yaml")
    )
