"""What scientists hand over is taken as they mean it, or refused in a sentence."""

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import random_gaussian
from test_own_doors import CLASS

import diem
from diem import cli
from diem.data.observations import Observations, numbers
from diem.data.validate import check_file
from diem.diffusion.gaussian import DENSE_CHUNK, Gaussian, fit_to_observations, fit_to_samples
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.diffusion.samplers.ddim import DDIM
from diem.errors import DiemError
from diem.evaluation.draws import Posteriors
from diem.inference.prior_denoiser import PriorDenoiser
from diem.jobs.job import Job
from diem.operators import build, simulate
from diem.operators.base import Operator
from diem.operators.given import where_shown
from diem.operators.mask import Mask
from diem.paper.restoration.prior import DDPMLevels
from diem.seeds import Stage, torch_generator


@pytest.fixture
def own():
    return PriorDenoiser(Prior(random_gaussian((3,), 2, torch.float32), None, {"lap": 0}))


class Mine(Operator):
    """A mask of one's own, whose adjoint may be wrong."""

    factor = 1.0

    @property
    def observation_shape(self):
        return self.event_shape

    def forward(self, x):
        return 2 * x

    def adjoint(self, y):
        return 2 * self.factor * y


def test_masked_arrays_are_missing_where_they_are_masked(own):
    y = np.array([[1.0, 2.0, np.nan]])
    expected = own.posterior(y, "mask", 0.1, 3)

    masked = np.ma.masked_equal([[1.0, 2.0, -999.0]], -999.0)
    assert torch.equal(own.posterior(masked, "mask", 0.1, 3), expected)
    assert torch.equal(own.posterior(pd.DataFrame(y), "mask", 0.1, 3), expected)
    # The noise of what is missing need not be known.
    assert torch.equal(own.posterior(y, "mask", [0.1, 0.1, np.nan], 3), expected)


@pytest.mark.parametrize(
    ("y", "sigma_y", "words"),
    [
        (np.ones((1, 3), complex), 0.1, "y is complex"),
        ([["one", "two", "three"]], 0.1, "y is of type .*, where numbers are needed"),
        (np.ones((1, 3)), "0.1", "sigma_y is of type .*, where numbers are needed"),
        (np.ones((1, 3)), [0.1, 0.1, np.nan], "sigma_y must be positive"),
    ],
)
def test_what_is_no_number_is_refused(own, y, sigma_y, words):
    with pytest.raises(DiemError, match=words):
        own.posterior(y, "mask", sigma_y)


def test_an_operator_of_ones_own_is_verified_as_an_object_too(own):
    class Wrong(Mine):
        factor = 3.0

    own.posterior(torch.ones(2, 3), Mine((3,), {}), 0.1)
    with pytest.raises(DiemError, match=r"'Wrong': adjoint is not the adjoint"):
        own.posterior(torch.ones(2, 3), Wrong((3,), {}), 0.1)


def test_what_shows_single_values_does_so_where_some_are_missing():
    class Keep(Mask):
        elementwise = True

    operator = Keep((3,), {"mask": torch.ones(2, 3, dtype=torch.bool)})
    shown = torch.tensor([[True, False, True], [True, True, True]])
    assert where_shown(operator, shown).elementwise


def test_rows_that_observe_nothing_may_come_first(tmp_path, own):
    y = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    y[:4] = np.nan
    diem.write_observations(tmp_path / "own.h5", {"train": y}, operator="mask", sigma_y=0.1)

    assert not [each for each in check_file(tmp_path / "own.h5") if each.level == "error"]
    assert own.posterior(y[:1], "mask", 0.1).shape == (1, 1, 3)


