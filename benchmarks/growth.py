"""Measures how the time of an E-step grows, and what a lap does outside the network.

First, real E-steps with a small U-Net: their time against the number of samples, of steps, of
pixels, and of conjugate-gradient iterations, with exponents fitted by least squares in log-log
space. Times are CPU seconds of one thread, medians; the sweeps are interleaved, so that a change of
the machine's speed meets all of them.

Second, the same code at the shapes of the paper's CIFAR-10 with a network that costs nothing: what
is left is loading, random numbers, the solver, checks and HDF5 in the E-step, and batches,
augmentation, noise, clipping, Adam and the average in the M-step. It is multiplied to a lap of the
paper, and set beside the counted FLOPs of the network.

Run it from the root of the repository:

    python benchmarks/growth.py
"""

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import yaml
from azula.denoise import KarrasDenoiser
from azula.noise import VESchedule
from matplotlib.figure import Figure
from torch import Tensor, nn

from diem import operators
from diem.config.resolve import resolve
from diem.data.observations import Observations, Observed, save_observations
from diem.data.sets import DATASETS
from diem.data.simulate import observe
from diem.diffusion.gaussian import Gaussian, fit_to_samples
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser
from diem.diffusion.samplers.ddpm import DDPM
from diem.em.e_step import EStep, e_step
from diem.em.training import Training, train
from diem.files.atomic import atomic
from diem.files.hdf5 import Rows
from diem.files.tensors import save_tensors
from diem.jobs.job import Job
from diem.networks import NETWORKS
from diem.planning import calibration
from diem.planning.flops import FlopCounter
from diem.report.drawing.style import WIDTH, annotate, save, styled
from diem.seeds import Stage, rng

ROOT = Path(__file__).parents[1]
REPEATS = 3
SCHEDULE = {"sigma_min": 0.001, "sigma_max": 100.0}
NETWORK = {"name": "unet", "channels": [16, 32], "blocks": 1, "embedding": 32, "dropout": 0.0}
BLOCK = 16
BASE = {"samples": 64, "steps": 8, "size": 16, "iterations": 1}
SWEEPS = {
    "samples": (32, 64, 128, 256, 512),
    "steps": (4, 8, 16, 32, 64),
    "size": (32, 48, 64, 96, 128),
    "iterations": (1, 2, 4, 8, 16),
}
FEWER = {"size": {"samples": 32, "steps": 4}}
"""What else a sweep changes: in images of less than 32 pixels a side, what each operation costs
before it does anything weighs with this small network, and larger ones take their time."""

GPU = {"TFLOP/s": 200.0, "GB/s": 2000.0}
"""A GPU's sustained rates, assumed: products of matrices, and memory."""


def main() -> None:
    """Writes the table, the numbers and the figure to ``benchmarks/growth.*``."""
    torch.set_num_threads(1)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        grown = growth(Path(folder))
        lap = overhead(Path(folder))
    machine = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "torch": torch.__version__,
        "load": [before, os.getloadavg()[0]],
        "repeats": REPEATS,
    }
    result = {"machine": machine, "growth": grown, "lap": lap}
    for ending, text in ((".json", json.dumps(result, indent=1) + "\n"), (".md", report(result))):
        with atomic(Path(__file__).with_suffix(ending)) as temporary:
            temporary.write_text(text, encoding="utf-8")
    figure = drawn(grown, machine)
    for kind in ("png", "pdf"):
        save(figure, Path(__file__).with_suffix(f".{kind}"), kind)
    print(report(result))


def clocked(run: Callable[[], object]) -> float:
    """Returns the CPU seconds of a call."""
    began = time.process_time()
    run()
    return time.process_time() - began


def children(run: Callable[[], object]) -> float:
    """Returns the CPU seconds of a process that a call starts twice."""
    before, _, after = os.times(), run(), os.times()
    used = [times.children_user + times.children_system for times in (before, after)]
    return (used[1] - used[0]) / 2


