"""The workflow as a module of another one."""

import subprocess
import sys

import pytest
import yaml
from running import ROOT, TINY

pytestmark = pytest.mark.slow

SNAKEFILE = f"""
configfile: "config.yaml"

module diem:
    snakefile: {str(ROOT / "workflow" / "Snakefile")!r}
    config: config
    {{prefix}}

use rule * from diem as learned_*

rule all:
    input: rules.learned_all.input
    default_target: True
"""


@pytest.mark.parametrize(("prefix", "folder"), [("", "."), ('prefix: "sub"', "sub")])
def test_another_workflow_makes_all_results_of_this_one(tmp_path, prefix, folder):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(TINY))
    (tmp_path / "Snakefile").write_text(SNAKEFILE.replace("{prefix}", prefix))

    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert "learned_m_step" in done.stderr
    for result in ("tables/tiny.csv", "index.html"):
        assert (tmp_path / folder / "results" / result).is_file()
