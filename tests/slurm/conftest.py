"""Runs of the real workflow on a real Slurm, which the tests start on this machine."""

import importlib.util
import os
import signal
import subprocess

import cluster
import pytest
from running import ROOT, Workflow

OPTIONS = ("--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "1")


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    reason = cluster.missing()
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        reason = f"needs Snakemake's plugin: pip install --requirement {ROOT / 'envs/slurm.txt'}"
    if reason:
        pytest.skip(f"a real Slurm {reason}")
    with cluster.Slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


class OnSlurm(Workflow):
    """A folder with a config, and the command that runs it on Slurm."""

    process: subprocess.Popen | None = None

    def start(self, *arguments: str) -> subprocess.Popen:
        self.process = super().start(*arguments)
        return self.process

    def stop(self) -> None:
        """Ends what a failed test has left."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def command(self, *arguments: str) -> list[str]:
        python, _, _, *rest = super().command(*arguments)
        return [python, str(ROOT / "tests/slurm/polling.py"), *rest]


def small(workflow: Workflow) -> Workflow:
    """Returns a workflow of one lap and two shards, with a figure."""
    workflow.config.update(device="auto", shards=2)
    workflow.experiment.update(laps=1, figures=["evolution"])
    # The shards take some seconds, to be seen beside each other, and nothing else takes longer.
    workflow.experiment["e_step"]["repeats"] = 600
    workflow.experiment["evaluation"].update(laps=[], metrics=["psnr", "residual"])
    return workflow


@pytest.fixture
def on_slurm(slurm, tmp_path):
    workflow = small(OnSlurm(tmp_path, "slurm", OPTIONS))
    yield workflow
    workflow.stop()


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """A finished run on this machine, to compare with."""
    workflow = small(Workflow(tmp_path_factory.mktemp("local")))
    result = workflow.run()
    assert result.returncode == 0, result.stderr
    return workflow
