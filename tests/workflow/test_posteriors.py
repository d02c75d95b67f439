"""Posterior samples of new observations, by a run's prior and by a prior's file."""

import re

import h5py
import pytest


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
            assert file.attrs["sampler"] == sampler
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
