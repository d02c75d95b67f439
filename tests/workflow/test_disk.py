"""A disk that is full in the middle of a run: one sentence, and with space again all goes on."""

import shutil

import pytest
from disks import FULL, fill
from test_chain import one_sentence, same_prior

pytestmark = pytest.mark.slow


def test_a_run_goes_on_once_there_is_space(finished, workflow, small_disk):
    results = small_disk(workflow.path("results"), "4m")
    shutil.copytree(finished.path("results"), results, dirs_exist_ok=True)
    shutil.copytree(finished.path(".snakemake"), workflow.path(".snakemake"))
    target = workflow.lap(2, "prior.safetensors")
    samples = workflow.path(workflow.lap(2, "samples.h5"))
    for path in (workflow.path(target), samples):
        path.unlink()
    fill(results)

    sentence = one_sentence(workflow.run(target))
    assert sentence.startswith("results/tiny/runs/base/lap_02/")
    assert sentence.endswith(FULL)
    assert not samples.exists()
    assert not list(results.rglob(".*.tmp"))

    (results / "filler").unlink()
    result = workflow.run(target)
    assert result.returncode == 0, result.stderr
    assert same_prior(finished, workflow, 2)
