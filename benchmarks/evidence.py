"""What the two recipes cost, and whether their priors and posteriors can be believed.

The workflow of ``benchmarks/evidence.yaml``, whose head says what is compared, makes the rows of a
seed, which are kept in ``benchmarks/evidence.csv`` and not made again, and this the tables and the
figure of all:

    python benchmarks/evidence.py             # the seeds 0, 1 and 2, each 30 minutes of two cores
    python benchmarks/evidence.py --seeds 0

FLOPs are those that the plan counts, by PyTorch's counter on the real networks; evaluation is not
counted.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from diem.config.paths import Paths
from diem.config.resolve import resolve
from diem.evaluation.rows import read_rows
from diem.files.atomic import atomic
from diem.planning.calibration import measure
from diem.planning.experiment import Experiment
from diem.planning.work import Amounts, Work
from diem.report.drawing.style import GREY, WIDTH, save, styled
from diem.report.tables.labels import SUBJECTS, heading_of

HERE = Path(__file__).parent
CONFIG, ROWS = HERE / "evidence.yaml", HERE / "evidence.csv"

PERFECT = {
    "calibration_coverage_50": "50",
    "calibration_coverage_90": "90",
    "calibration_crps": "lowest",
    "calibration_spread": "",
    "calibration_p_total": "uniform",
    "calibration_p_low": "uniform",
    "calibration_p_high": "uniform",
    "calibration_p_distance": "uniform",
    "prediction": "lowest",
    "prediction_coverage_50": "50",
    "prediction_coverage_90": "90",
    "residual_median": "0.674",
    "residual_rms": "1",
    "residual_outliers": "0",
    "psnr": "",
    "frechet_distance": "0",
    "distance_to_manifold": "0",
    "sliced_wasserstein": "0",
    "c2st": "50",
    "energy_test_p": "uniform",
    "memorisation": "50",
}
"""The numbers, and what they are of a perfect prior and sampler."""

BY_LAP = (
    "calibration_coverage_90",
    "calibration_crps",
    "residual_rms",
    "psnr",
    "frechet_distance",
    "distance_to_manifold",
    "sliced_wasserstein",
    "memorisation",
)
"""The numbers that are told lap by lap."""

TAKEN = {
    "psnr": "posterior_mean",
    "frechet_distance": "prior",
    "distance_to_manifold": "prior",
    "sliced_wasserstein": "prior",
}
"""Of a number of several subjects, the one that is told."""

FLOOR, CEILING, PAPER, FAST = "floor", "ceiling", "paper", "fast"
COLUMNS = {
    FLOOR: "Gaussian prior",
    PAPER: "paper",
    FAST: "fast",
    "fast_cov_x": "fast, cov_x",
    CEILING: "clean data, as fast",
}
LINES = {PAPER: "C0o-", FAST: "C2^-", "fast_cov_x": "C1s-"}

DRAWN = {
    "digits": ("frechet_distance", "prior's Fréchet distance"),
    "patches": ("sliced_wasserstein", "prior's sliced Wasserstein"),
    "manifold": ("distance_to_manifold", "prior's distance to the curve"),
}
CRPS = ("calibration_crps", "CRPS, hidden values")

HEAD = """# Evidence: what the recipes cost, and what their posteriors and priors are worth

Made by `benchmarks/evidence.py`, by the workflow of [evidence.yaml](evidence.yaml), where each
recipe can be read. Half of the pixels of digits and of photographs' patches are hidden, and of the
manifold's five coordinates two projections are seen. `paper` is the paper's recipe with its steps
and epochs and as many laps as `fast` has, the fast one, whose E-steps are by the covariance
`tweedie` unless another is named; `clean data` is the same network after as many optimizer steps on
clean data. Posteriors are of 256 held-out observations with 64 draws each, drawn alike from every
prior (32 steps, `measured`). Means over the seeds {seeds}, with their standard errors; of p-values
all. The difference is paired, seed by seed. FLOPs are the network's, counted, of all E-steps and
M-steps. Held-out patches are of other parts of the photographs than those trained on, which hides
most of what tells their priors apart.

