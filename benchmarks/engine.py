"""Measures the engine against azula's MMPS and against a plain training loop, side by side.

E-step: one evaluation of the posterior denoiser of the paper's CIFAR-10 U-Net (masks, three of four
pixels missing) and of the manifold's perceptron (two of five values observed), by azula and by each
setting of the engine, on the same network, operators, observations and inputs. M-step: one
optimizer step of the U-Net by a plain loop (float32, images in NCHW, Adam's and the average's
loops over parameters) and by diem's. Variants take turns, so that whatever else the machine does
meets all alike; a ratio is the median over turns of the ratio within a turn.

On a CPU the clock is the CPU time of the process, which other processes do not stretch as they do
the wall's; on a GPU it is the wall's, after synchronization. FLOPs are counted by PyTorch's counter
in a run of its own, and the machine's peak is measured in the same turns. The memory of
a sample is the growth with the batch of what the graph keeps (CPU) or of PyTorch's peak (GPU). From
the root of the repository:

    python benchmarks/engine.py                 # one core, small batches: some minutes
    python benchmarks/engine.py --device cuda   # the paper's batches
"""

import argparse
import contextlib
import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from azula.guidance.mmps import MMPSDenoiser
from azula.linalg.covariance import IsotropicCovariance
from torch import Tensor

from diem import operators
from diem.diffusion.posterior import Guidance, PosteriorDenoiser
from diem.diffusion.prior import build_denoiser
from diem.diffusion.samplers import sigma_to_time
from diem.em.loss import weighted_error
from diem.em.training import Trained, Training
from diem.files.atomic import atomic
from diem.networks.runtime import PRECISIONS, Compile, compile_network, set_memory_format
from diem.planning.flops import FlopCounter
from diem.versions import versions

SCHEDULE = {"sigma_min": 1e-3, "sigma_max": 1e2}
SIGMA, SIGMA_Y, SEED = 1.0, 1e-2, 0
PROBLEMS: dict[str, dict[str, Any]] = {
    "unet": {
        "label": "CIFAR-10 U-Net",
        "network": {"name": "unet", "attention": {"1": 4}},
        "shape": (3, 32, 32),
        "operator": {"name": "mask", "missing": 0.75},
        "batch": {"cpu": 4, "cuda": 256},
        "turns": {"cpu": 3, "cuda": 20},
    },
    "mlp": {
        "label": "manifold MLP",
        "network": {"name": "mlp"},
        "shape": (5,),
        "operator": {"name": "projection", "rows": 2},
        "batch": {"cpu": 1024, "cuda": 16384},
        "turns": {"cpu": 30, "cuda": 60},
    },
}
ENGINES = {
    "diem": {},
    "diem, channels-last": {"channels_last": True},
    "diem, compiled": {"channels_last": True, "compile": True},
    "diem, bfloat16": {"precision": "bfloat16", "channels_last": True},
    "diem, bfloat16, compiled": {"precision": "bfloat16", "channels_last": True, "compile": True},
}
"""The settings by name; what a variant does not name has the config's default."""


def variants(problem: str, compiled: bool) -> dict[str, dict[str, Any]]:
    """Returns the settings that differ from each other on a problem."""
    chosen = {}
    for name, options in ENGINES.items():
        if options.get("compile") and not compiled:
            continue
        if problem == "mlp" and list(options) == ["channels_last"]:
            continue  # it has no images
        chosen[name] = options
    return chosen


def synchronize(device: torch.device) -> None:
    """Waits for what a GPU still does."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(
    runs: dict[str, Callable[[], Any]], turns: int, device: torch.device
) -> dict[str, list[float]]:
    """Returns the seconds of each run in each turn, after one turn that warms up."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-1, turns):
        for name, run in runs.items():
            synchronize(device)
            began = clock()
            run()
            synchronize(device)
            if turn >= 0:
                seconds[name].append(clock() - began)
    return seconds


def count(run: Callable[[], Any]) -> int:
    """Returns the floating-point operations of a run."""
    with FlopCounter() as counter:
        run()
    return counter.get_total_flops()


