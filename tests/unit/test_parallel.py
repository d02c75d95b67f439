"""Training in several processes: the numbers of one, and errors in one sentence."""

import contextlib
import filecmp
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from diem.diffusion.prior import read_prior
from diem.em import distributed
from diem.em import launch as launched
from diem.em.launch import launch
from diem.em.m_step import Lap, m_step
from diem.errors import DiemError
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import Job
from diem.jobs.results import checkpoint_file
from diem.jobs.resume import Stopped

CPU = torch.device("cpu")

SETTINGS = {
    "steps": 96,
    "epochs": None,
    "batch": 25,  # the parts of two processes differ
    "learning_rate": 0.003,
    "learning_rate_final": None,
    "clip": 1.0,
    "ema": 0.99,
    "ema_warmup": True,
    "warm_start": True,
    "drop_outside": None,
    "augment": {},
    "processes": 2,
}


def arguments(folder, **changes):
    x = np.random.default_rng(0).normal(size=(120, 3)).astype(np.float32)
    clean = folder / "clean.h5"
    write_hdf5(clean, {"train/x": x[:100], "validation/x": x[100:]}, {})
    lap = Lap(
        number=1,
        samples=[str(clean)],
        m_step={**SETTINGS, **changes},
        network={"name": "mlp", "hidden": [16, 16], "embedding": 8},
        schedule={"sigma_min": 0.01, "sigma_max": 10.0},
        gaussian={"rank": 2, "iterations": 2, "observations": 100},
        checkpoint_seconds=1e9,
    )
    return lap, str(folder / "prior.safetensors"), str(folder / "losses.csv"), Job(seed=1)


SRUN = """#!/bin/sh
# Runs a command on a node which is this machine: its options end where the command begins.
while [ "${1#--}" != "$1" ]; do shift; done
SLURM_NODEID=0 exec "$@"
"""


def allocation(patch, folder, nodes=2):
    """Has this process be a job of an allocation, with likenesses of Slurm's commands."""
    for name, text in (("srun", SRUN), ("squeue", f"#!/bin/sh\necho {nodes}\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    patch.setenv("PATH", str(folder), prepend=os.pathsep)
    patch.setenv("SLURM_JOB_ID", "7")
    patch.setenv("SLURMD_NODENAME", "here")


def test_without_other_processes_nothing_is_shared():
    assert distributed.part(25) == (slice(0, 25), 1.0)
    assert distributed.is_first()
    total = torch.tensor([1.0, 2.0])
    distributed.add([total])
    assert total.tolist() == [1.0, 2.0]


def test_processes_share_the_rows_of_a_batch(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(distributed.part(25))
    assert parts == [(slice(0, 8), 8 / 25), (slice(8, 16), 8 / 25), (slice(16, 25), 9 / 25)]


def test_sums_over_processes_take_the_place_of_tensors(monkeypatch):
    # Another process has ten times the same.
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda flat: flat.mul_(11))
    tensors = [torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor(5.0), torch.tensor([6.0])]
    distributed.add(iter(tensors))
    assert [t.tolist() for t in tensors] == [[[11.0, 22.0], [33.0, 44.0]], 55.0, [66.0]]


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [(Stopped(), 143, None), (DiemError("x.h5: it is damaged."), 1, "x.h5: it is damaged.")],
)
def test_how_a_process_of_a_training_ends(tmp_path, monkeypatch, raised, code, told):
    def fail(*_):
        raise raised

    monkeypatch.setattr(launched, "m_step", fail)
    monkeypatch.setattr(launched, "_end_with_the_job", lambda: None)
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(launched.dist, name, lambda *_: None)
    monkeypatch.setenv("RANK", "0")
    lap, *files, _ = arguments(tmp_path)
    call = {"lap": asdict(lap), "files": files, "job": {"seed": 1, "cache_mb": 1}, "device": "cpu"}
    call |= {"log": str(tmp_path / "log"), "threads": 1}
    (tmp_path / "call.json").write_text(json.dumps(call))

    with pytest.raises(SystemExit) as ended:
        launched._main(str(tmp_path / "call.json"))

    assert ended.value.code == code
    assert [path.read_text() for path in tmp_path.glob("*.error")] == ([told] if told else [])
    assert len(list(tmp_path.glob("*.stopped"))) == (told is None)


@pytest.mark.parametrize(
    ("seen", "expected"), [("4,5,7", "7,5"), ("GPU-a,GPU-b,GPU-c", "GPU-c,GPU-b"), (None, "2,1")]
)
def test_processes_see_the_gpus_of_their_job_alone(tmp_path, monkeypatch, seen, expected):
    found = {}

    @contextlib.contextmanager
    def running(command, environment, stream, end):
        found.update(environment)
        yield SimpleNamespace(poll=lambda: 0)

    monkeypatch.setattr(launched, "_running", running)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    if seen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)

    launch([torch.device("cuda", i) for i in (2, 1)], tmp_path / "log", *arguments(tmp_path))

    assert found["CUDA_VISIBLE_DEVICES"] == expected


