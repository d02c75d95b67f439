"""The ceilings of a run of the workflow train as long as the laps of their runs."""

import pandas as pd
import pytest
from running import Workflow

from diem.diffusion.prior import read_prior


@pytest.mark.slow
def test_ceilings_take_the_steps_of_their_runs_laps(tmp_path):
    workflow, folder = Workflow(tmp_path), "results/tiny"
    workflow.experiment["data"]["validation"] = 64
    workflow.experiment["e_step"].update(repeats=3, drop_last=True)
    # Samples are dropped, and shorten no lap.
    workflow.experiment["m_step"] = {"epochs": 2, "batch": 70, "final": 2, "drop_outside": 2.2}
    workflow.experiment["runs"] = {
        "base": {"observations": "plain"},
        "same": {"observations": "plain", "e_step": {"covariance": "cov_t"}},
        "once": {"observations": "plain", "e_step": {"repeats": 1}},
    }

    workflow.make("results/tables/tiny.csv")

    def card(name):
        return read_prior(workflow.path(f"{folder}/{name}/prior.safetensors")).card

    runs = ("base", "same", "once")
    steps = {run: card(f"runs/{run}/lap_02_final")["optimizer_steps"] for run in runs}
    assert steps["base"] == steps["same"] == 2 * 450 // 70 + 4 * 450 // 70
    assert card("runs/base/lap_02_final")["training_samples"] < 450
    assert {path.name for path in workflow.path(f"{folder}/ceilings").iterdir()} == {"base", "once"}
    for run in ("base", "once"):
        assert card(f"ceilings/{run}")["optimizer_steps"] == steps[run]
        assert card(f"ceilings/{run}")["run"] == f"ceiling of {run}"
    table = pd.read_csv(workflow.path("results/tables/tiny.csv"))
    bounds = table[table["stage"] == "ceiling"]
    assert bounds["label"].tolist() == ["ceiling of base, same", "ceiling of once"]
    assert bounds["optimizer_steps"].tolist() == [steps["base"], steps["once"]]