![Quality against FLOPs](evidence.png)
"""


def configured(seed: int) -> dict[str, Any]:
    """Returns the configuration of a seed."""
    read = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    results = HERE.parent / "results" / f"evidence_{seed}"
    return resolve({**read, "seed": seed, "results": str(results)}, CONFIG.name)


def targets(config: Mapping[str, Any]) -> list[str]:
    """Returns the metric rows that are compared: not of the paper's recipe on clean data."""
    paths, files = Paths(config), []
    for name, entry in config["experiments"].items():
        files.append(paths.floor(name, "half", "metrics.csv"))
        files.append(paths.ceiling(name, FAST, "half/metrics.csv"))
        for run in entry["runs"]:
            laps = paths.evaluated(name, run)
            files += [paths.lap(name, run, lap, "metrics.csv") for lap in laps]
    return files


def rows_of(config: Mapping[str, Any]) -> pd.DataFrame:
    """Runs the workflow, and returns its rows with the columns ``prior`` and ``flops``."""
    snakemake = Path(sys.executable).with_name("snakemake")
    settings = [f"{key}={config[key]}" for key in ("results", "seed")]
    command = [snakemake, "--cores", "all", "--configfile", CONFIG, "--config", *settings]
    subprocess.run([*command, "--", *targets(config)], cwd=HERE.parent, check=True)
    rows = read_rows(targets(config))
    rows["prior"] = rows["run"].where(rows["stage"] == "lap", rows["stage"])
    taken = rows["metric"].map(TAKEN).fillna(rows["subject"])
    rows = rows[rows["metric"].isin(PERFECT) & (rows["subject"] == taken)]
    flops = spent(config)
    keys = zip(rows["experiment"], rows["prior"], rows["lap"], strict=True)
    return rows.assign(flops=[flops.get(key) for key in keys])


def spent(config: Mapping[str, Any]) -> dict[tuple[str, str, int], float]:
    """Returns the network's FLOPs of all laps up to each, by experiment, run and lap."""
    costs: dict[Work, float] = {}

    def flops(amounts: Amounts) -> float:
        for work in amounts:
            if work not in costs:
                costs[work] = measure(work, 2.0, torch.device("cpu")).flops
        return sum(count * costs[work] for work, count in amounts.items())

    found = {}
    for name, entry in config["experiments"].items():
        plan = Experiment(config, name)
        for run, settings in entry["runs"].items():
            total = 0.0
            for lap in range(1, settings["laps"] + 1):
                total += flops(plan.m_step(run, lap)) + (lap > 1) * flops(plan.e_step(run, lap))
                found[name, run, lap] = total
    return found


def told(values: pd.Series, metric: str) -> str:
    """Returns numbers at the seeds as their mean with its standard error, or all p-values."""
    values = values.dropna()
    if values.empty:
        return ""
    if PERFECT[metric] == "uniform":
        return ", ".join(f"{v:.2g}" for v in values)
    error = f" ± {values.sem():.2g}" if len(values) > 1 else ""
    return f"{values.mean():.4g}{error}"


def last_laps(rows: pd.DataFrame) -> str:
    """Returns the table of an experiment's last laps, a row a number."""
    rows = rows[rows["lap"] == rows.groupby("prior")["lap"].transform("max")]
    flops = {COLUMNS[prior]: f"{of.iloc[0]:.2g}" for prior, of in rows.groupby("prior")["flops"]}
    lines = [{"number": "Network FLOPs", **{k: v for k, v in flops.items() if v != "nan"}}]
    for metric, perfect in PERFECT.items():
        found = rows[rows["metric"] == metric]
        if found.empty:
            continue
        at = found.pivot(index="seed", columns="prior", values="value").reindex(columns=[*COLUMNS])
        cells = {title: told(at[prior], metric) for prior, title in COLUMNS.items()}
        difference = "" if perfect == "uniform" else told(at[FAST] - at[PAPER], metric)
        name, of = " ".join(heading_of(metric)), SUBJECTS[found["subject"].iloc[0]]
        what = {"number": name, "of": of, "perfect": perfect}
        lines.append({**what, **cells, "fast - paper": difference})
    columns = ["number", "of", "perfect", *COLUMNS.values(), "fast - paper"]
    table = pd.DataFrame(lines).reindex(columns=columns).fillna("")
    return table.to_markdown(index=False, disable_numparse=True)


