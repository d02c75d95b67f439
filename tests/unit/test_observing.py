"""Simulated observations: ``y = A x + n``, with the noise that is asked for."""

import numpy as np
import pytest
import torch

from diem import operators
from diem.data import simulate
from diem.data.observations import Observations
from diem.data.simulate import corrupt
from diem.errors import DiemError
from diem.files import hdf5
from diem.files.hdf5 import Reader, write_hdf5

COUNTS = {"train": 2000, "validation": 30, "test": 40}


@pytest.fixture
def clean(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}/x": rng.uniform(-2, 2, (count, 2, 3, 3)).astype(np.float32)
        for split, count in COUNTS.items()
    }
    write_hdf5(tmp_path / "clean.h5", arrays, {})
    return tmp_path / "clean.h5"


def observe(clean, entry, seed=0):
    output = clean.with_name("observations.h5")
    corrupt(clean, output, entry, seed, "some")
    with Observations(output) as file, Reader(clean) as truth:
        assert file.attribute("experiment") == "some"
        assert file.attribute("seed") == seed
        return {
            split: (file.load(split), torch.from_numpy(truth.read(f"{split}/x")))
            for split in COUNTS
        }


MASK = {"name": "mask", "missing": 0.4}
PROJECTION = {"name": "projection", "rows": 3}


@pytest.mark.parametrize("operator", [MASK, PROJECTION])
@pytest.mark.parametrize("sigma_y", [0.01, 0.5])
def test_the_noise_is_white_and_as_large_as_told(clean, operator, sigma_y):
    for split, (observed, x) in observe(clean, {"operator": operator, "sigma_y": sigma_y}).items():
        noise = observed.y - observed.operator.forward(x)
        kept = observed.operator.observed()
        values = noise[kept] / sigma_y

        assert np.array_equal(observed.index, np.arange(COUNTS[split]))
        assert (noise[~kept] == 0).all()  # padding stays zero
        # Five standard errors of a standard normal's mean and variance; y is in single precision.
        rounding = 1e-6 / sigma_y
        assert abs(values.mean()) <= 5 / len(values) ** 0.5 + rounding
        assert abs(values.var() - 1) <= 5 * (2 / len(values)) ** 0.5 + rounding


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({"name": "mask", "missing": 0.5}, (3, 6, 6)),
        ({"name": "fourier", "acceleration": 4}, (2, 6, 16)),
    ],
)
def test_there_is_no_noise_where_nothing_is_observed(spec, shape):
    stream = np.random.default_rng(0)
    operator = operators.simulate(spec, shape, 20, stream)

    y = simulate.observe(operator, torch.zeros(20, *shape), 3.0, stream)

    observed = operator.observed().expand_as(y)
    assert (y[~observed] == 0).all()
    assert (y[observed] != 0).all()


def test_each_value_may_have_its_own_noise(clean):
    sigma_y = [0.1, 0.2, 0.4]

    observed, x = observe(clean, {"operator": PROJECTION, "sigma_y": sigma_y})["train"]

    assert observed.sigma_y.tolist() == pytest.approx(sigma_y)
    std = (observed.y - observed.operator.forward(x)).std(dim=0)
    # The relative error of a standard deviation is 1 / sqrt(2 N).
    assert (std / torch.tensor(sigma_y) - 1).abs().max() <= 5 / (2 * 2000) ** 0.5


def test_splits_and_seeds_have_operators_and_noise_of_their_own(clean):
    entry = {"operator": MASK, "sigma_y": 0.1}
    one, same, other = (observe(clean, entry, seed) for seed in (0, 0, 1))

    def mask(observations, split):
        return observations[split][0].operator.parameters["mask"][:30]

    assert torch.equal(one["train"][0].y, same["train"][0].y)
    assert not torch.equal(mask(one, "train"), mask(one, "validation"))
    assert not torch.equal(mask(one, "train"), mask(other, "train"))


def test_noises_that_do_not_fit_the_observation_are_refused(clean):
    with pytest.raises(DiemError) as error:
        observe(clean, {"operator": PROJECTION, "sigma_y": [0.1, 0.2]})

    message = str(error.value)
    assert "experiments.some.observations" in message
    assert "sigma_y" in message
    assert message.endswith(".")
    assert not clean.with_name("observations.h5").exists()


def test_the_parts_in_which_data_are_read_change_nothing(clean, monkeypatch):
    entry = {"operator": MASK, "sigma_y": 0.1}
    whole = observe(clean, entry)
    monkeypatch.setattr(hdf5, "PART_BYTES", 7 * 4 * 18)

    parts = observe(clean, entry)

    for split in COUNTS:
        assert torch.equal(whole[split][0].y, parts[split][0].y)
