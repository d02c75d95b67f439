"""What goes wrong at the doors of one's own data is told with its cause and its remedy."""

import copy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers import random_gaussian

import diem
from diem.config.resolve import resolve
from diem.data.ingest import ingest
from diem.data.observations import Observations
from diem.data.validate import check_file
from diem.diffusion.prior import Prior
from diem.errors import DiemError
from diem.inference.prior_denoiser import PriorDenoiser
from diem.operators.base import build

HELD_OUT = {"validation": 0.1, "test": 0.1, "offset": 0.0, "scale": 1.0}
CLASS = """
from diem.operators.base import Operator

class Alive(Operator):
    fields = ("alive",)

    @property
    def observation_shape(self):
        return self.event_shape

    def forward(self, x):
        return x * self.parameters["alive"]

    adjoint = forward

    def observed(self):
        return self.parameters["alive"]
"""
NETWORK = """
import torch

class Convolved(torch.nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 1, 1)

    def forward(self, x, t):
        return self.layer(x)
"""


@pytest.fixture
def dead(tmp_path, monkeypatch):
    """A file through an operator of one's own, with NaN in y and sigma_y where it is dead."""
    (tmp_path / "sensors.py").write_text(CLASS)
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    rng = np.random.default_rng(0)
    alive = rng.random((60, 6)) < 0.7
    y = np.where(alive, rng.standard_normal((60, 6)), np.nan).astype(np.float32)
    sigma_y = np.where(alive, rng.uniform(0.1, 0.2, (60, 6)), np.nan).astype(np.float32)
    path = tmp_path / "own.h5"
    diem.write_observations(path, {"train": {"y": y, "sigma_y": sigma_y, "alive": alive}})
    return path, y, sigma_y, alive


ENTRY = {"operator": {"name": "sensors:Alive"}}


def test_what_ones_own_operator_does_not_observe_may_be_nan(dead, tmp_path):
    path, y, sigma_y, alive = dead

    found = check_file(path, "sensors:Alive")
    ingest(path, tmp_path / "observations.h5", ENTRY, HELD_OUT, 0, "some")

    assert not [finding for finding in found if finding.level == "error"]
    with Observations(tmp_path / "observations.h5") as file:
        some = file.load("train")
    seen = alive[some.index]
    np.testing.assert_array_equal(some.y, np.nan_to_num(y[some.index]))
    np.testing.assert_array_equal(some.sigma_y[torch.tensor(seen)], sigma_y[some.index][seen])
    assert torch.isfinite(some.sigma_y).all()


@pytest.mark.parametrize("shows", [True, False])
def test_ones_own_operator_may_say_that_it_shows_single_values(dead, tmp_path, shows):
    path, y, _, alive = dead
    if shows:
        code = CLASS.replace("    fields", "    elementwise = True\n    fields")
        (tmp_path / "showing.py").write_text(code)
    name, scale = "showing:Alive" if shows else "sensors:Alive", [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]
    entry = {**CONFIG["experiments"]["sky"], "data": {"name": "hdf5", "path": str(path)}}
    entry["data"] |= {"scale": scale}
    entry["observations"] = {"o": {"operator": {"name": name}}}
    resolve({"experiments": {"sky": entry}}, "my.yaml")  # which imports no code

    output, data = tmp_path / "observations.h5", {**HELD_OUT, "scale": scale}
    arguments = path, output, {"operator": {"name": name}}, data, 0, "some"
    if not shows:
        with pytest.raises(DiemError, match=r"has a scale of its own .* Alive does not show"):
            ingest(*arguments)
        return
    ingest(*arguments)
    with Observations(output, name) as file:
        some = file.load("train")
    expected = np.where(alive, y, 0)[some.index] / np.array(scale, np.float32)
    np.testing.assert_allclose(some.y, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("train/y", ["'train/y'", "non-finite", "are observed", "'sensors:Alive'", "'observed'"]),
        ("train/sigma_y", ["'train/sigma_y'", "must be positive"]),
    ],
)
def test_nan_that_was_observed_is_refused(dead, tmp_path, name, words):
    path, _, _, alive = dead
    with h5py.File(path, "r+") as file:
        file[name][tuple(np.argwhere(alive)[3])] = np.nan

    with pytest.raises(DiemError) as error:
        ingest(path, tmp_path / "observations.h5", ENTRY, HELD_OUT, 0, "some")

    assert all(word in str(error.value) for word in words), str(error.value)