# Growth


def growth(folder: Path) -> dict:
    """Times E-steps over the sweeps, and fits their exponents."""
    settings = {
        name: [{**BASE, **FEWER.get(name, {}), name: value} for value in values]
        for name, values in SWEEPS.items()
    }
    runs = {
        json.dumps(setting): prepared(folder, number, **setting)
        for number, setting in enumerate(s for some in settings.values() for s in some)
    }
    times = {key: [] for key in runs}
    for _ in range(REPEATS + 1):  # the first warms up
        for key, run in runs.items():
            times[key].append(clocked(run))
    result = {}
    for name, some in settings.items():
        measured = [times[json.dumps(setting)][1:] for setting in some]
        work = [amount(name, setting[name]) for setting in some]
        median = [statistics.median(t) for t in measured]
        slope, offset = np.polyfit(np.log(work), np.log(median), 1)
        result[name] = {
            "values": list(SWEEPS[name]),
            "work": work,
            "seconds": median,
            "spread": [[min(t), max(t)] for t in measured],
            "exponent": float(slope),
            "factor": float(np.exp(offset)),
        }
    return result


def amount(name: str, value: int) -> int:
    """Returns what the time should be proportional to."""
    if name == "size":
        return value**2  # pixels
    # A sampler denoises once more at the end; n iterations are n products beside an evaluation.
    return value if name == "samples" else value + 1


def prepared(
    folder: Path, number: int, samples: int, steps: int, size: int, iterations: int
) -> Callable[[], None]:
    """Returns an E-step of so many samples, one block of which is of the validation split."""
    shape = (3, size, size)
    denoiser = build_denoiser(NETWORK, SCHEDULE, shape, seed=0).eval().requires_grad_(False)
    sampler = PosteriorSampler(DDPM(steps=steps), iterations=iterations)
    observations = observed(folder / f"observations_{number}.h5", shape, samples - BLOCK, BLOCK)
    prior = Prior(Gaussian.standard(shape), denoiser, {})
    output = folder / f"samples_{number}.h5"

    def run() -> None:
        e_step(output, prior, observations, EStep(sampler, BLOCK), 2, Job())

    return run


def observed(path: Path, shape: tuple[int, ...], train_count: int, validation: int) -> Observations:
    """Writes observations of random images with half of the pixels missing, and opens them."""
    splits = {}
    for split, count in (("train", train_count), ("validation", validation)):
        stream = rng(0, Stage.CORRUPTION)
        x = torch.from_numpy(stream.standard_normal((count, *shape), dtype=np.float32))
        operator = operators.simulate({"name": "mask", "missing": 0.5}, shape, count, stream)
        sigma_y = torch.tensor(0.001)
        y = observe(operator, x, sigma_y, stream)
        splits[split] = Observed(operator, y, sigma_y, np.arange(count))
    save_observations(path, splits, "mask", {})
    return Observations(path)


# A lap of the paper


class Free(nn.Module):
    """A network that costs nothing but has the weights of another, which it hardly uses."""

    def __init__(self, weights: list[Tensor]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.zeros(w.shape)) for w in weights)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        total = sum(w.flatten()[0] for w in self.weights)
        return (0.5 + total) * x


