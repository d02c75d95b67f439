"""Posterior samples of new observations, by a run's prior and by a prior's file."""

import json
import re
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import diem
from diem.report.export import export


@pytest.mark.slow
def test_posteriors_of_observations(workflow):
    observations = "results/tiny/observations/plain/observations.h5"
    workflow.config["posterior"] = {
        "by_run": {
            "prior": {"experiment": "tiny", "run": "base", "lap": 1},
            "observations": observations,
            "samples": 4,
            "sampler": {"steps": 3},
        },
        "by_file": {
            "prior": "results/tiny/observations/plain/gaussian.safetensors",
            "observations": observations,
            "samples": 2,
        },
    }

    workflow.make("posterior")

    for name, samples, sampler in (("by_run", 4, "ddpm"), ("by_file", 2, "exact")):
        with h5py.File(workflow.path(f"results/posterior/{name}/samples.h5")) as file:
            assert file["test/x"].shape == (64, samples, 5)
            assert file["train/sd"].shape == (192, 5)
            assert json.loads(file.attrs["attributes"])["sampler"] == sampler
        for kind in ("pdf", "png"):
            figure = workflow.path(f"results/figures/posterior_{name}.{kind}")
            assert figure.stat().st_size > 1000
    assert not workflow.path(workflow.lap(2, "prior.safetensors")).exists()


@pytest.mark.slow
def test_without_a_lap_the_chosen_one_is_meant_or_else_the_last(workflow):
    workflow.experiment["evaluation"]["metrics"] = ["prediction"]
    workflow.config["experiments"]["last"] = workflow.config["experiments"]["tiny"] | {
        "evaluation": {**workflow.experiment["evaluation"], "metrics": ["residual"]}
    }
    for name in ("tiny", "last"):
        workflow.config["posterior"] = workflow.config.get("posterior", {}) | {
            name: {
                "prior": {"experiment": name, "run": "base"},
                "observations": "results/tiny/observations/plain/observations.h5",
            }
        }

    plan = workflow.run("posterior", "--dry-run").stdout

    found = dict(re.findall(r"samples of the observations (\w+)\nReason: (.*)", plan))
    assert found.keys() == {"tiny", "last"}
    assert "results/tiny/runs/base/chosen/prior.safetensors" in found["tiny"]
    assert "results/last/runs/base/lap_02/prior.safetensors" in found["last"]


@pytest.mark.slow
def test_a_gaussian_that_predicts_best_is_the_chosen_prior(workflow):
    workflow.experiment["evaluation"].update(metrics=["prediction"], posterior_samples=8)
    workflow.experiment["m_step"].update(steps=1, learning_rate=1e-9)  # so that no lap learns
    observations = "results/tiny/observations/plain/observations.h5"
    prior = {"experiment": "tiny", "run": "base"}
    workflow.config["posterior"] = {
        "new": {"prior": prior, "observations": observations, "samples": 4}
    }

    workflow.make("results/tables/tiny_chosen_lap.csv", "results/figures/posterior_new.pdf")

    table = pd.read_csv(workflow.path("results/tables/tiny_chosen_lap.csv"), keep_default_na=False)
    assert table["verdict"].tolist() == ["chosen", "", ""]
    run = workflow.path("results/tiny/runs/base")
    chosen, given = (
        diem.load_prior(run / "chosen/prior.safetensors"),
        workflow.path("g.safetensors"),
    )
    assert chosen.exact
    assert chosen.card["chosen_by"]["laps"] == [0, 1, 2]
    assert chosen.card["run"] == "base"
    card = export(run, given)
    assert (card["lap"], {row["stage"] for row in card["metrics"]}) == (0, {"floor"})
    with h5py.File(workflow.path("results/posterior/new/samples.h5")) as file:
        assert file["test/mean"].shape == (64, 5)


@pytest.mark.slow
def test_what_is_given_must_be_there_though_older_results_are(workflow, tmp_path):
    observations = "results/tiny/observations/plain/observations.h5"
    gaussian = "results/tiny/observations/plain/gaussian.safetensors"
    entry = {"prior": gaussian, "observations": observations, "samples": 2}
    workflow.config["posterior"] = {"new": entry}
    workflow.make("posterior")
    for name, made in (("prior", gaussian), ("observations", observations)):
        entry[name] = str(tmp_path / f"my_{name}")
        shutil.copyfile(workflow.path(made), entry[name])
    workflow.make("posterior")
    before = workflow.path("results/posterior/new/samples.h5").read_bytes()

    for name, typo in (
        ("prior", "typo"),
        ("prior", "results/tiny/runs/typo/lap_01/prior.safetensors"),
        ("observations", "results/typo"),
    ):
        right = entry[name]
        entry[name] = typo
        result = workflow.run("posterior")
        assert result.returncode != 0
        assert f"Error: posterior.new.{name}: there is no such file: {typo}.\n" in result.stderr
        assert "Traceback" not in result.stderr
        entry[name] = right
    assert workflow.path("results/posterior/new/samples.h5").read_bytes() == before


@pytest.mark.slow
def test_clean_data_that_are_not_there_cost_none_that_were_made(workflow, tmp_path):
    folder, size = tmp_path / "photographs", 8
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(30):
        pixels = rng.integers(256, size=(size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    data = {"name": "images", "path": str(folder), "size": size, "validation": 8, "test": 8}
    workflow.experiment["data"] = data
    workflow.experiment["observations"]["plain"]["operator"] = {"name": "mask", "missing": 0.5}
    workflow.experiment["evaluation"]["metrics"] = ["residual"]
    workflow.experiment["figures"] = []
    clean = "results/tiny/clean.h5"
    assert workflow.run(clean).returncode == 0
    before = workflow.path(clean).read_bytes()

    data["path"] = str(tmp_path / "typo")
    result = workflow.run(clean)

    assert result.returncode != 0
    assert "experiments.tiny.data.path: there is no such file or folder: " in result.stderr
    assert workflow.path(clean).read_bytes() == before
    # What needs no data can be planned without them.
    assert workflow.run(clean, "--dry-run").returncode == 0
