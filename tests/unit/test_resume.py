"""Long jobs that are interrupted go on where they were, to the same bits."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch
from running import ROOT

from diem.em.training import CHUNK
from diem.errors import DiemError
from diem.files.hdf5 import write_hdf5
from diem.files.tensors import load_tensors
from diem.jobs import resume
from diem.jobs.job import job
from diem.jobs.results import MARK, checkpoint_file, hold, pieces_folder, remove_pieces
from diem.jobs.resume import Pieces, Stopped


def numbers(i):
    return {"x": np.random.default_rng(i).normal(size=(4, 3)), "n": np.int64(i)}


class Work:
    """Some pieces, of which each that is made is counted; it is interrupted before one of them."""

    def __init__(self, until=None):
        self.made, self.until = [], until

    def __call__(self, keep, count=6):
        return [keep(f"part/{i}", lambda i=i: self.make(i)) for i in range(count)]

    def make(self, i):
        if i == self.until:
            raise KeyboardInterrupt
        self.made.append(i)
        return numbers(i)


def same(pieces, count=6):
    assert len(pieces) == count
    for i, piece in enumerate(pieces):
        assert piece.keys() == {"x", "n"}
        assert all(np.array_equal(piece[key], numbers(i)[key]) for key in piece)
        assert piece["x"].dtype == np.float64


# Pieces


@pytest.mark.parametrize("seconds", [0.0, 1e9])
@pytest.mark.parametrize("until", [0, 1, 4, 5])
def test_only_what_is_missing_is_made_again(tmp_path, until, seconds):
    output = tmp_path / "x.h5"
    first, second = Work(until), Work()
    with pytest.raises(KeyboardInterrupt), Pieces(output, "f", seconds) as keep:
        first(keep)
    assert first.made == list(range(until))

    with Pieces(output, "f", seconds) as keep:
        assert [f"part/{i}" in keep for i in range(6)] == [i < until for i in range(6)]
        same(second(keep))
        same(second(keep))  # a second look makes nothing
    assert second.made == list(range(until, 6))


def test_few_files_are_written(tmp_path):
    with pytest.raises(KeyboardInterrupt), Pieces(tmp_path / "x", "f", 1e9) as keep:
        Work(5)(keep)
    assert len(list(pieces_folder(tmp_path / "x", "f").iterdir())) == 1

    with Pieces(tmp_path / "y", "f", 1e9) as keep:
        Work()(keep)
    assert not pieces_folder(tmp_path / "y", "f").exists()  # done before the time came


def test_much_is_written_before_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "UNWRITTEN_BYTES", 2 * (12 * 8 + 8))
    with Pieces(tmp_path / "x", "f", 1e9) as keep:
        same(Work()(keep))
    assert len(list(pieces_folder(tmp_path / "x", "f").iterdir())) == 3


def test_nothing_is_lost_at_a_kill_but_what_was_not_written(tmp_path):
    keep = Pieces(tmp_path / "x", "f", 0.0)  # the context is never left
    with pytest.raises(KeyboardInterrupt):
        Work(3)(keep)

    again = Work()
    same(again(Pieces(tmp_path / "x", "f", 0.0)))
    assert again.made == [3, 4, 5]


def test_pieces_of_another_fingerprint_are_not_used(tmp_path, caplog):
    Work()(Pieces(tmp_path / "x", "f", 0.0))
    again = Work()
    again(Pieces(tmp_path / "x", "g", 0.0))
    assert again.made == list(range(6))
    (line,) = caplog.records
    assert "not used: it is of other inputs, settings, code, versions" in line.message


CHANGES = ["content", "settings", "threads", "diem", "torch", "code", "nothing"]


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_fingerprint_depends_on(tmp_path, change, monkeypatch):
    file = tmp_path / "input"
    file.write_text("one")
    before = resume.fingerprint([file], {"a": 1}, device="cpu")
    settings = {"a": 1}
    if change == "content":
        file.write_text("two")
    elif change == "settings":
        settings = {"a": 2}
    elif change == "threads":
        torch.set_num_threads(2)
    elif change == "diem":
        monkeypatch.setattr(resume, "__version__", "0")
    elif change == "torch":
        monkeypatch.setattr(resume, "versions", lambda: {"torch": "0"})
    elif change == "code":
        monkeypatch.setattr(resume, "_code", lambda: "other")
    try:
        after = resume.fingerprint([file], settings, device=torch.device("cpu"))
    finally:
        torch.set_num_threads(1)
    assert (before == after) == (change == "nothing")
    assert before != resume.fingerprint([file], {"a": 1}, device="meta")


def test_the_code_that_numbers_depend_on(tmp_path, monkeypatch):
    library = tmp_path / "diem"
    for name in ("seeds", "em/m_step", "em/augmentations/flip", "report/export", "cli"):
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / f"{name}.py").write_text("1")
    (library / "components.py").write_text("1")
    monkeypatch.setattr(resume.diem, "__file__", str(library / "__init__.py"))

    def changed(name):
        (library / f"{name}.py").write_text("2")
        return resume._code.__wrapped__()

    first = resume._code.__wrapped__()
    assert changed("report/export") == changed("cli") == first
    assert len({first, *map(changed, ("seeds", "em/m_step", "em/augmentations/flip"))}) == 4


def test_numbers_that_are_not_finite_are_kept(tmp_path):
    x = torch.tensor([1.0, torch.nan, torch.inf])
    for _ in range(2):
        y = resume.cached_tensor(Pieces(tmp_path / "x", "f", 0.0), "a", lambda: x)
        assert torch.equal(y.nan_to_num(), x.nan_to_num())


def test_a_damaged_file_is_made_again(tmp_path, caplog):
    Work()(Pieces(tmp_path / "x", "f", 0.0))
    (path,) = pieces_folder(tmp_path / "x", "f").glob("2.*.npz")
    content = path.read_bytes()
    for place in (*range(0, len(content), 31), None):
        damaged = bytearray(content[:place])
        if place is not None:
            damaged += bytes([content[place] ^ 0x10]) + content[place + 1 :]
        else:
            damaged = damaged[:100]
        path.write_bytes(damaged)
        again = Work()
        same(again(Pieces(tmp_path / "x", "f", 0.0)))
        assert again.made == [2]
        assert f"{path} is damaged" in caplog.text
        caplog.clear()
        for made in path.parent.glob("6.*.npz"):
            made.unlink()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(
        DiemError, match=r"\.x\.diem/pieces-f/new\.npz cannot be written: No space left"
    ):
        Work()(Pieces(tmp_path / "x", "f", 0.0))
    assert not list(pieces_folder(tmp_path / "x", "f").iterdir())


def test_what_was_kept_is_removed(tmp_path):
    outputs = [tmp_path / "a" / name for name in ("x", "xy", "[x]")]
    for output in outputs:
        for fingerprint in "fg":
            Work()(Pieces(output, fingerprint, 0.0))
        output.write_text("output")
        checkpoint_file(output).write_text("checkpoint")
    (tmp_path / "a" / ".x.123.tmp").write_text("half of a file")
    own = (".x.y.123.tmp", ".x.tmp", ".draft.tmp", "x.resume", "x.resume-2", "x.resumed.txt")
    for name in own:
        (tmp_path / "a" / name).write_text("somebody's own")

    remove_pieces(outputs[0], outputs[2], tmp_path / "nowhere" / "x")

    left = {path.name for path in (tmp_path / "a").iterdir()}
    assert left == {*own, "x", "xy", "[x]", ".xy.diem"}
    assert len(list((tmp_path / "a" / ".xy.diem").iterdir())) == 3


def test_a_folder_of_other_files_is_no_folder_of_results(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / ".lock").write_text("mine too")

    with pytest.raises(DiemError, match=r"not marked as its own \(thesis.tex\): choose another"):
        hold(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "thesis.tex"]

    (tmp_path / MARK).write_text("I say so")
    hold(tmp_path).close()
    assert (tmp_path / MARK).read_text() == "I say so"
    assert (tmp_path / ".lock").read_text() == "mine too"


def test_an_empty_folder_is_marked_and_one_of_results_is_held_again(tmp_path):
    hold(tmp_path).close()
    (tmp_path / "tables").mkdir()

    with hold(tmp_path), pytest.raises(DiemError, match="another workflow is writing"):
        hold(tmp_path)


# Signals


@pytest.mark.parametrize("request_", [*resume.REQUESTS, signal.SIGINT])
def test_a_job_that_is_asked_to_stop_keeps_what_is_finished(tmp_path, capsys, request, request_):
    # Whoever runs the tests may ignore Ctrl-C.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, former))
    work, log = Work(), tmp_path / "log"

    def interrupted(keep):
        for i in range(6):
            if i == 4:
                os.kill(os.getpid(), request_)
            keep(f"part/{i}", lambda i=i: work.make(i))

    before = signal.getsignal(request_)
    with (
        pytest.raises(SystemExit) as stop,
        job(str(log), 1),
        Pieces(tmp_path / "x", "f", 1e9) as keep,
    ):
        interrupted(keep)
    assert stop.value.code == 143
    assert signal.getsignal(request_) == before
    told = f"Error: {Stopped()}\n"
    assert log.read_text() == capsys.readouterr().err == told

    again = Work()
    same(again(Pieces(tmp_path / "x", "f", 0.0)))
    assert again.made == [4, 5]


def test_a_second_request_does_not_disturb_the_first(tmp_path):
    class Slow(Pieces):
        def write(self):
            os.kill(os.getpid(), signal.SIGTERM)
            super().write()

    with (
        pytest.raises(SystemExit),
        job(str(tmp_path / "log"), 1),
        Slow(tmp_path / "x", "f", 1e9) as keep,
    ):
        Work()(keep)
        os.kill(os.getpid(), signal.SIGTERM)
    assert len(Pieces(tmp_path / "x", "f", 0.0)._places) == 6


def test_ctrl_c_that_is_ignored_stays_so():
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with resume.stoppable():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, former)


def test_requests_wait():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with resume.deferred() as asked:
            assert not asked
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked == [signal.SIGTERM]
            assert heard == []
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_who_cannot_wait_asks_twice():
    with pytest.raises(KeyboardInterrupt), resume.deferred() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked == [signal.SIGINT]
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second one should interrupt")


# An M-step in a process of its own

STEPS = 24 * CHUNK

M_STEP = """
import json, sys
from pathlib import Path
import torch
from diem.em.launch import launch
from diem.em.m_step import Lap, m_step
from diem.jobs.job import Job, job, progress

