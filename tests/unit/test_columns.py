"""Offset and scale by column: tables whose columns have units of their own."""

import math

import numpy as np
import pytest
import torch
from azula.noise import VESchedule
from helpers import random_gaussian
from test_own_doors import CONFIG

import diem
from diem.config.resolve import resolve
from diem.data.ingest import ingest
from diem.data.observations import SPLITS, Observations, Observed
from diem.diffusion.prior import CARD_RANGE, Prior, read_prior
from diem.em.gaussian_prior import gaussian_prior
from diem.errors import DiemError
from diem.in_python.settings import EXPERIMENT, configured
from diem.inference.prior_denoiser import PriorDenoiser
from diem.inference.sample_files import read_posteriors, write_posteriors
from diem.jobs.job import Job
from diem.operators import Partial, build
from diem.operators.mask import Mask
from diem.report.posteriors import posteriors

HELD_OUT = {"validation": 0.1, "test": 0.1}
OFFSET, SCALE = [1013.0, 0.6, 0.0], [1000.0, 0.01, 2.0]
NOISE = np.array([50.0, 0.002, 0.1], np.float32)


def table(rows=60):
    rng = np.random.default_rng(0)
    y = np.array(OFFSET) + np.array(SCALE) * rng.standard_normal((rows, 3))
    y[rng.random(y.shape) < 0.3] = np.nan
    return y.astype(np.float32)


def each(values):
    """Returns noise of each value, NaN where nothing is observed, as a user may have it."""
    return np.where(np.isnan(values), np.nan, NOISE).astype(np.float32)


NOISES = {
    "one number": lambda y: ({"y": y}, 0.1),
    "one a column": lambda y: ({"y": y}, NOISE),
    "one for the split": lambda y: ({"y": y, "sigma_y": np.float32(0.1)}, None),
    "one an observation": lambda y: ({"y": y, "sigma_y": np.linspace(0.1, 1, len(y))}, None),
    "one a value": lambda y: ({"y": y, "sigma_y": each(y)}, None),
}


def taken_in(folder, noise, offset, scale):
    """Returns the splits of a table as the workflow has them, and those of its own file."""
    split, sigma_y = NOISES[noise](table())
    path, output = folder / "own.h5", folder / "observations.h5"
    diem.write_observations(path, {"train": split}, operator="mask", sigma_y=sigma_y)
    ingest(path, output, {}, {**HELD_OUT, "offset": offset, "scale": scale}, 0, "some")
    with Observations(path) as own, Observations(output) as file:
        return [(file.load(s), own.load("train")) for s in SPLITS]


@pytest.mark.parametrize("noise", NOISES)
def test_each_column_is_scaled_by_its_own_numbers(tmp_path, noise):
    for found, own in taken_in(tmp_path, noise, OFFSET, SCALE):
        rows = found.index
        seen = own.operator.observed()[rows]
        expected = (own.y[rows] - torch.tensor(OFFSET)) / torch.tensor(SCALE)
        sigma_y = own.sigma_y.expand_as(own.y)[rows] / torch.tensor(SCALE)

        assert torch.equal(found.operator.observed(), seen)
        torch.testing.assert_close(found.y, torch.where(seen, expected, 0.0))
        torch.testing.assert_close(found.sigma_y.expand_as(found.y)[seen], sigma_y[seen])


@pytest.mark.parametrize("noise", NOISES)
def test_a_list_of_one_number_is_that_number(tmp_path, noise):
    by_column = taken_in(tmp_path, noise, [3.0] * 3, [7.0] * 3)
    for (one, _), (other, _) in zip(taken_in(tmp_path, noise, 3.0, 7.0), by_column, strict=True):
        assert torch.equal(one.y, other.y)
        assert torch.equal(one.sigma_y.expand_as(one.y), other.sigma_y.expand_as(one.y))


