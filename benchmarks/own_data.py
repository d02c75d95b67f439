"""Own observations: what `diem.fit` predicts at its defaults beside what fills gaps usually.

In each set of data, values are hidden at random, and the others have a little noise. A fifth of the
rows, at most 128, is held out: the hidden values of these are predicted from the others, by draws
of

- ``diem.fit`` at its defaults, those of ``diem init``: the chosen prior, and the last lap's;
- its Gaussian prior, which the laps begin with;
- scikit-learn's ``IterativeImputer`` with posterior draws;
- its ``KNNImputer``, and, where values have neighbours, linear interpolation between those: each
  gives one value without a spread, and its CRPS is its mean absolute error.

CRPS and RMSE of the mean are in standard deviations of a column, of all values where these have
neighbours; and 50 and 90 % intervals should hold as many hidden values.

    python benchmarks/own_data.py     # seeds 0, 1 and 2: hours of a core, most for waves and images
    python benchmarks/own_data.py --seeds 0 --data wine
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.interpolate import griddata
from sklearn import datasets
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # makes the import below
from sklearn.impute import IterativeImputer, KNNImputer
from torch import Tensor

import diem
from diem.data.sets.photographs import Photographs
from diem.evaluation.metrics.prediction import crps
from diem.evaluation.ranks import coverage, pit
from diem.files.atomic import atomic

HERE = Path(__file__).parent
DRAWS, HELD = 32, 128
WAVES, LENGTH = 1300, 48
PATCHES = {"train": 1300, "size": 8, "reduce": 2}
NEAREST = 32
"""The iterative imputer predicts each value from so many others at most."""

POINTS = ("nearest neighbours", "interpolation")
"""The methods that give one value, and no draws."""

HEAD = f"""# Own observations

Made by `benchmarks/own_data.py`, whose head says what is compared; {DRAWS} draws predict the hidden
values of held-out rows. Means over the seeds, with their standard errors where there are several.
Differences from the Gaussian are paired, seed by seed. The iterative imputer predicts each value
from {NEAREST} others at most.
"""


class Made(NamedTuple):
    """Data, and what of them is hidden.

    Attributes:
        x: The data, of shape ``(N, *event)``.
        hidden: Which values are hidden, booleans that broadcast to ``x``.
        noise: The standard deviation of the noise of the others.
        neighbours: Whether the values of a series or an image lie beside each other.
    """

    x: np.ndarray
    hidden: np.ndarray
    noise: float
    neighbours: bool = False


def table(load: Callable[[], object]) -> Callable[[np.random.Generator], Made]:
    """Returns a maker of scikit-learn's table, standardised, with 40 % of its entries hidden."""

    def make(stream: np.random.Generator) -> Made:
        x = stream.permutation(load().data)
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        return Made(x, stream.random(x.shape) < 0.4, 0.05)

    return make


