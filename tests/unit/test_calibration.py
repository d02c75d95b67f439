"""Calibration: exact draws pass, and each way of being wrong is told by what is to tell it."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import random_gaussian, simulate
from scipy.stats import kstest

from diem.data.observations import Observations, Observed, save_observations
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.diffusion.samplers.ddim import DDIM
from diem.evaluation.evaluate import Evaluation, evaluate
from diem.evaluation.metrics.base import mean_of
from diem.evaluation.metrics.calibration import Calibration, spread_of_error
from diem.evaluation.ranks import (
    coverage,
    functionals,
    of_other_groups,
    one_of_each,
    pit,
    unseen,
)
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import Job
from diem.report import figures
from diem.report.drawing.coverage import Line, coverages, curve
from diem.report.figures.uncertainty import belief
from diem.report.tables.calibration import calibration, readable_calibration
from diem.report.tables.writing import with_error


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def posteriors(spec, shape=(1, 6, 8), count=512, draws=9, wide=1.0, shift=0.0):
    """Draws truth and exact posterior samples, which are then spread and shifted."""
    gaussian = random_gaussian(shape, 5)
    operator = simulate(spec, shape, count)
    truth = gaussian.sample(count, generator(1))
    y = operator.forward(truth)
    y = y + 0.1 * torch.randn(y.shape, generator=generator(2), dtype=y.dtype)
    mean = gaussian.posterior_mean(operator, y, 0.1)
    stream = generator(3)
    x = torch.stack(
        [gaussian.sample_posterior(operator, y, 0.1, stream) for _ in range(draws)], dim=1
    )
    return operator, truth, mean[:, None] + wide * (x - mean[:, None]) + shift


CASES = [
    {"name": "mask", "missing": 0.5},
    {"name": "blur", "size": 3, "intensity": 0.5},
    {"name": "fourier", "acceleration": 2},
]


@pytest.mark.parametrize("draws", [1, 4, 9])
@pytest.mark.parametrize("spec", CASES, ids=lambda spec: spec["name"])
def test_exact_posteriors_pass(spec, draws):
    operator, truth, x = posteriors(spec, draws=draws)
    scored = unseen(operator, len(truth), generator())

    transforms = torch.where(scored, pit(x, truth, generator()), torch.nan)

    for level in (0.5, 0.9):
        held = torch.where(scored, coverage(transforms, level).double(), torch.nan)
        share = held.flatten(1).nanmean(dim=1)
        error = float(share.std() / math.sqrt(len(share)))
        assert float(share.mean()) == pytest.approx(level, abs=4 * error)
    for functional in functionals(truth).values():
        ranks = pit(functional(x), functional(truth), generator())
        assert kstest(ranks.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(
    ("wrong", "told_by"),
    [
        ({"wide": 0.6}, {"values", "distance"}),
        ({"wide": 1.6}, {"values", "distance"}),
        ({"shift": 0.3}, {"total"}),
    ],
)
def test_each_wrong_posterior_is_told(wrong, told_by):
    operator, truth, x = posteriors(CASES[0], **wrong)
    scored = unseen(operator, len(truth), generator())
    values = pit(x, truth, generator())[scored]
    found = {"values": coverage(values, 0.9).double().mean()}
    p = {
        name: kstest(pit(f(x), f(truth), generator()).numpy(), "uniform").pvalue
        for name, f in functionals(truth).items()
    }

    for name in told_by - {"values"}:
        assert p[name] < 1e-4
    if "values" in told_by:
        assert (found["values"] < 0.85) if wrong["wide"] < 1 else (found["values"] > 0.94)


def test_the_prior_in_the_place_of_posteriors_has_uniform_distances_and_a_worse_score():
    """What TARP alone cannot tell, and why the score stands beside it."""
    _, truth, x = posteriors(CASES[0])
    prior = random_gaussian((1, 6, 8), 5).sample(x[:, :, 0, 0, 0].numel(), generator(7))
    prior = prior.reshape(x.shape)
    distance = functionals(truth)["distance"]

    ranks = pit(distance(prior), distance(truth), generator())

    assert kstest(ranks.numpy(), "uniform").pvalue > 1e-3
    error = [(draws.mean(dim=1) - truth).square().mean() for draws in (prior, x)]
    assert error[0] > 2 * error[1]


@pytest.mark.parametrize("name", ["total", "distance"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_of_groups_exact_draws_are_refused_in_one_case_of_twenty(name, shuffled):
    # Observations of nothing, so that exact posterior samples are draws of the prior; the truth of
    # a group has most of it in common. Of all 64, as they are, nine in ten are refused.
    groups, stream, refused = np.repeat(np.arange(8), 8), generator(), 0
    if shuffled:
        groups = np.random.default_rng(0).permutation(groups)
    for _ in range(200):
        common = 0.9 * torch.randn(8, 5, generator=stream, dtype=torch.float64)
        own = torch.randn(64, 5, generator=stream, dtype=torch.float64)
        truth = common[torch.from_numpy(groups)] + math.sqrt(1 - 0.9**2) * own
        draws = torch.randn(64, 9, 5, generator=stream, dtype=torch.float64)
        functional = functionals(truth, groups)[name]
        transforms = pit(functional(draws), functional(truth), stream)
        refused += kstest(transforms[one_of_each(groups, stream)], "uniform").pvalue < 0.05
    assert refused <= 20  # 10 +- 3.1


def test_an_observation_is_set_beside_one_of_another_group():
    for groups in ([0, 0, 0, 1, 1, 1], [2, 0, 1, 2, 0, 1, 2], [5, 5, 7], [0, 1]):
        others = of_other_groups(np.array(groups))
        assert sorted(others) == list(range(len(groups)))
        same = [g == groups[i] for g, i in zip(groups, others, strict=True)]
        # Of more than half in one group some must be together.
        assert sum(same) == max(0, 2 * max(map(groups.count, groups)) - len(groups))


def test_ties_have_random_ranks():
    transforms = pit(torch.zeros(4000, 3), torch.zeros(4000), generator())
    assert kstest(transforms.numpy(), "uniform").pvalue > 1e-3


def test_only_a_mask_leaves_values_unseen():
    mask = simulate(CASES[0], (1, 6, 8), 5)
    hidden = unseen(mask, 5, generator())
    assert torch.equal(hidden, ~mask.observed().expand(5, 1, 6, 8))
    assert unseen(simulate(CASES[1], (1, 6, 8), 5), 5, generator()).all()


def test_powers_are_those_of_a_wave():
    row = torch.arange(8.0, dtype=torch.float64)
    slow, fast = torch.cos(2 * math.pi * row / 8), torch.cos(math.pi * row)
    x = torch.stack((slow, fast)).reshape(2, 1, 1, 8).expand(2, 1, 4, 8)
    found = functionals(x)

    low, high = found["low"](x), found["high"](x)

    torch.testing.assert_close(low, torch.tensor([16.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(high, torch.tensor([0.0, 32.0], dtype=torch.float64))
    assert found["low"](x[:, None].expand(2, 3, 1, 4, 8)).shape == (2, 3)


def test_spread_follows_the_error_where_it_is_right():
    scale = torch.linspace(0.1, 3, 2000, dtype=torch.float64)
    draws = scale * torch.randn(16, 2000, generator=generator(), dtype=torch.float64)
    truth = scale * torch.randn(2000, generator=generator(1), dtype=torch.float64)
    assert spread_of_error(draws, truth) > 0.4
    assert abs(spread_of_error(draws, truth[torch.randperm(2000, generator=generator(2))])) < 0.1


def test_an_evaluation_tells_its_calibration(tmp_path):
    gaussian = random_gaussian((1, 6, 8), 5, torch.float32)
    operator = simulate(CASES[0], (1, 6, 8), 64, torch.float32)
    truth = gaussian.sample(64, generator(1))
    y = operator.forward(truth) + 0.1 * torch.randn(truth.shape, generator=generator(2))
    y = y * operator.observed()
    observed = Observed(operator, y, torch.tensor(0.1), np.arange(64))
    save_observations(tmp_path / "y.h5", {"test": observed}, "mask", {})
    write_hdf5(tmp_path / "clean.h5", {"test/x": truth.numpy()}, {})
    settings = {
        **{"metrics": ["calibration"], "test_observations": 64, "posterior_samples": 8},
        **{"samples": 4, "block": 4, "sampler": {"name": "ddim", "steps": 2}},
    }
    with Observations(tmp_path / "y.h5") as file:
        prior, sampler = Prior(gaussian, None, {}), PosteriorSampler(DDIM(steps=4))
        files = {"clean": tmp_path / "clean.h5"}
        evaluation = Evaluation(prior, file, sampler, settings, {}, files, Job())
        card = {"run": "base", "observations": "o", "stage": "lap", "lap": 1}
        rows, arrays = evaluate(evaluation, card)
    found = {row["metric"]: row for row in rows}

    for level in (50, 90):
        row = found[f"calibration_coverage_{level}"]
        assert row["value"] == pytest.approx(level, abs=5 * row["standard_error"])
        assert 0 < row["standard_error"] < 10
    assert found["calibration_crps"]["standard_error"] > 0
    assert {"calibration/values", "calibration/total", "calibration/distance"} <= set(arrays)
    table = calibration(pd.DataFrame(rows), {"base": "tweedie"})
    shown = readable_calibration(table)
    assert "±" in shown.body[0][3]
    assert [row[1] for row in shown.body] == ["tweedie"]
    both = pd.concat([pd.DataFrame(rows), pd.DataFrame(rows).assign(run="other")])
    alike = readable_calibration(calibration(both, {"base": "tweedie", "other": "tweedie"}))
    assert [row[1] for row in alike.body] == ["base (tweedie)", "other (tweedie)"]


def test_the_table_of_an_experiment_has_coverages_and_the_crps():
    # P-values and correlations have a table of their own.
    assert [name for name, label in Calibration.labels.items() if label.summary] == [
        "calibration_coverage_50",
        "calibration_coverage_90",
        "calibration_crps",
    ]


def test_curves_have_the_errors_of_observations():
    u = np.random.default_rng(0).uniform(size=(4000, 2))
    u[:, 1] = -1
    mean, error = curve(u)
    assert mean[50] == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(4000))
    assert error[50] == pytest.approx(0.5 / math.sqrt(4000), rel=0.05)
    assert curve(np.repeat(u[:, :1], 5, axis=1))[1] == pytest.approx(error)


def test_the_figure_has_a_panel_for_what_is_ranked():
    u = np.random.default_rng(0).uniform(size=64)
    lines = [
        Line("mask", stage, stage, {"single values": u[:, None], "sum": u})
        for stage in ("floor", "lap", "ceiling")
    ]
    figure = coverages(lines, "title")
    assert [ax.get_title() for ax in figure.axes] == ["single values", "sum"]
    assert all(len(ax.get_legend().get_texts()) == 3 for ax in figure.axes)
    several = [*lines, *(line._replace(observations="blur") for line in lines)]
    assert len(coverages(several, "title").axes) == 4


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (19.934, 0.312, "19.9 ± 0.3"),
        (19.934, 0.0123, "19.934 ± 0.012"),
        (1234.5, 31.0, "1,234 ± 31"),
        (1.5, None, "1.50"),
        (1.5, 0.0, "1.50"),
        (None, 0.1, "-"),
        (math.nan, 0.1, "-"),
    ],
)
def test_numbers_have_the_digits_of_their_errors(value, error, text):
    assert with_error(value, error) == text


def test_the_range_of_samples_holds_as_many_pixels_as_it_should():
    scale = np.linspace(0.1, 2, 50)
    values = np.random.default_rng(0).standard_normal((400, 8, 50)) * scale
    draws, truth = values[:, 1:], values[:, 0]
    mean, deviation = draws.mean(axis=1), draws.std(axis=1)

    held, expected, follows = belief(draws, truth, mean, deviation)

    assert held == pytest.approx(expected, abs=0.02)
    assert follows > 0.4
    assert belief(0.5 * draws, truth, mean, deviation)[0] < expected - 0.1
    assert belief(draws, truth, mean, deviation[:, ::-1])[2] < 0.1


def test_more_runs_than_colours_are_drawn():
    u = np.random.default_rng(0).uniform(size=64)
    lines = [Line("mask", "lap", f"run {n}", {"sum": u}) for n in range(8)]
    (ax,) = coverages(lines, "title").axes
    assert len(ax.get_legend().get_texts()) == 8


@pytest.mark.parametrize("seeds", ["3", "3, 4"])
def test_the_figure_says_of_which_seed_it_is(seeds):
    u = np.random.default_rng(0).uniform(size=64)
    found = [figures.Evaluation("mask", "a", "lap", 2, {"calibration/total": u})]
    source = figures.Source(
        "digits", {"a": "a"}, pd.DataFrame({"seed": [seeds]}), evaluations=found
    )
    figure = figures.FIGURES.all()["calibration"]().draw(source)
    note = " ".join(figure._supxlabel.get_text().split())
    assert "over observations, as if independent" in note
    assert ("Of seed 3 alone; tables are of the seeds 3, 4." in note) == (seeds == "3, 4")


def test_a_reconstruction_without_a_number_is_not_left_out():
    values = torch.tensor([1.0, math.nan, 3.0])
    assert math.isnan(mean_of(values, "posterior").value)
