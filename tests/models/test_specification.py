"""Which inputs of one model are also those of another, by what they are computed from."""

import dataclasses

import pytest

from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.features import batch, definitions
from fraud.features.batch import feature_names
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.specification import (
    EXAMPLE_VALUES_FILE,
    EXTRA,
    SPECIFICATION_FILE,
    InputSpecification,
    changed_features,
    example_values,
)

DATASET = Dataset(numeric=("AGE",), categorical=("MCC",), slices=("COUNTRY",))
FEATURES = Features(groups=(*Features().groups, FeatureGroup(("smoothed_risk",), (7,))))
INPUTS = InputSpecification(DATASET, FEATURES, 7)


def changed(**changes) -> InputSpecification:
    """INPUTS with other values of some fields, wherever they belong."""
    parts = {}
    for name in ("dataset", "features"):
        part = getattr(INPUTS, name)
        own = {k: v for k, v in changes.items() if hasattr(part, k)}
        parts[name] = dataclasses.replace(part, **own)
    delay = changes.get("label_delay_days", INPUTS.label_delay_days)
    return InputSpecification(**parts, label_delay_days=delay)


@pytest.mark.parametrize(
    "change",
    [
        {"label_delay_days": 6},
        {"normal_days": 29},
        {"high_multiple": 2.0},
        {"prior_risk": 0.02},
        {"prior_count": 5.0},
        {"timestamp": "BOOKED"},
        {"amount": "SPENT"},
        {"label": "CHARGEBACK"},
        {"card": "TERMINAL_ID"},
        {"numeric": ("AGE", "LIMIT"), "calendar": ("weekend",)},
        {"numeric": ("MCC",), "categorical": ("AGE",)},
        {"groups": (FeatureGroup(("count",), (1, 7, 31)),)},
    ],
    ids=str,
)
def test_whatever_changes_a_value_makes_a_difference(change):
    other = changed(**change)
    assert not (INPUTS.provides(other) and other.provides(INPUTS))
    assert INPUTS.column != other.column


@pytest.mark.parametrize(
    "change", [{"id": None}, {"slices": ()}, {"categorical": ("MCC",), "card": "CUSTOMER_ID"}]
)
def test_what_changes_no_value_makes_none(change):
    other = changed(**change)
    assert INPUTS.provides(other)
    assert other.provides(INPUTS)


def test_a_parameter_of_a_family_that_is_not_used_makes_no_difference():
    few = {"groups": (FeatureGroup(("count",), (7,)),)}
    assert changed(**few).provides(changed(**few, normal_days=2, prior_risk=0.5))
    assert changed(**few).provides(changed(**few, label_delay_days=3))


def test_more_inputs_provide_for_a_model_that_reads_fewer():
    fewer = changed(groups=INPUTS.features.groups[:2], numeric=())
    assert INPUTS.provides(fewer)
    assert not fewer.provides(INPUTS)


def test_it_is_read_from_the_model(tmp_path):
    (tmp_path / EXTRA).mkdir()
    (tmp_path / EXTRA / SPECIFICATION_FILE).write_text(to_json(INPUTS, indent=1))
    assert InputSpecification.read(tmp_path) == INPUTS


def test_a_model_without_one_is_refused_with_the_name_of_the_file(tmp_path):
    with pytest.raises(BadInput, match=r"specification\.json: cannot be read: No such file"):
        InputSpecification.read(tmp_path)
    (tmp_path / EXTRA).mkdir()
    (tmp_path / EXTRA / SPECIFICATION_FILE).write_text('{"dataset": {"colour": "red"}}')
    with pytest.raises(BadInput, match=r"specification\.json: .*colour: unknown key"):
        InputSpecification.read(tmp_path)


@pytest.fixture
def exported(tmp_path):
    """The folder of a model with the values of its features."""
    (tmp_path / EXTRA).mkdir()
    (tmp_path / EXTRA / EXAMPLE_VALUES_FILE).write_text(to_json(example_values(INPUTS)))
    return tmp_path


def test_features_whose_code_computes_other_values_are_named(exported, monkeypatch):
    assert changed_features(exported, INPUTS) == []
    risk = definitions.FAMILIES["risk"]
    blind = dataclasses.replace(risk, compute=lambda *given, **named: 0 * risk.compute(*given))
    monkeypatch.setitem(definitions.FAMILIES, "risk", blind)
    monkeypatch.setattr(batch, "_plan", batch._plan.__wrapped__)  # which remembers families
    changed = changed_features(exported, INPUTS)
    assert changed
    assert all("_risk_" in name and "smoothed" not in name for name in changed)


def test_every_feature_of_the_example_distinguishes_transactions():
    """Or else a change of it would go unnoticed."""
    values = example_values(INPUTS)
    assert list(values) == list(feature_names(INPUTS.features, INPUTS.dataset))
    assert [name for name, numbers in values.items() if len(set(numbers)) < 2] == []


def test_the_last_digits_are_those_of_the_machine(exported):
    values = {
        name: [v and v * (1 + 1e-5) for v in of] for name, of in example_values(INPUTS).items()
    }
    (exported / EXTRA / EXAMPLE_VALUES_FILE).write_text(to_json(values))
    assert changed_features(exported, INPUTS) == []


@pytest.mark.parametrize(
    "dataset",
    [
        Dataset(timestamp=None),
        Dataset(entities=(), amount=None, label="FRAUD"),
        Dataset(label_time="LEARNED", timezone="Asia/Tokyo"),
    ],
)
def test_any_dataset_has_example_values(dataset):
    inputs = dataclasses.replace(INPUTS, dataset=dataset)
    assert list(example_values(inputs)) == list(feature_names(inputs.features, dataset))


def test_a_model_of_an_earlier_release_has_no_values_to_compare(tmp_path):
    assert changed_features(tmp_path, INPUTS) == []


def test_values_that_cannot_be_read_are_named(exported):
    (exported / EXTRA / EXAMPLE_VALUES_FILE).write_text("[")
    with pytest.raises(BadInput, match=r"feature_values\.json: cannot be read"):
        changed_features(exported, INPUTS)