@pytest.mark.parametrize("noise", NOISES)
def test_each_channel_is_scaled_by_its_own_numbers(tmp_path, noise):
    # As columns of vectors: three channels of two values each, and all of their values in a row.
    split, sigma_y = NOISES[noise](table())
    repeated = {
        k: np.repeat(v, 2, -1) if k == "y" or np.ndim(v) == 2 else v for k, v in split.items()
    }
    sigma_y = sigma_y if np.ndim(sigma_y) == 0 else np.repeat(sigma_y, 2)
    files = {}
    for name, shape in (("rows", (6,)), ("channels", (3, 2))):
        own = {k: v.reshape(-1, *shape) if np.ndim(v) == 2 else v for k, v in repeated.items()}
        noise_of = sigma_y if np.ndim(sigma_y) == 0 else sigma_y.reshape(shape)
        path, files[name] = tmp_path / f"{name}.h5", tmp_path / f"{name}_scaled.h5"
        diem.write_observations(path, {"train": own}, operator="mask", sigma_y=noise_of)
        each = 1 if name == "channels" else 2
        units = {
            "offset": np.repeat(OFFSET, each).tolist(),
            "scale": np.repeat(SCALE, each).tolist(),
        }
        ingest(path, files[name], {}, {**HELD_OUT, **units}, 0, "some")

    with Observations(files["rows"]) as one, Observations(files["channels"]) as other:
        assert (one.units(), other.units()) == (
            ", each column in units of its data.scale",
            ", each channel in units of its data.scale",
        )
        for split in SPLITS:
            rows, channels = one.load(split), other.load(split)
            assert torch.equal(rows.y, channels.y.flatten(1))
            expected = rows.sigma_y.expand_as(rows.y)
            assert torch.equal(expected, channels.sigma_y.expand_as(channels.y).flatten(1))


@pytest.mark.parametrize("shape", [(3, 2), (3, 1)])
def test_flat_noise_is_one_a_value_of_each_channel(tmp_path, shape):
    y = np.random.default_rng(0).standard_normal((60, *shape)).astype(np.float32)
    flat = np.linspace(0.1, 0.2, math.prod(shape)).astype(np.float32)
    diem.write_observations(tmp_path / "own.h5", {"train": y}, operator="mask", sigma_y=flat)
    data = {**HELD_OUT, "offset": 0.0, "scale": [10.0, 1.0, 2.0]}
    ingest(tmp_path / "own.h5", tmp_path / "observations.h5", {}, data, 0, "some")
    with Observations(tmp_path / "observations.h5") as file:
        sigma_y = file.load("train").sigma_y
    expected = flat.reshape(shape) / np.array([10.0, 1.0, 2.0])[:, None]
    np.testing.assert_allclose(sigma_y.expand(shape), expected, rtol=1e-6)


def test_a_column_s_noise_must_stay_in_bounds(tmp_path):
    with pytest.raises(DiemError, match=r"own\.h5: sigma_y divided by data\.scale, \[1\.0, 1e\+20"):
        taken_in(tmp_path, "one a column", OFFSET, [1.0, 1e20, 1.0])


def test_only_single_values_have_the_scale_of_a_column():
    mask = build("mask", (3,), {"mask": np.ones((1, 3), bool)})
    matrix = build("projection", (3,), {"matrix": np.ones((1, 2, 3), np.float32)})
    y = torch.tensor([[1113.0, 0.61, 4.0]])
    half = Partial(mask, torch.tensor([[True, False, True]]))

    found = observed(half, y).scaled(OFFSET, SCALE)
    torch.testing.assert_close(found.y, torch.tensor([[0.1, 0.0, 2.0]]))
    found = observed(matrix, y[:, :2]).scaled(OFFSET, 2.0)  # an offset is one of any operator
    torch.testing.assert_close(found.y, (y[:, :2] - sum(OFFSET)) / 2)
    with pytest.raises(DiemError, match=r"^operator: .*data\.scale.* Projection does not show"):
        observed(matrix, y[:, :2]).scaled(OFFSET, SCALE)


def observed(operator, y):
    return Observed(operator, y, torch.tensor(0.1), np.arange(len(y)))


