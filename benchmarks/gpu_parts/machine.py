"""The machine: its device, the versions, and the clocks that its driver tells."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import torch

from gpu_parts.setup import Case, Setup

__all__ = ["cases", "clocks"]

QUERIED = (
    "driver_version",
    "clocks.sm",
    "clocks.max.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "power.limit",
)


def clocks() -> dict[str, str]:
    """Returns what ``nvidia-smi`` tells of the first GPU; nothing where it is missing."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(QUERIED)}", "--format=csv,noheader", "-i", "0"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except subprocess.TimeoutExpired:
        return {}
    values = [value.strip() for value in result.stdout.strip().split(",")]
    return dict(zip(QUERIED, values, strict=True)) if len(values) == len(QUERIED) else {}


def _device(setup: Setup) -> dict[str, Any]:
    if not setup.cuda:
        return {"gpus": 0}
    properties = torch.cuda.get_device_properties(setup.device)
    return {
        "gpus": torch.cuda.device_count(),
        "name": properties.name,
        "memory_gib": properties.total_memory / 2**30,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "tf32_products": torch.backends.cuda.matmul.allow_tf32,
    }


def _software() -> dict[str, Any]:
    from diem.versions import versions

    compilers = [name for name in ("g++", "gcc", "cc") if shutil.which(name)]
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "compilers": ", ".join(compilers) or "none",
        **versions(),
    }


def cases(setup: Setup) -> Iterator[Case]:
    """Yields the cases."""
    yield "device", lambda: _device(setup)
    yield "software", _software
    yield "driver", clocks
