"""Measures the peak memory of an E-step and of an M-step against the batch.

The networks and settings are those of the configurations. Each measurement is a process of its
own: on the CPU the rise of its resident memory from before the network is built to its peak, on a
GPU what PyTorch allocated at most. A straight line through the batches tells what is fixed
(weights, and in an M-step gradients, optimizer and average) and what each sample takes.

Run it from the root of the repository:

    python benchmarks/memory.py
    python benchmarks/memory.py --device cuda
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
import yaml

from diem import operators
from diem.config.resolve import resolve
from diem.data.sets import DATASETS
from diem.diffusion.covariances import CARD_ERROR
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser
from diem.em.training import Training, train
from diem.files.atomic import atomic

ROOT = Path(__file__).parents[1]
CASES = {
    "digits": ("config.yaml", "digits", (256, 512, 1024)),
    "mri": ("config.yaml", "mri", (8, 16, 32)),
    "paper's CIFAR-10": ("paper.yaml", "cifar10", (1, 2, 4)),
}
"""A configuration, its experiment, and the batches."""

HALVES = ("E-step", "M-step")


def main() -> None:
    """Writes the table and the numbers to ``benchmarks/memory.*``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--measure", nargs=3, metavar=("CASE", "HALF", "BATCH"), help="one, alone")
    arguments = parser.parse_args()
    if arguments.measure:
        case, half, batch = arguments.measure
        print(peak(case, half, int(batch), torch.device(arguments.device)))
        return
    rows = [
        measured(case, half, batches, arguments.device)
        for case, (*_, batches) in CASES.items()
        for half in HALVES
    ]
    device = platform.machine()
    if arguments.device != "cpu":
        device = torch.cuda.get_device_name(arguments.device)
    result = {"device": device, "torch": torch.__version__, "rows": rows}
    name = "memory" if arguments.device == "cpu" else "memory_gpu"
    for ending, text in ((".json", json.dumps(result, indent=1) + "\n"), (".md", report(result))):
        with atomic(Path(__file__).with_name(f"{name}{ending}")) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(report(result))


def measured(case: str, half: str, batches: tuple[int, ...], device: str) -> dict:
    """Returns the peaks in MiB, each of a process of its own, and the line through them."""
    peaks = []
    for batch in batches:
        command = [sys.executable, __file__, "--device", device]
        command += ["--measure", case, half, str(batch)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        peaks.append(float(result.stdout))
    each, fixed = np.polyfit(batches, peaks, 1)
    row = {"case": case, "half": half, "batches": batches, "peaks": peaks}
    return {**row, "each": each, "fixed": fixed}


def peak(case: str, half: str, batch: int, device: torch.device) -> float:
    """Returns the MiB that half a lap takes at most, at a batch."""
    torch.set_num_threads(1)
    path, name, _ = CASES[case]
    text = (ROOT / "config" / path).read_text(encoding="utf-8")
    config = resolve(yaml.safe_load(text), path)
    entry = config["experiments"][name]
    run = next(iter(entry["runs"].values()))
    shape = DATASETS.parse(entry["data"]).event_shape()
    before = started(device)
    denoiser = build_denoiser(entry["network"], entry["schedule"], shape, seed=0).to(device)
    if half == "E-step":
        sample(denoiser, entry, run, batch, device)
    else:
        x = torch.randn(batch, *shape, device=device)
        settings = {**run["m_step"], "steps": 2, "epochs": None, "batch": batch}
        train(denoiser, x, x, Training.from_config(settings, batch), seed=0)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resident("VmHWM") - before


def sample(denoiser, entry: dict, run: dict, batch: int, device: torch.device) -> None:
    """Draws posterior samples in one step, which takes as much memory as many do."""
    shape = DATASETS.parse(entry["data"]).event_shape()
    operator = next(iter(entry["observations"].values()))["operator"]
    operator = operators.simulate(operator, shape, batch, np.random.default_rng(0)).to(device)
    settings = {**run["e_step"], "batch": None}
    settings["sampler"] = {**settings["sampler"], "steps": 1}
    factors = torch.randn(*shape, entry["gaussian"]["rank"]) / 10
    gaussian = Gaussian(torch.zeros(shape), torch.ones(()), factors)
    card = {CARD_ERROR: {"sigma": [1.0], "error": [0.1]}}
    prior = Prior(gaussian, denoiser.eval().requires_grad_(False), card).to(device)
    y = torch.randn(batch, *operator.observation_shape, device=device)
    generator = torch.Generator(device).manual_seed(0)
    PosteriorSampler.from_config(settings)(prior, operator, y, 0.01, generator)


def started(device: torch.device) -> float:
    """Begins to note the peak, and returns the MiB that are in use already."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return 0.0
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident("VmRSS")


def resident(name: str) -> float:
    """Returns an entry of the process's memory, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 2**10


def report(result: dict) -> str:
    """Returns the table as Markdown."""
    lines = [
        "# Memory against the batch",
        "",
        "Made by `python benchmarks/memory.py`: the peak of each half of a lap in MiB, and the"
        f" straight line through it. {result['device']}, PyTorch {result['torch']}, one thread.",
        "",
        "| network of | half | batch | peak, MiB | fixed, MiB | a sample, MiB |",
        "| --- | --- | --- | --- | ---: | ---: |",
    ]
    for row in result["rows"]:
        batches = " / ".join(str(batch) for batch in row["batches"])
        peaks = " / ".join(f"{value:,.0f}" for value in row["peaks"])
        lines.append(
            f"| {row['case']} | {row['half']} | {batches} | {peaks} | {row['fixed']:,.0f}"
            f" | {row['each']:,.3g} |"
        )
    lines += [
        "",
        "A batch of `n` takes about `fixed + n x a sample`: choose `e_step.batch` and"
        " `m_step.batch` by it. The first changes no number but by rounding; of the second,"
        " `m_step.processes` share a batch. What is fixed are the weights, and in an M-step their"
        " gradients, Adam's two moments and the average. An M-step's samples come on top, up to"
        " `cache_mb`.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
