import numpy as np
import pytest

from fraud.models.network.architecture import build_network
from fraud.models.network.calibration import calibrate
from fraud.models.spec import ResolvedNetwork

SMALL = ResolvedNetwork(bins=4, towers=((8,),), embedding_dim=2)


def test_calibrated_probabilities_match_the_observed_frequencies():
    random = np.random.default_rng(1)
    model = build_network(SMALL, 1, {})
    logit = random.normal(0, 2, 200_000)
    labels = (random.random(logit.size) < 1 / (1 + np.exp(-(0.5 * logit - 2)))).astype(int)
    calibrate(model, logit, labels)
    slope, intercept = (float(w) for w in model.get_layer("score").get_weights())
    assert slope == pytest.approx(0.5, abs=0.02)
    assert intercept == pytest.approx(-2, abs=0.03)


@pytest.mark.parametrize("labels", [np.zeros(50), np.ones(50), np.arange(50) < 25])
def test_calibration_never_reverses_the_ranking_and_stays_finite(labels):
    model = build_network(SMALL, 1, {})
    calibrate(model, np.linspace(-3, 3, 50), labels.astype(int))
    slope, intercept = model.get_layer("score").get_weights()
    assert slope > 0
    assert np.isfinite([slope, intercept]).all()