def by_lap(rows: pd.DataFrame) -> str:
    """Returns the table of an experiment's runs, a row an evaluated lap."""
    rows = rows[rows["stage"] == "lap"]
    lines = []
    for prior, title in COLUMNS.items():
        for lap, of in rows[rows["prior"] == prior].groupby("lap"):
            values = dict(list(of.groupby("metric")["value"]))
            cells = {" ".join(heading_of(m)): told(values[m], m) for m in BY_LAP if m in values}
            flops = f"{of['flops'].iloc[0]:.2g}"
            lines.append({"run": title, "lap": int(lap), "network FLOPs": flops, **cells})
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)


def _label(axis: Axis) -> None:
    """Labels a logarithmic axis, which may span less than a decade or several."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


@styled
def figure(rows: pd.DataFrame) -> Figure:
    """Draws quality against FLOPs, a column an experiment; bands are one standard error."""
    drawn = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = drawn.subplots(2, len(DRAWN), squeeze=False)
    for column, (name, main) in enumerate(DRAWN.items()):
        for ax, (metric, label) in zip(axes[:, column], (main, CRPS), strict=True):
            of = rows[(rows["experiment"] == name) & (rows["metric"] == metric)]
            for stage, line in ((FLOOR, ":"), (CEILING, "--")):
                value = of[of["stage"] == stage]["value"].mean()
                ax.axhline(value, color=GREY, linestyle=line)
                ax.annotate(
                    COLUMNS[stage],
                    (0.02, value),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    xytext=(0, 2),
                    color=GREY,
                    fontsize=7,
                )
            for run, line in LINES.items():
                # FLOPs of seeds differ in what exact draws take.
                at = of[of["prior"] == run].groupby("lap")
                mean, error = at["value"].mean(), at["value"].sem().fillna(0)
                x = at["flops"].mean() / 1e12
                ax.plot(x, mean, line, label=COLUMNS[run], markersize=3)
                ax.fill_between(x, mean - error, mean + error, color=line[:2], alpha=0.2, lw=0)
            ax.set_xscale("log")
            ax.set_yscale("log")
            _label(ax.xaxis)
            _label(ax.yaxis)
            ax.set_ylabel(label)
        axes[0, column].set_title(name)
        axes[1, column].set_xlabel("network TFLOPs")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return drawn


def main() -> None:
    """Runs the workflow, and writes the tables and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    torch.set_num_threads(1)
    done = pd.read_csv(ROWS) if ROWS.is_file() else pd.DataFrame({"seed": []})
    for seed in sorted(set(parser.parse_args().seeds) - set(done["seed"])):
        done = pd.concat([done, rows_of(configured(seed))]).sort_values("seed", kind="stable")
        with atomic(ROWS) as temporary:
            done.to_csv(temporary, index=False)
    rows = pd.read_csv(ROWS)
    pages = [HEAD.format(seeds=", ".join(map(str, sorted(set(rows["seed"]))))).strip()]
    for name, of in rows.groupby("experiment", sort=False):
        pages += [f"## {name}", last_laps(of), "By lap:", by_lap(of)]
    with atomic(HERE / "evidence.md") as temporary:
        temporary.write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    for kind in ("pdf", "png"):
        save(figure(rows), HERE / f"evidence.{kind}", kind)


if __name__ == "__main__":
    main()
