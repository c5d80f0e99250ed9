import datetime as dt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from fraud.data.population import AGE_BANDS, CATEGORIES, Customers, Reach, Terminals, choose
from fraud.data.simulator import (
    CUSTOMERS_A_DAY,
    World,
    compromised_customers,
    compromised_terminals,
    due,
    simulate,
)
from fraud.data.spec import DRIFTS, Drift, Simulation
from fraud.errors import BadInput

BANK = Simulation(days=60, customers=1500, terminals=3000, seed=3)


def transactions(simulation: Simulation) -> pa.Table:
    return pa.concat_tables(table for _, table in simulate(simulation))


@pytest.fixture(scope="module")
def bank() -> pa.Table:
    return transactions(BANK)


@pytest.fixture(scope="module")
def world() -> World:
    return World.of(BANK)


def numbers(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


class TestColumns:
    def test_types(self, bank):
        assert {field.name: str(field.type) for field in bank.schema} == {
            "TRANSACTION_ID": "int64",
            "TX_DATETIME": "timestamp[us]",
            "CUSTOMER_ID": "int64",
            "TERMINAL_ID": "int64",
            "TX_AMOUNT": "double",
            "TX_TIME_SECONDS": "int64",
            "TX_TIME_DAYS": "int64",
            "MERCHANT_CATEGORY": "string",
            "CHANNEL": "string",
            "COUNTRY": "string",
            "CUSTOMER_AGE_BAND": "string",
            "TX_FRAUD": "int64",
            "TX_FRAUD_SCENARIO": "int64",
        }

    def test_ids_are_consecutive_in_order_of_time(self, bank):
        assert np.array_equal(numbers(bank, "TRANSACTION_ID"), np.arange(len(bank)))
        assert np.all(np.diff(numbers(bank, "TX_TIME_SECONDS")) >= 0)

    def test_the_three_times_agree(self, bank):
        since_start = numbers(bank, "TX_DATETIME") - np.datetime64(BANK.start)
        seconds = numbers(bank, "TX_TIME_SECONDS")
        assert np.array_equal(since_start, seconds.astype("timedelta64[s]"))
        assert np.array_equal(seconds // 86_400, numbers(bank, "TX_TIME_DAYS"))

    def test_every_day_holds_its_own_transactions(self):
        for index, (day, table) in enumerate(simulate(Simulation(days=3, customers=50))):
            assert day == dt.date(2026, 1, 1) + dt.timedelta(days=index)
            assert pc.unique(table["TX_TIME_DAYS"]).to_pylist() == [index]

    def test_category_belongs_to_the_terminal_and_age_band_to_the_customer(self, bank):
        for entity, column in (
            ("TERMINAL_ID", "MERCHANT_CATEGORY"),
            ("CUSTOMER_ID", "CUSTOMER_AGE_BAND"),
        ):
            pairs = bank.group_by([entity, column]).aggregate([])
            assert len(pairs) == len(pc.unique(bank[entity]))

    def test_only_the_age_band_is_missing_and_seldom(self, bank):
        missing = {name: bank[name].null_count / len(bank) for name in bank.column_names}
        assert 0 < missing.pop("CUSTOMER_AGE_BAND") < 0.03
        assert not any(missing.values())


class TestStatistics:
    """Against the description in the handbook; bounds are several standard errors wide."""

    def test_purchases_a_day(self, bank):
        # Uniform between 0 and 4 a day, and 3.1 % of a normal distribution of 20,000 s around
        # noon falls outside of the day.
        assert len(bank) / BANK.days / BANK.customers == pytest.approx(2 * 0.969, rel=0.05)

    def test_time_of_day(self, bank):
        second = numbers(bank, "TX_TIME_SECONDS") % 86_400
        assert second.min() > 0
        assert second.mean() == pytest.approx(43_200, abs=300)
        # 20,000 s, less what is cut off at midnight.
        assert second.std() == pytest.approx(18_400, rel=0.02)

    def test_amounts_follow_the_customers_own_mean(self, bank, world):
        genuine = bank.filter(pc.equal(bank["TX_FRAUD"], 0))
        customer, amount = numbers(genuine, "CUSTOMER_ID"), numbers(genuine, "TX_AMOUNT")
        relative = amount / world.customers.mean_amount[customer]
        # A normal distribution with mean 1 and deviation 0.5 whose 2.3 % below 0 are replaced by a
        # uniform one between 0 and 2.
        assert relative.mean() == pytest.approx(1.027, abs=0.015)
        assert np.mean(relative < 1) == pytest.approx(0.5 - 0.0114, abs=0.01)
        assert world.customers.mean_amount.min() >= 5
        assert world.customers.mean_amount.max() <= 100

    def test_fraud_rate(self, bank):
        assert 0.006 < numbers(bank, "TX_FRAUD").mean() < 0.011

    @pytest.mark.parametrize("customers", [300, 5000])
    def test_fraud_rate_does_not_depend_on_the_population(self, customers):
        simulation = Simulation(days=60, customers=customers, terminals=2 * customers, seed=5)
        assert 0.005 < numbers(transactions(simulation), "TX_FRAUD").mean() < 0.012

    def test_other_columns_are_weak_predictors_of_fraud(self, bank):
        fraud = numbers(bank, "TX_FRAUD")
        for column, value in (("CHANNEL", "online"), ("COUNTRY", "FR")):
            chosen = numbers(bank, column) == value
            assert 1 < fraud[chosen].mean() / fraud[~chosen].mean() < 4

    def test_stolen_cards_are_more_often_used_online_and_abroad(self, bank):
        stolen = numbers(bank, "TX_FRAUD_SCENARIO") == 3
        online = numbers(bank, "CHANNEL") == "online"
        abroad = numbers(bank, "COUNTRY") != "BE"
        for column in (online, abroad):
            assert 1.5 < column[stolen].mean() / column[~stolen].mean() < 5

    def test_most_payments_are_at_home(self, bank):
        assert 0.9 < np.mean(numbers(bank, "COUNTRY") == "BE") < 0.99


class TestScenarios:
    """In every row, the label follows from amount, terminal and customer alone."""

    def by_day(self, bank: pa.Table, world: World):
        """Scenario of each transaction, and whether its terminal and customer were compromised."""
        for index in range(BANK.days):
            day = bank.filter(pc.equal(bank["TX_TIME_DAYS"], index))
            yield (
                numbers(day, "TX_FRAUD_SCENARIO"),
                compromised_terminals(world, index)[numbers(day, "TERMINAL_ID")],
                compromised_customers(world, index)[numbers(day, "CUSTOMER_ID")],
                numbers(day, "TX_AMOUNT"),
            )

    def test_label_is_any_scenario(self, bank):
        scenario = numbers(bank, "TX_FRAUD_SCENARIO")
        assert np.array_equal(numbers(bank, "TX_FRAUD"), scenario > 0)
        assert set(scenario) == {0, 1, 2, 3}

    def test_large_amounts_are_fraud(self, bank, world):
        for scenario, terminal, _, amount in self.by_day(bank, world):
            assert np.all(scenario[amount > 220] > 0)
            assert np.array_equal(scenario == 1, (amount > 220) & ~terminal & (scenario != 3))

    def test_everything_at_a_compromised_terminal_is_fraud(self, bank, world):
        for scenario, terminal, _, _ in self.by_day(bank, world):
            assert np.array_equal(scenario == 2, terminal & (scenario != 3))

    def test_a_third_of_a_compromised_customers_purchases_is_fraud(self, bank, world):
        fraud = purchases = 0
        for scenario, _, customer, _ in self.by_day(bank, world):
            assert not np.any(scenario[~customer] == 3)
            fraud += np.sum(scenario[customer] == 3)
            purchases += customer.sum()
        assert fraud / purchases == pytest.approx(1 / 3, abs=0.05)

    def test_stolen_cards_pay_five_times_as_much(self, bank, world):
        stolen = bank.filter(pc.equal(bank["TX_FRAUD_SCENARIO"], 3))
        mean = world.customers.mean_amount[numbers(stolen, "CUSTOMER_ID")]
        assert np.mean(numbers(stolen, "TX_AMOUNT") / mean) == pytest.approx(5.1, rel=0.1)

    def test_a_compromise_lasts_28_days_at_a_terminal_and_14_for_a_customer(self):
        world = World.of(Simulation(days=90, customers=5000, terminals=10_000, seed=1))
        for compromised, lasting, a_day in (
            (compromised_terminals, 28, 2),
            (compromised_customers, 14, 3),
        ):
            days = np.array([compromised(world, index) for index in range(90)])
            assert days[0].sum() == a_day
            # A few are drawn again while they are compromised.
            assert 0.9 * lasting * a_day < days[60].sum() <= lasting * a_day
            for who in np.flatnonzero(days[0]):
                assert days[:lasting, who].all()
            assert days.sum(axis=0).max() <= 3 * lasting

    def test_risky_terminals_are_compromised_more_often(self):
        world = World.of(Simulation(days=400, customers=100, terminals=10_000))
        ever = np.any([compromised_terminals(world, index) for index in range(0, 400, 28)], axis=0)
        risk = np.array([category.risk for category in CATEGORIES])[world.terminals.category]
        assert ever[risk >= 1.5].mean() > 1.3 * ever[risk <= 0.8].mean()


class TestDue:
    def test_whole_numbers(self):
        assert [due(day, 5000, CUSTOMERS_A_DAY) for day in range(4)] == [3, 3, 3, 3]

    def test_fractions_are_spread_evenly_from_day_0(self):
        counts = [due(day, 4, (1, 10)) for day in range(10)]
        assert counts == [1, 0, 1, 0, 0, 1, 0, 1, 0, 0]

    @pytest.mark.parametrize("population", [1, 7, 1000, 5001])
    def test_the_sum_is_right(self, population):
        assert sum(due(day, population, (3, 5000)) for day in range(5000)) == 3 * population


class TestReach:
    def entities(self, customers: int, terminals: int, seed: int) -> tuple[Customers, Terminals]:
        rng = np.random.default_rng(seed)
        return Customers.drawn(customers, rng), Terminals.drawn(terminals, rng)

    def distances(self, customers: Customers, terminals: Terminals) -> np.ndarray:
        return np.hypot(customers.x[:, None] - terminals.x, customers.y[:, None] - terminals.y)

    def test_every_purchase_is_within_reach(self, bank, world):
        customer, terminal = numbers(bank, "CUSTOMER_ID"), numbers(bank, "TERMINAL_ID")
        far = np.hypot(
            world.customers.x[customer] - world.terminals.x[terminal],
            world.customers.y[customer] - world.terminals.y[terminal],
        )
        assert far.max() < BANK.radius

    @pytest.mark.parametrize("radius", [0.5, 3.0, 7.3, 40.0, 60.0, 100.0])
    def test_agrees_with_all_distances(self, radius):
        customers, terminals = self.entities(200, 150, seed=int(radius))
        near = self.distances(customers, terminals) < radius
        reach = Reach(customers, terminals, radius)
        assert np.array_equal(reach.any(), near.any(axis=1))

        customer = np.repeat(np.flatnonzero(near.any(axis=1)), 50)
        drawn = reach.draw(customer, np.random.default_rng(0))
        assert near[customer, drawn].all()

    def test_every_terminal_within_reach_is_equally_likely(self):
        customers, terminals = self.entities(3, 400, seed=1)
        near = self.distances(customers, terminals) < 15
        reach = Reach(customers, terminals, 15)
        for customer in range(3):
            drawn = reach.draw(np.full(60_000, customer), np.random.default_rng(customer))
            count = np.bincount(drawn, minlength=400)[near[customer]]
            expected = 60_000 / near[customer].sum()
            chi_square = np.sum((count - expected) ** 2 / expected)
            # Its mean is about n, the number of terminals, and its standard deviation √(2n).
            assert chi_square < len(count) + 5 * np.sqrt(2 * len(count))

    def test_customers_who_reach_no_terminal_buy_nothing(self):
        simulation = Simulation(days=5, customers=300, terminals=40, seed=2)
        world = World.of(simulation)
        assert 0 < world.reaches.sum() < 300
        buyers = numbers(transactions(simulation), "CUSTOMER_ID")
        assert world.reaches[buyers].all()

    def test_nobody_reaches_a_terminal(self):
        with pytest.raises(BadInput, match="simulate more terminals"):
            next(simulate(Simulation(customers=1, terminals=1, radius=0.1)))

    def test_a_hundred_thousand_of_each_are_quick(self):
        """Quick only if the 80 million pairs are never enumerated."""
        customers, terminals = self.entities(100_000, 100_000, seed=0)
        reach = Reach(customers, terminals, 5.0)
        assert reach.any().all()
        assert len(reach.draw(np.arange(100_000), np.random.default_rng(0))) == 100_000


class TestSeed:
    def test_equal_simulations_give_equal_transactions(self):
        simulation = Simulation(days=4, customers=200, terminals=400, seed=11)
        assert transactions(simulation).equals(transactions(simulation))

    def test_different_seeds_give_different_transactions(self):
        one, other = (
            transactions(Simulation(days=2, customers=200, terminals=400, seed=seed))
            for seed in (1, 2)
        )
        assert len(one) != len(other) or not one["TX_AMOUNT"].equals(other["TX_AMOUNT"])

    def test_more_days_do_not_change_the_first_ones(self):
        drift = (Drift("new_fraud", dt.date(2026, 1, 3)),)
        few, many = (
            transactions(Simulation(days=days, customers=200, terminals=400, drift=drift))
            for days in (5, 9)
        )
        assert many.slice(0, len(few)).equals(few)


class TestDrift:
    START = dt.date(2026, 1, 11)

    @pytest.fixture(scope="class")
    def plain(self) -> pa.Table:
        return transactions(Simulation(days=20, customers=600, terminals=1200))

    def drifted(self, *names: str) -> pa.Table:
        drift = tuple(Drift(name, self.START) for name in names)
        return transactions(Simulation(days=20, customers=600, terminals=1200, drift=drift))

    def split(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        before = pc.less(table["TX_TIME_DAYS"], 10)
        return table.filter(before), table.filter(pc.invert(before))

    @pytest.mark.parametrize("name", DRIFTS)
    def test_nothing_changes_before_its_day_and_something_on_it(self, plain, name):
        before, after = self.split(self.drifted(name))
        plain_before, plain_after = self.split(plain)
        assert before.equals(plain_before)
        first_day, plain_first_day = (
            table.filter(pc.equal(table["TX_TIME_DAYS"], 10)) for table in (after, plain_after)
        )
        assert not first_day.equals(plain_first_day)

    def test_new_fraud_is_a_fourth_scenario_and_changes_nothing_else(self, plain):
        table = self.drifted("new_fraud")
        new = pc.equal(table["TX_FRAUD_SCENARIO"], 4)
        others = table.filter(pc.invert(new)).drop(["TRANSACTION_ID"])
        assert others.equals(plain.drop(["TRANSACTION_ID"]))

        tests = table.filter(new)
        hour = numbers(tests, "TX_TIME_SECONDS") % 86_400 / 3600
        # 0.96 of the 600 customers are tested a day, ten times each.
        assert len(tests) == 100
        assert hour.min() >= 1
        assert hour.max() < 5.2
        assert numbers(tests, "TX_AMOUNT").max() <= 10
        assert pc.unique(tests["CHANNEL"]).to_pylist() == ["online"]
        assert np.array_equal(numbers(table, "TRANSACTION_ID"), np.arange(len(table)))
        assert np.all(np.diff(numbers(table, "TX_TIME_SECONDS")) >= 0)

    def test_amount_shift_changes_amounts_and_nothing_else(self, plain):
        _, shifted = self.split(self.drifted("amount_shift"))
        _, plain = self.split(plain)
        assert shifted.drop(["TX_AMOUNT"]).equals(plain.drop(["TX_AMOUNT"]))
        expected = numbers(plain, "TX_AMOUNT") * 7.46
        assert np.allclose(numbers(shifted, "TX_AMOUNT"), expected, rtol=0, atol=0.0051)

    def test_new_category_adds_to_the_known_ones(self, plain):
        before, after = self.split(self.drifted("new_category"))
        for column, new in (("MERCHANT_CATEGORY", "crypto_exchange"), ("CHANNEL", "mobile_wallet")):
            known = set(before[column].to_pylist())
            assert set(after[column].to_pylist()) == known | {new}
            assert known == set(plain[column].to_pylist())
            assert 0.01 < np.mean(numbers(after, column) == new) < 0.3

    def test_broken_column_loses_every_country(self):
        _, after = self.split(self.drifted("broken_column"))
        assert set(after["COUNTRY"].to_pylist()) == {None, "??"}
        assert 0.4 < after["COUNTRY"].null_count / len(after) < 0.6

    def test_drifts_combine_in_any_order(self):
        names = list(DRIFTS)
        assert self.drifted(*names).equals(self.drifted(*reversed(names)))


def test_choose_follows_the_shares():
    chosen = choose(np.array([0.0, 0.199, 0.2, 0.699, 0.7, 1 - 1e-16]), [0.2, 0.5, 0.3])
    assert chosen.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("table", [CATEGORIES, AGE_BANDS])
def test_shares_sum_to_one(table):
    assert sum(row.share for row in table) == pytest.approx(1)
