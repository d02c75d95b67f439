"""Samples that are not kept: they are gone in the end, and all else is as if they had been kept."""

import shutil

import pandas as pd
import pytest

pytestmark = pytest.mark.slow


def test_samples_go_once_nothing_needs_them(finished, workflow, tmp_path_factory):
    kept = type(workflow)(tmp_path_factory.mktemp("kept"))
    for folder in ("results", ".snakemake"):
        shutil.copytree(finished.path(folder), kept.path(folder))
    names = [workflow.lap(lap, "metrics.csv") for lap in (1, 2)]
    workflow.config["keep_samples"] = False
    workflow.config["shards"] = 2

    for some in (kept, workflow):
        result = some.run(*names)
        assert result.returncode == 0, result.stderr

    for name in names:
        one, other = (
            pd.read_csv(some.path(name), keep_default_na=False) for some in (kept, workflow)
        )
        pd.testing.assert_frame_equal(one, other)
    assert sorted(kept.path("results").rglob("samples*.h5"))
    assert not sorted(workflow.path("results").rglob("samples*.h5"))

    again = workflow.run(*names)
    assert again.returncode == 0, again.stderr
    assert "Nothing to be done" in again.stdout + again.stderr
