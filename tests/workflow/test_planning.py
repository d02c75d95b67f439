"""A plan as a user asks for it, before anything is there."""

import pandas as pd
import pytest

pytestmark = pytest.mark.slow


def test_estimate_prints_and_writes_its_table(workflow):
    result = workflow.run("estimate", "--config", "estimate_gpu=50")

    assert result.returncode == 0, result.stderr
    assert "Time at 50 TFLOP/s" in result.stdout
    table = pd.read_csv(workflow.path("results/tables/estimate.csv"))
    assert (table["hours"] > 0).all()
    assert list(table["stage"][:3]) == ["observations", "Gaussian fit", "E-steps"]
    markdown = workflow.path("results/tables/estimate.md").read_text()
    assert "| tiny | M-steps | base | 2 |" in markdown
    # Nothing else was made.
    assert not workflow.path("results/tiny").exists()


def test_every_rule_is_listed_with_a_sentence(workflow):
    result = workflow.run("--list-rules")

    lines = [line for line in result.stdout.splitlines() if not line.startswith("Using ")]
    assert len(lines) > 30
    for line in lines:
        _, _, told = line.partition(" (")
        assert told.endswith(")"), line
        assert "{" not in told, line
    assert "e_step (E-step of <experiment>/<run>, lap <lap>)" in lines
    assert "tiny (All of tiny is in results.)" in lines
