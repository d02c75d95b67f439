"""Metrics of priors: right ones have their known values, and wrong ones have not."""

import math
import sys

import numpy as np
import pytest
import torch
from test_resume_jobs import POSTERIOR, SETTINGS, SHAPE
from test_resume_jobs import Job as Made

from diem.evaluation.evaluate import Evaluation, evaluate
from diem.evaluation.gaussians import frechet_distance
from diem.evaluation.kernel import kernel_distance
from diem.evaluation.metrics import METRICS
from diem.evaluation.metrics.c2st import standard_error, two_sample_accuracy
from diem.evaluation.metrics.energy_test import energy_test
from diem.evaluation.metrics.memorisation import error_of, nearest
from diem.evaluation.metrics.pqmass import REGIONS, _chi2, pqmass
from diem.evaluation.metrics.precision_recall import NEIGHBOURS, precision_recall
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import Job

COUNT = 600


def normal(seed, count=COUNT, dimensions=4):
    return np.random.default_rng(seed).standard_normal((count, dimensions))


@pytest.mark.slow
def test_equal_distributions_cannot_be_told_apart():
    accuracy = two_sample_accuracy(normal(0), normal(1))
    assert accuracy == pytest.approx(0.5, abs=4 / (2 * math.sqrt(2 * COUNT)))


@pytest.mark.parametrize("other", [normal(1) + 1, 0.4 * normal(1)], ids=["moved", "narrow"])
def test_other_distributions_are_told_apart(other):
    assert two_sample_accuracy(normal(0), other) > 0.65


def test_balls_of_equal_distributions():
    found = precision_recall(normal(0), normal(1))
    assert found["precision"] == pytest.approx(found["recall"], abs=0.05)
    assert found["density"] == pytest.approx(1, abs=0.1)
    assert found["coverage"] == pytest.approx(1 - 2**-NEIGHBOURS, abs=0.03)


def test_balls_by_hand():
    # The ball of 0 ends at its fifth neighbour, and holds one of six samples; no other holds any.
    reference = torch.arange(10.0)[:, None]
    x = torch.tensor([-4.9, -5.5, -20.0, -40.0, -60.0, -80.0])[:, None]

    found = precision_recall(x, reference)

    assert found == pytest.approx(
        {"precision": 1 / 6, "recall": 1.0, "density": 1 / 30, "coverage": 1 / 10}
    )


def test_a_missing_mode_costs_recall_and_a_wrong_one_precision():
    modes = np.concatenate([normal(0), normal(1) + 20])
    one = normal(2)

    missing = precision_recall(one, modes)
    assert missing["precision"] > 0.9
    assert missing["recall"] == pytest.approx(0.5, abs=0.1)
    wrong = precision_recall(modes, one)
    assert wrong["recall"] > 0.9
    assert wrong["precision"] == pytest.approx(0.5, abs=0.1)
    assert missing["coverage"] < 0.55


def test_the_nearest_is_at_its_distance():
    x, others = np.zeros((1, 2)), np.array([[3.0, 4.0], [6.0, 8.0]])
    distance, index = nearest(x, others)
    assert (float(distance), int(index)) == (5.0, 0)


