"""All of the workflow is killed at random moments; the same command ends with the same tables."""

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from running import Workflow
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

TABLE = "results/tables/tiny.csv"
JOBS = (
    "results/tiny/observations/plain/gaussian.safetensors",
    "results/tiny/ceilings/base/prior.safetensors",
    *(f"results/tiny/runs/base/lap_{lap}/samples.h5" for lap in ("01", "02")),
    *(f"results/tiny/runs/base/lap_{lap}/prior.safetensors" for lap in ("01", "02")),
    *(f"results/tiny/runs/base/lap_{lap}/metrics.csv" for lap in ("01", "02")),
    "results/tiny/observations/plain/floor/metrics.csv",
    "results/tiny/ceilings/base/plain/metrics.csv",
    TABLE,
)
"""The first output of each job at which the workflow is killed, and of what it keeps."""


def small(folder):
    workflow = Workflow(folder)
    workflow.experiment["m_step"].update(steps=320)  # five checkpoints
    workflow.experiment["schedule"].update(sigma_min=0.1)
    workflow.experiment["evaluation"].update(block=16)
    return workflow


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that nothing disturbs: read, do not change."""
    workflow = small(tmp_path_factory.mktemp("reference"))
    result = workflow.run(TABLE)
    assert result.returncode == 0, result.stderr
    return workflow


def files(workflow):
    """Returns the modification times of the results, without logs."""
    found = {}
    # Unlike Path.rglob, it does not mind folders that are removed meanwhile.
    for folder, _, names in os.walk(workflow.path("results")):
        for path in (Path(folder, name) for name in names):
            if "logs" not in path.parts and path.suffix != ".tmp" and path.name != ".diem.lock":
                with contextlib.suppress(FileNotFoundError):  # removed since
                    found[path.relative_to(workflow.folder)] = path.stat().st_mtime_ns
    return found


def same_results(one, other):
    """Asserts that two workflows have the same results: but for the seconds, bit for bit."""
    names = set(files(one))
    assert names == set(files(other))
    assert sum(name.parts[1] == "tables" for name in names) > 2
    for name in names:
        if name.suffix != ".h5":
            assert one.path(name).read_bytes() == other.path(name).read_bytes(), name
            continue
        with h5py.File(one.path(name)) as a, h5py.File(other.path(name)) as b:
            here = []
            a.visititems(lambda key, item, to=here: to.append(key) if hasattr(item, "dtype") else 0)
            for key in here:
                np.testing.assert_array_equal(a[key][()], b[key][()], err_msg=f"{name}: {key}")


class Watch:
    """Sees every file that a workflow makes, to tell what was done more than once."""

    def __init__(self, workflow):
        self.workflow = workflow
        self.seen = set()  # (file, modification time)
        self.written = {}  # the modification times of each kept piece, by what it holds
        self.steps = {}  # the last step of each checkpoint

    def look(self):
        now = set(files(self.workflow).items())
        for name, when in now - self.seen:
            if name.suffix == ".npz" and name.stem != "new":
                digest = name.stem.partition(".")[2]
                self.written.setdefault((name.parent, digest), set()).add(when)
        self.seen |= now

    def look_at_checkpoints(self):
        """Asserts that none of them has gone back; there is nobody else to write them now."""
        for path in self.workflow.path("results").rglob(".*.diem/checkpoint"):
            step = int(load_file(path)["curve.step"][-1])
            assert step >= self.steps.get(path, 0), path
            self.steps[path] = step


def kill(process):
    """Kills a workflow and all of its jobs at once."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_at_random_moments(reference, tmp_path):
    rng = random.Random(20261125)
    workflow = small(tmp_path)
    watch, left, kills = Watch(workflow), set(JOBS), 0
    process = workflow.start(TABLE)
    deadline = time.monotonic() + 1500
    while process.poll() is None:
        # Somewhere in the work of a job that was not hit before: after some pieces, at its end, or
        # before Snakemake has taken note of it.
        before, pieces, hit = set(watch.seen), rng.randint(1, 4), []
        while not hit and process.poll() is None:
            assert time.monotonic() < deadline, workflow.path("stderr.txt").read_text()
            time.sleep(0.005)
            watch.look()
            new = [str(name) for name, _ in watch.seen - before]
            for job in sorted(left):
                made = [name for name in new if name.startswith(job)]
                if job in made or len(made) >= pieces:
                    hit.append(job)
        if not hit:
            break
        time.sleep(rng.uniform(0, 0.3))
        kill(process)
        kills += 1
        watch.look()
        # It met those as well that began or ended meanwhile: how many depends on the machine.
        new = [str(name) for name, _ in watch.seen - before]
        left -= {job for job in left if any(name.startswith(job) for name in new)}
        watch.look_at_checkpoints()
        process = workflow.start(TABLE)
    assert process.wait() == 0, workflow.path("stderr.txt").read_text()
    watch.look()

    assert not left
    assert 2 * kills >= len(JOBS)  # two cores
    same_results(workflow, reference)
    # What is kept was made once: at most the piece is made again at which a job was killed.
    assert set(map(len, watch.written.values())) == {1}
    hidden = {folder.parent for folder, _ in watch.written}
    kept = {str(f.with_name(f.name.removeprefix(".").removesuffix(".diem"))) for f in hidden}
    assert kept == {job for job in JOBS if "prior" not in job and job != TABLE}
    # No checkpoint went back, so that at most the steps since the last one are done again.
    assert len(watch.steps) >= 2


def test_killed_after_its_last_job(reference, tmp_path):
    workflow = small(tmp_path)
    # Snakemake would find nothing to be done afterwards, so that nothing would tidy up any more.
    result = workflow.run(TABLE, "--no-hooks")
    assert result.returncode == 0, result.stderr
    same_results(workflow, reference)


def test_a_result_that_is_deleted_is_made_again_and_what_follows(reference, tmp_path):
    workflow = small(tmp_path)
    for name in ("results", ".snakemake"):
        shutil.copytree(reference.path(name), workflow.path(name))
    before = files(workflow)
    gone = workflow.lap(2, "prior.safetensors")
    workflow.path(gone).unlink()

    # The table is newer than all that it was made of, so that it needs nothing.
    result = workflow.run(TABLE)
    assert result.returncode == 0, result.stderr
    assert files(workflow).items() == before.items() - {(Path(gone), before[Path(gone)])}

    result = workflow.run(TABLE, gone)
    assert result.returncode == 0, result.stderr
    same_results(workflow, reference)
    after = files(workflow)
    again = {str(name) for name in after if after[name] != before[name]}
    made = {workflow.lap(2, n) for n in ("prior.safetensors", "losses.csv", "metrics.csv")}
    made.add(workflow.lap(2, "evaluation.h5"))
    assert {name for name in again if "/tables/" not in name} == made
    assert TABLE in again
