import dataclasses

import pytest

from fraud.errors import BadInput
from fraud.features.spec import Dataset
from fraud.pipeline import config
from fraud.pipeline.config import Config, Paths


@pytest.fixture
def load(tmp_path):
    def loaded(text):
        path = tmp_path / "fraud.yaml"
        path.write_text(text, encoding="utf-8")
        return config.load(path)

    return loaded


def test_no_file_gives_the_defaults_and_they_are_valid():
    assert config.load() == Config()
    config.check(Config())


def test_an_empty_file_gives_the_defaults(load):
    assert load("") == Config()


def test_a_file_names_only_what_differs(load):
    loaded = load(
        "dataset: {timestamp: at, amount: sum, label: is_fraud, id: null, entities: [account]}\n"
        "windows: {train_days: 14}\n"
        "network: {towers: [[32]], learning_rate: 1}\n"
        "data_gate: {drift_thresholds: {sum: 0.1}}\n"
    )
    assert loaded.dataset == Dataset("at", "sum", "is_fraud", None, ("account",))
    assert loaded.windows == dataclasses.replace(Config().windows, train_days=14)
    assert loaded.network.towers == ((32,),)
    assert loaded.network.learning_rate == 1.0
    assert isinstance(loaded.network.learning_rate, float)
    assert loaded.data_gate.drift_thresholds == {"sum": 0.1}


def test_paths_of_a_file_are_relative_to_it_but_not_the_default_root(load, tmp_path):
    loaded = load("paths: {data: days, schema: my/schema.pbtxt}")
    assert loaded.paths.data == str(tmp_path / "days")
    assert loaded.curated_schema == tmp_path / "my/schema.pbtxt"
    assert loaded.paths.root == Config().paths.root
    assert load("paths: {root: elsewhere}").paths.root == str(tmp_path / "elsewhere")


def test_of_two_files_the_later_one_counts_key_by_key(tmp_path):
    (tmp_path / "own").mkdir()
    bank, tuned = tmp_path / "own" / "bank.yaml", tmp_path / "tuned.yaml"
    bank.write_text("network: {epochs: 2, bins: 8}\npaths: {data: days}\n")
    tuned.write_text("network: {epochs: 9, towers: [[32]]}\npaths: {root: here}\n")
    loaded = config.load(bank, tuned)
    assert (loaded.network.epochs, loaded.network.bins) == (9, 8)
    assert loaded.network.towers == ((32,),)
    assert loaded.paths == Paths(str(tmp_path / "own" / "days"), str(tmp_path / "here"))
    tuned.write_text("network: {epoch: 9}")
    with pytest.raises(BadInput, match=r"^\S*tuned\.yaml: network\.epoch: unknown key"):
        config.load(bank, tuned)
    tuned.write_text("windows: {train_days: 0}")
    with pytest.raises(BadInput, match=r"bank\.yaml, \S*tuned\.yaml: windows\.train_days"):
        config.load(bank, tuned)


def test_only_the_built_in_columns_are_judged_by_the_packaged_schema(load):
    assert Config().curated_schema == config.PACKAGED_SCHEMA
    assert load("windows: {train_days: 9}").curated_schema == config.PACKAGED_SCHEMA
    assert load("dataset: {categorical: [channel]}").curated_schema is None
    assert load("features: {calendar: []}").curated_schema is None


@pytest.mark.parametrize(
    ("text", "key", "fix"),
    [
        ("windws: {}", "windws", "did you mean 'windows'?"),
        ("windows: {xyz: 7}", "windows.xyz", "known are"),
        ("windows: {train_day: 7}", "windows.train_day", "did you mean 'train_days'?"),
        ("windows: {train_days: seven}", "windows.train_days", "a whole number, got 'seven'"),
        ("windows: {train_days: true}", "windows.train_days", "a whole number, got True"),
        ("windows: {train_days: 1.5}", "windows.train_days", "a whole number, got 1.5"),
        ("windows: {train_days: 0}", "windows.train_days", "the least is 1"),
        ("windows: {label_delay_days: -1}", "windows.label_delay_days", "the least is 0"),
        ("windows: 7", "windows", "expected keys and values"),
        ("[1, 2]", "the document", "expected keys and values"),
        ("dataset: {label: null}", "dataset.label", "expected text"),
        ("dataset: {entities: CUSTOMER_ID}", "dataset.entities", "expected a list"),
        ("dataset: {entities: [1]}", "dataset.entities[0]", "expected text, got 1"),
        ("dataset: {numeric: [TX_AMOUNT]}", "dataset.numeric", "already dataset.amount"),
        ("dataset: {card: SHOP}", "dataset.card", "not in dataset.entities"),
        ("dataset: {slices: [TX_AMOUNT]}", "dataset.slices", "name a category"),
        ("data_gate: {severity: fatal}", "data_gate.severity", "error, warning"),
        ("data_gate: {max_drift: 2}", "data_gate.max_drift", "0 to 1"),
        ("data_gate: {drift_thresholds: {x: 0.1}}", "data_gate.drift_thresholds", "no feature"),
        ("network: {dropout: 1.0}", "network.dropout", "out of range"),
        ("network: {learning_rate: 0}", "network.learning_rate", "above 0"),
        ("network: {focal_gamma: 0.5}", "network.focal_gamma", "the least is 1"),
        ("tuning: {trials: 0}", "tuning.trials", "the least is 1"),
        ("tuning: {learning_rate: [0.1, 0]}", "tuning.learning_rate", "above 0"),
        ("tuning: {towers: [[32]]}", "tuning.towers[0][0]", "expected a list"),
        ("evaluation: {alert_budget: 0}", "evaluation.alert_budget", "the least is 1"),
        ("features: {groups: [{families: [mean], windows: [0]}]}", "groups[0].windows", "0"),
        ("features: {groups: [{families: [rsk]}]}", "rsk", "risk"),
        (
            "dataset: {timestamp: null, amount: null, entities: []}",
            "dataset",
            "name an amount, numeric or categorical",
        ),
        ("a: [", "line", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_said_with_file_key_and_fix(load, text, key, fix):
    with pytest.raises(BadInput) as caught:
        load(text)
    message = str(caught.value)
    assert "fraud.yaml" in message
    assert key in message
    assert fix in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"absent\.yaml: cannot read"):
        config.load(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8"):
        config.load(tmp_path / "binary.yaml")


def test_yaml_cannot_make_python_objects(load):
    with pytest.raises(BadInput, match="not valid YAML"):
        load("dataset: !!python/object/apply:os.system ['true']")


def test_what_a_component_is_given_can_be_read_back():
    for part in (Config().dataset, Config().windows, Config().features):
        import json

        assert config.from_dict(type(part), json.loads(config.to_json(part))) == part


def test_the_sample_configuration_is_valid(repository):
    config.load(repository / "data/sample/config.yaml")