def overhead(folder: Path) -> dict:
    """Measures what a lap of the paper's CIFAR-10 does outside its network."""
    path = ROOT / "config" / "paper.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config = resolve(config, path.name)
    entry = config["experiments"]["cifar10"]
    run = entry["runs"]["missing_50"]
    data = DATASETS.parse(entry["data"])
    shape, counts = data.event_shape(), data.counts()
    sampler = PosteriorSampler.from_config(run["e_step"])
    block, sampled = run["e_step"]["block"], counts["train"] + counts["validation"]
    training = Training.from_config(run["m_step"], counts["train"])
    with torch.device("meta"):
        weights = list(NETWORKS.parse(entry["network"]).build(shape).parameters())

    # The E-step, with a network of one weight.
    free = KarrasDenoiser(Free([torch.zeros(1)]), VESchedule(**entry["schedule"]))
    prior = Prior(Gaussian.standard(shape), free.eval().requires_grad_(False), {})
    observations = observed(folder / "observations.h5", shape, block, block)

    def sample(steps: int) -> None:
        short = PosteriorSampler(DDPM(steps=steps), sampler.covariance, sampler.iterations)
        e_step(folder / "samples.h5", prior, observations, EStep(short, block), 2, Job())

    few, many = 1, 9
    first, second = (median(lambda n=n: sample(n)) for n in (few, many))
    step = (second - first) / (many - few) / (2 * block)
    host = max(first / (2 * block) - step * (few + 1), 0.0)

    # The M-step, with the weights of the U-Net.
    free = KarrasDenoiser(Free(weights), VESchedule(**entry["schedule"]))
    x = torch.from_numpy(rng(0, Stage.DATA).standard_normal((512, *shape), dtype=np.float32))

    def optimize(steps: int) -> None:
        short = Training.from_config({**run["m_step"], "epochs": None, "steps": steps}, len(x))
        train(free, x, x[:1], short, seed=0)

    first, second = (median(lambda n=n: optimize(n), 3) for n in (2, 8))
    optimizer = (second - first) / 6
    fitted = 1024
    fit = median(lambda: fit_to_samples(x.repeat(2, 1, 1, 1), entry["gaussian"]["rank"]), 3)
    read = median(lambda: Rows([folder / "samples.h5"], "train/x", shape))
    tensors = {"x": torch.zeros(2**24)}
    saving = median(lambda: save_tensors(folder / "state", tensors, {}), 3)
    job = children(calibration.job_seconds)

    # The network: its FLOPs, and this machine's rate.
    denoiser = build_denoiser(entry["network"], entry["schedule"], shape, seed=0)
    prior = Prior(Gaussian.standard(shape), denoiser.eval().requires_grad_(False), {})
    some = observations.load("train", slice(0, 4))

    def evaluate() -> None:
        short = replace(sampler, sampler=DDPM.model_construct(steps=0))
        generator = torch.Generator().manual_seed(0)
        short(prior, some.operator, some.y, some.sigma_y, generator)

    with FlopCounter() as counter:
        evaluate()
    evaluation = counter.get_total_flops() / 4
    sampling_rate = evaluation * 4 / median(evaluate, 3)
    denoiser.train().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(4, *shape, generator=generator)

    def backpropagate() -> None:
        denoiser(noisy, torch.full((4,), 0.5)).mean.square().mean().backward()

    with FlopCounter() as counter:
        backpropagate()
    trained = counter.get_total_flops() / 4
    training_rate = trained * 4 / median(backpropagate, 3)

    evaluations = sampled * sampler.sampler.evaluations
    count = sum(w.numel() for w in weights)
    flops = {
        "E-step": evaluations * evaluation,
        "M-step": training.steps * training.batch * trained,
    }
    network = flops["E-step"] / sampling_rate + flops["M-step"] / training_rate
    gpu_network = sum(flops.values()) / (GPU["TFLOP/s"] * 1e12)
    copied = bandwidth()
    faster = GPU["GB/s"] / copied
    # A checkpoint holds the weights, their average and two moments.
    state = 4 * count * saving / tensors["x"].numel()
    interval = config["checkpoint_seconds"]
    shards = config["shards"]

    def part(name: str, unit: str, each: float, times: float, gpu_seconds: float) -> dict:
        row = {"part": name, "unit": unit, "each": each, "times": times}
        return {**row, "seconds": each * times, "gpu_seconds": gpu_seconds}

    def of_host(name: str, unit: str, each: float, times: float) -> dict:
        return part(name, unit, each, times, each * times)

    def of_memory(name: str, unit: str, each: float, times: float) -> dict:
        return part(name, unit, each, times, each * times / faster)

    arithmetic = "random numbers, sampler, operator, solver"
    optimization = "batches, augmentation, noise, clip, Adam, average"
    ppca = entry["gaussian"]["observations"]
    parts = [
        of_host("E-step: loading, checks, HDF5", "sample", host, sampled),
        of_memory(f"E-step: {arithmetic}", "evaluation", step, evaluations),
        of_memory(f"M-step: {optimization}", "optimizer step", optimizer, training.steps),
        of_host("M-step: reading the samples", "sample", read / block, sampled),
        of_host("M-step: PPCA of the samples", "sample", fit / fitted, ppca),
        part(
            *("M-step: checkpoints", "checkpoint", state, network / interval),
            state * gpu_network / interval,
        ),
        of_host("starts of jobs", "job", job, shards + 1),
    ]
    outside, gpu_outside = (sum(p[key] for p in parts) for key in ("seconds", "gpu_seconds"))
    return {
        "sampled": sampled,
        "evaluations": sampler.sampler.evaluations,
        "optimizer_steps": training.steps,
        "batch": training.batch,
        "weights": count,
        "flops_of_an_evaluation": evaluation,
        "flops_of_training_on_a_sample": trained,
        "flops": flops,
        "sampling_gflops": sampling_rate / 1e9,
        "training_gflops": training_rate / 1e9,
        "network_seconds": network,
        "gpu_network_seconds": gpu_network,
        "copy_gbs": copied,
        "parts": parts,
        "outside_seconds": outside,
        "gpu_outside_seconds": gpu_outside,
        "share": outside / (outside + network),
        "gpu_share": gpu_outside / (gpu_outside + gpu_network),
    }


