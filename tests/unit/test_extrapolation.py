"""Fréchet distances of infinitely many samples, against Gaussians whose distance is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diem.errors import DiemError
from diem.evaluation.extractor import Extractor, load_extractor
from diem.evaluation.extrapolation import frechet_distance_infinity, least_samples
from diem.evaluation.gaussians import (
    Moments,
    feature_moments,
    frechet_distance,
    frechet_distance_of_moments,
)
from diem.evaluation.metrics.frechet_distance_infinity import FrechetDistanceInfinity
from diem.jobs.job import Job

FEATURES, SAMPLES, HELD = 8, 200, 300
REPEATS = 60


def gaussian(moved):
    """Returns a Gaussian; what is moved also has another covariance."""
    mixing = np.random.default_rng(0).standard_normal((2, FEATURES, FEATURES))
    mean = torch.zeros(FEATURES, dtype=torch.float64)
    mean[0] = moved
    return Moments(mean, torch.tensor(mixing[0] + 0.3 * moved * mixing[1]) / FEATURES**0.5)


def draw(fit, count, rng):
    return torch.tensor(rng.standard_normal((count, FEATURES))) @ fit.root + fit.mean


def repeated(moved, finite):
    """Returns the distance, and what is found of it, plain and extrapolated, at many seeds."""
    one, other = gaussian(0.0), gaussian(moved)
    found = []
    for seed in range(REPEATS):
        rng = np.random.default_rng(seed)
        x = draw(one, SAMPLES, rng)
        reference = draw(other, HELD, rng) if finite else other
        fit = feature_moments(reference) if finite else other
        plain = frechet_distance_of_moments(feature_moments(x), fit)
        found.append((plain, frechet_distance_infinity(x, reference, seed)))
    return frechet_distance_of_moments(one, other), *np.array(found).T


@pytest.mark.parametrize("finite", [False, True], ids=["exact reference", "finite reference"])
@pytest.mark.parametrize("moved", [0.0, 0.5])
def test_the_extrapolated_distance_has_no_bias_and_the_plain_one_has(moved, finite):
    exact, plain, extrapolated = repeated(moved, finite)
    assert exact == pytest.approx(0, abs=1e-12) if moved == 0 else exact > 0.25

    errors = [values.std() / REPEATS**0.5 for values in (plain, extrapolated)]
    assert plain.mean() - exact > 4 * errors[0]
    assert extrapolated.mean() == pytest.approx(exact, abs=3 * errors[1])
    if moved == 0:
        assert abs(extrapolated.mean()) < plain.mean() / 5
        assert extrapolated.min() < 0 < extrapolated.max()
    # Every part of a division counts: the noise is not that of a few samples.
    assert extrapolated.std() < 1.8 * plain.std()


def test_a_fit_of_few_samples_keeps_its_bias():
    truth, rng = gaussian(0.0), np.random.default_rng(0)
    fit = feature_moments(draw(truth, 40, rng))
    exact = frechet_distance_of_moments(truth, fit)

    found = [frechet_distance_infinity(draw(truth, 400, rng), fit, seed) for seed in range(20)]

    assert exact > 0.05
    assert np.mean(found) == pytest.approx(exact, abs=4 * np.std(found) / 20**0.5)


def test_sorted_samples_are_put_in_a_random_order():
    rng = np.random.default_rng(0)
    x, reference = (draw(gaussian(0.0), 2000, rng) for _ in range(2))
    ordered = [values[values[:, 0].argsort()] for values in (x, reference)]

    assert abs(frechet_distance_infinity(*ordered)) < 0.01
    # Of the first and the last halves as they are:
    assert frechet_distance(ordered[0][:1000], ordered[1][1000:]) > 1


def test_it_depends_on_the_seed_alone():
    rng = np.random.default_rng(0)
    x, reference = draw(gaussian(0.0), 301, rng), draw(gaussian(0.5), 203, rng)
    first = frechet_distance_infinity(x, reference, 3)
    torch.manual_seed(1)
    np.random.seed(1)

    assert frechet_distance_infinity(x, reference, 3) == first
    assert frechet_distance_infinity(x, reference, 4) != first
    # In double precision, whatever that of the features.
    single = frechet_distance_infinity(x.float(), reference.float(), 3)
    assert single == pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize("few", [0, 1])
def test_each_part_needs_more_samples_than_features(few):
    least = least_samples(FEATURES)
    sets = [draw(gaussian(0.0), least, np.random.default_rng(i)) for i in range(2)]
    assert np.isfinite(frechet_distance_infinity(*sets))

    sets[few] = sets[few][:-1]
    with pytest.raises(DiemError, match="needs more than 8 samples, got 8"):
        frechet_distance_infinity(*sets)


def test_of_images_the_features_of_clipped_pixels_are_compared(tmp_path):
    Extractor((1, 8, 8), 3, validation_accuracy=0.5).eval().save(tmp_path / "extractor")
    x, test = 2 * torch.randn(2, 200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    evaluation = SimpleNamespace(
        x=x, test=test, card={"samples": 200}, file=tmp_path.joinpath, job=Job(seed=5)
    )

    (row,) = FrechetDistanceInfinity().measure(evaluation)

    features = load_extractor(tmp_path / "extractor").features
    expected = frechet_distance_infinity(features(x.clip(-2, 2)), features(test), 5)
    assert row.value == pytest.approx(expected, rel=1e-5)
    assert (row.subject, row.card["samples"], row.card["reference_samples"]) == ("prior", 200, 200)
    assert row.card["reference"] == "clean test"
