"""An M-step in two processes, by torchrun and NCCL, on two GPUs (on a CPU by gloo)."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from diem.em.launch import launch
from diem.em.m_step import Lap, m_step
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import Job
from gpu_parts.library import SCHEDULE, UNET
from gpu_parts.setup import Case, Setup, differences, error

__all__ = ["cases"]

SHAPE = (2, 8, 8)


def _lap(folder: Path) -> Lap:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, *SHAPE, generator=generator).numpy()
    write_hdf5(folder / "samples.h5", {"train/x": x, "validation/x": x[:16]}, {})
    options = {"steps": 32, "batch": 16, "learning_rate": 1e-3, "epochs": None}
    return Lap(
        number=1,
        samples=[str(folder / "samples.h5")],
        m_step={**options, "drop_outside": None, "augment": {}},
        network={**UNET, "dropout": 0.0},  # of which each process has its own
        schedule=SCHEDULE,
        gaussian={"rank": 2, "observations": 64},
    )


def _launched(setup: Setup) -> dict[str, Any]:
    """Two processes, twice: the same bits, and near to one process."""
    devices = [torch.device("cuda", i) if setup.cuda else setup.device for i in range(2)]
    folders = [setup.new_folder(name) for name in ("first", "second", "one")]
    for folder in folders:
        files = [str(folder / name) for name in ("prior.safetensors", "losses.csv")]
        job = Job(seed=3, device=devices[0])
        if folder.name == "one":
            m_step(_lap(folder), *files, job)
        else:
            launch(devices, str(folder / "log.txt"), _lap(folder), *files, job)
    told = differences(*folders[:2])[1]
    assert not told, f"differences of two runs: {told[:4]}"
    two, one = (load_file(folder / "prior.safetensors") for folder in folders[1:])
    far = max(error(two[k], one[k]) for k in one if two[k].is_floating_point())
    return {"same_bits": True, "error_to_one_process": far}


def cases(setup: Setup) -> Iterator[Case]:
    """Yields the cases: none on one GPU, where a single process is plain training."""
    if not setup.cuda or torch.cuda.device_count() > 1:
        yield "two processes", partial(_launched, setup)
