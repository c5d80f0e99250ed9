import pytest

from fraud.models.network.defaults import resolve
from fraud.models.spec import Network


def test_what_is_configured_is_kept_and_the_rest_follows_the_data():
    network = resolve(Network(epochs=9, towers=((8,),), dropout=0.0), 1000, 3)
    assert (network.epochs, network.towers, network.dropout) == (9, ((8,),), 0.0)
    assert network.patience == 4
    assert None not in vars(network).values()


@pytest.mark.parametrize("categories", [1, 100])
@pytest.mark.parametrize("rows", [100, 5000, 20_000, 100_000, 1_000_000])
def test_the_defaults_are_valid_for_any_size(rows, categories):
    network = resolve(Network(), rows, categories)
    assert None not in vars(network).values()
    assert resolve(network, 3 * rows, 3 * categories) == network  # nothing is left open


def test_scarce_data_is_read_more_often_by_more_members_than_plenty():
    few, many = (resolve(Network(), rows, 5) for rows in (1000, 1_000_000))
    assert few.members * few.validation_percent >= 100  # every row is held out once
    assert few.members > many.members
    assert few.epochs > many.epochs


def test_of_a_lot_of_rows_steps_grow_with_the_square_root_of_the_rows():
    epochs = {rows: resolve(Network(), rows, 5).epochs for rows in (250_000, 287_000, 630_000)}
    assert epochs == {250_000: 6, 287_000: 6, 630_000: 4}
    assert resolve(Network(), 10**6, 5).epochs == 3
    assert {resolve(Network(), rows, 5).epochs for rows in (2 * 10**6, 10**9)} == {2}


def test_only_with_few_rows_something_is_dropped_and_whole_columns_only_of_many_categories():
    def dropped(rows, categories):
        network = resolve(Network(), rows, categories)
        return network.dropout, network.column_dropout, network.towers

    assert dropped(12_000, 31) == (0.0, 0.3, ((256, 128),))
    assert dropped(2_000, 31) == dropped(12_000, 9) == (0.2, 0.0, ((128, 64),))
    assert dropped(1_000_000, 31) == dropped(1_000_000, 9) == (0.0, 0.0, ((128, 64),))
