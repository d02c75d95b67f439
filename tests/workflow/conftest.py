"""Runs of the real workflow in a folder of their own, as a user would start them."""

import pytest
from running import Workflow


@pytest.fixture
def workflow(tmp_path):
    return Workflow(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A chain that Snakemake has finished, with its records: read, do not change."""
    workflow = Workflow(tmp_path_factory.mktemp("finished"))
    result = workflow.run(workflow.lap(2, "prior.safetensors"))
    assert result.returncode == 0, result.stderr
    return workflow


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The same results, made in one process: read, do not change."""
    workflow = Workflow(tmp_path_factory.mktemp("made"))
    workflow.make(workflow.lap(2, "prior.safetensors"))
    return workflow
