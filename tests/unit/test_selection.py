"""The selection of a lap: the score, the hidden halves, and the table."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import observe, random_gaussian

from diem.data.observations import Observations, Observed, save_observations
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.diffusion.samplers.ddim import DDIM
from diem.errors import DiemError
from diem.evaluation.evaluate import Evaluation, evaluate
from diem.evaluation.metrics import prediction
from diem.evaluation.metrics.prediction import crps
from diem.evaluation.rows import CARD, write_rows
from diem.evaluation.selection import (
    read_selection,
    select_laps,
    selected,
    selected_lap,
    selection_told,
)
from diem.evaluation.standard_error import standard_error
from diem.files.hdf5 import write_hdf5
from diem.files.tables import write_csv
from diem.inference.prior_denoiser import rows_of
from diem.jobs.job import Job
from diem.operators.partial import Partial
from diem.operators.verify import verify_operator
from diem.report.tables.laps import readable_selection, told_selections
from diem.report.tables.writing import markdown


def test_crps_is_its_definition():
    draws, y = torch.randn(3, 5, 4).double(), torch.randn(3, 4).double()
    kept = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)

    scores = crps(draws, y, kept)

    miss = (draws - y[:, None]).abs().mean(dim=1)
    spread = (draws[:, :, None] - draws[:, None]).abs().sum(dim=(1, 2)) / (2 * 5 * 4)
    values = miss - spread
    torch.testing.assert_close(scores[0], values[0][kept[0]].mean())
    torch.testing.assert_close(scores[1], values[1, 3])
    assert scores[2].isnan()


@pytest.mark.parametrize("count", [2, 8])
def test_crps_of_the_right_normal_is_the_lowest(count):
    # The expectation for a standard normal predicted by itself is 1 / sqrt(pi), for any count.
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(40000, 1, generator=generator)
    noise = torch.randn(40000, count, 1, generator=generator)
    kept = torch.ones(40000, 1, dtype=torch.bool)

    right, *wrong = (
        crps(mean + std * noise, y, kept) for mean, std in ((0, 1), (0.3, 1), (0, 0.6), (0, 1.6))
    )

    assert right.mean() == pytest.approx(1 / math.sqrt(math.pi), abs=5 * float(right.std()) / 200)
    for scores in wrong:
        assert (scores - right).mean() > 3 * (scores - right).std() / 200


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({"name": "mask", "missing": 0.3}, (3, 6, 5)),
        ({"name": "projection", "rows": 3}, (6,)),
        ({"name": "fourier", "acceleration": 2, "coils": 2}, (2, 6, 8)),
    ],
)
def test_a_partial_operator_is_one(spec, shape):
    observed, _ = observe(random_gaussian(shape, 2), spec, 3, 0.1)
    shown = torch.rand(observed.y.shape) < 0.5

    partial = Partial(observed.operator, shown)

    verify_operator(partial, "partial")
    assert torch.equal(partial.observed(), observed.operator.observed() & shown)
    assert len(partial[torch.tensor([0, 2])]) == 2


SETTINGS = {
    "samples": 16,
    "block": 16,
    "sampler": {"name": "ddim", "steps": 4},
    "metrics": ["prediction"],
    "test_observations": 100,
    "posterior_samples": 4,
    "predicted_observations": 400,
}


@pytest.fixture
def observations(tmp_path):
    truth = random_gaussian((1, 4, 4), 3)
    path = tmp_path / "observations.h5"
    save_observations(path, {"validation": seen(truth), "test": seen(truth)}, "mask", {})
    return path, truth.to(torch.float32)


def seen(truth, count=300):
    return observe(truth, {"name": "mask", "missing": 0.3}, count, 0.1)[0]


def measured(path, gaussian, seed=0):
    prior = Prior(gaussian, None, {})
    sampler = PosteriorSampler(DDIM(steps=4))
    with Observations(path) as file:
        card = {"run": "r", "observations": "o", "stage": "lap", "lap": 1}
        evaluation = Evaluation(prior, file, sampler, SETTINGS, {}, {}, Job(seed))
        return evaluate(evaluation, card)


def evaluated(path, gaussian, seed=0):
    rows, arrays = measured(path, gaussian, seed)
    row, *covered = rows
    row["covered"] = [other["value"] for other in covered]
    row["errors"] = [other["standard_error"] for other in covered]
    return row, arrays["prediction/score"]


@pytest.mark.slow
def test_hidden_halves_tell_the_true_prior_from_others(observations):
    path, truth = observations
    others = [
        Gaussian(truth.mean + 0.3, truth.noise, truth.factors),
        Gaussian(truth.mean, truth.noise, 0.5 * truth.factors),
        Gaussian(truth.mean, 4 * truth.noise, truth.factors),
    ]

    row, right = evaluated(path, truth)

    assert row["subject"] == "posterior"
    assert row["split"] == "validation"
    assert row["reference"] == "hidden halves of validation observations"
    assert row["reference_samples"] == len(right)
    assert row["samples"] == 2 * 4 * len(right)
    assert row["value"] == pytest.approx(right.mean())
    for level, covered, error in zip((50, 90), row["covered"], row["errors"], strict=True):
        assert covered == pytest.approx(level, abs=4 * error)
    tight = Gaussian(truth.mean, 0.2 * truth.noise, 0.3 * truth.factors)
    narrow, _ = evaluated(path, tight)
    assert narrow["covered"][1] < 85
    for other in others:
        _, scores = evaluated(path, other)
        difference = scores - right
        assert difference.mean() > 2 * difference.std() / math.sqrt(len(difference))


def test_every_value_is_predicted_once_of_each_division(observations, monkeypatch):
    path, truth = observations
    hidden, score = [], prediction.crps

    def scored(draws, y, kept):
        hidden.append(kept)
        return score(draws, y, kept)

    monkeypatch.setattr(prediction, "crps", scored)
    monkeypatch.setattr(prediction, "AT_ONCE", 1)  # so that they are predicted in three parts
    once = evaluated(path, truth)[1]
    first = hidden[:2]
    hidden.clear()
    settings = {**SETTINGS, "metrics": [{"name": "prediction", "divisions": 3}]}
    monkeypatch.setitem(globals(), "SETTINGS", settings)
    thrice = evaluated(path, truth)[1]

    with Observations(path) as file:
        rows = file.subset("validation", 100, 0)
        observed = file.load("validation", rows).operator.observed()
    assert torch.equal(first[0] ^ first[1], observed.expand_as(first[0]))
    assert len(hidden) == 3 * 3 * 2
    # The same observations: what a division adds is less chance.
    assert np.corrcoef(once, thrice)[0, 1] > 0.5
    assert thrice.std() < once.std()


def test_the_same_prior_has_the_same_scores(observations):
    path, truth = observations

    np.testing.assert_array_equal(evaluated(path, truth)[1], evaluated(path, truth)[1])


@pytest.mark.slow
def test_test_observations_choose_no_lap_and_validation_observations_do(tmp_path):
    right = random_gaussian((1, 4, 4), 3)
    other = Gaussian(right.mean + 0.5, right.noise, right.factors)
    priors = [prior.to(torch.float32) for prior in (other, right)]

    def chosen(name, **splits):
        path = tmp_path / f"{name}.h5"
        save_observations(path, splits, "mask", {})
        scores = [evaluated(path, prior)[1] for prior in priors]
        (tmp_path / name).mkdir()
        laps = {("lap", "a", lap): score for lap, score in enumerate(scores, start=1)}
        return selected_lap(select_laps(*files(tmp_path / name, laps), {"a": "A"}), "a"), scores

    validation, test = seen(right), seen(right)
    lap, scores = chosen("first", validation=validation, test=test)
    others = [
        chosen("permuted", validation=validation, test=rows_of(test, torch.randperm(300))),
        chosen("altered", validation=validation, test=seen(other, 150)),
    ]

    assert lap == 2
    for other_lap, other_scores in others:
        assert other_lap == lap
        np.testing.assert_array_equal(other_scores, scores)
    assert chosen("validation", validation=seen(other), test=test)[0] == 1


def files(folder, scores, groups=None):
    """Writes metric rows and scores as the evaluation of a floor and of laps does."""
    told = {} if groups is None else {"prediction/group": groups}
    metrics, evaluations = [], []
    for (stage, run, lap), score in scores.items():
        row = dict.fromkeys(CARD, "") | {
            **{"experiment": "e", "observations": "o", "stage": stage, "run": run, "lap": lap},
            **{"metric": "prediction", "subject": "posterior", "value": score.mean()},
            **{"samples": 8, "split": "test", "sampler": "ddim", "sampler_steps": 2},
            **{"denoiser_evaluations": 3, "optimizer_steps": lap, "seed": 0, "diem": "0"},
        }
        name = folder / f"{run}_{lap}"
        write_rows(name.with_suffix(".csv"), [row, {**row, "metric": "residual_rms"}])
        write_hdf5(name.with_suffix(".h5"), {"prediction/score": score, **told}, {})
        metrics.append(name.with_suffix(".csv"))
        evaluations.append(name.with_suffix(".h5"))
    return metrics, evaluations


def test_predictions_of_unlike_settings_are_not_compared(tmp_path):
    few, many = np.linspace(0.0, 1.0, 8), np.linspace(0.0, 1.0, 9)
    metrics, evaluations = files(tmp_path, {("floor", "", 0): many, ("lap", "a", 1): few})

    with pytest.raises(DiemError, match=r"a_1.h5: its predictions are not of the same .*_0.h5"):
        select_laps(metrics, evaluations, {"a": "A"})


@pytest.mark.slow
def test_observations_of_the_same_x_are_a_group(tmp_path):
    truth, path = random_gaussian((1, 4, 4), 3), tmp_path / "observations.h5"
    one = seen(truth)
    thrice = Observed(one.operator, one.y, one.sigma_y, np.arange(300) // 3)
    save_observations(path, {"validation": thrice, "test": thrice}, "mask", {})

    (row, *_), arrays = measured(path, truth.to(torch.float32))

    score, group = (arrays[f"prediction/{name}"] for name in ("score", "group"))
    assert row["reference"] == "hidden halves of validation observations of 100 groups"
    assert len(group) == len(score) and len(set(group)) == 100
    assert row["standard_error"] == pytest.approx(standard_error(score, group))


def test_the_standard_error_of_groups():
    rng = np.random.default_rng(0)
    few, each, alone = 400, 5, 3.0
    groups = np.repeat(rng.permutation(few), each)

    def drawn():
        return rng.standard_normal(few)[groups] + alone * rng.standard_normal(few * each)

    draws = [drawn() for _ in range(1000)]
    # The variance of a mean over groups and of what is of each observation alone.
    exact = (1 / few + alone**2 / (few * each)) ** 0.5

    assert np.std([x.mean() for x in draws]) == pytest.approx(exact, rel=0.07)
    assert standard_error(draws[0], groups) == pytest.approx(exact, rel=0.12)
    assert np.mean([standard_error(x, groups) for x in draws]) == pytest.approx(exact, rel=0.01)
    assert standard_error(draws[0]) < 0.9 * exact
    # Groups of one are observations, and one group is no spread.
    x = draws[0][:50]
    assert standard_error(x, np.arange(50)) == pytest.approx(standard_error(x), rel=1e-12)
    assert standard_error(x) == pytest.approx(np.std(x, ddof=1) / 50**0.5, rel=1e-12)
    assert standard_error(x, np.zeros(50, int)) is standard_error(x[:1]) is None


@pytest.mark.parametrize("size", [1, 10, 100])
def test_laps_of_groups_are_told_apart_by_groups(tmp_path, size):
    groups = np.arange(100) // size
    shift = np.random.default_rng(1).standard_normal(100 // size)[groups]
    scores = {("floor", "floor", 0): np.zeros(100), ("lap", "a", 1): shift - shift.mean() - 0.15}

    table = select_laps(*files(tmp_path, scores, groups), {"a": "A"})

    lap = table[table["lap"] == 1].iloc[0]
    if size == 100:
        assert lap["gaussian_standard_error"] == np.inf
        assert "standard error unknown, of one group" in selection_told(lap)
    else:
        expected = shift[::size].std(ddof=1) / (100 / size) ** 0.5
        assert lap["gaussian_standard_error"] == pytest.approx(expected)
    assert lap["gaussian_verdict"] == "tie"
    assert lap["verdict"] == "chosen"


@pytest.mark.parametrize(("size", "errors"), [(50, 13.97), (20, 2.87), (1, 2.03)])
def test_few_groups_make_a_tie_of_more_standard_errors(tmp_path, size, errors):
    groups = np.arange(100) // size
    shift = np.random.default_rng(2).standard_normal(100 // size)
    shift = ((shift - shift.mean()) / shift.std(ddof=1))[groups] / (size / 100) ** 0.5
    for factor, verdict in ((0.97, "tie"), (1.03, "better")):
        # The standard error of the mean is 1.
        scores = {("floor", "floor", 0): 0 * shift, ("lap", "a", 1): shift - factor * errors}
        table = select_laps(*files(tmp_path, scores, groups), {"a": "A"})
        lap = table[table["lap"] == 1].iloc[0]
        assert lap["gaussian_standard_error"] == pytest.approx(1.0, rel=0.01)
        assert lap["gaussian_verdict"] == verdict


def test_the_lowest_lap_is_chosen_and_what_could_be_as_good_is_a_tie(tmp_path):
    rng = np.random.default_rng(0)
    scene = rng.exponential(size=100)  # the same of every lap, so that it hides no difference
    scores = {
        ("floor", "floor", 0): scene + 1.0,
        ("lap", "a", 1): scene + 0.5 + 0.1 * rng.standard_normal(100),
        ("lap", "a", 2): scene + 0.1 * rng.standard_normal(100),
        ("lap", "a", 4): scene + 0.01 + 0.1 * rng.standard_normal(100),
        ("lap", "b", 1): scene + 2.0,
        ("lap", "b", 2): scene + 1.5,
    }

    table = select_laps(*files(tmp_path, scores), {"a": "A", "b": "B"})
    text = markdown(readable_selection(table))

    assert table[["run", "lap", "verdict"]].to_numpy().tolist() == [
        ["a", 0, ""],
        ["a", 1, ""],
        ["a", 2, "chosen"],
        ["a", 4, "tie"],
        ["b", 0, "chosen"],
        ["b", 1, ""],
        ["b", 2, ""],
    ]
    assert selected_lap(table, "a") == 2
    assert selected_lap(table, "b") == 0
    assert (table["difference"] >= 0).all()
    assert "b (B): the Gaussian prior predicts better than every lap, and is chosen." in text
    assert "a (A): lap 2 is chosen, which predicts better than the Gaussian prior (by 1" in text
    assert table["gaussian_verdict"].tolist() == ["", *3 * ["better"], "", *2 * ["worse"]]
    pd.testing.assert_series_equal(
        table["prediction"],
        pd.Series(
            [s.mean() for s in [*scores.values()][:4]]
            + [
                scores["floor", "floor", 0].mean(),
                scores["lap", "b", 1].mean(),
                scores["lap", "b", 2].mean(),
            ],
            name="prediction",
        ),
    )


def test_a_tie_is_nearer_than_two_standard_errors(tmp_path):
    # Four differences, of a standard error of one: by Student's t, two of many are 3.31 of four.
    apart = math.sqrt(3) * np.array([1.0, -1.0, 1.0, -1.0])
    scene = np.random.default_rng(0).exponential(size=4)
    scores = {
        ("floor", "floor", 0): scene + 5.0 + apart,
        ("lap", "a", 1): scene + 3.4 + apart,
        ("lap", "a", 2): scene + 3.2 + apart,
        ("lap", "a", 3): scene,
    }

    table = select_laps(*files(tmp_path, scores), {"a": "A"})

    assert table["difference"].tolist() == pytest.approx([5.0, 3.4, 3.2, 0.0])
    assert table["standard_error"].tolist() == pytest.approx([1.0, 1.0, 1.0, 0.0])
    assert table["verdict"].tolist() == ["", "", "tie", "chosen"]


def test_the_same_scores_are_a_tie(tmp_path):
    scene = np.random.default_rng(0).exponential(size=100)
    scores = {("floor", "floor", 0): scene, ("lap", "a", 1): scene, ("lap", "a", 2): scene}

    table = select_laps(*files(tmp_path, scores), {"a": "A"})

    assert table["verdict"].tolist() == ["chosen", "tie", "tie"]
    assert table["gaussian_verdict"].tolist() == ["", "tie", "tie"]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_predictions_of_any_unit_are_told_to_the_digits_of_their_differences(tmp_path, unit):
    rng = np.random.default_rng(0)
    scene = 1.0 + rng.exponential(size=100)
    scores = {
        ("floor", "floor", 0): unit * (scene + 0.3 + 0.1 * rng.standard_normal(100)),
        ("lap", "a", 1): unit * (scene + 0.1 + 0.1 * rng.standard_normal(100)),
        ("lap", "a", 2): unit * scene,
    }

    body = readable_selection(select_laps(*files(tmp_path, scores), {"a": "A"})).body

    told = [float(row[3].replace(",", "")) / unit for row in body]
    means = [values.mean() / unit for values in scores.values()]
    assert told == pytest.approx(means, abs=0.006)


@pytest.mark.parametrize(("other", "names"), [("A", ["a (A)", "b (A)"]), ("B", ["A", "B"])])
def test_runs_of_one_label_are_told_apart(tmp_path, other, names):
    scene = np.random.default_rng(0).exponential(size=9)
    scores = {("floor", "floor", 0): scene + 1, ("lap", "a", 1): scene, ("lap", "b", 1): scene + 2}

    body = readable_selection(select_laps(*files(tmp_path, scores), {"a": "A", "b": other})).body

    assert list(dict.fromkeys(row[1] for row in body)) == names


def test_a_gaussian_that_could_be_as_good_is_a_tie(tmp_path):
    rng = np.random.default_rng(0)
    scene = rng.exponential(size=100)
    scores = {
        ("floor", "floor", 0): scene + 0.03 + 0.2 * rng.standard_normal(100),
        ("lap", "a", 1): scene + 1.0,
        ("lap", "a", 2): scene,
    }

    table = select_laps(*files(tmp_path, scores), {"a": "A"})

    assert table["verdict"].tolist() == ["tie", "", "chosen"]
    assert table["gaussian_verdict"].tolist() == ["", "worse", "tie"]
    told = markdown(readable_selection(table))
    assert "chosen, tie with the Gaussian |" in told
    assert "a (A): lap 2 is chosen, a tie with the Gaussian prior (by " in told
    write_csv(tmp_path / "table.csv", table)
    (sentence,) = told_selections(tmp_path / "table.csv")
    assert sentence.startswith("e/a: lap 2 is chosen, a tie with the Gaussian prior (by ")


@pytest.mark.parametrize("run", ["50", "1e3", "nan", "null", "007"])
def test_a_run_is_named_as_it_is_whatever_its_name_looks_like(tmp_path, run):
    scene = np.random.default_rng(0).exponential(size=9)
    scores = {("floor", "floor", 0): scene + 1.0, ("lap", run, 1): scene}
    table = select_laps(*files(tmp_path, scores), {run: run})
    write_csv(tmp_path / "table.csv", table)

    found = read_selection(tmp_path / "table.csv")

    assert selected_lap(found, run) == 1
    assert selected(found, run)["prediction"] == table["prediction"].iloc[1]  # to the last digit
    assert markdown(readable_selection(found)) == markdown(readable_selection(table))
    assert [text.split(":")[0] for text in told_selections(tmp_path / "table.csv")] == [f"e/{run}"]


def test_a_last_lap_that_is_chosen_is_told(tmp_path):
    scene = np.random.default_rng(0).exponential(size=100)
    scores = {
        ("floor", "floor", 0): scene + 1.0,
        ("lap", "a", 1): scene + 0.5,
        ("lap", "a", 2): scene,
    }

    table = select_laps(*files(tmp_path, scores), {"a": "A"})

    assert "a (A): the chosen lap is the last" in markdown(readable_selection(table))
    with pytest.raises(DiemError, match="'c'"):
        selected_lap(table, "c")