@pytest.mark.parametrize("size", [2, 64])
def test_the_error_of_memorisation_is_its_spread(size):
    # In many dimensions a few of the reference data are nearest to most samples.
    count, values, errors = 200, [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        train, test = rng.standard_normal((2, count, size))
        (to_train, of_train), (to_test, of_test) = (
            nearest(drawn, others)
            for drawn in [rng.standard_normal((500, size))]
            for others in (train, test)
        )
        nearer = to_train < to_test
        values.append(float(nearer.double().mean()))
        errors.append(error_of(torch.where(nearer, of_train, count + of_test), 2 * count))
    assert np.std(values) == pytest.approx(np.mean(errors), rel=0.3)


def test_the_error_of_a_cross_validated_accuracy_is_its_spread():
    found = []
    for seed in range(30):
        a, b = np.random.default_rng(seed).standard_normal((2, 60, 3))
        found.append(two_sample_accuracy(a, b, seed))
    assert 0.7 < np.std(found) / standard_error(0.5, 120) < 1.2


@pytest.mark.parametrize(
    ("copied", "least", "most"), [(0.0, 35, 65), (0.5, 65, 90), (1.0, 99.9, 100)]
)
def test_copies_of_training_data_are_told(copied, least, most, tmp_path):
    """Of a perfect prior, some of whose samples are replaced with training data."""
    train, test, drawn = (
        normal(seed, 400, math.prod(SHAPE)).reshape(400, *SHAPE).astype(np.float32)
        for seed in (3, 4, 5)
    )
    drawn[: int(400 * copied)] = train[: int(400 * copied)]
    job = Made(tmp_path)
    write_hdf5(tmp_path / "x.h5", {"train/x": train, "test/x": test}, {})
    settings = {**SETTINGS, "metrics": ["memorisation"]}
    with job.observations() as file:
        evaluation = Evaluation(
            job.prior(), file, POSTERIOR, settings, {}, {"clean": tmp_path / "x.h5"}, Job()
        )
        evaluation.__dict__["x"] = drawn
        (row,) = evaluate(evaluation, {})[0]

    assert least <= row["value"] <= most
    assert row["subject"] == "prior"
    assert (row["reference"], row["reference_samples"]) == ("clean train and test", 800)


def test_data_that_are_in_both_splits_are_nearer_to_neither(tmp_path):
    pool, rng = normal(6, 8, math.prod(SHAPE)).reshape(8, *SHAPE), np.random.default_rng(7)
    train, test, drawn = (pool[rng.integers(8, size=400)].astype(np.float32) for _ in range(3))
    write_hdf5(tmp_path / "x.h5", {"train/x": train, "test/x": test}, {})
    job, settings = Made(tmp_path), {**SETTINGS, "metrics": ["memorisation"]}
    with job.observations() as file:
        evaluation = Evaluation(
            job.prior(), file, POSTERIOR, settings, {}, {"clean": tmp_path / "x.h5"}, Job()
        )
        evaluation.__dict__["x"] = drawn + np.float32(0.01)
        (row,) = evaluate(evaluation, {})[0]

    assert row["value"] == 50


def test_metrics_of_priors_have_rows(tmp_path):
    job = Made(tmp_path)
    names = ["c2st", "precision_recall", "memorisation", "energy_test"]
    with job.observations() as file:
        files = {"clean": job.clean()}
        settings = {**SETTINGS, "metrics": names}
        rows = evaluate(Evaluation(job.prior(), file, POSTERIOR, settings, {}, files, Job()), {})[0]

    assert {row["metric"].split("_")[0] for row in rows} == {
        "c2st",
        "precision",
        "memorisation",
        "energy",
    }
    assert len(rows) == 8
    assert all(row["subject"] == "prior" and math.isfinite(row["value"]) for row in rows)


@pytest.mark.parametrize(
    ("name", "function", "found", "most"),
    [
        ("c2st", "two_sample_accuracy", 0.75, 1024),
        ("precision_recall", "precision_recall", {"recall": 0.5}, 2048),
        ("energy_test", "energy_test", (0.5, 0.1), 1024),
        ("pqmass", "pqmass", np.ones(3), 2048),
    ],
)
def test_so_many_samples_are_compared_at_most(name, function, found, most, tmp_path, monkeypatch):
    metric, compared = METRICS.find(name), []

    def noted(x, held, *arguments, **options):
        compared.extend([len(x), len(held)])
        return found

    monkeypatch.setattr(sys.modules[metric.__module__], function, noted)
    write_hdf5(tmp_path / "x.h5", {"test/x": np.zeros((2100, *SHAPE), np.float32)}, {})
    made = Made(tmp_path)
    with made.observations() as file:
        files = {"clean": tmp_path / "x.h5"}
        evaluation = Evaluation(made.prior(), file, POSTERIOR, SETTINGS, {}, files, Job())
        evaluation.__dict__["x"] = np.zeros((2200, *SHAPE), np.float32)
        rows = list(metric().measure(evaluation))

    assert compared == [most, most]
    assert {(row.card["samples"], row.card["reference_samples"]) for row in rows} == {(most, most)}
    if name == "c2st":
        assert rows[0].value == 75.0
        assert rows[0].error == pytest.approx(100 * math.sqrt(2.25 * 0.75 * 0.25 / (2 * most)))


def test_the_energy_distance_is_its_definition():
    a, b = normal(0, 7), normal(1, 5) + 1

    def mean(x, y):
        return np.linalg.norm(x[:, None] - y[None], axis=-1).mean()

    value, _ = energy_test(a, b, permutations=1)
    assert value == pytest.approx(2 * mean(a, b) - mean(a, a) - mean(b, b))


def test_p_values_of_the_energy_test_are_uniform():
    found = [
        energy_test(normal(seed, 40), normal(1000 + seed, 60), permutations=99, seed=seed)[1]
        for seed in range(200)
    ]
    assert min(found) >= 0.01
    # The standard deviations of the fractions are 0.015 and 0.035, of the mean 0.02.
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.05, abs=0.05)
    assert np.mean(np.array(found) <= 0.5) == pytest.approx(0.5, abs=0.11)
    assert np.mean(found) == pytest.approx(0.505, abs=0.065)


