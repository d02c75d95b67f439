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


def test_a_job_that_is_asked_to_stop_saves_and_its_retry_goes_on(slurm, on_slurm, tmp_path):
    on_slurm.config["checkpoint_seconds"] = 1e9
    on_slurm.experiment["m_step"].update(steps=6400)
    target, log = on_slurm.lap(1, "prior.safetensors"), on_slurm.path("stderr.txt")
    process = on_slurm.start(target)

    def training():
        steps = on_slurm.path("results/logs/tiny/base/lap_01_m_step.log")
        begun = steps.is_file() and re.search(r"[1-9]\d*/6400", steps.read_text())
        return begun and [job for job in slurm.jobs() if "m_step" in job["comment"]]

    (job,) = wait_for(process, log, training)
    assert not checkpoint_file(on_slurm.path(target)).exists()
    # What Slurm does by itself two minutes before the limit of time.
    subprocess.run(["scancel", "--signal=URG", job["id"]], check=True)
    wait_for(process, log, checkpoint_file(on_slurm.path(target)).exists)
    assert process.wait(timeout=SECONDS) == 0, log.read_text()
    assert "The job was asked to stop and has kept its finished work" in log.read_text()

    undisturbed = Workflow(tmp_path / "undisturbed")
    undisturbed.folder.mkdir()
    undisturbed.config = on_slurm.config
    result = undisturbed.run(target)
    assert result.returncode == 0, result.stderr
    same(undisturbed, on_slurm, target)
    same(undisturbed, on_slurm, on_slurm.lap(1, "losses.csv"))


def test_two_nodes_train_and_stop_and_go_on_as_two_processes_do(slurm, on_slurm, tmp_path):
    on_slurm.config["checkpoint_seconds"] = 1e9
    on_slurm.experiment["m_step"].update(steps=1280, nodes=2)
    target, log = on_slurm.lap(1, "prior.safetensors"), on_slurm.path("stderr.txt")
    process = on_slurm.start(target)

    def training():
        steps = on_slurm.path("results/logs/tiny/base/lap_01_m_step.log")
        begun = steps.is_file() and re.search(r"[1-9]\d*/1280", steps.read_text())
        return begun and [job for job in slurm.jobs() if "m_step" in job["comment"]]

    (job,) = wait_for(process, log, training)
    told = slurm.ask("scontrol", "show", "job", job["id"])
    assert "NumNodes=2" in told
    assert "gres:gpu:1" in told
    # What Slurm does by itself two minutes before the limit of time: of this job it asks the step.
    subprocess.run(["scancel", "--signal=URG", job["id"]], check=True)
    wait_for(process, log, checkpoint_file(on_slurm.path(target)).exists)
    assert process.wait(timeout=SECONDS) == 0, log.read_text()
    assert "The job was asked to stop and has kept its finished work" in log.read_text()

    undisturbed = Workflow(tmp_path / "undisturbed")
    undisturbed.folder.mkdir()
    undisturbed.config = copy.deepcopy(on_slurm.config)
    undisturbed.experiment["m_step"].update(processes=2, nodes=1)
    result = undisturbed.run(target)
    assert result.returncode == 0, result.stderr
    same(undisturbed, on_slurm, target, apart={"sha256"})  # which is of the settings too
    same(undisturbed, on_slurm, on_slurm.lap(1, "losses.csv"))


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