call = json.loads(Path(sys.argv[1]).read_text())
log, processes, files, lap = call["log"], call["processes"], call["files"], Lap(**call["lap"])
with job(log, 1):
    if processes > 1:
        launch([torch.device("cpu")] * processes, log, lap, *files, Job(seed=1))
    else:
        with progress(log, unit="step") as bar:
            m_step(lap, *files, Job(seed=1, progress=bar))
"""


class MStep:
    """An M-step that has some seconds to do, as a job does it."""

    def __init__(self, folder, processes):
        folder.mkdir()
        rng = np.random.default_rng(0)
        x = rng.normal(size=(120, 3)).astype(np.float32)
        self.folder, self.log = folder, folder / "log"
        write_hdf5(folder / "clean.h5", {"train/x": x[:100], "validation/x": x[100:]}, {})
        self.output, self.losses = folder / "prior.safetensors", folder / "losses.csv"
        self.checkpoint = checkpoint_file(folder / "prior.safetensors")
        settings = {
            **{"steps": STEPS, "epochs": None, "batch": 50, "learning_rate": 0.003},
            **{"learning_rate_final": None, "clip": 1.0, "ema": 0.99, "ema_warmup": True},
            **{"warm_start": True, "drop_outside": None, "augment": {}, "processes": processes},
        }
        lap = {
            **{"number": 1, "samples": [str(folder / "clean.h5")], "m_step": settings},
            "network": {"name": "mlp", "hidden": [32, 32], "embedding": 8},
            "schedule": {"sigma_min": 0.01, "sigma_max": 10.0},
            "gaussian": {"rank": 2, "iterations": 2, "observations": 100},
            "checkpoint_seconds": 1e9,
        }
        files = [str(self.output), str(self.losses)]
        call = {"lap": lap, "files": files, "log": str(self.log), "processes": processes}
        (folder / "call.json").write_text(json.dumps(call))
        (folder / "job.py").write_text(M_STEP)

    def start(self):
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, str(self.folder / "job.py"), str(self.folder / "call.json")],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def finish(self):
        assert self.start().wait(timeout=300) == 0, self.log.read_text()
        return self.output.read_bytes(), self.losses.read_bytes()

    def begun(self):
        """Starts it, waits until it has taken some steps, and returns its process."""
        self.log.write_text("")
        process, deadline = self.start(), time.monotonic() + 200
        while not re.search(rf"[1-9]\d*/{STEPS}", self.log.read_text()):
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)
        return process

    def steps(self):
        """Returns how many steps its checkpoint holds."""
        return int(load_tensors(self.checkpoint)[0]["curve.step"][-1])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_an_m_step_that_is_stopped_and_killed(tmp_path, processes):
    whole = MStep(tmp_path / "whole", processes).finish()
    m_step = MStep(tmp_path / "cut", processes)
    steps = 0
    # The job alone is asked to stop; then all of its processes are, as a scheduler may do it.
    for everyone in (False, True)[:processes]:
        process = m_step.begun()
        asked = [psutil.Process(process.pid)]
        asked += asked[0].children(recursive=True) if everyone else []
        for one in asked:
            one.send_signal(signal.SIGTERM)
        assert process.wait(timeout=100) == 143, m_step.log.read_text()
        assert str(Stopped()) in m_step.log.read_text()
        assert not m_step.output.exists()
        assert steps < m_step.steps() < STEPS
        steps = m_step.steps()
        assert steps % CHUNK == 0
        assert not [one for one in asked if one.is_running()]

    # Nothing of one that is killed lives on.
    process = m_step.begun()
    everyone = psutil.Process(process.pid).children(recursive=True)
    assert len(everyone) == (0 if processes == 1 else 1 + processes)  # with torchrun
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(everyone, timeout=60)
    assert not alive
    assert m_step.steps() == steps

    assert m_step.finish() == whole
