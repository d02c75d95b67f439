"""Jobs that are forks of one process: they find what they would find in a process of their own."""

import json
import os
import subprocess
import sys

import pytest
from running import ROOT

pytestmark = pytest.mark.slow

SNAKEFILE = """
import sys
sys.path.insert(0, {workflow!r})
from warm import fork_scripts
if {fork}:
    fork_scripts()

rule job:
    output: "{name}.json"
    params: end={end!r}
    resources: tmpdir="here"
    script: "job.py"
"""

SCRIPT = """
import json, os, sys, tempfile
modules = set(sys.modules)
import torch
if snakemake.params.end is not None:
    sys.exit(snakemake.params.end)
found = dict(
    imported="torch" in modules,
    gpu=torch.cuda.is_initialized() or torch.cuda._is_in_bad_fork(),
    threads=torch.get_num_threads(),
    dtype=str(torch.get_default_dtype()),
    deterministic=torch.are_deterministic_algorithms_enabled(),
    name=__name__,
    folder=os.getcwd(),
    temporary=tempfile.gettempdir(),
    arguments=len(sys.argv),
)
with open(snakemake.output[0], "w") as file:
    json.dump(found, file)
"""


def run(folder, name, fork, end=None):
    (folder / "here").mkdir(exist_ok=True)
    (folder / "job.py").write_text(SCRIPT)
    text = SNAKEFILE.format(workflow=str(ROOT / "workflow"), fork=fork, name=name, end=end)
    (folder / name).write_text(text)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--snakefile", name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_fork_finds_what_a_new_process_finds(tmp_path):
    found = {}
    for name, fork in (("new", False), ("fork", True)):
        done = run(tmp_path, name, fork)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads((tmp_path / f"{name}.json").read_text())

    assert found["fork"].pop("imported") is True
    assert found["new"].pop("imported") is False
    assert found["fork"] == found["new"]
    assert not found["fork"]["gpu"]


@pytest.mark.parametrize("end", [3, "Error: one sentence."])
def test_a_job_that_fails_is_told(end, tmp_path):
    done = run(tmp_path, "fails", True, end)

    assert done.returncode == 1
    assert not (tmp_path / "fails.json").exists()
    assert "RuleException" in done.stderr or "Error in rule job" in done.stderr
    if isinstance(end, str):
        assert end in done.stderr
