"""Changing a schema's text without losing anything that a person wrote."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from tensorflow_metadata.proto.v0 import schema_pb2

from fraud.errors import BadInput
from fraud.features.spec import Dataset, Features
from fraud.models.columns import ModelColumns
from fraud.pipeline import schemas
from fraud.pipeline.config import PACKAGED_SCHEMA

BY_HAND = """\
# Reviewed like code.
string_domain {  # domains first, since we read them most
  name: "CHANNEL"
  # those with a card
  value: "chip"  # and PIN
  value: 'magstripe'
  # without one
  value: "online"
}

feature { name: "CHANNEL" type: BYTES domain: "CHANNEL" presence: { min_count: 1 } } # short
feature {
  name: "AGE"  # years

  # Agreed with the data team.
  presence <
    min_fraction: 1.0,  # never missing
    min_count: 1;
  >
  type: INT
  int_domain {
    # nobody is older
    max: 120
  }
}
# The end."""


def changed(text: str, change: str) -> schema_pb2.Schema:
    """The schema of a text after a change in Python, given as a statement about `s`."""
    schema = schemas.parsed(text)
    channel, age = ({f.name: f for f in schema.feature}[name] for name in ("CHANNEL", "AGE"))
    exec(change, {"s": schema, "channel": channel, "age": age, "pb": schema_pb2})
    return schema


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        ("pass", "", ""),
        (
            "s.string_domain[0].value.append('app')",
            '  value: "online"\n',
            '  value: "online"\n  value: "app"\n',
        ),
        (
            "s.string_domain[0].value.remove('chip')",
            '  value: "chip"  # and PIN\n',
            "    # and PIN\n",
        ),
        ("s.string_domain[0].value.remove('magstripe')", "  value: 'magstripe'\n", ""),
        ("age.type = pb.FLOAT", "type: INT", "type: FLOAT"),
        ("age.presence.min_fraction = 0.5", "min_fraction: 1.0", "min_fraction: 0.5"),
        ("age.presence.ClearField('min_count')", "    min_count: 1;\n", ""),
        (
            "age.ClearField('int_domain')",
            "  int_domain {\n    # nobody is older\n    max: 120\n  }\n",
            "  # nobody is older\n",
        ),
        ("age.int_domain.min = 0", "    max: 120\n", "    max: 120\n    min: 0\n"),
        (
            "age.value_count.min = 1",
            "    max: 120\n  }\n",
            "    max: 120\n  }\n  value_count {\n    min: 1\n  }\n",
        ),
        (
            "s.feature.add(name='NEW', type=pb.INT)",
            "# The end.",
            'feature {\n  name: "NEW"\n  type: INT\n}\n# The end.',
        ),
        (
            "s.string_domain.add(name='N', value=['é'])",
            "}\n\nfeature { name",
            '}\nstring_domain {\n  name: "N"\n  value: "é"\n}\n\nfeature { name',
        ),
        ("channel.ClearField('domain')", ' domain: "CHANNEL"', " "),
        (
            "channel.distribution_constraints.min_domain_mass = 0.5",
            " } } # short",
            " } \n  distribution_constraints {\n    min_domain_mass: 0.5\n  }\n} # short",
        ),
        ("del s.feature[0]", BY_HAND[BY_HAND.index("feature {") : BY_HAND.index(" # short")], ""),
        (
            "s.default_environment.append('TRAINING')",
            "# The end.",
            '# The end.\ndefault_environment: "TRAINING"\n',
        ),
    ],
)
def test_a_change_changes_only_its_own_lines(change: str, old: str, new: str) -> None:
    assert BY_HAND.count(old) == 1 or not old
    result = schemas.edited(BY_HAND, changed(BY_HAND, change))
    assert result == BY_HAND.replace(old, new)


def change_something(schema: schema_pb2.Schema, chance: random.Random) -> None:
    for feature in chance.sample(list(schema.feature), 8):
        kind = chance.randrange(6)
        if kind == 0:
            schema.feature.remove(feature)
        elif kind == 1:
            schema.feature.add(name=f"new {feature.name}", type=schema_pb2.INT)
        elif kind == 2:
            feature.ClearField("presence")
        elif kind == 3:
            feature.presence.min_fraction = 0.25
        elif kind == 4:
            feature.type = schema_pb2.BYTES
        else:
            feature.value_count.ClearField("max")
    domain = chance.choice(schema.string_domain)
    domain.value[:] = [*domain.value[1:], "new", 'a "quoted" one']


@pytest.mark.parametrize("seed", range(30))
def test_any_change_keeps_all_comments_and_the_order(seed: int) -> None:
    chance = random.Random(seed)
    lines = Path(PACKAGED_SCHEMA).read_text(encoding="utf-8").splitlines()
    for number in range(20):
        lines.insert(chance.randrange(len(lines)), f"# comment {number}")
    text = "\n".join(lines)
    after = schemas.parsed(text)
    change_something(after, chance)
    result = schemas.edited(text, after)
    assert schemas.parsed(result) == after
    comments = re.compile("#.*").findall
    assert comments(result) == comments(text)
    assert len(result.splitlines()) < len(lines) + 60


def test_what_cannot_be_changed_in_place_is_refused() -> None:
    text = 'string_domain { name: "D" value: ["a", "b"] }'
    after = schemas.parsed(text)
    after.string_domain[0].value.append("c")
    with pytest.raises(BadInput, match=r"value: \[\.\.\.\] cannot be changed in place"):
        schemas.edited(text, after)
    after = schemas.parsed("")
    after.tensor_representation_group["images"].SetInParent()
    with pytest.raises(BadInput, match="make it by hand"):
        schemas.edited("# empty", after)
    with pytest.raises(BadInput, match="not a schema: 1:1 : "):
        schemas.edited("column {}", after)


def test_the_packaged_schema_fits_the_default_configuration():
    columns = ModelColumns.of(Dataset(), Features())
    schema = schemas.parsed(schemas.read(PACKAGED_SCHEMA))
    assert schemas.contradictions(schema, columns.numeric, columns.categorical) == []


def test_a_type_that_contradicts_the_configuration_is_named():
    schema = schemas.parsed(
        'feature { name: "a" type: BYTES } feature { name: "b" type: INT } '
        'feature { name: "c" type: FLOAT }'
    )
    problems = schemas.contradictions(schema, ["a", "c", "new"], ["b"])
    assert [problem.split()[0] for problem in problems] == ["a", "b"]
    assert "makes it text, BYTES" in problems[1]