def waves(stream: np.random.Generator) -> Made:
    """Makes pulse waves: a beat and its echo at a rate, size and phase of each, on a slow drift.

    Each has gaps of four to ten values, three on average, as a sensor that loses contact.
    """
    time = np.arange(LENGTH)
    period, phase, size, echo, drift = (
        stream.uniform(low, high, (WAVES, 1, 1))
        for low, high in ((10, 20), (0, 1), (0.6, 1.4), (0.2, 0.6), (-0.5, 0.5))
    )
    beat = (np.arange(-1, LENGTH // 10 + 1)[:, None] + phase) * period
    pulse = np.exp(-(((time - beat) / 1.5) ** 2) / 2)
    later = np.exp(-(((time - beat - 0.35 * period) / 2.0) ** 2) / 2)
    x = (size * (pulse + echo * later)).sum(axis=1) + (drift * time / LENGTH)[:, 0]
    start, width = stream.integers(0, LENGTH, (WAVES, 3, 1)), stream.integers(4, 11, (WAVES, 3, 1))
    hidden = ((time >= start) & (time < start + width)).any(axis=1)
    return Made((x - x.mean()) / x.std(), hidden, 0.05, neighbours=True)


def patches(stream: np.random.Generator) -> Made:
    """Makes patches of photographs, 8 x 8 pixels in colour, half of whose pixels are hidden."""
    source = Photographs(**PATCHES).load(int(stream.integers(2**31)))["train"]
    x = source.whole()
    hidden = stream.random((len(x), 1, *x.shape[2:])) < 0.5
    return Made((x - x.mean()) / x.std(), hidden, 0.05, neighbours=True)


MAKERS: dict[str, Callable[[np.random.Generator], Made]] = {
    "diabetes": table(datasets.load_diabetes),
    "wine": table(datasets.load_wine),
    "breast cancer": table(datasets.load_breast_cancer),
    "pulse waves": waves,
    "photographs": patches,
}


def learned(
    y: np.ndarray, shown: np.ndarray, noise: float, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Learns from the shown rows; yields draws ``(N, K, *event)`` of the held-out ones.

    Arguments:
        y: The held-out rows, NaN where a value is hidden.
        shown: The others.
        noise: The noise of both.
        seed: The seed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "fit"
        prior = diem.fit(shown, "mask", noise, folder, seed=seed, progress=False)
        laps = sorted(folder.rglob("lap_*/prior.safetensors"))
        priors = {"chosen": prior, "last lap": diem.load_prior(laps[-1])}
        priors["Gaussian"] = diem.load_prior(next(folder.rglob("gaussian.safetensors")))
        for label, one in priors.items():
            yield label, one.posterior(y, "mask", noise, DRAWS, seed=seed)


def usual(
    y: np.ndarray, shown: np.ndarray, seed: int, neighbours: bool
) -> Iterator[tuple[str, Tensor]]:
    """Yields the same of what fills gaps usually."""
    imputer = IterativeImputer(
        sample_posterior=True, n_nearest_features=NEAREST, random_state=seed
    ).fit(_flat(shown))
    draws = [imputer.transform(_flat(y)).reshape(y.shape) for _ in range(DRAWS)]
    yield "iterative imputer", torch.from_numpy(np.stack(draws, axis=1))
    points = {"nearest neighbours": KNNImputer().fit(_flat(shown)).transform(_flat(y))}
    if neighbours:
        points["interpolation"] = np.stack([_interpolated(row) for row in y])
    for label, values in points.items():
        filled = torch.from_numpy(values.reshape(y.shape))
        yield label, filled[:, None].expand(-1, DRAWS, *y.shape[1:])


def _flat(y: np.ndarray) -> np.ndarray:
    return y.reshape(len(y), -1)


def _interpolated(row: np.ndarray) -> np.ndarray:
    """Returns a series, or an image, with its gaps filled linearly, and its ends by the nearest."""
    if row.ndim == 3:
        return np.stack([_interpolated_image(channel) for channel in row])
    seen = np.flatnonzero(~np.isnan(row))
    return np.interp(np.arange(len(row)), seen, row[seen])


def _interpolated_image(image: np.ndarray) -> np.ndarray:
    seen, everywhere = np.argwhere(~np.isnan(image)), np.argwhere(np.ones_like(image, dtype=bool))
    values = image[~np.isnan(image)]
    linear, near = (griddata(seen, values, everywhere, method) for method in ("linear", "nearest"))
    return np.where(np.isnan(linear), near, linear).reshape(image.shape)


def case(name: str, seed: int) -> list[dict[str, object]]:
    """Returns a row a method, of a set of data and seed."""
    stream = np.random.default_rng(seed)
    x, hidden, noise, neighbours = MAKERS[name](stream)
    hidden = np.broadcast_to(hidden, x.shape)
    y = np.where(hidden, np.nan, x + noise * stream.standard_normal(x.shape)).astype(np.float32)
    held = min(len(x) // 5, HELD)
    truth, of_held = torch.from_numpy(x[:held]), torch.from_numpy(hidden[:held].copy())
    rows: list[dict[str, object]] = []
    of_fit = learned(y[:held], y[held:], noise, seed)
    for label, draws in itertools.chain(of_fit, usual(y[:held], y[held:], seed, neighbours)):
        ranks = pit(draws, truth, torch.Generator().manual_seed(0))[of_held]
        scores, error = crps(draws, truth, of_held), (draws.mean(dim=1) - truth)[of_held]
        row = {
            "data": f"{name} ({' x '.join(map(str, x.shape))})",
            "seed": seed,
            "method": label,
            "CRPS": float(scores[~scores.isnan()].mean()),
            "RMSE": float(error.square().mean().sqrt()),
        }
        if label not in POINTS:
            row |= {
                f"{p} % intervals hold": float(coverage(ranks, p / 100).float().mean())
                for p in (50, 90)
            }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def summary(rows: pd.DataFrame) -> str:
    """Returns the means over seeds with their standard errors, and the differences in CRPS."""
    gaussian = rows["CRPS"].where(rows["method"] == "Gaussian")
    same = gaussian.groupby([rows["data"], rows["seed"]]).transform("max")
    rows = rows.assign(**{"CRPS over the Gaussian's": rows["CRPS"] - same})
    values = rows.drop(columns="seed").groupby(["data", "method"], sort=False)
    mean, error, seeds = values.mean(), values.sem(), values["CRPS"].count()
    told = mean.apply(
        lambda column: [
            "" if np.isnan(m) else f"{m:.3f}" + ("" if np.isnan(e) else f" ± {e:.3f}")
            for m, e in zip(column, error[column.name], strict=True)
        ]
    )
    return told.assign(seeds=seeds).reset_index().to_markdown(index=False)


def main() -> None:
    """Does what is not done yet, and writes the table of what is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    path = HERE / "own_data.json"
    for seed, name in itertools.product(chosen.seeds, chosen.data):
        done = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if f"{name}/{seed}" not in done:
            done[f"{name}/{seed}"] = case(name, seed)
            with atomic(path) as temporary:
                temporary.write_text(json.dumps(done, indent=1), encoding="utf-8")
    rows = [row for key in sorted(done) for row in done[key]]
    with atomic(HERE / "own_data.md") as temporary:
        temporary.write_text(f"{HEAD}\n{summary(pd.DataFrame(rows))}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
