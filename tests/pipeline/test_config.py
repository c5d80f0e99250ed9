import dataclasses
import pickle

import pytest

from fraud import codec
from fraud.errors import BadInput
from fraud.features.spec import Dataset, FeatureGroup
from fraud.pipeline import config
from fraud.pipeline.config import Config, Paths, WindowLengths


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
    assert loaded.schema_location == str(tmp_path / "my/schema.pbtxt")
    assert loaded.curated_schema is None  # the file is missing: it is inferred
    (tmp_path / "my").mkdir()
    (tmp_path / "my/schema.pbtxt").touch()
    assert loaded.curated_schema == loaded.schema_location
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
    tuned.write_text("dataset: {card: SHOP}")
    with pytest.raises(BadInput, match=r"bank\.yaml, \S*tuned\.yaml: dataset\.card"):
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
        ("dataset: {timestamp: null, label_time: at}", "dataset.label_time", "dataset.timestamp"),
        ("dataset: {numeric: [CUSTOMER_ID]}", "dataset.numeric", "already dataset.entities"),
        ("dataset: {label_time: TX_FRAUD}", "dataset.label_time", "already dataset.label"),
        ("dataset: {label_time: at, slices: [at]}", "dataset.slices", "name a category"),
        ("dataset: {timezone: Europe/Berlim}", "dataset.timezone", "Europe/Berlin"),
        ("dataset: {csv_encoding: latin-99}", "dataset.csv_encoding", "is no encoding"),
        ("dataset: {csv_encoding: hex}", "dataset.csv_encoding", "is no encoding"),
        ("dataset: {csv_encoding: undefined}", "dataset.csv_encoding", "is no encoding"),
        ("data_gate: {severity: fatal}", "data_gate.severity", "error, warning"),
        ("data_gate: {max_drift: 2}", "data_gate.max_drift", "0 to 1"),
        ("data_gate: {drift_thresholds: {x: 0.1}}", "data_gate.drift_thresholds", "no feature"),
        ("network: {dropout: 1.0}", "network.dropout", "out of range"),
        ("network: {learning_rate: 0}", "network.learning_rate", "above 0"),
        ("network: {towers: []}", "network.towers", "the least is 1"),
        ("network: {validation_percent: 51}", "network.validation_percent", "1 to 50"),
        ("network: {genuine_share: 0}", "network.genuine_share", "above 0"),
        ("network: {genuine_share: 1.5}", "network.genuine_share", "most is 1"),
        ("network: {focal_gamma: -1}", "network.focal_gamma", "the least is 0"),
        ("network: {focal_gamma: 0.5}", "network.focal_gamma", "the least is 1"),
        ("monitoring: {warn_probability: 0.97}", "monitoring.warn_probability", "lower it"),
        ("monitoring: {act_probability: 1}", "monitoring.act_probability", "below 1"),
        ("tuning: {trials: 0}", "tuning.trials", "the least is 1"),
        ("tuning: {learning_rate: [0.1, 0]}", "tuning.learning_rate[1]", "above 0"),
        ("tuning: {epochs: [0]}", "tuning.epochs[0]", "the least is 1"),
        ("tuning: {weight_decay: [-1]}", "tuning.weight_decay[0]", "the least is 0"),
        ("tuning: {towers: [[]]}", "tuning.towers[0]", "the least is 1"),
        ("tuning: {towers: [[[0]]]}", "tuning.towers[0][0][0]", "the least is 1"),
        ("tuning: {towers: [[32]]}", "tuning.towers[0][0]", "expected a list"),
        ("evaluation: {alert_budget: 0}", "evaluation.alert_budget", "the least is 1"),
        ("features: {groups: [{families: [mean], windows: [0]}]}", "groups[0].windows", "0"),
        ("features: {groups: [{families: [rsk]}]}", "rsk", "risk"),
        ("features: {groups: [{}]}", "features.groups[0].families", "choose from"),
        ("features: {groups: [{familys: [risk]}]}", "groups[0].familys", "'families'?"),
        ("features: {normal_days: 0}", "features.normal_days", "the least is 1"),
        ("features: {prior_count: 0}", "features.prior_count", "above 0"),
        ("metadata: {store: oracle}", "metadata.store", "sqlite, mysql"),
        ("metadata: {port: 65536}", "metadata.port", "0 to 65535"),
        (
            "metadata: {tls_ca: a, host: db, tls_key: k}",
            "metadata.tls_certificate and metadata.tls_key",
            "give both",
        ),
        (
            "metadata: {tls_certificate: c, tls_key: k}",
            "metadata.tls_certificate",
            "give metadata.tls_ca",
        ),
        ("metadata: {tls_ca: a}", "metadata.host", "name the server"),
        ('metadata: {tls_ca: "a\\0b"}', "metadata.tls_ca", "remove the NUL"),
        ("windws:", "windws", "did you mean 'windows'?"),
        ("network: {learning_rate: .nan}", "network.learning_rate", "not a finite number"),
        ("network: {positive_weight: .inf}", "network.positive_weight", "not a finite number"),
        ("evaluation: {check_cost: -.inf}", "evaluation.check_cost", "not a finite number"),
        ("data_gate: {drift_thresholds: {TX_AMOUNT: .nan}}", "TX_AMOUNT", "not a finite number"),
        ("data_gate: {drift_thresholds: {TX_AMOUNT: 2}}", "TX_AMOUNT", "0 to 1"),
        ("windows:\n  train_days: 9\n  train_days: 8", "train_days", "line 3: key"),
        ("windows: {}\ndataset: {}\nwindows: {}", "'windows'", "line 3: key"),
        ("dataset: {card: &a [*a]}", "the document", "contains itself"),
        ('paths: {data: "a\\0b"}', "paths.data", "remove the NUL"),
        ('paths: {data: "\\ud800"}', "ud800", "remove it"),
        ("[" * 9999, "not valid YAML", "nested too deeply"),
        (
            "dataset: {categorical: [night]}",
            "dataset.categorical: column 'night'",
            "the generated feature 'night'",
        ),
        (
            "dataset: {slices: [CUSTOMER_ID_count_7d]}",
            "dataset.slices: column 'CUSTOMER_ID_count_7d'",
            "the generated feature 'CUSTOMER_ID_count_7d'",
        ),
        ("dataset: {numeric: [a b, a_b]}", "'a b' and 'a_b'", "rename one"),
        ("dataset: {numeric: [3ds, column_3ds]}", "'3ds' and 'column_3ds'", "rename one"),
        (
            "dataset: {timestamp: null, amount: null, entities: []}",
            "dataset",
            "name an amount, numeric or categorical",
        ),
        ('dataset: {label: ""}', "dataset.label: ''", "no name"),
        ('dataset: {entities: [A, " "]}', "dataset.entities: ' '", "no name"),
        ('dataset: {numeric: ["a\\0"]}', "dataset.numeric: 'a\\x00'", "control character"),
        ('dataset: {slices: ["a\\nb"]}', "dataset.slices: 'a\\nb'", "control character"),
        ("dataset: {categorical: [" + 61 * "é" + "]}", "dataset.categorical", "120 bytes"),
        ("a: [", "line", "not valid YAML"),
        ("? [a]\n: 1", "line", "not valid YAML"),
        ("!!map [1]", "line", "not valid YAML"),
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