def planned(**data):
    entry = {**CONFIG["experiments"]["sky"], "data": {"name": "hdf5", **data}}
    resolved = resolve({"experiments": {"sky": entry}}, "my.yaml")
    return resolved["experiments"]["sky"]["data"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng, options = np.random.default_rng(0), {"sigma_y": 0.1}
    diem.write_observations("own.h5", {"train": table()}, operator="mask", **options)
    images = rng.standard_normal((60, 1, 1, 3))
    diem.write_observations("images.h5", {"train": images}, operator="mask", **options)
    parts = {"y": rng.standard_normal((60, 2)), "matrix": np.ones((1, 2, 3))}
    options["event_shape"] = (3,)
    diem.write_observations("parts.h5", {"train": parts}, operator="projection", **options)


def test_a_plan_takes_lists_as_they_are(files):
    assert planned(path="own.h5", scale=[1, 2.5, "1e3"])["scale"] == [1.0, 2.5, 1000.0]
    assert planned(path="parts.h5", offset=OFFSET)["offset"] == OFFSET


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"scale": [1.0, 2.0]}, ["data.scale is a list of 2", "x has shape (3,)"]),
        ({"offset": []}, ["data.offset is a list of 0", "x has shape (3,)"]),
        ({"scale": [1.0, 0.0, 2.0]}, ["data.scale.1 is 0.0", "greater than 0"]),
        ({"scale": [1.0, 1.0, -2.0]}, ["data.scale.2 is -2.0", "greater than 0"]),
        ({"scale": [float("nan"), 1.0, 2.0]}, ["data.scale.0 is nan", "finite"]),
        ({"offset": [0.0, float("inf"), 2.0]}, ["data.offset.1 is inf", "finite"]),
        ({"scale": [1.0, "two", 1.0]}, ["data.scale.1 is 'two'", "number"]),
        ({"scale": "two"}, ["data.scale is 'two'", "number or array"]),
        ({"scale": 0.0}, ["data.scale is 0.0", "greater than 0"]),
        (
            {"path": "images.h5", "scale": SCALE},
            ["data.scale is a list of 3", "x has shape (1, 1, 3)"],
        ),
        (
            {"path": "parts.h5", "scale": SCALE},
            ["observations.o.operator is 'projection'", "data.scale is a list", "'mask'"],
        ),
    ],
)
def test_a_plan_tells_which_list_does_not_fit(files, data, words):
    with pytest.raises(DiemError) as error:
        planned(**{"path": "own.h5", **data})

    sentence = str(error.value)
    assert sentence.startswith("my.yaml: experiments.sky.")
    assert all(word in sentence for word in words), sentence
    assert sentence.count("\n") == 0
    assert sentence.endswith(".")


def test_a_plan_tells_which_new_observations_do_not_fit(files):
    sky = {**CONFIG["experiments"]["sky"], "data": {"name": "hdf5", "path": "own.h5"}}
    sky["data"]["scale"] = SCALE
    new = {"prior": {"experiment": "sky", "run": "base"}, "observations": "parts.h5"}
    config = {"experiments": {"sky": sky}, "posterior": {"new": new}}

    with pytest.raises(DiemError, match=r"^my\.yaml: posterior\.new\.operator is 'projection'"):
        resolve(config, "my.yaml")
    new["observations"] = "own.h5"
    assert resolve(config, "my.yaml")["posterior"]["new"]["samples"] == 16


# Priors


def prior(gaussian=None, denoiser=None, **data):
    gaussian = gaussian or random_gaussian((3,), 2, torch.float32)
    card = {"lap": 0, CARD_RANGE: [-3.0, 3.0], "data": {"offset": 0.0, "scale": 1.0, **data}}
    return Prior(gaussian, denoiser, card)


def diffusion(**data):
    """Returns a prior whose denoiser happens to be exact."""
    gaussian = random_gaussian((3,), 2, torch.float32)
    return prior(gaussian, gaussian.denoiser(VESchedule(0.01, 10.0)), **data)


@pytest.mark.parametrize(
    ("scale", "words"), [([1.0, 0.0, 2.0], "number data.scale"), ([1.0], "list data.scale")]
)
def test_a_file_with_other_lists_is_no_prior(tmp_path, scale, words):
    prior(scale=scale).save(tmp_path / "prior.safetensors")
    with pytest.raises(DiemError, match=words):
        read_prior(tmp_path / "prior.safetensors")


@pytest.mark.parametrize("make", [prior, diffusion])
def test_a_prior_of_one_number_a_column_is_that_of_the_number(make):
    y, settings = 3 + 7 * torch.randn(4, 3), {"sampler": {"steps": 4}}
    y[0, 1] = y[2] = torch.nan
    one = PriorDenoiser(make(offset=3.0, scale=7.0))
    other = PriorDenoiser(make(offset=[3.0] * 3, scale=[7.0] * 3))

    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.sample(8, steps=4), other.sample(8, steps=4))
    x = one.posterior(y, "mask", 0.1, 5, **settings)
    assert torch.equal(x, other.posterior(y, "mask", 0.1, 5, **settings))
    assert torch.equal(one.outlying(100 * x), other.outlying(100 * x))


@pytest.mark.parametrize("make", [prior, diffusion])
def test_samples_are_in_the_units_of_each_column(tmp_path, make):
    plain, own = make(), make(offset=OFFSET, scale=SCALE)
    if make is prior:
        own.save(tmp_path / "prior.safetensors")
        own = read_prior(tmp_path / "prior.safetensors")
    plain, own = PriorDenoiser(plain), PriorDenoiser(own)
    offset, scale = torch.tensor(OFFSET), torch.tensor(SCALE)

    assert torch.equal(own.mean, offset + scale * plain.mean)
    assert torch.equal(own.sample(8, steps=4), offset + scale * plain.sample(8, steps=4))
    u = torch.randn(4, 3)
    expected = plain.posterior(u, "mask", 0.1, 5, sampler={"steps": 4})
    x = own.posterior(offset + scale * u, "mask", 0.1 * scale, 5, sampler={"steps": 4})
    torch.testing.assert_close((x - offset) / scale, expected, rtol=1e-3, atol=1e-3)
    assert own.outliers_told(2, 9).startswith(
        "2 of 9 posterior samples have values of (x - offset) / scale far outside of -3 to 3,"
    )


