"""A full disk: one sentence names the file and the cause, and what was there before stays."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from disks import FULL, fill
from helpers import random_gaussian

from diem.diffusion.prior import Prior
from diem.evaluation.rows import write_rows
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import job, logger, progress
from diem.jobs.resume import Pieces
from diem.report.drawing.style import save


@pytest.fixture
def disk(tmp_path, small_disk):
    return small_disk(tmp_path / "disk", "2m")


def hdf5(path, size):
    write_hdf5(path, {"x": np.random.default_rng(0).random(size // 8)}, {"lap": 1})


def parts(path, size):
    rng = np.random.default_rng(0)
    write_hdf5(path, {"x": (rng.random(size // 80) for _ in range(10))}, {})


def prior(path, size):
    Prior(random_gaussian((size // 16,), 2, torch.float32), None, {}).save(path)


def rows(path, size):
    write_rows(path, [{"metric": "psnr", "value": float(i)} for i in range(size // 8)])


def picture(path, size):
    figure, axes = plt.subplots(figsize=(0.5, 0.5) if size < 2**16 else (2, 2))
    axes.imshow(np.random.default_rng(0).random((300, 300)))
    save(figure, path, "png")


WRITERS = {write.__name__: write for write in (hdf5, parts, prior, rows, picture)}


def attempt(name, path):
    """Writes more than there is space for, and tells how that ends."""
    try:
        WRITERS[name](Path(path), 2**18)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)


def in_a_process(code):
    """Runs code of this module in a process of its own: HDF5 need not survive a full disk."""
    return subprocess.run(
        [sys.executable, "-c", f"import test_full_disk as test; {code}"],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_the_file_and_the_cause_are_named_and_the_old_file_stays(disk, name):
    target = disk / "some.file"
    WRITERS[name](target, 2**12)
    old = target.read_bytes()
    fill(disk, free=2**15)

    result = in_a_process(f"test.attempt({name!r}, {str(target)!r})")

    assert result.stdout.splitlines() == [f"DiemError: {target} {FULL}"], result.stderr
    assert "Traceback" not in result.stderr
    assert target.read_bytes() == old
    assert {path.name for path in disk.iterdir()} == {"some.file", "filler"}
    (disk / "filler").unlink()
    WRITERS[name](target, 2**18)
    assert target.read_bytes() != old


def keep_pieces(output):
    """Keeps a piece of work, and another that the disk has no space for."""
    try:
        with Pieces(output, "f", seconds=0) as pieces:
            pieces("small", lambda: {"x": np.arange(10)})
            fill(Path(output).parent, free=2**15)
            pieces("large", lambda: {"x": np.random.default_rng(0).random(2**16)})
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)


@pytest.mark.slow
def test_the_pieces_that_were_kept_before_stay(disk):
    result = in_a_process(f"test.keep_pieces({str(disk / 'samples.h5')!r})")

    (told,) = result.stdout.splitlines()
    assert told.startswith(f"DiemError: {disk}")
    assert told.endswith(FULL)
    assert "small" in Pieces(disk / "samples.h5", "f")
    assert "large" not in Pieces(disk / "samples.h5", "f")


def run_a_job(folder):
    """Runs a job whose log and whose output are on a full disk."""
    log = str(Path(folder) / "job.log")
    with job(log, threads=1):
        logger.info("It begins.")
        fill(folder)
        with progress(log, unit="step", total=2000) as bar:
            for _ in range(2000):
                logger.info("%s", "a line of the log " * 10)
                bar.update()
                bar.refresh()
        hdf5(Path(folder) / "some.h5", 2**18)


@pytest.mark.slow
def test_a_job_whose_log_has_no_space_ends_with_one_sentence(disk):
    result = in_a_process(f"test.run_a_job({str(disk)!r})")

    assert result.stderr.splitlines() == [f"Error: {disk / 'some.h5'} {FULL}"]
    assert result.returncode == 1
    assert "It begins." in (disk / "job.log").read_text()


def test_a_job_that_cannot_open_its_log_ends_with_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")

    log = str(tmp_path / "file" / "job.log")
    told = r"^Error: .*job\.log cannot be written: .*\.$"
    with pytest.raises(SystemExit, match=told), job(log, threads=1):
        pass
