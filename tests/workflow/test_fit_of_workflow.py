"""A fit in Python and the workflow: the same numbers, and one goes on with the other's results."""

import numpy as np
import pytest
import yaml
from unchanged import differences, results

import diem

pytestmark = pytest.mark.slow

CHOSEN = "fitted/fit/runs/base/chosen/prior.safetensors"

SETTINGS = {
    "network": {"name": "mlp", "hidden": [32], "embedding": 16},
    "gaussian": {"iterations": 4},
    "e_step": {"sampler": {"steps": 4}, "block": 64},
    "m_step": {"steps": 64, "batch": 64},
    "evaluation": {"samples": 64, "sampler": {"steps": 4}, "posterior_samples": 2},
}


@pytest.fixture
def fitted(workflow, monkeypatch):
    """A workflow whose configuration is that of a fit, which is done."""
    monkeypatch.chdir(workflow.folder)
    rng = np.random.default_rng(0)
    x = 3 + rng.standard_normal((160, 2)) @ rng.standard_normal((2, 5))
    y = (x + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
    y[rng.random(y.shape) < 0.3] = np.nan
    diem.fit(y, "mask", 0.1, "fitted", laps=2, seed=3, settings=SETTINGS, progress=False)
    workflow.config = yaml.safe_load(workflow.path("fitted/config.yaml").read_text())
    return workflow


def test_the_numbers_are_the_same(fitted):
    fitted.config["results"] = "results"
    fitted.make("results/fit/runs/base/chosen/prior.safetensors")

    ours, theirs = (results(fitted.path(name)) for name in ("fitted", "results"))
    for name in ("observations.h5", "prior.safetensors"):
        ours.pop(name)  # beside the workflow's layout
    assert ours.keys() == theirs.keys()
    kinds = {name.rpartition("/")[2] for name in ours}
    assert {"gaussian.safetensors", "prior.safetensors", "losses.csv", "metrics.csv"} <= kinds
    assert {"samples.h5", "evaluation.h5", "fit_chosen_lap.csv"} <= kinds
    for name, path in ours.items():
        assert [*differences(path, theirs[name])] == [], name


def test_the_workflow_goes_on_with_a_fit(fitted):
    before = {p: p.stat().st_mtime_ns for p in fitted.path("fitted/fit").rglob("*.safetensors")}

    plan = fitted.run("-n", CHOSEN)
    assert "nothing to be done" in f"{plan.stdout}{plan.stderr}".lower(), plan
    fitted.make("fitted/figures/fit_lap_choice.pdf")

    assert fitted.path("fitted/figures/fit_lap_choice.pdf").stat().st_size > 1000
    assert before == {path: path.stat().st_mtime_ns for path in before}
