"""Laps can be added to a run, or taken away, and only what is new is done."""

import re

import pytest

PLAIN = {"m_step": {"steps": 20, "batch": 64, "learning_rate": 0.001}}
FINAL = {"m_step": {**PLAIN["m_step"], "final": 2, "final_decay": True}}


def planned(workflow):
    """Returns the laps of the E-steps and M-steps that a dry run plans."""
    told = workflow.run("--dry-run")
    assert told.returncode == 0, told.stderr
    text = told.stdout + told.stderr
    steps = r"[EM]-step of tiny/base, lap (\w+)"
    assert "Gaussian prior of" not in text
    return sorted(set(re.findall(steps, text)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "more", "fewer"),
    [(PLAIN, ["04", "05"], []), (FINAL, ["03", "04", "05_final"], ["02_final"])],
    ids=["plain", "final"],
)
def test_only_new_laps_are_done(workflow, changes, more, fewer):
    experiment = workflow.experiment
    experiment |= changes
    experiment["e_step"]["restart"] = [4.0, 1.0]
    experiment["evaluation"]["metrics"] = ["residual"]
    experiment["laps"] = 3
    done = workflow.run()
    assert done.returncode == 0, done.stderr
    assert planned(workflow) == []

    # However many jobs draw a lap's samples, those that are drawn stay.
    workflow.config["shards"] = 2
    assert planned(workflow) == []
    experiment["laps"] = 5
    assert planned(workflow) == more
    workflow.config["shards"] = 1
    assert planned(workflow) == more
    experiment["laps"] = 2
    assert planned(workflow) == fewer
