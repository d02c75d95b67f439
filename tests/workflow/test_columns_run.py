"""A table whose columns have units of their own: from its file to posteriors in these units."""

import h5py
import numpy as np
import pandas as pd
import pytest
from running import every_kind
from test_chain import one_sentence

import diem
from diem import cli
from diem.data.observations import users_observations
from diem.inference.sample_files import read_posteriors

MEAN, SD = np.array([1013.0, 0.6, 5.0]), np.array([1000.0, 0.01, 2.0])
UNITS = "each column in units of its data.scale"


@pytest.fixture
def own(workflow):
    rng = np.random.default_rng(0)
    u = rng.standard_normal((600, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.6, 0.0], [0, 0, 1.0]])
    y = MEAN + SD * (u + 0.1 * rng.standard_normal(u.shape))
    y[rng.random(y.shape) < 0.3] = np.nan
    diem.write_observations(workflow.path("own.h5"), {"train": y}, "mask", 0.1 * SD)
    workflow.config = every_kind("experiments", "sky")
    entry = workflow.config["experiments"]["sky"]
    entry["data"] |= {"path": "own.h5", "offset": MEAN.tolist(), "scale": SD.tolist()}
    entry["observations"] = {"beam": {}}
    entry["gaussian"] = {"rank": 2, "iterations": 16}
    entry["figures"] = ["prior", "lap_choice", "losses"]
    return workflow


@pytest.mark.slow
def test_from_a_table_to_posteriors(own, monkeypatch):
    own.make()

    rows = pd.read_csv(own.path("results/tables/sky_rows.csv"), keep_default_na=False)
    told = rows.set_index("metric").reference
    assert told["prediction"].str.endswith(UNITS).all()
    assert told["observation_distance"].str.endswith(UNITS).all()
    floor = rows[rows.stage == "floor"].set_index("metric").value
    assert floor["residual_rms"] == pytest.approx(1, abs=0.2)
    assert floor["prediction"] < 1  # of standardised columns
    for table in ("sky", "sky_chosen_lap"):
        assert UNITS in own.path(f"results/tables/{table}.md").read_text(encoding="utf-8")

    monkeypatch.chdir(own.folder)
    assert cli.main(["export", "results/sky/runs/base", "-o", "own.safetensors"]) == 0
    sampler = ["--steps", "16"]
    assert cli.main(["sample", "own.safetensors", "-n", "400", "-o", "x.h5", *sampler]) == 0
    files = ["own.safetensors", "own.h5", "-o", "p.h5", "--figure", "p.png"]
    assert cli.main(["posterior", *files, "-n", "4", *sampler]) == 0

    assert f"scale: {SD.tolist()}" in own.path("own.md").read_text(encoding="utf-8")
    with h5py.File("x.h5") as file:
        assert (abs(file["x"][:].mean(axis=0) - MEAN) < 0.3 * SD).all()
        np.testing.assert_allclose(file["x"][:].std(axis=0), SD, rtol=0.4)
    with users_observations("own.h5") as file:
        assert read_posteriors("p.h5", file, 2)["scale"] == pytest.approx(SD)
    with h5py.File("p.h5") as file, h5py.File("own.h5") as given:
        seen = given["train/operator/mask"][:]
        error = abs(file["train/mean"] - given["train/y"][:]) / SD
        assert np.median(error[seen]) < 0.15  # what was observed is kept, with its noise
        deviation = file["train/sd"][:] / SD
        assert np.median(deviation[seen]) < 0.15 < np.median(deviation[~seen]) < 1.5


@pytest.mark.slow
def test_a_plan_tells_of_a_list_that_does_not_fit(own):
    own.config["experiments"]["sky"]["data"]["scale"] = [1.0, 2.0]
    sentence = one_sentence(own.run("--dry-run"))
    assert "tiny.yaml: experiments.sky.data.scale is a list of 2" in sentence
