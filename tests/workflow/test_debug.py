"""One job in one process, as a debugger runs it."""

import subprocess
import sys

import pytest
from running import ROOT

pytestmark = pytest.mark.slow


def debug(workflow, *arguments, program=()):
    return subprocess.run(
        [
            *(sys.executable, *program, str(ROOT / "workflow/debug.py"), *arguments),
            *("--configfile", str(workflow.configfile())),
        ],
        cwd=workflow.folder,
        capture_output=True,
        text=True,
        input="c\nq\n",
        check=False,
    )


def test_a_job_runs_alone_once_there_is_what_it_reads(workflow):
    prior = workflow.lap(1, "prior.safetensors")

    alone = debug(workflow, prior)
    assert alone.returncode == 1
    assert "samples.h5 is missing, which m_step" in alone.stderr
    assert "--all makes it first." in alone.stderr

    made = debug(workflow, "--all", prior)
    assert made.returncode == 0, made.stderr
    assert "e_step experiment=tiny run=base lap=01" in made.stdout
    before = workflow.path(prior).read_bytes()

    # Whether it is there or not, and in a debugger too.
    again = debug(workflow, prior, program=("-m", "pdb"))
    assert "m_step experiment=tiny run=base lap=01" in again.stdout
    assert "e_step" not in again.stdout.replace("m_step", "")
    assert workflow.path(prior).read_bytes() == before


def test_what_cannot_be_made_is_told_in_one_sentence(workflow):
    result = debug(workflow, "results/nothing")
    assert result.returncode == 1
    assert "No rule to produce results/nothing" in result.stderr
    assert "Traceback" not in result.stderr
    assert "name a result, or give --all." in debug(workflow).stderr
