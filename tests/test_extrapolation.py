"""A power law is found where there is one, foretells what comes, and is not shown where there is none."""

import numpy as np
import pytest

from pipeline.extrapolation import Extrapolation, extrapolate, fit_power_law, paired_gain, verdict_of

SIZES = np.array([100, 200, 400, 800, 1600, 3200, 6400])


def hits(accuracies, rows=4000, draws=5, seed=0):
    """Which rows are right, where a row that a head has right all better ones have right too."""
    hardness = np.random.default_rng(seed).random((draws, 1, rows))
    return hardness < np.asarray(accuracies)[None, :, None]


def test_the_law_of_exact_points_is_found():
    law = fit_power_law(SIZES.astype(float), 0.8 - 2.0 * SIZES**-0.4)
    assert law is not None
    assert law.a == pytest.approx(0.8, abs=1e-3)
    assert law.c == pytest.approx(0.4, abs=1e-2)
    assert law.at(12800) == pytest.approx(0.8 - 2.0 * 12800**-0.4, abs=1e-4)


def test_doubling_is_foretold_with_an_interval_that_holds_the_truth():
    def truth(n):
        return 0.9 - 3.0 * n**-0.35

    held = 0
    for seed in range(5):
        found = extrapolate(SIZES, hits(truth(SIZES), seed=seed))
        assert isinstance(found, Extrapolation)
        low, high = found.gain_ci95
        assert low < found.gain < high < 0.1
        assert high - low >= 2 * abs(found.miss) - 1e-9
        held += low <= truth(12800) - truth(6400) <= high
        body = found.to_json()
        at = body["a"] - body["b"] * np.array([6400.0, body["rows"]]) ** -body["c"]
        assert at[1] - at[0] == pytest.approx(body["gain"])
    assert held >= 4


@pytest.mark.parametrize(
    ("sizes", "accuracies", "said"),
    [
        (SIZES[:4], [0.5, 0.6, 0.7, 0.75], "a fit needs 5 sizes, there are 4"),
        (SIZES, [0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], "does not follow a power law"),
        (SIZES, [0.3, 0.5, 0.3, 0.6, 0.3, 0.6, 0.5], "points off"),
        (SIZES, [0.60, 0.62, 0.64, 0.66, 0.68, 0.70, 0.60], "points off"),
    ],
)
def test_what_is_no_power_law_is_not_extrapolated(sizes, accuracies, said):
    found = extrapolate(sizes, hits(accuracies))
    assert isinstance(found, str)
    assert said in found


def test_a_measured_gain_is_paired():
    right = hits([0.70, 0.72], draws=1)
    gain, (low, high) = paired_gain(right[:, 0], right[:, 1])
    assert gain == pytest.approx(0.02, abs=0.006)
    assert 0 < low < gain < high < 0.03  # unpaired, it would be 2 points to either side
    assert paired_gain(right[:, 0], right[:, 0]) == (0.0, (0.0, 0.0))


def test_the_verdict_goes_by_the_whole_interval():
    assert verdict_of((0.006, 0.01)) == "yes"
    assert verdict_of((-0.002, 0.004)) == "little"
    assert verdict_of((0.001, 0.009)) == "unclear"


def test_nobody_is_foretold_more_than_all_rows():
    sizes = np.array([100, 200, 400, 800, 1600, 3200, 6400])
    accuracies = 1.3 - 0.31 * (sizes / sizes[-1]) ** -0.1
    right = np.stack([np.arange(1000) < 1000 * share for share in accuracies])[None].repeat(3, axis=0)
    found = extrapolate(sizes, right)
    assert isinstance(found, Extrapolation)
    last = right[0, -1].mean()
    assert last + found.gain == pytest.approx(1)
    assert last + found.gain_ci95[1] == pytest.approx(1)
    assert found.gain_ci95[0] <= found.gain
