"""The whole workflow through Snakemake with ``device: cuda``, twice with the same numbers.

Snakemake plans and ``workflow/debug.py`` runs every job, each run in one process, both at the same
time. Two jobs may not share a GPU that they take by ``cuda``, so that the second asks for
``cuda:0``; results do not depend on it. What is compared are all priors, arrays and tables. Sums of
the operator ``sparse`` have no fixed order on a GPU: its own experiment is not compared.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml

from gpu_parts.setup import Case, Setup, differences

__all__ = ["cases", "configuration"]

ROOT = Path(__file__).parents[2]
UNORDERED = "sparse"


def configuration(device: str, tiny: bool) -> dict[str, Any]:
    """Returns tests/every_kind.yaml with another device, and what this machine can run of it."""
    path = ROOT / "tests/every_kind.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = config["experiments"]
    kinds = {"curve": known["curve"]}
    sparse = {**known["curve"], "observations": {}, "runs": {}, "laps": 2}
    for name, section in (("observations", "pairs"), ("runs", "cov_x")):
        section_of = dict(known["curve"][name])
        sparse[name] = {section: section_of.pop(section)}
        kinds["curve"] = {**kinds["curve"], name: section_of}
    if tiny:
        kinds["curve"] = {**kinds["curve"], "laps": 2}
    else:
        kinds |= {UNORDERED: sparse, **{name: known[name] for name in ("scan", "sky")}}
        digits = dict(known["digits"])
        kinds["digits"] = {key: digits[key] for key in digits if key != "stands_for"}
        if util.find_spec("PIL"):
            kinds["patches"] = known["patches"]
    for name, kind in kinds.items():
        evaluation, missing = dict(kind["evaluation"]), {"frechet_distance"}
        missing |= set() if util.find_spec("skimage") else {"ssim"}
        missing |= set() if util.find_spec("ot") else {"sinkhorn_divergence"}
        if "metrics" in evaluation:
            evaluation["metrics"] = [m for m in evaluation["metrics"] if m not in missing]
        plain = {key: value for key, value in kind.items() if key not in ("figures", "stands_for")}
        kinds[name] = {**plain, "evaluation": evaluation, "figures": []}
    rest = {key: config[key] for key in ("seed", "checkpoint_seconds")}
    return {**rest, "device": device, "experiments": kinds}


def _write_sky(path: Path) -> None:
    """Writes observations that the example's telescope made."""
    rng = np.random.default_rng(0)
    waves = np.sin(2 * np.pi * np.arange(8) / 8 + rng.uniform(0, 2 * np.pi, (2, 240, 1)))
    y = waves[0][:, None, :, None] * waves[1][:, None, None, :]
    alive = rng.random(y.shape) < 0.7
    y = (alive * (y + 0.05 * rng.standard_normal(y.shape))).astype(np.float32)
    parameters = {"width": rng.uniform(0.4, 0.8, 240).astype(np.float32), "alive": alive}
    arrays = {"y": y, "sigma_y": np.full(240, 0.05, np.float32)}
    with h5py.File(path, "w") as file:
        file.attrs["event_shape"] = y.shape[1:]
        for name, values in {**arrays, **parameters}.items():
            file[f"train/{'operator/' if name in parameters else ''}{name}"] = values


def _start(folder: Path, device: str, tiny: bool) -> subprocess.Popen:
    config = configuration(device, tiny)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    shutil.copy(ROOT / "examples/telescope.py", folder)
    if "sky" in config["experiments"]:
        _write_sky(folder / "sky.h5")
    tables = [f"results/tables/{name}.csv" for name in config["experiments"]]
    command = [
        *(sys.executable, str(ROOT / "workflow/debug.py"), "--all", "--directory", str(folder)),
        *("--configfile", str(folder / "config.yaml"), *tables),
    ]
    with (folder / "printed.txt").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=os.environ)


def _run(setup: Setup) -> dict[str, Any]:
    devices = ("cuda", "cuda:0") if setup.cuda else ("cpu", "cpu")
    folders = [setup.new_folder(name) for name in ("first", "second")]
    runs = [_start(f, d, setup.tiny) for f, d in zip(folders, devices, strict=True)]
    try:
        codes = [run.wait() for run in runs]
    finally:
        for run in runs:
            run.kill()
            run.wait()
    printed = [(folder / "printed.txt").read_text(encoding="utf-8") for folder in folders]
    for code, text in zip(codes, printed, strict=True):
        assert code == 0, f"it ended with {code}: {text[-1500:]}"
    jobs = [line for line in printed[0].splitlines() if " s  " in line]
    slowest = sorted(jobs, key=lambda line: -float(line.split()[0]))[:5]
    return {"jobs": len(jobs), "slowest": [" ".join(line.split()) for line in slowest]}


def _compare(setup: Setup) -> dict[str, Any]:
    count, told = differences(*(setup.folder / name / "results" for name in ("first", "second")))
    assert count, "there are no results"
    unordered = [sentence for sentence in told if f"{UNORDERED}/" in sentence.partition(":")[0]]
    unordered += [sentence for sentence in told if f"tables/{UNORDERED}" in sentence]
    others = [sentence for sentence in told if sentence not in unordered]
    assert not others, f"{len(others)} differences in {count} files: {others[:8]}"
    return {"files": count, "same_bits": True, "of_sparse_differ": len(unordered)}


def _use(setup: Setup) -> dict[str, Any]:
    """Exports each run, and draws from what was exported."""
    from diem.inference.prior_denoiser import load_prior
    from diem.report.export import export

    folder, shapes = setup.folder / "first", {}
    for run in sorted((folder / "results").glob("*/runs/*")):
        name = f"{run.parents[1].name}_{run.name}"
        card = export(run, folder / f"{name}.safetensors")
        assert card["metrics"], f"{name} has no metrics"
        prior = load_prior(folder / f"{name}.safetensors", setup.device)
        x = prior.sample(4)
        assert torch.isfinite(x).all()
        shapes[name] = len(card["metrics"])
    assert shapes, "there are no runs"
    return {"exported": len(shapes), "metrics": sum(shapes.values())}


def cases(setup: Setup) -> Iterator[Case]:
    """Yields the cases."""
    yield "run twice", partial(_run, setup)
    yield "compare", partial(_compare, setup)
    yield "export and load", partial(_use, setup)
