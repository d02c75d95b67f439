"""Tables with missing entries: what `diem.fit` predicts beside what imputes them usually.

The tables are scikit-learn's, standardised. In each, entries are hidden at random, and the others
have a little noise. A fifth of the rows is held out: the hidden entries of these are predicted from
the others, by draws of

- ``diem.fit`` at its defaults, which are those of ``diem init``;
- its Gaussian prior, which the laps begin with;
- scikit-learn's ``IterativeImputer`` with posterior draws, each of a fit of its own;
- its ``KNNImputer``, whose one value has no spread: its CRPS is its mean absolute error.

CRPS and RMSE of the mean are in standard deviations of a column, and 50 and 90 % intervals should
hold as many hidden entries.

    python benchmarks/tables.py             # three tables, seeds 0, 1 and 2: a quarter of an hour
    python benchmarks/tables.py --seeds 0 --tables wine
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn import datasets
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # makes the import below
from sklearn.impute import IterativeImputer, KNNImputer
from torch import Tensor

import diem
from diem.evaluation.metrics.prediction import crps
from diem.evaluation.ranks import coverage, pit
from diem.files.atomic import atomic

HERE = Path(__file__).parent
TABLES = {
    "diabetes": datasets.load_diabetes,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
}
MISSING, NOISE, DRAWS = 0.4, 0.05, 32

HEAD = f"""# Tables with missing entries

Made by `benchmarks/tables.py`, whose head says what is compared: {MISSING:.0%} of the entries are
hidden, and {DRAWS} draws predict those of a fifth of the rows. Means over the seeds, with their
standard errors. Differences from the Gaussian are paired, seed by seed.
"""


def methods(y: np.ndarray, shown: np.ndarray, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Learns from the shown rows; yields each method's draws ``(N, K, D)`` of the held-out ones.

    Arguments:
        y: The held-out rows, NaN where a value is hidden.
        shown: The others.
        seed: The seed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "fit"
        prior = diem.fit(shown, "mask", NOISE, folder, seed=seed, progress=False)
        gaussian = next(folder.rglob("gaussian.safetensors"))
        last = sorted(folder.rglob("lap_*/prior.safetensors"))[-1]
        priors = {"chosen": prior, "last lap": diem.load_prior(last)}
        priors["Gaussian"] = diem.load_prior(gaussian)
        for label, learned in priors.items():
            yield label, learned.posterior(y, "mask", NOISE, DRAWS, seed=seed)
    draws = [
        IterativeImputer(sample_posterior=True, random_state=seed + 1000 * k)
        .fit(shown)
        .transform(y)
        for k in range(DRAWS)
    ]
    yield "iterative imputer", torch.from_numpy(np.stack(draws, axis=1))
    near = torch.from_numpy(KNNImputer().fit(shown).transform(y))
    yield "nearest neighbours", near[:, None].expand(-1, DRAWS, -1)


def case(table: str, seed: int) -> list[dict[str, object]]:
    """Returns a row a method, of a table and seed."""
    stream = np.random.default_rng(seed)
    x = stream.permutation(TABLES[table]().data)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    hidden = stream.random(x.shape) < MISSING
    y = np.where(hidden, np.nan, x + NOISE * stream.standard_normal(x.shape)).astype(np.float32)
    held = len(x) // 5
    truth, of_held = torch.from_numpy(x[:held]), torch.from_numpy(hidden[:held])
    rows: list[dict[str, object]] = []
    for label, draws in methods(y[:held], y[held:], seed):
        ranks = pit(draws, truth, torch.Generator().manual_seed(0))[of_held]
        scores, error = crps(draws, truth, of_held), (draws.mean(dim=1) - truth)[of_held]
        row = {
            "table": f"{table} ({x.shape[0]} x {x.shape[1]})",
            "seed": seed,
            "method": label,
            "CRPS": float(scores[~scores.isnan()].mean()),
            "RMSE": float(error.square().mean().sqrt()),
        }
        if label != "nearest neighbours":
            row |= {
                f"{p} % intervals hold": float(coverage(ranks, p / 100).float().mean())
                for p in (50, 90)
            }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def summary(rows: pd.DataFrame) -> str:
    """Returns the means over seeds with their standard errors, and the differences in CRPS."""
    gaussian = rows[rows.method == "Gaussian"].set_index(["table", "seed"])["CRPS"]
    rows = rows.set_index(["table", "seed"])
    rows["CRPS over the Gaussian's"] = rows["CRPS"] - gaussian
    values = rows.reset_index().drop(columns="seed").groupby(["table", "method"], sort=False)
    mean, error = values.mean(), values.sem()
    told = mean.apply(
        lambda column: [
            "" if np.isnan(m) else f"{m:.3f}" + ("" if np.isnan(e) else f" ± {e:.3f}")
            for m, e in zip(column, error[column.name], strict=True)
        ]
    )
    return told.reset_index().to_markdown(index=False)


def main() -> None:
    """Does what is not done yet, and writes the table of what is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    path = HERE / "tables.json"
    for seed, table in itertools.product(chosen.seeds, chosen.tables):
        done = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if f"{table}/{seed}" not in done:
            done[f"{table}/{seed}"] = case(table, seed)
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(done, indent=1), encoding="utf-8")
    rows = [row for key in sorted(done) for row in done[key]]
    with atomic(HERE / "tables.md") as temporary:
        temporary.write_text(f"{HEAD}\n{summary(pd.DataFrame(rows))}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
