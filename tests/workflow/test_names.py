"""Names that a shell would act on: paths are taken as they are, or refused in one sentence."""

import numpy as np
import pytest
from test_chain import one_sentence

import diem

pytestmark = pytest.mark.slow

ODD = "re sults;$(touch x)'\"`touch y`&"


def test_paths_are_taken_as_they_are(workflow):
    data = workflow.folder / f"da ta{ODD}.h5"
    y = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    diem.write_observations(data, {"train": y}, operator="mask", sigma_y=0.1)
    entry = workflow.experiment
    entry["data"] = {"name": "hdf5", "path": data.name, "validation": 0.1, "test": 0.2}
    entry["observations"] = {"plain": {}}
    entry["evaluation"].pop("metrics")
    workflow.config["results"] = ODD
    before = {path.name for path in workflow.folder.iterdir()}

    target = f"{ODD}/tiny/runs/base/lap_01/samples.h5"
    result = workflow.run(target)
    assert result.returncode == 0, result.stderr
    assert workflow.path(target).is_file()
    after = {path.name for path in workflow.folder.iterdir()}
    assert after - before == {ODD, ".snakemake", "tiny.yaml"}


@pytest.mark.parametrize("name", ["posterior", "evidence", "figures"])
def test_a_name_that_stands_for_nothing_is_told(workflow, name):
    sentence = one_sentence(workflow.run(name))
    assert f"tiny.yaml: there is nothing to make of {name!r}, which needs an e" in sentence
    assert not workflow.path("results/tiny").exists()


def test_a_pattern_is_refused(workflow):
    workflow.config["results"] = "re{experiment}sults"
    sentence = one_sentence(workflow.run("-n"))
    assert "tiny.yaml: results is 're{experiment}sults'" in sentence
