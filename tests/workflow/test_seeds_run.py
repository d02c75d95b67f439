"""Experiments and comparisons at several seeds: the same runs as one by one, and their means."""

import numpy as np
import pandas as pd
import pytest
from running import Workflow, every_kind

pytestmark = pytest.mark.slow

ROWS = "results/tables/tiny_rows.csv"
TABLE = "results/tables/tiny.csv"
FIGURE = "results/figures/tiny_divergence.png"


def read(workflow, name):
    return pd.read_csv(workflow.path(name), keep_default_na=False)


def finish(workflow):
    result = workflow.run(TABLE, FIGURE)
    assert result.returncode == 0, result.stderr


def times(workflow):
    """The times of all results of the first seed."""
    files = workflow.path("results/tiny").rglob("*")
    return {path: path.stat().st_mtime_ns for path in files if path.is_file()}


def same(rows, others):
    """Asserts that rows are the same, but for the digest of their file."""
    a, b = (table.drop(columns="digest") for table in (rows, others))
    pd.testing.assert_frame_equal(a, b)


def at(folder, **keys):
    folder.mkdir()
    workflow = Workflow(folder)
    workflow.experiment["figures"] = ["divergence"]
    del workflow.config["seed"]
    workflow.config |= keys
    return workflow


def test_each_seed_gives_what_it_gives_alone_and_the_table_their_mean(tmp_path):
    several, alone = at(tmp_path / "several", seed=3), at(tmp_path / "alone", seed=4)
    finish(several)
    first, before = read(several, ROWS), times(several)

    # More seeds come later.
    del several.config["seed"]
    several.config["seeds"] = [3, 4]
    finish(several)
    alone.make(TABLE)

    # Nothing of the first seed was made again.
    assert before
    assert times(several) == before
    rows = read(several, ROWS)
    same(rows[: len(first)], first)
    other = rows[len(first) :].reset_index(drop=True)
    assert set(other["experiment"]) == {"tiny-seed4"}
    same(other.drop(columns="experiment"), read(alone, ROWS).drop(columns="experiment"))

    table = read(several, TABLE)
    last = table[table["stage"] == "lap"].iloc[0]
    key = (rows["stage"] == "lap") & (rows["lap"] == 2) & (rows["subject"] == "prior")
    values = rows.loc[key & (rows["metric"] == "distance_to_manifold"), "value"]
    (name,) = (n for n in table if n.startswith("Distance to the manifold"))
    assert len(values) == 2
    assert last[name] == pytest.approx(values.mean())
    assert last[f"standard error of {name}"] == pytest.approx(np.std(values, ddof=1) / 2**0.5)
    assert last["seed"] == "3, 4"
    assert "over the seeds 3, 4" in several.path("results/tables/tiny.md").read_text()
    assert not list(several.path("results/figures").glob("tiny-seed4*"))


def test_a_comparison_at_two_seeds(tmp_path):
    workflow = Workflow(tmp_path)
    workflow.config = every_kind("restoration", "restored") | {"seeds": [3, 5]}
    del workflow.config["seed"]
    stem = "results/tables/restoration_restored"
    workflow.make(f"{stem}.csv", "results/figures/restoration_restored_metrics.png")

    rows, table = read(workflow, f"{stem}_rows.csv"), read(workflow, f"{stem}.csv")
    assert set(rows["seed"]) == {3, 5}
    ours = table[table["psnr"] != ""].iloc[0]
    same = rows[
        (rows["observations"] == ours["task"])
        & (rows["run"] == ours["run"])
        & (rows["sampler_steps"] == int(float(ours["steps"])))
        & (rows["metric"] == "psnr")
    ]["value"]
    assert float(ours["psnr"]) == pytest.approx(same.mean())
    assert float(ours["psnr_standard_error"]) == pytest.approx(np.std(same, ddof=1) / 2**0.5)
