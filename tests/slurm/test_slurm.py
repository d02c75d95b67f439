"""The profile for Slurm: a whole run, a cancelled shard, a killed main process, the same bits."""

import copy
import os
import re
import signal
import subprocess
import time

import h5py
import numpy as np
import pandas as pd
import pytest
from running import ROOT, Workflow
from safetensors.numpy import load_file

from diem.jobs.results import checkpoint_file

pytestmark = pytest.mark.slurm

SECONDS = 600


def wait_for(process, log, there):
    """Waits until something is there, while a process runs; returns it."""
    deadline = time.monotonic() + SECONDS
    while not (found := there()):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found


def contents(path):
    """Returns the data sets of a file by name."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None
        )
    return found


def same(one, other, name, apart=()):
    a, b = one.path(name), other.path(name)
    if name.endswith(".csv"):
        pd.testing.assert_frame_equal(pd.read_csv(a), pd.read_csv(b), check_exact=True)
        return
    read = load_file if name.endswith(".safetensors") else contents
    a, b = read(a), read(b)
    assert a.keys() == b.keys()
    for key in a.keys() - apart:
        np.testing.assert_array_equal(a[key], b[key], err_msg=f"{name}: {key}")


def train_and_stop(slurm, workflow, steps):
    """Trains a prior, asks the job to stop, and waits for its retry; returns what Slurm told of it.

    Slurm asks so by itself two minutes before the limit of time: of several nodes, the step.
    """
    workflow.config["checkpoint_seconds"] = 1e9
    workflow.experiment["m_step"].update(steps=steps)
    target, log = workflow.lap(1, "prior.safetensors"), workflow.path("stderr.txt")
    process = workflow.start(target)

    def training():
        bar = workflow.path("results/logs/tiny/base/lap_01_m_step.log")
        begun = bar.is_file() and re.search(rf"[1-9]\d*/{steps}", bar.read_text())
        return begun and [job for job in slurm.jobs() if "m_step" in job["comment"]]

    (job,) = wait_for(process, log, training)
    told = slurm.ask("scontrol", "show", "job", job["id"])
    assert not checkpoint_file(workflow.path(target)).exists()
    subprocess.run(["scancel", "--signal=URG", job["id"]], check=True)
    wait_for(process, log, checkpoint_file(workflow.path(target)).exists)
    assert process.wait(timeout=SECONDS) == 0, log.read_text()
    assert "The job was asked to stop and has kept its finished work" in log.read_text()
    return told


def same_as_undisturbed(workflow, folder, apart=(), **m_step):
    """Asserts that a training here, undisturbed, gives the same prior and losses."""
    undisturbed = Workflow(folder)
    undisturbed.folder.mkdir()
    undisturbed.config = copy.deepcopy(workflow.config)
    undisturbed.experiment["m_step"].update(m_step)
    target = workflow.lap(1, "prior.safetensors")
    result = undisturbed.run(target)
    assert result.returncode == 0, result.stderr
    same(undisturbed, workflow, target, apart)
    same(undisturbed, workflow, workflow.lap(1, "losses.csv"))


def test_a_job_that_is_asked_to_stop_saves_and_its_retry_goes_on(slurm, on_slurm, tmp_path):
    train_and_stop(slurm, on_slurm, 6400)
    same_as_undisturbed(on_slurm, tmp_path / "undisturbed")


def test_two_nodes_train_and_stop_and_go_on_as_two_processes_do(slurm, on_slurm, tmp_path):
    on_slurm.experiment["m_step"].update(nodes=2)
    told = train_and_stop(slurm, on_slurm, 1280)
    assert "NumNodes=2" in told
    assert "gres:gpu:1" in told
    # The digest of the file is of the settings too.
    apart = {"sha256"}
    same_as_undisturbed(on_slurm, tmp_path / "undisturbed", apart, processes=2, nodes=1)


def made(workflow):
    """Returns the names of all results."""
    results = workflow.path("results")
    files = (path for path in results.rglob("*") if path.is_file() and path.name[0] != ".")
    logs = results / "logs"
    return {str(p.relative_to(workflow.folder)) for p in files if logs not in p.parents}


def clear_orphans(workflow):
    """Runs the command that docs/cluster.md gives."""
    page = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"```\n(.*scancel.*)\n```", page)
    subprocess.run(["bash", "-c", command], cwd=workflow.folder, check=True, timeout=60)


def test_cancelled_killed_and_finished(slurm, local, on_slurm):
    log = on_slurm.path("stderr.txt")
    process = on_slurm.start()

    def shards():
        return [job for job in slurm.jobs() if "e_step" in job["comment"]]

    # The shards run beside each other, each with a GPU.
    running = wait_for(
        process, log, lambda: (s := shards()) and [j["state"] for j in s] == ["RUNNING"] * 2 and s
    )
    for job in running:
        assert job["partition"] == "gpu"
        told = slurm.ask("scontrol", "show", "job", job["id"])
        assert "gres:gpu:1" in told
    memory = slurm.memory(running[0]["id"])
    assert memory == slurm.memory(running[1]["id"])
    subprocess.run(["scancel", running[0]["id"]], check=True)
    ids = {job["id"] for job in running}
    again = wait_for(process, log, lambda: [j for j in shards() if j["id"] not in ids])
    assert slurm.memory(again[0]["id"]) == 2 * memory

    # The main process is killed while the M-step runs, and leaves it behind.
    wait_for(process, log, lambda: [j for j in slurm.jobs() if "m_step" in j["comment"]])
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert any("m_step" in job["comment"] for job in slurm.jobs())
    clear_orphans(on_slurm)
    deadline = time.monotonic() + 30
    while slurm.jobs():
        assert time.monotonic() < deadline
        time.sleep(0.2)

    done = {
        path: path.stat().st_mtime_ns
        for path in on_slurm.path("results").rglob("*.h5")
        if ".diem" not in str(path)
    }
    assert on_slurm.path(on_slurm.lap(1, "samples.h5")) in done
    result = on_slurm.run()
    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert "rule e_step" not in result.stderr
    assert not slurm.jobs()

    # The whole of it: data, samples, priors, metrics, tables and the figure.
    found, expected = made(on_slurm), made(local)
    assert found == expected
    assert on_slurm.lap(1, "samples.h5") in found
    assert not list(on_slurm.path("results").rglob("samples_*.h5"))
    assert "results/figures/tiny_evolution.pdf" in found
    for name in found:
        if name.endswith((".csv", ".h5", ".safetensors")):
            same(local, on_slurm, name)