IMAGES = np.zeros((20, 3, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("splits", "options", "words"),
    [
        ({"train": {"y": IMAGES, "mask": np.ones((20, 4, 4), bool)}}, {}, "mask"),
        ({"train": {"y": IMAGES, "mask": np.bool_(True)}}, {}, "train/mask is one number"),
        (IMAGES, {}, "splits is no mapping"),
        ({"train": IMAGES}, {"event_shape": 4}, "event_shape is 4"),
        ({"train": IMAGES}, {"event_shape": (-4,), "operator": None}, r"h5: event_shape is \(-4,"),
        ({"train": IMAGES}, {"event_shape": (4.5,), "operator": None}, "event_shape is"),
        ({"train": IMAGES}, {"event_shape": ("4",), "operator": None}, "event_shape is"),
        ({"train": IMAGES}, {"event_shape": (), "operator": None}, "event_shape is"),
        ({"train": IMAGES}, {"event_shape": ((4,), 4), "operator": None}, "event_shape is"),
        ({"train": {"y": IMAGES, ".": IMAGES}}, {"operator": None}, "train holds '.', which"),
        ({"train": {"y": IMAGES, "": IMAGES}}, {"operator": None}, "train holds '', which"),
        ({"train": {"y": IMAGES, "a/b": IMAGES}}, {"operator": None}, "train holds 'a/b', which"),
        (
            {"train": np.where(np.arange(12).reshape(4, 3) == 7, 1e39, np.nan)},
            {},
            r"train/y holds values that are infinite as float32, first at \(2, 1\)",
        ),
        ({"train": IMAGES}, {"sigma_y": "0.1"}, "sigma_y is of type"),
    ],
)
def test_what_cannot_be_written_is_told(tmp_path, splits, options, words):
    with pytest.raises(DiemError, match=words):
        options = {"operator": "mask", "sigma_y": 0.1, **options}
        diem.write_observations(tmp_path / "own.h5", splits, **options)
    assert not (tmp_path / "own.h5").exists()


def test_values_that_are_infinite_are_missing(tmp_path):
    y = np.array([[1.0, np.inf], [np.nan, 2.0], [3.0, -np.inf]])
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": y}, operator="mask", sigma_y=0.1, event_shape=(2.0,))
    with Observations(path) as file:
        assert torch.equal(file.load("train").y, torch.tensor([[1.0, 0], [0, 2], [3, 0]]))


@pytest.mark.parametrize("kind", ["bytes", "objects", "mixed", "texts"])
def test_labels_of_groups_are_of_any_letters(tmp_path, kind):
    texts = ["ä", "日本", "c"] * 2
    encoded = [text.encode() for text in texts]
    given = {
        "bytes": np.array(encoded),
        "objects": np.array(encoded, object),
        "mixed": np.array(encoded[:3] + texts[3:], object),
        "texts": texts,
    }
    train = {"y": np.eye(6, 3), "groups": given[kind]}
    diem.write_observations(tmp_path / "own.h5", {"train": train}, operator="mask", sigma_y=0.1)
    with Observations(tmp_path / "own.h5") as file:
        assert file.labels("train/groups").tolist() == encoded


def test_columns_of_pandas_and_tensors_are_arrays(tmp_path):
    y = torch.randn(6, 3, requires_grad=True)
    sites = pd.Series(list("abaccb"))
    given = {"y": y.bfloat16(), "groups": sites, "index": pd.Series(range(6), dtype="Int64")}
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": given}, operator="mask", sigma_y=np.ones(3))

    with Observations(path) as file:
        assert torch.equal(file.load("train").y, y.detach().bfloat16().float())
        assert len(np.unique(file.groups("train"))) == 3
        assert file.sigma_y.shape == (3,)


@pytest.mark.parametrize(
    ("operator", "splits", "words"),
    [
        (None, {"y": np.zeros((0, 3), np.float32)}, "holds no observation"),
        ("failing:Alive", {"y": IMAGES[:, 0, 0], "alive": np.ones((20, 4))}, "fails (KeyError"),
    ],
)
def test_a_configuration_to_begin_with_is_refused_before_it_is_written(
    tmp_path, monkeypatch, capsys, operator, splits, words
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    (tmp_path / "failing.py").write_text(CLASS.replace('["alive"]', '["dead"]'))
    if operator is None:
        from diem.files.hdf5 import write_hdf5

        arrays = {f"train/{key}": value for key, value in splits.items()}
        arrays |= {"train/operator/mask": np.ones((1, 3), bool), "sigma_y": np.float32(0.1)}
        write_hdf5("own.h5", arrays, {"operator": "mask", "event_shape": [3]})
    else:
        diem.write_observations("own.h5", {"train": splits}, sigma_y=0.1)

    assert cli.main(["init", "own.h5", *(["--operator", operator] if operator else [])]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "own.yaml").exists()


# What is computed of it


def test_posterior_samples_that_are_not_finite_are_refused():
    gaussian = random_gaussian((3,), 2, torch.float32)
    broken = Gaussian(gaussian.mean * torch.nan, gaussian.noise, gaussian.factors)
    draws = Posteriors(Prior(broken, None, {}), PosteriorSampler(DDIM(steps=2)), 2, Job())
    mask = build("mask", (3,), {"mask": np.ones((1, 3), bool)})
    observed = mask_of(mask, torch.ones(1, 3))
    with pytest.raises(DiemError, match="The posterior samples are not finite"):
        draws.draw(observed, "some", Stage.TEST_POSTERIOR)


def mask_of(operator, y):
    from diem.data.observations import Observed

    return Observed(operator, y, torch.tensor(0.1), np.arange(len(y)))


@pytest.mark.parametrize("noise", [0.1, torch.full((24, 1, 4, 4), 0.1)])
def test_a_gaussian_is_fitted_to_parts_of_the_observations(monkeypatch, noise):
    operator = simulate({"name": "mask", "missing": 0.4}, (1, 4, 4), 24, np.random.default_rng(0))
    y = operator.forward(torch.randn(24, 1, 4, 4))

    def fitted():
        stream = torch_generator(0, Stage.GAUSSIAN)
        return fit_to_observations(operator, y, noise, 3, 4, stream)

    whole = fitted()
    assert DENSE_CHUNK > 24 * 16**2
    monkeypatch.setattr("diem.diffusion.gaussian.DENSE_CHUNK", 5 * 16**2)
    torch.testing.assert_close(fitted().dense(), whole.dense(), rtol=1e-5, atol=1e-6)


def test_a_rank_is_less_than_the_size_of_large_events_too():
    with pytest.raises(DiemError, match="size of x, 1025"):
        fit_to_samples(torch.randn(1200, 1025), 1100)


def test_one_step_of_ddpm_begins_at_the_last_level():
    one, two = (DDPMLevels(steps)(torch.ones(()))[1] for steps in (1, 2))
    assert one == two > 0.99


def test_tables_of_pandas_own_types_are_numbers_and_name_what_is_none(tmp_path):
    table, path = pd.DataFrame({"a": [1.0, 2.0]}), tmp_path / "own.h5"
    table["b"], table["c"] = pd.array([1, None], "Int64"), pd.array([None, True], "boolean")

    def written(y):
        diem.write_observations(path, {"train": y}, operator="mask", sigma_y=0.1)

    np.testing.assert_array_equal(numbers(table, "y"), [[1, 1, np.nan], [2, np.nan, 1]])
    np.testing.assert_array_equal(numbers(table["b"], "sigma_y"), [1, np.nan])
    written(table)
    with Observations(path) as file:
        np.testing.assert_array_equal(file.load("train").y, [[1, 1, 0], [2, 0, 1]])
    for other in (["x", "y"], pd.to_datetime(["2026-01-01", "2026-01-02"]), [None, {}]):
        words = "y: the column 'd' is of type .*, where numbers are needed"
        for taken in (written, lambda y: numbers(y, "y")):
            with pytest.raises(DiemError, match=words):
                taken(table.assign(d=other))