@pytest.fixture(scope="module")
def curves(tmp_path_factory):
    """The loss curves and priors of one process and of two, and of two on a node each."""
    found = {}
    for name in ("one", "two", "nodes"):
        folder = tmp_path_factory.mktemp(name)
        call = arguments(folder)
        if name == "one":
            m_step(*call)
        elif name == "two":
            launch([CPU, CPU], str(folder / "log.txt"), *call)
        else:
            with pytest.MonkeyPatch.context() as patch:
                allocation(patch, tmp_path_factory.mktemp("slurm"))
                launch([CPU], str(folder / "log.txt"), *call, nodes=2)
        _, output, losses, _ = call
        found[name] = pd.read_csv(losses), read_prior(output), (folder / "log.txt"), folder
    return found


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(curves):
    one, two = curves["one"][0], curves["two"][0]
    assert one["step"].tolist() == two["step"].tolist() == [64, 96]
    assert one["loss"].iloc[-1] < one["loss"].iloc[0]
    for column in ("loss", "validation_loss"):
        np.testing.assert_allclose(two[column], one[column], rtol=1e-4)


@pytest.mark.slow
def test_two_processes_have_the_weights_of_one(curves):
    one, two = (curves[name][1].denoiser.state_dict() for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_nodes_have_the_numbers_of_two_processes(curves):
    two, nodes = curves["two"][3], curves["nodes"][3]
    assert filecmp.cmp(two / "losses.csv", nodes / "losses.csv", shallow=False)
    two, nodes = (curves[name][1].denoiser.state_dict() for name in ("two", "nodes"))
    assert all(torch.equal(nodes[key], value) for key, value in two.items())


@pytest.mark.slow
def test_the_log_shows_the_progress_and_nothing_is_left(curves):
    _, _, log, folder = curves["two"]
    assert "96/96" in log.read_text()
    left = {path.name for path in folder.iterdir()}
    assert left == {"clean.h5", "losses.csv", "prior.safetensors", "log.txt"}


@pytest.mark.slow
def test_an_error_of_a_process_is_told_in_one_sentence(tmp_path):
    call = arguments(tmp_path, drop_outside=1e-6)
    with pytest.raises(DiemError, match=r"no sample lies within m_step.drop_outside = 1e-06\.$"):
        launch([CPU, CPU], str(tmp_path / "log.txt"), *call)
    assert not (tmp_path / "prior.safetensors").exists()


@pytest.mark.slow
def test_an_error_on_two_nodes_is_told_in_one_sentence(tmp_path, monkeypatch):
    allocation(monkeypatch, tmp_path)
    call = arguments(tmp_path, drop_outside=1e-6)
    with pytest.raises(DiemError, match=r"no sample lies within m_step.drop_outside = 1e-06\.$"):
        launch([CPU], str(tmp_path / "log.txt"), *call, nodes=2)


ASKED = """
import sys
import test_parallel
from pathlib import Path
folder = Path(sys.argv[1])
call = test_parallel.arguments(folder, steps=64_000)
test_parallel.launch([test_parallel.CPU], str(folder / "log.txt"), *call, nodes=2)
"""


def processes(parent):
    """Returns the processes that a process has started, and those that these have."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()[1:]]
    found = [parent]
    for one in found:
        found += [child for child, of in pairs if of == one]
    return found[1:]


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["the job", "another node"])
def test_two_nodes_that_are_asked_to_stop_keep_a_checkpoint(tmp_path, monkeypatch, asked):
    allocation(monkeypatch, tmp_path)
    command = [sys.executable, "-c", ASKED, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    job = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    log, checkpoint = tmp_path / "log.txt", checkpoint_file(tmp_path / "prior.safetensors")
    deadline = time.monotonic() + 120
    while not (log.is_file() and "64/64000" in log.read_text().replace(" ", "")):
        assert job.poll() is None, job.stderr.read()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    started = processes(job.pid)
    number = job.pid
    if asked == "another node":
        ranks = {}
        for one in started:
            listed = Path(f"/proc/{one}/environ").read_bytes().split(b"\0")
            variables = dict(variable.partition(b"=")[::2] for variable in listed)
            ranks[variables.get(b"RANK")] = one
        number = ranks[b"1"]
    os.kill(number, signal.SIGURG if asked == "another node" else signal.SIGINT)
    _, told = job.communicate(timeout=120)
    assert job.returncode != 0
    assert ("Stopped" if asked == "another node" else "KeyboardInterrupt") in told
    assert checkpoint.exists()
    assert not [one for one in started if Path(f"/proc/{one}").exists()]


@pytest.mark.parametrize("nodes", [None, 3])
def test_nodes_that_a_job_was_not_given_are_refused(tmp_path, monkeypatch, nodes):
    if nodes:
        allocation(monkeypatch, tmp_path, nodes)
    else:
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(DiemError, match=rf"m_step.nodes is 2, and this job has {nodes or 'no'} "):
        launch([CPU], str(tmp_path / "log.txt"), *arguments(tmp_path), nodes=2)
