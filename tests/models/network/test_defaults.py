import pytest

from fraud.models.network.defaults import resolve
from fraud.models.spec import Network


def test_what_is_configured_is_kept_and_the_rest_follows_the_data():
    network = resolve(Network(epochs=9, towers=((8,),), dropout=0.0), 1000)
    assert (network.epochs, network.towers, network.dropout) == (9, ((8,),), 0.0)
    assert network.patience == 4
    assert None not in vars(network).values()


@pytest.mark.parametrize("rows", [100, 5000, 20_000, 100_000, 1_000_000])
def test_the_defaults_are_valid_for_any_number_of_rows(rows):
    network = resolve(Network(), rows)
    assert None not in vars(network).values()
    assert resolve(network, 3 * rows) == network  # nothing is left open


def test_scarce_data_is_read_more_often_by_more_members_than_plenty():
    few, many = (resolve(Network(), rows) for rows in (1000, 1_000_000))
    assert few.members * few.validation_percent >= 100  # every row is held out once
    assert few.members > many.members
    assert few.epochs > many.epochs
    assert few.dropout > many.dropout
    assert few.column_dropout > many.column_dropout
