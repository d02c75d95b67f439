"""A job that SIGKILL ends goes on and gives the same bits: an E-step and an M-step.

Each attempt is a process of its own: ``python -m gpu_parts.resume HALF FOLDER DEVICE``. The inputs
are made once, and an undisturbed attempt runs beside the one that is killed. DEVICE may be ``tiny``
for a short attempt on the CPU.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diem import operators
from diem.data.observations import Observations, Observed, save_observations
from diem.data.simulate import observe
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.prior import Prior, build_denoiser, read_prior
from diem.em.e_step import EStep, e_step
from diem.em.m_step import Lap, m_step
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import Job
from diem.jobs.resume import Pieces, fingerprint
from diem.seeds import Stage, rng
from gpu_parts.library import IMAGE, SCHEDULE, UNET
from gpu_parts.setup import Case, Setup, differences

__all__ = ["cases"]

PATIENCE = 60.0
"""The seconds that an attempt may take."""


def _inputs(folder: Path) -> None:
    """Writes observations, a prior and samples."""
    generator = torch.Generator().manual_seed(0)
    splits = {}
    for number, (split, count) in enumerate({"train": 96, "validation": 16, "test": 8}.items()):
        stream = rng(0, Stage.CORRUPTION, 0, number)
        operator = operators.simulate({"name": "mask", "missing": 0.5}, IMAGE, count, stream)
        x = torch.randn(count, *IMAGE, generator=generator)
        y = observe(operator, x, 0.1, stream)
        splits[split] = Observed(operator, y, torch.tensor(0.1), np.arange(count))
    save_observations(folder / "observations.h5", splits, "mask", {})
    denoiser = build_denoiser(UNET, SCHEDULE, IMAGE, 0)
    card = {"network": UNET, "schedule": SCHEDULE, "optimizer_steps": 0}
    Prior(Gaussian.standard(IMAGE), denoiser, card).save(folder / "start.safetensors")
    arrays = {
        "train/x": torch.randn(64, *IMAGE, generator=generator).numpy(),
        "validation/x": torch.randn(16, *IMAGE, generator=generator).numpy(),
    }
    write_hdf5(folder / "samples.h5", arrays, {})


def _run(half: str, folder: Path, where: str) -> None:
    """Does a half of a lap, as its job does."""
    tiny = where == "tiny"
    device = torch.device("cpu" if tiny else where)
    inputs, job = folder.parent, Job(seed=3, device=device)
    if half == "e_step":
        prior, path = read_prior(inputs / "start.safetensors"), folder / "samples.h5"
        entry = {
            "sampler": {"name": "ddpm", "steps": 8 if tiny else 40},
            "block": 8,
            "repeats": 1,
            "storage": "float32",
            "drop_last": False,
        }
        made_of = fingerprint([inputs / "start.safetensors"], entry, device=device)
        with Observations(inputs / "observations.h5") as file, Pieces(path, made_of, 0.0) as keep:
            settings = EStep.from_config(entry)
            e_step(path, prior, file, settings, 2, replace(job, keep=keep))
        return
    options = {"steps": 192 if tiny else 640, "batch": 16, "learning_rate": 1e-3, "epochs": None}
    lap = Lap(
        number=1,
        samples=[inputs / "samples.h5"],
        m_step={**options, "drop_outside": None, "augment": {}},
        network=UNET,
        schedule=SCHEDULE,
        gaussian={"rank": 2, "observations": 64},
        checkpoint_seconds=0.0,
    )
    m_step(lap, folder / "prior.safetensors", folder / "losses.csv", job)


def _start(half: str, folder: Path, setup: Setup) -> subprocess.Popen:
    command = [sys.executable, "-m", "gpu_parts.resume", half, str(folder)]
    command.append("tiny" if setup.tiny else setup.device.type)
    log = (folder / "log.txt").open("a")
    return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)


def _ended(process: subprocess.Popen, folder: Path) -> None:
    code = process.wait(PATIENCE)
    assert code == 0, f"it ended with {code}: {(folder / 'log.txt').read_text()[-600:]}"


def _kept(folder: Path) -> int:
    """Returns how many pieces or checkpoints an attempt has kept."""
    pieces = list(folder.glob(".*.diem/pieces-*/*.*.npz"))
    return len(pieces) + len(list(folder.glob(".*.diem/checkpoint")))


def _killed(setup: Setup, half: str) -> dict[str, Any]:
    inputs = setup.new_folder(half)
    _inputs(inputs)
    whole, broken = inputs / "whole", inputs / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    undisturbed, killed = _start(half, whole, setup), _start(half, broken, setup)
    try:
        end, wanted = time.monotonic() + PATIENCE, 3 if half == "e_step" else 1
        while _kept(broken) < wanted and killed.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        assert killed.poll() is None, "it ended before it was killed: the work is too short"
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        kept = _kept(broken)
        assert kept >= wanted, (broken / "log.txt").read_text()[-600:]
        killed = _start(half, broken, setup)
        _ended(killed, broken)
        _ended(undisturbed, whole)
    finally:
        for process in (undisturbed, killed):
            process.kill()
            process.wait()
    for path in (*whole.glob(".*.diem"), *broken.glob(".*.diem")):
        shutil.rmtree(path)
    count, told = differences(whole, broken)
    assert not told, f"differences after going on: {told[:4]}"
    return {"kept_at_the_kill": kept, "files": count, "same_bits": True}


def cases(setup: Setup) -> Iterator[Case]:
    """Yields the cases."""
    for half in ("m_step", "e_step"):
        yield half, partial(_killed, setup, half)


if __name__ == "__main__":
    _run(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
