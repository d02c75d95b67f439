"""Can the posteriors of the fast recipe be believed, and is its prior proper? At three seeds.

The workflow of ``benchmarks/evidence.yaml``, whose head says what is compared, makes the rows, and
this the table of them:

    python benchmarks/evidence.py     # an hour of two idle cores; what is done stays
"""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import yaml

from diem.config.paths import Paths
from diem.config.resolve import resolve
from diem.evaluation.rows import read_rows
from diem.files.atomic import atomic
from diem.report.tables.labels import SUBJECTS, heading_of

HERE = Path(__file__).parent
CONFIG, RESULTS = HERE / "evidence.yaml", HERE.parent / "results" / "evidence"

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
    "sliced_wasserstein": "0",
    "c2st": "50",
    "energy_test_p": "uniform",
    "memorisation": "50",
}
"""The numbers, and what they are of a perfect prior and sampler."""

TAKEN = {
    "psnr": "posterior_mean",
    "frechet_distance": "prior",
    "sliced_wasserstein": "prior",
}
"""Of a number of several subjects, the one that is told."""

ONE, FOUR = "one", "four"
COLUMNS = {"floor": "Gaussian prior", ONE: "one sample", FOUR: "four samples"}

HEAD = """# Evidence: calibration and priors of the fast recipe

Made by `benchmarks/evidence.py`, by the workflow of [evidence.yaml](evidence.yaml): half of the
values of digits and of photographs' patches are hidden. Posteriors are of 256 held-out observations
with 32 draws each, at 32 steps, and priors are those of the last lap, which trains on one or on
four samples of each observation (`e_step.final`). Beside them is the Gaussian prior that the laps
begin with. Means over the seeds 0, 1 and 2, with their standard errors; of p-values all three. The
difference is paired, seed by seed.
"""


def rows_of(paths: Paths, name: str) -> pd.DataFrame:
    """Returns the metric rows of an experiment at all seeds, with the column ``prior``."""
    rows = read_rows(paths.metrics(name))
    rows["prior"] = rows["run"].where(rows["stage"] == "lap", rows["stage"])
    return rows[rows["subject"] == rows["metric"].map(TAKEN).fillna(rows["subject"])]


def told(values: pd.Series, metric: str) -> str:
    """Returns numbers at the seeds as their mean with its standard error, or all p-values."""
    if values.isna().all():
        return ""
    if PERFECT[metric] == "uniform":
        return ", ".join(f"{v:.2g}" for v in values)
    return f"{values.mean():.4g} ± {values.sem():.2g}"


def table(rows: pd.DataFrame) -> str:
    """Returns the table of an experiment, a row a number."""
    lines = []
    for metric, perfect in PERFECT.items():
        found = rows[rows["metric"] == metric]
        if found.empty:
            continue
        at = found.pivot(index="seed", columns="prior", values="value").reindex(columns=[*COLUMNS])
        cells = {title: told(at[prior], metric) for prior, title in COLUMNS.items()}
        difference = "" if perfect == "uniform" else told(at[FOUR] - at[ONE], metric)
        name, of = " ".join(heading_of(metric)), SUBJECTS[found["subject"].iloc[0]]
        what = {"number": name, "of": of, "perfect": perfect}
        lines.append({**what, **cells, "four - one": difference})
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)


def main() -> None:
    """Runs the workflow, and writes the tables."""
    read = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    config = resolve({**read, "results": str(RESULTS)}, CONFIG.name)
    snakemake = Path(sys.executable).with_name("snakemake")
    settings = ["--configfile", CONFIG, "--config", f"results={RESULTS}"]
    subprocess.run([snakemake, "--cores", "all", *settings], cwd=HERE.parent, check=True)
    paths = Paths(config)
    tables = [f"## {name}\n\n{table(rows_of(paths, name))}" for name in config["experiments"]]
    with atomic(HERE / "evidence.md") as temporary:
        temporary.write_text("\n\n".join([HEAD.strip(), *tables]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