def products(device: torch.device) -> dict[str, tuple[Callable[[], Any], float]]:
    """Returns large products in each precision, and their operations: the machine's peaks.

    The libraries of matrix products and of convolutions differ, and so do their peaks; the higher
    of the two is the machine's.
    """
    cpu = device.type == "cpu"
    size, images = (1024, 4) if cpu else (8192, 256)
    runs = {}
    for precision in PRECISIONS:
        to = {"device": device, "dtype": getattr(torch, precision)}
        a, b = torch.randn(2, size, size, **to)
        runs[f"product {precision}"] = (lambda a=a, b=b: a @ b, 2 * size**3)
        x = torch.randn(images, 256, 32, 32, **to).to(memory_format=torch.channels_last)
        w = torch.randn(256, 256, 3, 3, **to).to(memory_format=torch.channels_last)
        convolve = partial(F.conv2d, x, w, padding=1)
        runs[f"convolution {precision}"] = (convolve, 2 * 9 * 256**2 * images * 32**2)
    return runs


class EStep:
    """One posterior denoising step of a problem, by azula and by the engine.

    Arguments:
        problem: A name of :data:`PROBLEMS`.
        batch: The number of observations.
        iterations: The number of conjugate-gradient iterations.
        device: The device.
    """

    def __init__(self, problem: str, batch: int, iterations: int, device: torch.device) -> None:
        entry = PROBLEMS[problem]
        shape = entry["shape"]
        generator = torch.Generator().manual_seed(SEED)
        denoiser = build_denoiser(entry["network"], SCHEDULE, shape, SEED)
        self.denoiser = denoiser.to(device).eval().requires_grad_(False)
        self.operator = operators.simulate(
            entry["operator"], shape, batch, np.random.default_rng(SEED)
        ).to(device)
        clean = torch.randn(batch, *shape, generator=generator).to(device)
        self.y = self.operator.forward(clean)
        noise = torch.randn(batch, *shape, generator=generator).to(device)
        self.x_t = clean + SIGMA * noise
        level = torch.tensor([SIGMA], dtype=torch.float64)
        self.t = sigma_to_time(denoiser.schedule, level).float().to(device)
        self.iterations = iterations

    def azula(self) -> Callable[[], Tensor]:
        """Returns azula's step. Its solver takes vectors, so that observations are flattened."""
        posterior = MMPSDenoiser(
            self.denoiser,
            self.y.flatten(1),
            lambda x: self.operator.forward(x).flatten(1),
            IsotropicCovariance(torch.tensor(SIGMA_Y**2, device=self.y.device)),
            "cg",
            self.iterations,
        )
        return lambda: posterior(self.x_t, self.t).mean

    def diem(
        self, precision: str = "float32", channels_last: bool = False, compile: Compile = False
    ) -> Callable[[], Tensor]:
        """Returns the engine's step."""
        denoiser = copy.deepcopy(self.denoiser)
        set_memory_format(denoiser, channels_last)
        if compile:
            compile_network(denoiser.backbone, "compile", compile)
        posterior = PosteriorDenoiser(
            denoiser,
            self.operator,
            self.y,
            SIGMA_Y,
            Guidance(iterations=self.iterations),
            precision=precision,
        )
        return lambda: posterior(self.x_t, self.t).mean


class MStep:
    """One optimizer step of a problem, by a plain loop and by the engine."""

    def __init__(self, problem: str, batch: int, device: torch.device) -> None:
        entry = PROBLEMS[problem]
        self.denoiser = build_denoiser(entry["network"], SCHEDULE, entry["shape"], SEED).to(device)
        generator = torch.Generator().manual_seed(SEED)
        self.x, self.z = torch.randn(2, batch, *entry["shape"], generator=generator).to(device)
        self.t = torch.rand(batch, generator=generator).to(device)

    def plain(self) -> Callable[[], None]:
        """Returns a loop as a tutorial has it: nothing fused, nothing grouped."""
        denoiser = copy.deepcopy(self.denoiser).train()
        average = copy.deepcopy(denoiser)
        weights = list(denoiser.parameters())
        adam = torch.optim.Adam(weights, lr=1e-4, foreach=False, fused=False)

        def step() -> None:
            loss = weighted_error(denoiser, self.x, self.t, self.z)
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=False)
            adam.step()
            with torch.no_grad():
                for mean, weight in zip(average.parameters(), weights, strict=True):
                    mean.mul_(0.999).add_(weight, alpha=1 - 0.999)

        return step

    def diem(
        self, precision: str = "float32", channels_last: bool = False, compile: Compile = False
    ) -> Callable[[], None]:
        """Returns the engine's step."""
        rate = 1e-4
        run = {"precision": precision, "channels_last": channels_last, "compile": compile}
        model = Trained(copy.deepcopy(self.denoiser), Training(1, len(self.x), rate, **run))
        return lambda: model.step(self.x, self.t, self.z, 0, rate)