def median(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Returns the median CPU seconds of some calls, after one that warms up."""
    run()
    return statistics.median(clocked(run) for _ in range(repeats))


def bandwidth() -> float:
    """Returns the GB/s that a copy moves here, read and written."""
    source = torch.zeros(2**26)
    target = torch.empty_like(source)
    return 2 * source.nbytes / 1e9 / median(lambda: target.copy_(source))


# What is shown


SECONDS = (0.2, 0.5, 1, 2, 5)

LABELS = {
    "samples": ("samples", "samples"),
    "steps": ("steps + 1 (evaluations)", "steps"),
    "size": ("pixels", "image size"),
    "iterations": ("CG iterations + 1 (passes)", "CG iterations"),
}


@styled
def drawn(grown: dict, machine: dict) -> Figure:
    """Draws the times of the four sweeps with the fitted powers."""
    figure = Figure(figsize=(WIDTH, 2.8))
    axes = figure.subplots(1, 4, sharey=True)
    for ax, (name, sweep) in zip(axes, grown.items(), strict=True):
        label, title = LABELS[name]
        work, seconds = np.array(sweep["work"]), np.array(sweep["seconds"])
        linear = seconds[len(seconds) // 2] * work / work[len(work) // 2]
        ax.plot(work, linear, color="0.75", marker="", linewidth=3, label="exponent 1")
        fit = sweep["factor"] * work ** sweep["exponent"]
        ax.plot(work, fit, marker="", linewidth=1, label="fit")
        low, high = np.array(sweep["spread"]).T
        error = np.abs(np.stack([seconds - low, high - seconds]))
        ax.errorbar(work, seconds, error, fmt="o", color="C1", markersize=4, label="measured")
        ax.set(xscale="log", yscale="log", xlabel=label)
        ax.set_title(f"{title}:\nexponent {sweep['exponent']:.2f}")
        sides = name == "size"
        ax.set_xticks(work, [f"{v}²" for v in sweep["values"]] if sides else [str(w) for w in work])
        ax.minorticks_off()
        ax.grid(color="0.93")
    axes[0].set_ylabel("E-step, CPU seconds")
    axes[0].set_yticks(SECONDS, [f"{value:g}" for value in SECONDS])
    axes[-1].legend(frameon=False, loc="upper left")
    few = FEWER["size"]
    note = (
        f"Where not on the axis: {BASE['samples']} samples, {BASE['steps']} steps, {BASE['size']} x"
        f" {BASE['size']} pixels, one CG iteration; against pixels {few['samples']} samples and"
        f" {few['steps']} steps. U-Net of channels {NETWORK['channels']}, one thread, medians of"
        f" {machine['repeats']} with the whole spread, PyTorch {machine['torch']}."
    )
    annotate(figure, "An E-step's time grows linearly with what is asked of it", note)
    return figure


def report(result: dict) -> str:
    """Returns the tables as Markdown."""
    machine, lap = result["machine"], result["lap"]
    load = " to ".join(f"{value:.1f}" for value in machine["load"])
    lines = [
        "# How the cost of a lap grows",
        "",
        "Made by `python benchmarks/growth.py`; CPU seconds of one thread, medians of"
        f" {machine['repeats']}. {machine['machine']}, {machine['cores']} cores, PyTorch"
        f" {machine['torch']}, load average {load}.",
        "",
        "## An E-step",
        "",
        "![Time of an E-step](growth.png)",
        "",
        "| against | from | to | seconds | spread | exponent |",
        "| --- | ---: | ---: | --- | --- | ---: |",
    ]
    for name, sweep in result["growth"].items():
        seconds = " / ".join(f"{value:.2f}" for value in sweep["seconds"])
        spread = max(high / low for low, high in sweep["spread"])
        work = sweep["work"]
        lines.append(
            f"| {LABELS[name][0]} | {work[0]:,} | {work[-1]:,} | {seconds}"
            f" | up to {spread - 1:.0%} | {sweep['exponent']:.2f} |"
        )
    lines += [
        "",
        "## A lap of the paper's CIFAR-10, outside the network",
        "",
        f"{lap['sampled']:,} observations with {lap['evaluations']} evaluations each,"
        f" {lap['optimizer_steps']:,} optimizer steps of {lap['batch']}, {lap['weights'] / 1e6:.1f}"
        " million weights. Each part is measured here at the paper's shapes, on few samples and"
        " steps, with a network that costs nothing, and multiplied.",
        "",
        "| part | each | times | seconds here | on a GPU |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {p['part']} | {1e3 * p['each']:.3g} ms a{'n' * (p['unit'][0] in 'aeiou')} {p['unit']}"
        f" | {p['times']:,.0f} | {p['seconds']:,.0f} | {p['gpu_seconds']:,.0f} |"
        for p in lap["parts"]
    ]
    flops = lap["flops"]
    lines += [
        f"| all outside the network | | | {lap['outside_seconds']:,.0f}"
        f" | {lap['gpu_outside_seconds']:,.0f} |",
        f"| the network | | | {lap['network_seconds']:,.0f} | {lap['gpu_network_seconds']:,.0f} |",
        f"| **share outside** | | | **{lap['share']:.2%}** | **{lap['gpu_share']:.2%}** |",
        "",
        f"The network: {lap['sampled']:,} x {lap['evaluations']} x"
        f" {lap['flops_of_an_evaluation'] / 1e9:.1f} GFLOP = {flops['E-step']:.2e}, and"
        f" {lap['optimizer_steps']:,} x {lap['batch']} x"
        f" {lap['flops_of_training_on_a_sample'] / 1e9:.1f} GFLOP = {flops['M-step']:.2e},"
        f" {sum(flops.values()):.2e} in all; here at {lap['sampling_gflops']:.0f} and"
        f" {lap['training_gflops']:.0f} GFLOP/s (measured at a batch of 4).",
        "",
        f"The GPU was not measured. It is assumed to sustain {GPU['TFLOP/s']:.0f} TFLOP/s and"
        f" {GPU['GB/s']:,.0f} GB/s. The second and third part are bound by memory, and faster by"
        f" the ratio to this thread's {lap['copy_gbs']:.1f} GB/s; the others are the host's, and"
        " take as long as here.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
