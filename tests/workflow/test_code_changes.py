"""After a change of the code runs again what depends on it, and after one of its words nothing."""

import re
import subprocess
import sys

import pytest
from running import Workflow, copy_of_repository

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path):
    """A copy of the project, in which a small experiment has run."""
    copy_of_repository(tmp_path)
    workflow = Workflow(tmp_path)
    workflow.experiment["m_step"]["steps"] = 4
    workflow.experiment["evaluation"]["metrics"] = ["sliced_wasserstein", "psnr"]
    assert snakemake(workflow).returncode == 0
    return workflow


def snakemake(workflow, *options):
    path = workflow.configfile()
    command = [sys.executable, "-m", "snakemake", "--configfile", str(path), "--cores", "2"]
    return subprocess.run(
        [*command, *options], cwd=workflow.folder, capture_output=True, text=True, check=False
    )


def planned(workflow):
    """The rules whose jobs a plan has."""
    result = snakemake(workflow, "-n")
    assert result.returncode == 0, result.stderr
    rules = re.findall(r"^(\w+) +\d+$", result.stdout, re.MULTILINE)
    assert rules or "Nothing to be done" in result.stdout
    return set(rules) - {"all", "total"}, result.stdout


def edit(workflow, name, before, after):
    path = workflow.path(name)
    source = path.read_text()
    assert before in source, name
    path.write_text(source.replace(before, after, 1))


def test_words_and_formulas(project):
    assert planned(project)[0] == set()

    for script in ("m_step", "evaluate"):
        edit(project, f"workflow/scripts/{script}.py", "with started(", "# Why.\nwith started(")
    edit(project, "workflow/diem/em/m_step.py", '"""', '"""In other words: ')
    assert planned(project)[0] == set()

    # What memory asks for makes no number anew either; the page shows the configuration.
    project.experiment["e_step"]["batch"] = 10
    assert planned(project)[0] == {"page"}

    # A metric counts where it is measured and shown, and no prior is trained again for it.
    metric = "workflow/diem/evaluation/metrics/psnr.py"
    edit(project, metric, "class ", "SHIFT = 1.0\n\n\nclass ")
    rules, printed = planned(project)
    evaluations = {"evaluate_lap", "evaluate_floor", "evaluate_ceiling"}
    assert rules >= evaluations
    assert not rules & {"clean_data", "corrupt", "gaussian_prior", "e_step", "m_step", "ceiling"}
    assert "Params have changed since last execution" in printed
    assert snakemake(project).returncode == 0
    assert planned(project)[0] == set()

    # One that nobody asks for counts nowhere.
    edit(project, "workflow/diem/evaluation/metrics/ssim.py", "class ", "SHIFT = 1.0\n\n\nclass ")
    assert planned(project)[0] == set()
    # Training does.
    edit(project, "workflow/diem/em/training.py", "import ", "NOTHING = 0\nimport ")
    assert planned(project)[0] >= {"m_step", "e_step", "evaluate_lap", "table"}