def steps(problem: str, half: str, iterations: int, batch: int, device: torch.device, compiled):
    """Returns the runs by name, the rival's first, and the settings of the engine's."""
    chosen = variants(problem, compiled)
    if half == "e_step":
        step = EStep(problem, batch, iterations, device)
        runs = {"azula": step.azula()}
    else:
        step = MStep(problem, batch, device)
        runs = {"plain loop": step.plain()}
    return runs | {name: step.diem(**options) for name, options in chosen.items()}, chosen


def compare(
    problem: str, half: str, iterations: int, device: torch.device, compiled: bool
) -> list[dict[str, Any]]:
    """Measures one half of a lap on a problem, and returns a row a variant."""
    entry = PROBLEMS[problem]
    batch, turns = entry["batch"][device.type], entry["turns"][device.type]
    runs, chosen = steps(problem, half, iterations, batch, device, compiled)
    rival = next(iter(runs))
    flops = {name: count(runs[name]) for name in (rival, "diem")}
    outputs = {name: run() for name, run in runs.items()} if half == "e_step" else {}
    peaks = products(device)
    seconds = measure({**runs, **{name: run for name, (run, _) in peaks.items()}}, turns, device)
    rows = []
    for name in runs:
        precision = chosen.get(name, {}).get("precision", "float32")
        peak = max(
            operations / statistics.median(seconds[kind])
            for kind, (_, operations) in peaks.items()
            if kind.endswith(precision)
        )
        counted = flops.get(name, flops["diem"])
        ratios = [a / b for a, b in zip(seconds[rival], seconds[name], strict=True)]
        time_ = statistics.median(seconds[name])
        rows.append(
            {
                "half": half,
                "network": entry["label"],
                "iterations": iterations if half == "e_step" else None,
                "variant": name,
                "batch": batch,
                "turns": turns,
                "seconds": time_,
                "seconds_quartiles": quartiles(seconds[name]),
                "ratio": statistics.median(ratios),
                "ratio_quartiles": quartiles(ratios),
                "gflop_per_sample": counted / batch / 1e9,
                "precision": precision,
                "peak_gflop_per_s": peak / 1e9,
                "fraction_of_peak": counted / time_ / peak,
                "error": error(outputs[name], outputs["diem"]) if outputs else None,
                "bytes_per_sample": memory(problem, half, iterations, name, device),
            }
        )
        print(line(rows[-1]), flush=True)
    return rows


def quartiles(values: list[float]) -> list[float]:
    """Returns the first and the third quartile."""
    low, _, high = statistics.quantiles(values, n=4)
    return [low, high]


def error(x: Tensor, reference: Tensor) -> float:
    """Returns the distance to the float32 result, relative to its norm."""
    return float((x - reference).norm() / reference.norm())


