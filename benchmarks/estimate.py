"""Checks the plan of `snakemake estimate` against real laps of each of the demo's experiments.

The E-steps and M-steps of two laps, of which the second samples with a network, run with the demo's
own settings, data and files, beside their plan: seconds, FLOPs, and bytes on disk. Seconds are the
CPU's, of one thread, on both sides, so that a busy machine can be used; the starts of jobs are left
out on both. Run it from the root of the repository:

    python benchmarks/estimate.py
"""

import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from diem.config.resolve import resolve
from diem.data import simulate as observing
from diem.data.observations import Observations
from diem.data.sets import DATASETS
from diem.diffusion.gaussian import fit_to_observations
from diem.diffusion.prior import Prior, read_prior
from diem.em.e_step import EStep, e_step
from diem.em.laps import training_of_lap
from diem.em.m_step import Lap, m_step
from diem.files.atomic import atomic
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import Job
from diem.planning import estimate
from diem.planning.flops import FlopCounter
from diem.seeds import Stage, torch_generator

ROOT = Path(__file__).parents[1]
SEED, LAPS = 0, 2


def main() -> None:
    """Writes ``benchmarks/estimate.md``."""
    torch.set_num_threads(1)
    before = os.getloadavg()[0]
    path = ROOT / "config" / "config.yaml"
    demo = yaml.safe_load(path.read_text(encoding="utf-8"))
    lines = []
    for name in demo["experiments"]:
        config = shortened(demo, name)
        config = resolve(config, path.name)
        planned = plan(config)
        with tempfile.TemporaryDirectory() as folder:
            for stage, found in real(config["experiments"][name], Path(folder)).items():
                lines.append(line(name, stage, planned[stage], found))
    load = f"{before:.1f} before and {os.getloadavg()[0]:.1f} after"
    text = "\n".join(
        [
            "# The plan beside the run",
            "",
            f"Made by `python benchmarks/estimate.py`: {LAPS} laps of the first run of each of the"
            " demo's experiments, planned as `snakemake estimate` does and then really run,"
            " FLOPs counted in another run of the same. CPU seconds of one thread, without the"
            f" starts of jobs; {platform.machine()}, {os.cpu_count()} cores, PyTorch"
            f" {torch.__version__}, load averages {load}.",
            "",
            "| experiment | stage | seconds planned | run | ratio | FLOPs planned | run | ratio"
            " | MB planned | run | ratio |",
            f"| --- | --- |{' ---: |' * 9}",
            *lines,
            "",
        ]
    )
    with atomic(Path(__file__).with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


def shortened(demo: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the demo's configuration with the first run of one experiment, and two laps."""
    entry = demo["experiments"][name]
    run, settings = next(iter(entry["runs"].items()))
    entry |= {"laps": LAPS, "runs": {run: settings}}
    return {"device": "cpu", "experiments": {name: entry}}


def plan(config: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Returns what the laps are planned to take by stage, without the starts of jobs."""
    planned = {}
    for row in estimate.estimate(config, clock=time.process_time):
        seconds = 3600 * row["hours"] - row["jobs"] * row["job_seconds"]
        planned[row["stage"]] = {**row, "seconds": seconds}
    return planned


def real(entry: dict[str, Any], folder: Path) -> dict[str, dict[str, float]]:
    """Runs the laps, and returns their seconds, FLOPs and bytes by stage."""
    (run,) = entry["runs"].values()
    clean, observed = folder / "clean.h5", folder / "observations.h5"
    splits = DATASETS.parse(entry["data"]).load(SEED)
    write_hdf5(clean, {f"{key}/x": split.x for key, split in splits.items()}, {})
    observations = entry["observations"][run["observations"]]
    observing.corrupt(clean, observed, observations, SEED, "benchmark")
    gaussian = entry["gaussian"]
    settings = EStep.from_config(run["e_step"])

    with Observations(observed) as file:
        some = file.load("train", slice(0, gaussian["observations"]))
        fitted = fit_to_observations(
            *(some.operator, some.y, some.sigma_y, gaussian["rank"], gaussian["iterations"]),
            torch_generator(SEED, Stage.GAUSSIAN),
        )

        def sample(prior: Prior, lap: int) -> Path:
            output = folder / f"samples_{lap}.h5"
            e_step(output, prior, file, settings, lap, Job(SEED))
            return output

        def optimize(samples: Path, lap: int) -> Path:
            output = folder / f"prior_{lap}.safetensors"
            training = training_of_lap(run["m_step"], lap, lap == LAPS)
            parts = (training, entry["network"], entry["schedule"], gaussian)
            m_step(Lap(lap, [samples], *parts), output, folder / "losses.csv", Job(SEED))
            return output

        found = {"E-steps": Counter(), "M-steps": Counter()}
        prior = Prior(fitted, None, {})
        for lap in range(1, LAPS + 1):
            samples, spent = measured(lambda prior=prior, lap=lap: sample(prior, lap))
            found["E-steps"] += spent
            path, spent = measured(lambda samples=samples, lap=lap: optimize(samples, lap))
            found["M-steps"] += spent
            prior = read_prior(path)
        return found


def measured(run: Callable[[], Path]) -> tuple[Path, Counter]:
    """Runs what writes a file; returns the file, and the seconds, FLOPs and bytes of it."""
    began = time.process_time()
    run()
    seconds = time.process_time() - began
    with FlopCounter() as counter:
        output = run()
    flops, size = counter.get_total_flops(), output.stat().st_size
    return output, Counter(seconds=seconds, flops=flops, bytes=size)


def line(name: str, stage: str, planned: dict[str, float], found: dict[str, float]) -> str:
    """Returns a row of the table."""
    cells = []
    for key, scale, form in (("seconds", 1, ".2f"), ("flops", 1, ".3e"), ("bytes", 1e6, ".3f")):
        pair = [f"{values[key] / scale:{form}}" for values in (planned, found)]
        cells += [*pair, f"{planned[key] / found[key]:.2f}"]
    return f"| {name} | {stage} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