def test_a_column_may_be_named_like_a_path(load):
    assert load("dataset: {numeric: [../debit/credit, .x]}").dataset.numeric == (
        "../debit/credit",
        ".x",
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"absent\.yaml: cannot read"):
        config.load(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="not UTF-8"):
        config.load(tmp_path / "binary.yaml")


def test_yaml_cannot_make_python_objects(load):
    with pytest.raises(BadInput, match="not valid YAML"):
        load("dataset: !!python/object/apply:os.system ['true']")


def test_an_empty_section_has_its_defaults(load):
    assert load("dataset:\nwindows:\n  train_days: 9\npaths:\n") == load("windows: {train_days: 9}")


def test_keys_are_text_and_may_be_merged(load):
    loaded = load(
        "dataset: {numeric: ['on', '1']}\n"
        "data_gate: {drift_thresholds: {on: 0.1, 1: 0.2}}\n"
        "features: {groups: [&a {families: [count], windows: [1]}, &b {<<: *a, windows: [2]}]}\n"
    )
    assert loaded.features.groups == (
        FeatureGroup(("count",), (1,)),
        FeatureGroup(("count",), (2,)),
    )
    assert loaded.data_gate.drift_thresholds == {"on": 0.1, "1": 0.2}


def test_a_merged_key_may_be_overridden(load):
    text = "features: {groups: [&a {families: [count]}, &b {<<: *a, families: [mean]}]}\nwindows: "
    assert load(text + "{train_days: 9}").features.groups[1].families == ("mean",)
    # Here the merged group is read before the list of groups that it is in.
    with pytest.raises(BadInput, match=r"windows\.families: unknown key"):
        load(text + "{<<: *b}")


