"""The workflow as a module of another one."""

import subprocess
import sys

import pytest
import yaml
from running import ROOT, TINY, copy_of_repository

pytestmark = pytest.mark.slow

SNAKEFILE = """
configfile: "config.yaml"

module diem:
    snakefile: "SOURCE"
    config: config
    PREFIX

use rule * from diem as learned_*

rule all:
    input: rules.learned_all.input
    default_target: True
"""


def run(folder, source, prefix=""):
    """Runs a workflow of which this one is a module, and returns what it told."""
    (folder / "config.yaml").write_text(yaml.safe_dump(TINY))
    (folder / "Snakefile").write_text(
        SNAKEFILE.replace("SOURCE", source).replace("PREFIX", prefix), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(("prefix", "folder"), [("", "."), ('prefix: "sub"', "sub")])
def test_another_workflow_makes_all_results_of_this_one(tmp_path, prefix, folder):
    told = run(tmp_path, str(ROOT / "workflow" / "Snakefile"), prefix)

    assert "learned_m_step" in told
    for result in ("tables/tiny.csv", "index.html"):
        assert (tmp_path / folder / "results" / result).is_file()


def test_the_module_may_lie_in_a_git_repository(tmp_path):
    source, folder = tmp_path / "source", tmp_path / "own"
    folder.mkdir()
    copy_of_repository(source)
    commit = ("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "all")
    for command in (("init", "--quiet", "-b", "main"), ("add", "."), commit):
        subprocess.run(["git", *command], cwd=source, check=True)

    run(folder, f"git+file://{source}/workflow/Snakefile@main")

    assert (folder / "results" / "index.html").is_file()
    assert "Nothing to be done" in run(folder, f"git+file://{source}/workflow/Snakefile@main")
