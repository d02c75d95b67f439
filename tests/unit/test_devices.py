"""Devices: each process has its own, all or none, until it ends."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diem.errors import DiemError
from diem.jobs import devices
from diem.jobs.devices import lent_device, select_devices, take

WORKFLOW = Path(devices.__file__).parents[1]

PROGRAM = """
import sys
sys.path.insert(0, {workflow!r})
from diem.jobs.devices import take
print(take({identities!r}, {count}, {folder!r}), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch):
    monkeypatch.setattr(devices, "_HELD", {})


@pytest.fixture
def another(tmp_path):
    """Starts processes that take devices and hold them; returns a function that does."""
    started = []

    def start(identities, count):
        program = PROGRAM.format(
            workflow=str(WORKFLOW), identities=identities, count=count, folder=str(tmp_path)
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_each_process_has_its_own(another, tmp_path):
    names = ["GPU-a", "GPU-b", "GPU-c"]
    assert another(names, 2).stdout.readline() == "[0, 1]\n"
    assert take(names, 1, tmp_path) == [2]
    assert take(names, 1, tmp_path) == [2]  # what this process holds


@pytest.mark.slow
def test_it_waits_for_all_and_a_killed_process_holds_nothing(another, tmp_path, monkeypatch):
    first = another(["GPU-a", "GPU-b"], 1)
    assert first.stdout.readline() == "[0]\n"
    waited = []

    def sleep(seconds):
        # While this process waits for both, it holds neither.
        with (tmp_path / "GPU-b").open() as file:
            devices.fcntl.flock(file, devices.fcntl.LOCK_EX | devices.fcntl.LOCK_NB)
        waited.append(seconds)
        first.kill()
        first.wait()

    monkeypatch.setattr(devices.time, "sleep", sleep)
    assert take(["GPU-a", "GPU-b"], 2, tmp_path) == [0, 1]
    assert waited


@pytest.mark.slow
def test_the_same_device_may_have_another_place(another, tmp_path):
    assert another(["GPU-b"], 1).stdout.readline() == "[0]\n"
    assert take(["GPU-a", "GPU-b"], 1, tmp_path) == [0]


def test_processes_on_a_cpu_share_it():
    assert select_devices("cpu", 3) == [torch.device("cpu")] * 3


def test_one_named_device_is_not_for_several_processes(monkeypatch):
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: None)
    with pytest.raises(DiemError, match=r"m_step.processes is 2, and device 'cuda:1' has 1 here"):
        select_devices("cuda:1", 2)
    assert select_devices("cuda:1", 1) == [torch.device("cuda", 1)]


def test_gpus_are_taken_by_their_identity(monkeypatch, tmp_path, another):
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    identities = type("Properties", (), {}), type("Properties", (), {})
    for name, properties in zip("ab", identities, strict=True):
        properties.uuid = f"GPU-{name}"
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: identities[i])
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(DiemError, match=r"m_step.processes is 3, and device 'cuda' has 2 here"):
        select_devices("auto", 3)
    assert select_devices("auto", 2) == [torch.device("cuda", 0), torch.device("cuda", 1)]
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["GPU-a", "GPU-b"]

    devices._HELD.clear()
    with lent_device("cuda") as device:
        assert device == torch.device("cuda", 0)
        assert devices._locked(folder / "GPU-a") is None
    assert devices._locked(folder / "GPU-a") is not None  # it is free again