@pytest.mark.parametrize("make", [prior, diffusion])
def test_samples_are_in_the_units_of_each_channel(tmp_path, make):
    path, shape = tmp_path / "prior.safetensors", (3, 2)
    card = {"lap": 0, CARD_RANGE: [-3.0, 3.0]}
    gaussian = random_gaussian(shape, 2, torch.float32)
    denoiser = None if make is prior else gaussian.denoiser(VESchedule(0.01, 10.0))
    plain = PriorDenoiser(Prior(gaussian, denoiser, card))
    units = {"offset": OFFSET, "scale": SCALE}
    own = Prior(gaussian, denoiser, {**card, "data": units})
    if make is prior:
        own.save(path)
        own = read_prior(path)
    own = PriorDenoiser(own)
    offset, scale = (torch.tensor(unit)[:, None] for unit in (OFFSET, SCALE))

    assert torch.equal(own.mean, offset + scale * plain.mean)
    assert torch.equal(own.sample(8, steps=4), offset + scale * plain.sample(8, steps=4))
    u = torch.randn(4, *shape)
    u[0, 1] = u[2] = torch.nan
    expected = plain.posterior(u, "mask", 0.1, 5, sampler={"steps": 4})
    noise = (0.1 * scale).expand(shape)
    x = own.posterior(offset + scale * u, "mask", noise, 5, sampler={"steps": 4})
    torch.testing.assert_close((x - offset) / scale, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(
        own.outlying(100 * scale * u.nan_to_num() + offset), plain.outlying(100 * u.nan_to_num())
    )
    if make is diffusion:
        with pytest.raises(DiemError, match="a scale of each channel"):
            own(u, torch.tensor(0.5))


def test_posteriors_of_unlike_channels_are_drawn_in_one_range(tmp_path):
    mean, sd = np.array(OFFSET)[:, None, None], np.array(SCALE)[:, None, None]
    y = mean + sd * np.random.default_rng(0).standard_normal((3, 3, 4, 4))
    y[:, :, :2] = np.nan
    diem.write_observations(tmp_path / "own.h5", {"train": y}, "mask", 0.1 * sd)
    own = Prior(
        random_gaussian((3, 4, 4), 2, torch.float32),
        None,
        {"lap": 0, CARD_RANGE: [-3.0, 3.0], "data": {"offset": OFFSET, "scale": SCALE}},
    )
    with Observations(tmp_path / "own.h5") as file:
        write_posteriors(tmp_path / "p.h5", PriorDenoiser(own), file, 4)
        shown = read_posteriors(tmp_path / "p.h5", file, 3)
    assert shown["scale"].shape == (3, 4, 4) and (shown["scale"][1] == np.float32(0.01)).all()
    drawn = posteriors(shown, "own")
    assert "(Values - offset) / scale run from" in drawn.get_supxlabel().replace("\n", " ")


def test_noise_of_one_sigma_is_refused_where_columns_differ():
    own = PriorDenoiser(diffusion(scale=SCALE))
    x_t, t = torch.zeros(2, 3), torch.tensor(0.5)
    with pytest.raises(DiemError, match=r"data\.scale.*`sample` and `posterior`.*`denoiser`"):
        own(x_t, t)
    assert own.denoiser(x_t, t).mean.shape == (2, 3)

    moved = PriorDenoiser(diffusion(offset=OFFSET, scale=2.0))  # one sigma fits all columns
    plain = PriorDenoiser(diffusion())
    torch.testing.assert_close(
        moved(torch.tensor(OFFSET) + 2 * x_t, t).mean, torch.tensor(OFFSET) + 2 * plain(x_t, t).mean
    )


def test_operators_that_mix_columns_are_refused():
    matrix = {"name": "projection", "matrix": np.ones((1, 2, 3), np.float32)}
    y = torch.full((2, 2), sum(OFFSET))
    with pytest.raises(DiemError, match=r"data\.scale is a list.* Projection"):
        PriorDenoiser(prior(scale=SCALE)).posterior(y, matrix, 0.1)
    assert PriorDenoiser(prior(offset=OFFSET)).posterior(y, matrix, 0.1).shape == (2, 1, 3)
    y[0, 1] = torch.nan
    with pytest.raises(DiemError, match=r"data\.scale is a list.* Projection"):
        PriorDenoiser(prior(scale=SCALE)).posterior(y, matrix, 0.1)


def test_an_operator_made_of_a_mask_does_not_pass_for_one():
    class Sums(Mask):
        def forward(self, x):
            return self.parameters["mask"] * x.cumsum(dim=1)

    class Named(Mask):
        elementwise = True

    assert not Sums.elementwise and Named.elementwise and Mask.elementwise


def test_settings_of_python_may_be_arrays(tmp_path):
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": table()}, "mask", 1.0)
    given = {"data": {"offset": np.array(OFFSET), "scale": torch.tensor(SCALE)}, "laps": 1}
    tuples = {"data": {"offset": tuple(OFFSET), "scale": tuple(SCALE)}, "laps": 1}

    for settings in (given, tuples):
        made = resolve(configured(path, "mask", settings, None, 0, "cpu"), "settings")
        data = made["experiments"][EXPERIMENT]["data"]
        assert data["offset"] == OFFSET
        assert data["scale"] == pytest.approx(SCALE)


def test_posteriors_are_of_the_file_and_not_of_its_copy(tmp_path):
    taken_in(tmp_path, "one a column", OFFSET, SCALE)
    own = PriorDenoiser(prior(offset=OFFSET, scale=SCALE))

    with Observations(tmp_path / "own.h5") as file:
        assert write_posteriors(tmp_path / "p.h5", own, file, 2) == 0
    again = pytest.raises(DiemError, match=r"already scaled.*own\.h5")
    with Observations(tmp_path / "observations.h5") as file, again:
        write_posteriors(tmp_path / "q.h5", own, file, 2)


def test_the_posterior_of_unlike_columns_is_the_exact_one(tmp_path):
    # Columns with standard deviations of 1000 and 0.01, which tell of each other.
    mean, sd = np.array([1013.0, 0.6, -200.0]), np.array([1000.0, 0.01, 100.0])
    noise = np.array([100.0, 0.001, 10.0])
    correlation = np.array([[1.0, 0.8, -0.5], [0.8, 1.0, -0.3], [-0.5, -0.3, 1.0]])
    covariance = sd * correlation * sd[:, None]
    rng = np.random.default_rng(0)
    y = rng.multivariate_normal(mean, covariance, 20_000) + noise * rng.standard_normal((20_000, 3))
    y[rng.random(y.shape) < 0.3] = np.nan
    path, output = tmp_path / "own.h5", tmp_path / "observations.h5"
    diem.write_observations(path, {"train": y}, operator="mask", sigma_y=noise)
    data = {"offset": [1000.0, 0.59, -210.0], "scale": [1000.0, 0.01, 100.0]}
    ingest(path, output, {}, {**HELD_OUT, **data}, 0, "some")
    entry = {"rank": 2, "iterations": 32, "observations": 20_000, "every": 1, "shrinkage": 0.0}
    with Observations(output) as file:
        gaussian_prior(tmp_path / "g.safetensors", file, entry, {"data": data}, Job())
    own = diem.load_prior(tmp_path / "g.safetensors")

    # Of the fitted prior in the file's units: exact but for Monte Carlo.
    seen, hidden, new = [0, 2], [1], np.array([2500.0, np.nan, -150.0])
    fitted = own.prior.gaussian
    factors = own.scale.numpy()[:, None] * fitted.factors.numpy().astype(float)
    spread = factors @ factors.T + fitted.noise.item() * np.diag(own.scale.double().numpy() ** 2)
    count = 40_000
    x = own.posterior(new[None], "mask", noise, count)[0].double().numpy()
    for law, slack in (
        ((own.mean.double().numpy(), spread), 5 / np.sqrt(count)),
        ((mean, covariance), 0.05),  # the truth, of which the prior was fitted to a sample
    ):
        expected, deviation = conditional(*law, new, noise, seen)
        assert (abs(x.mean(axis=0) - expected) < slack * deviation).all()
        np.testing.assert_allclose(x.std(axis=0), deviation, rtol=slack)
    assert deviation[hidden[0]] < 0.7 * sd[hidden[0]]  # it is told by the others


def conditional(mean, covariance, y, noise, seen):
    """Returns means and standard deviations of x given its noisy values at some places."""
    a = np.eye(len(mean))[seen]
    gain = covariance @ a.T @ np.linalg.inv(a @ covariance @ a.T + np.diag(noise[seen] ** 2))
    rest = covariance - gain @ a @ covariance
    return mean + gain @ (y[seen] - mean[seen]), np.sqrt(np.diag(rest))