def test_posteriors_take_nan_in_y_with_nan_in_its_noise():
    prior = PriorDenoiser(Prior(random_gaussian((6,), 2, torch.float32), None, {"lap": 0}))
    operator = build("mask", (6,), {"mask": np.ones((1, 6), bool)})
    y = torch.randn(3, 6)
    y[0, 2] = y[1] = torch.nan
    noise = torch.full((3, 6), 0.1)

    expected = prior.posterior(y, operator, noise, 2)
    found = prior.posterior(y, operator, torch.where(y.isnan(), torch.nan, noise), 2)

    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(DiemError, match="sigma_y must be positive"):
        prior.posterior(torch.zeros(3, 6), operator, torch.where(y.isnan(), torch.nan, noise), 2)


CONFIG = {
    "experiments": {
        "sky": {
            "recipe": "fast",
            "data": {"name": "hdf5", "path": "own.h5"},
            "observations": {"o": {}},
            "network": {"name": "residual_mlp"},
            "laps": 2,
            "evaluation": {"laps": [1]},
            "runs": {"base": {"observations": "o"}},
        }
    }
}


def own(**changes):
    return lambda config: config["experiments"]["sky"].update(changes)


def posterior(**entry):
    known = {"prior": {"experiment": "sky", "run": "base"}, "observations": "other.h5"}
    return lambda config: config.update(posterior={"new": {**known, **entry}})


DOORS = {
    "a U-Net of a length that it cannot halve": (
        own(network={"name": "unet", "channels": [8, 8, 8]}),
        ["experiments.sky.network", "series", "divisible by 4", "not 6"],
    ),
    "a module that does not fit": (
        own(network={"name": "nets:Convolved"}),
        ["experiments.sky.network", "'nets:Convolved'", "(6,)", "conv2d"],
    ),
    "images of a table": (
        own(figures=["inpainting"]),
        ["experiments.sky.figures", "'inpainting'", "images", "what can: ", "prior"],
    ),
    "no operator": (
        own(data={"name": "hdf5", "path": "nameless.h5"}),
        ["experiments.sky.observations.o.operator is missing", "mask", "module:Class"],
    ),
    "no noise": (
        own(data={"name": "hdf5", "path": "noiseless.h5"}),
        ["experiments.sky.observations.o.sigma_y is missing", "does not hold"],
    ),
    "another event_shape": (
        own(data={"name": "hdf5", "path": "reshaped.h5"}, observations={"o": {"operator": "mask"}}),
        ["experiments.sky.observations.o.operator", "(7,)", "event_shape", "(6,)"],
    ),
    "no operator of new observations": (
        posterior(observations="nameless.h5"),
        ["posterior.new.operator is missing", "module:Class"],
    ),
    "new observations of another shape": (
        posterior(),
        ["posterior.new.observations", "other.h5", "(5,)", "(6,)"],
    ),
}


@pytest.mark.parametrize(("change", "words"), DOORS.values(), ids=DOORS)
def test_what_cannot_be_is_told_before_anything_runs(tmp_path, monkeypatch, change, words):
    (tmp_path / "nets.py").write_text(NETWORK)
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    y = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)
    for name, kind, sigma_y, rows in (
        ("own", "mask", 0.1, y),
        ("nameless", None, 0.1, y),
        ("noiseless", "mask", None, y),
        ("other", "mask", 0.1, y[:, :5]),
    ):
        diem.write_observations(f"{name}.h5", {"train": rows}, operator=kind, sigma_y=sigma_y)
    diem.write_observations("reshaped.h5", {"train": y}, sigma_y=0.1, event_shape=(7,))
    config = copy.deepcopy(CONFIG)
    resolve(config, "sky.yaml")

    change(config)
    with pytest.raises(DiemError) as error:
        resolve(config, "sky.yaml")

    told = str(error.value)
    assert told.startswith("sky.yaml: ")
    assert told.endswith(".")
    assert all(word in told for word in words), told
    assert not Path("results").exists()