def test_numbers_may_be_written_as_in_json(load):
    assert load("network: {learning_rate: 1e-5}").network.learning_rate == 1e-5


def test_dates_are_text_as_they_are_written(load):
    columns = load("dataset: {numeric: [2018-07-31, 2018-07-31T10:00:00Z, !!binary YQ==]}").dataset
    assert columns.numeric == ("2018-07-31", "2018-07-31T10:00:00Z", "YQ==")


def test_a_column_may_have_the_name_of_a_feature_that_is_not_generated(load):
    assert load("dataset: {categorical: [night]}\nfeatures: {calendar: []}")


def test_home_is_expanded_and_uris_are_kept(load, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert load("paths: {data: ~/days, root: ~/root, schema: ~/s.pbtxt}").paths == Paths(
        *(str(tmp_path / "home" / name) for name in ("days", "root", "s.pbtxt"))
    )
    uris = load("paths: {data: 's3://b/days', root: 's3://b/root', schema: 's3://b/s.pbtxt'}")
    assert uris.paths == Paths("s3://b/days", "s3://b/root", "s3://b/s.pbtxt")
    assert uris.curated_schema == "s3://b/s.pbtxt"


def test_the_challenger_is_beside_the_file_that_names_it(load, tmp_path):
    challenger = load("serving: {challenger: {model: models/7}}").serving.challenger
    assert challenger.model == str(tmp_path / "models" / "7")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drop: [TX_AMUONT]", "drop: 'TX_AMUONT' is no column of dataset and no feature"),
        ("drop: [TX_DATETIME]", "drop: 'TX_DATETIME' tells the day of a prediction; keep it"),
        ("hash: [TX_AMOUNT]", "hash: 'TX_AMOUNT' is no identifier and no categorical column"),
    ],
)
def test_columns_of_the_prediction_log_are_checked(load, text, message):
    with pytest.raises(BadInput, match=f"serving.prediction_log.{message}"):
        load(f"serving: {{prediction_log: {{{text}}}}}")
    load("serving: {prediction_log: {drop: [TX_AMOUNT, night], hash: [CUSTOMER_ID]}}")


def test_sections_are_handed_to_components_as_json():
    for section in vars(Config()).values():
        assert codec.from_json(type(section), codec.to_json(section)) == section


def test_a_configuration_can_be_copied_and_sent_to_another_process():
    config = dataclasses.replace(Config(), windows=WindowLengths(train_days=9))
    assert pickle.loads(pickle.dumps(config)) == config != Config()
    assert hash(config.network) == hash(Config().network)


def test_the_sample_configuration_is_valid(repository):
    config.load(repository / "data/sample/config.yaml")
