"""Metrics of priors: right ones have their known values, and wrong ones have not."""

import math

import numpy as np
import pytest
from test_resume_jobs import POSTERIOR, SETTINGS, SHAPE
from test_resume_jobs import Job as Made

from diem.evaluation.evaluate import Evaluation, evaluate
from diem.evaluation.metrics.c2st import two_sample_accuracy
from diem.evaluation.metrics.memorisation import nearest
from diem.evaluation.metrics.precision_recall import NEIGHBOURS, precision_recall
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import Job

COUNT = 600


def normal(seed, count=COUNT, dimensions=4):
    return np.random.default_rng(seed).standard_normal((count, dimensions))


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
    assert float(nearest(x, others)) == 5.0


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


def test_metrics_of_priors_have_rows(tmp_path):
    job = Made(tmp_path)
    names = ["c2st", "precision_recall", "memorisation"]
    with job.observations() as file:
        files = {"clean": job.clean()}
        settings = {**SETTINGS, "metrics": names}
        rows = evaluate(Evaluation(job.prior(), file, POSTERIOR, settings, {}, files, Job()), {})[0]

    assert {row["metric"].split("_")[0] for row in rows} == {"c2st", "precision", "memorisation"}
    assert len(rows) == 6
    assert all(row["subject"] == "prior" and math.isfinite(row["value"]) for row in rows)