@pytest.mark.parametrize("other", [normal(1) + 0.5, 0.6 * normal(1)], ids=["moved", "narrow"])
def test_the_energy_test_tells_other_distributions(other):
    assert energy_test(normal(0), other)[1] == 0.001


def test_equal_sets_are_as_alike_as_can_be():
    value, p = energy_test(normal(0, 50), normal(0, 50))
    assert value == pytest.approx(0, abs=1e-12)
    assert p > 0.99
    # Where all permutations are alike, none is less.
    assert energy_test(np.ones((3, 2)), np.ones((4, 2))) == (0.0, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("shares", [(600, 600), (300, 900)], ids=["equal", "unequal"])
def test_the_mass_of_equal_distributions_is_one(shares):
    found = [
        pqmass(normal(seed, shares[0]), normal(100 + seed, shares[1]), seed=seed).mean()
        for seed in range(20)
    ]
    # Chi-squared by 49 degrees has a standard deviation of 0.2; its mean over regions less.
    assert np.mean(found) == pytest.approx(1, abs=0.1)
    assert max(found) < 1.6


def test_a_missing_mode_has_too_little_mass():
    modes = np.concatenate([normal(0), normal(1) + 20])
    assert pqmass(normal(2), modes).mean() > 3
    assert REGIONS < COUNT


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[6, 2], [2, 6]], 4.0),
        ([[6, 0, 2], [2, 0, 6]], 4.0),  # an empty region tells nothing
        ([[6, 2, 4], [2, 6, 4]], 2.0),
        ([[3, 0], [5, 0]], 0.0),
    ],
)
def test_masses_by_hand(counts, expected):
    assert _chi2(np.array(counts)) == expected


def test_the_kernel_distance_has_no_bias_and_the_frechet_distance_has():
    pairs = [(normal(seed, 20, 8), normal(1000 + seed, 20, 8)) for seed in range(300)]
    found = np.array([kernel_distance(a, b) for a, b in pairs])

    assert found.mean() == pytest.approx(0, abs=4 * found.std() / len(found) ** 0.5)
    assert found.min() < 0 < found.max()
    assert min(frechet_distance(a, b) for a, b in pairs[:20]) > 1


def test_the_kernel_distance_of_moved_samples():
    """Of point masses at 0 and c: k(0, 0) + k(c, c) - 2 k(0, c)."""
    a, b = np.zeros((3, 2)), np.full((4, 2), 2.0)
    assert kernel_distance(a, b) == pytest.approx(1 + (8 / 2 + 1) ** 3 - 2)
    # In blocks, too.
    large = kernel_distance(np.zeros((1500, 2)), np.full((2100, 2), 2.0))
    assert large == pytest.approx(1 + 125 - 2)