def memory(
    problem: str, half: str, iterations: int, name: str, device: torch.device
) -> float | None:
    """Returns the growth of memory with the batch, in bytes a sample, from half to all of it.

    On a GPU it is the peak's. On a CPU it is that of what the graph keeps for gradients, nearly all
    of the peak; what a compiled network keeps is not seen there.
    """
    if "compiled" in name and device.type == "cpu":
        return None
    large = PROBLEMS[problem]["batch"][device.type]
    peaks = []
    for batch in (large // 2, large):
        run = steps(problem, half, iterations, batch, device, device.type == "cuda")[0][name]
        if device.type == "cuda":
            run()
            torch.cuda.reset_peak_memory_stats()
            run()
            peaks.append(torch.cuda.max_memory_allocated())
        else:
            peaks.append(kept(run))
    return (peaks[1] - peaks[0]) / (large - large // 2)


def kept(run: Callable[[], Any]) -> int:
    """Returns the bytes that the graph of a run keeps, each tensor counted once."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(sizes.values())


COLUMNS = (
    "| network | CG iterations | variant | batch | ms a sample | quartiles | speed over the rival's"
    " | quartiles | GFLOP a sample | of the peak | error | MB a sample |",
    "| --- | ---: | --- | ---: | ---: | --- | ---: | --- | ---: | ---: | ---: | ---: |",
)


def line(row: dict[str, Any]) -> str:
    """Returns a row of the table."""

    def range_(values: list[float], scale: float = 1.0, digits: str = ".2f") -> str:
        return " to ".join(f"{scale * value:{digits}}" for value in values)

    scale = 1e3 / row["batch"]
    memory = row["bytes_per_sample"]
    cells = (
        row["network"],
        row["iterations"] or "",
        row["variant"],
        row["batch"],
        f"{scale * row['seconds']:.4g}",
        range_(row["seconds_quartiles"], scale, ".4g"),
        f"**{row['ratio']:.2f}**",
        range_(row["ratio_quartiles"]),
        f"{row['gflop_per_sample']:.3g}",
        f"{row['fraction_of_peak']:.0%}",
        "" if row["error"] is None else f"{row['error']:.1e}",
        "" if memory is None else f"{memory / 1e6:.3g}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def machine(device: torch.device) -> dict[str, Any]:
    """Returns what the figures depend on."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                name = text.partition(":")[2].strip()
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        **versions(),
    }


def document(machines: dict[str, dict[str, Any]]) -> str:
    """Returns the tables of all machines as a page."""
    halves = {"e_step": ("E-step", "azula's MMPS"), "m_step": ("M-step", "a plain loop")}
    parts = [
        "# The engine",
        "Made by `benchmarks/engine.py`, at whose head stands what is measured and how. Each"
        " machine that it ran on has a section here and an entry in `engine.json`.",
    ]
    for on, entry in machines.items():
        made, rows = entry["machine"], entry["rows"]
        parts += [
            f"## {on}",
            f"{made['threads']} thread, torch {made['torch']}, azula {made['azula']}, Python"
            f" {made['python']}; load average {made['load'][0]:.1f} before and"
            f" {made['load'][1]:.1f} after, on {made['cores']} cores.",
        ]
        for half, (title, rival) in halves.items():
            some = [line(row) for row in rows if row["half"] == half]
            parts += [f"### {title}, against {rival}", "\n".join([*COLUMNS, *some])]
        for precision in PRECISIONS:
            peaks = [r["peak_gflop_per_s"] for r in rows if r["precision"] == precision]
            low, high = min(peaks), max(peaks)
            told = f"Peak in {precision}, in the same turns: {low:.0f} to {high:.0f} GFLOP/s."
            parts.append(told)
    return "\n\n".join(parts) + "\n"


def write(folder: Path, made: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes a machine's rows to ``engine.json``, beside those of others, and ``engine.md``."""
    path = folder / "engine.json"
    machines = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    machines[made["gpu"] or made["cpu"]] = {"machine": made, "rows": rows}
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(machines, indent=1) + "\n", encoding="utf-8")
    with atomic(folder / "engine.md") as temporary:
        temporary.write_text(document(machines), encoding="utf-8")


def main() -> None:
    """Measures this machine."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="compile the U-Net too")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    before = os.getloadavg()[0]
    rows = []
    for problem in PROBLEMS:
        compiled = arguments.compile or problem == "mlp"
        for half, iterations in (("e_step", 1), ("e_step", 3), ("m_step", 0)):
            rows += compare(problem, half, iterations, device, compiled)
            made = machine(device)
            write(arguments.output, {**made, "load": [before, made["load"]]}, rows)


if __name__ == "__main__":
    main()
