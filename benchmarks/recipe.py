"""Quality against counted FLOPs: the paper's recipe and the fast one.

All learn from the same observations with the same network:

- ``paper``: the paper's recipe with its own numbers of laps, steps and epochs;
- ``short``: the paper's recipe cut down to 10 laps and fewer steps;
- ``fast``: the fast recipe with at most a tenth of the network's FLOPs of ``paper``;
- ``fast_short``: the fast recipe with at most a tenth of those of ``short``;
- ``data``: the clean training data themselves, as samples of a prior that needs none: so far a
  finite number of held-out data is from the best there can be;
- ``floor``: the Gaussian prior;
- ``ceiling`` and ``ceiling_short``: the network trained on clean data with the FLOPs of ``fast``
  and ``fast_short``.

FLOPs are counted by PyTorch's counter where some samples are drawn and a step is trained, and
multiplied; evaluation is not counted. Distances are to held-out clean data, and beside each quality
stands the observation residual of the E-step's samples.

Each case is kept in ``benchmarks/recipe.json`` as soon as it is done, and not done again. One case
of ``paper`` takes up to half an hour of a core, the others minutes:

    python benchmarks/recipe.py        # all data sets, seeds 0, 1 and 2
    python benchmarks/recipe.py --data digits --seeds 0 --parts short fast
"""

import argparse
import copy
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from torch import Tensor

from diem import operators
from diem.config.resolve import resolve
from diem.data.sets import DATASETS
from diem.data.simulate import observe
from diem.diffusion.covariances import CARD_ERROR
from diem.diffusion.gaussian import fit_to_observations, fit_to_samples
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, build_denoiser
from diem.diffusion.samplers import sample_prior
from diem.diffusion.samplers.ddpm import DDPM
from diem.diffusion.samplers.pc import PC
from diem.em.laps import sampling_of_lap, training_of_lap
from diem.em.loss import denoising_error
from diem.em.restart import replace_contradicting, restart_level
from diem.em.training import Training, train
from diem.evaluation.extractor import train_extractor
from diem.evaluation.gaussians import frechet_distance
from diem.evaluation.metrics.distance_to_manifold import distance_to_manifold
from diem.evaluation.metrics.psnr import psnr
from diem.evaluation.metrics.residual import residual, residual_summary
from diem.evaluation.metrics.sliced_wasserstein import sliced_wasserstein
from diem.files.atomic import atomic
from diem.planning.flops import FlopCounter
from diem.report.drawing.style import WIDTH, save, styled
from diem.seeds import Stage, rng, torch_generator

HERE = Path(__file__).parent
LAPS = {"paper": 32, "short": 10}
"""The laps of the paper's recipe; in the paper itself 16, 32, and 64 on the manifold."""

DATA: dict[str, dict[str, Any]] = {
    "digits": {
        "data": {"name": "digits", "validation": 150, "test": 450},
        "observations": {"only": {"operator": {"name": "mask", "missing": 0.5}, "sigma_y": 0.01}},
        "network": {"name": "residual_mlp", "width": 256, "blocks": 4},
        "gaussian": {"rank": 16},
        "m_step": {"batch": 256, "learning_rate": 0.003},
        "evaluation": {"metrics": ["frechet_distance", "sliced_wasserstein", "psnr"]},
    },
    "photographs": {
        "data": {"name": "photographs", "size": 8, "reduce": 2, "train": 1024, "validation": 128},
        "observations": {"only": {"operator": {"name": "mask", "missing": 0.5}, "sigma_y": 0.01}},
        "network": {"name": "residual_mlp", "width": 256, "blocks": 4},
        "gaussian": {"rank": 64},
        "m_step": {"batch": 256, "learning_rate": 0.003},
        "evaluation": {"metrics": ["sliced_wasserstein", "psnr"]},
    },
    "manifold": {
        "data": {"name": "manifold", "train": 1024, "validation": 128, "test": 2048},
        "observations": {"only": {"operator": {"name": "projection", "rows": 2}, "sigma_y": 0.01}},
        "network": {"name": "residual_mlp", "width": 128, "blocks": 3},
        "gaussian": {"rank": 4},
        "m_step": {"batch": 512, "learning_rate": 0.001, "drop_outside": 3.0},
        "evaluation": {"metrics": ["distance_to_manifold", "sliced_wasserstein", "psnr"]},
    },
}
"""The data sets: everything that the recipes share. The fast recipe was chosen on the digits."""

PAPER = {
    "digits": {
        "schedule": {"sigma_min": 0.001, "sigma_max": 100.0},
        "e_step": {"sampler": {"name": "ddpm", "steps": 256}},
        "m_step": {"epochs": 256},
    },
    "photographs": {
        "schedule": {"sigma_min": 0.001, "sigma_max": 100.0},
        "e_step": {"sampler": {"name": "ddpm", "steps": 256}},
        "m_step": {"epochs": 256},
    },
    "manifold": {
        "schedule": {"sigma_min": 0.001, "sigma_max": 10.0},
        "e_step": {"sampler": {"name": "pc", "steps": 256}, "iterations": 2},
        "m_step": {"epochs": 1024},
    },
}
"""The paper's recipe: its schedules, samplers, iterations and epochs (on CIFAR-10, and the
manifold's). Only the manifold's 4,096 steps of its sampler are 256 here."""

SHORT = {
    "digits": {
        **PAPER["digits"],
        "e_step": {"sampler": {"name": "ddpm", "steps": 64}},
        "m_step": {"steps": 489},
    },
    "photographs": {
        **PAPER["photographs"],
        "e_step": {"sampler": {"name": "ddpm", "steps": 64}},
        "m_step": {"steps": 418},
    },
    "manifold": {
        **PAPER["manifold"],
        "e_step": {"sampler": {"name": "pc", "steps": 32}, "iterations": 2},
        "m_step": {"steps": 348},
    },
}
"""The paper's recipe cut down: fewer steps, in the ratio of the FLOPs of E-step and M-step that it
has on CIFAR-10."""

SMALL = {"steps": 256, "batch": 128}
FAST = {
    "digits": {
        "schedule": {"sigma_min": 0.01, "sigma_max": 10.0},
        "m_step": {**SMALL, "final": 12},
    },
    "photographs": {
        # The brightness of a patch alone has a standard deviation near 10.
        "schedule": {"sigma_min": 0.01, "sigma_max": 100.0},
        # A first lap of 256 steps leaves the network so bad that its samples spoil the next.
        "m_step": {**SMALL, "first": 6, "final": 10},
    },
    "manifold": {
        "schedule": {"sigma_min": 0.001, "sigma_max": 10.0},
        "e_step": {"iterations": 2},
        "m_step": {**SMALL, "final": 12},
    },
}
"""What the fast recipe leaves to the experiment: schedules, iterations, many cheap laps of small
batches and a last one of about a third of all steps."""
FAST_SHORT = {name: {**part, "m_step": SMALL} for name, part in FAST.items()}
"""The same for few laps, which leave no steps for a longer first or last one."""

PARTS = ["data", "paper", "short", "fast", "fast_short", "bounds"]
SETTINGS = {"paper": PAPER, "short": SHORT, "fast": FAST, "fast_short": FAST_SHORT}
TENTH_OF = {"fast": "paper", "fast_short": "short"}
"""Which of the paper's recipes has ten times the FLOPs."""

LABELS = {
    "data": "clean training data",
    "floor": "floor (Gaussian)",
    "paper": "paper",
    "fast": "fast, a tenth of paper",
    "ceiling": "clean data, as fast",
    "short": "paper, short",
    "fast_short": "fast, a tenth of short",
    "ceiling_short": "clean data, a tenth of short",
}
CURVES = {
    "paper": ("C0", "o-"),
    "short": ("C4", "v-"),
    "fast": ("C2", "^-"),
    "fast_short": ("C1", "s-"),
}
MAIN = {
    "digits": ("prior/frechet_distance", "prior's Fréchet distance"),
    "photographs": ("prior/sliced_wasserstein", "prior's sliced Wasserstein"),
    "manifold": ("prior/distance_to_manifold", "prior's distance to the manifold"),
}
PSNR = ("posterior_mean/psnr", "PSNR of posterior means (dB)")

CHAIN = 64
"""The least number of steps of a chain that evaluates."""

HEAD = f"""# The two recipes

Made by `benchmarks/recipe.py`, whose head says what is compared: medians over the seeds that were
run, with their ranges. `prior` is of 2,048 unconditional samples, `e_step` of the posterior samples
that the last lap was trained on, both against held-out clean data; `posterior_mean` is of 8
posterior samples of each of 128 held-out observations, by the recipe's own chains, but with at
least {CHAIN} steps. Residuals are in units of sigma_y. The held-out photographs' patches are others
of the same parts of the scenes, which may overlap with those that were observed. The fast recipe
was chosen on the digits, seeds 0 and 1, and its restarts on the manifold, seed 0, too.

![Quality against FLOPs](recipe.png)
"""

EQUAL = """## At equal FLOPs

The last lap that the shorter of two curves has, and the other curve there, interpolated between its
laps in logarithms. The clean training data have a distance of their own to the held-out data, which
no prior is asked to beat: it says what of a distance comes of finite numbers of data.
"""


def settings(name: str, recipe: str, laps: int) -> dict[str, Any]:
    """Returns an experiment with every default filled in, by the config's own rules."""
    entry = copy.deepcopy(DATA[name])
    for part, values in SETTINGS[recipe][name].items():
        entry[part] = {**entry.get(part, {}), **values}
    entry |= {"laps": laps, "runs": {"only": {"observations": "only"}}}
    entry["recipe"] = "fast" if recipe in TENTH_OF else "paper"
    config = {"experiments": {name: entry}}
    return resolve(config, "benchmarks/recipe.py")["experiments"][name]


class Case:
    """A data set and seed: clean data, observations, and how to measure a prior."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        shared = settings(name, "paper", 1)
        self.metrics = shared["evaluation"]["metrics"]
        data = DATASETS.parse(shared["data"])
        splits = data.load(seed)
        if name == "photographs":
            # Its test split shows other parts of the scenes: that shift would hide all else.
            splits["test"] = data.load(seed + 1000)["train"]
        self.clean = {split: torch.from_numpy(v.whole()) for split, v in splits.items()}
        entry = shared["observations"]["only"]
        self.sigma_y = entry["sigma_y"]
        self.operator, self.y = {}, {}
        for number, (split, x) in enumerate(self.clean.items()):
            stream = rng(seed, Stage.CORRUPTION, 0, number)
            operator = operators.simulate(entry["operator"], x.shape[1:], len(x), stream)
            self.operator[split], self.y[split] = (
                operator,
                observe(operator, x, self.sigma_y, stream),
            )
        if "frechet_distance" in self.metrics:
            train, test = splits["train"], splits["test"]
            self.extractor = train_extractor(train.x, train.label, test.x, test.label, seed)
        if name == "manifold":
            curve = data.curve(seed, 2**12)
            self.curve = torch.from_numpy(curve)
        stream = torch_generator(seed, Stage.GAUSSIAN)
        gaussian = shared["gaussian"]
        self.gaussian = fit_to_observations(
            self.operator["train"],
            self.y["train"],
            self.sigma_y,
            gaussian["rank"],
            gaussian["iterations"],
            stream,
        )

    def distances(self, subject: str, x: Tensor) -> dict[str, float]:
        """Measures samples against held-out clean data."""
        test, found = self.clean["test"], {}
        if "frechet_distance" in self.metrics:
            features = self.extractor.features
            found["frechet_distance"] = frechet_distance(features(x.clamp(-2, 2)), features(test))
        if "distance_to_manifold" in self.metrics:
            distance = distance_to_manifold(x, self.curve).mean()
            found["distance_to_manifold"] = float(distance)
        found["sliced_wasserstein"] = sliced_wasserstein(x, test, seed=self.seed)
        return {f"{subject}/{key}": float(value) for key, value in found.items()}

    def measure(self, prior: Prior, sampler: PosteriorSampler) -> dict[str, float]:
        """Measures a prior: its own samples, and posterior means of held-out observations."""
        reverse = PC(steps=32, spacing="karras", delta=0.3)
        if self.name == "manifold":
            reverse = DDPM(steps=64, spacing="karras")
        stream = torch_generator(self.seed, Stage.PRIOR)
        found = self.distances("prior", sample_prior(prior, 2048, reverse, stream))
        stream = torch_generator(self.seed, Stage.TEST_POSTERIOR)
        steps = max(CHAIN, sampler.sampler.steps)
        sampler = replace(sampler, sampler=sampler.sampler.model_copy(update={"steps": steps}))
        rows = torch.arange(128).repeat(8)
        operator, y = self.operator["test"][rows], self.y["test"][rows]
        x = sampler(prior, operator, y, self.sigma_y, stream)
        mean = x.unflatten(0, (8, 128)).mean(dim=0)
        value = psnr(mean, self.clean["test"][:128], 4.0).mean()
        return {**found, "posterior_mean/psnr": float(value)}

    def residuals(self, x: Tensor) -> dict[str, float]:
        """Summarises how the E-step's samples fit their observations."""
        operator = self.operator["train"]
        residuals = residual(self.y["train"], operator.forward(x), self.sigma_y)
        summary = residual_summary(residuals, operator.observed())
        return {f"e_step/residual_{key}": float(value) for key, value in summary.items()}


def flops_of(case: Case, entry: dict[str, Any]) -> tuple[float, float]:
    """Counts the FLOPs of a posterior sample from noise, and of an optimizer step."""
    event = tuple(case.clean["train"].shape[1:])
    denoiser = build_denoiser(entry["network"], entry["schedule"], event, 0)
    batch = entry["m_step"]["batch"]
    x = case.clean["train"][:batch]
    # The training also validates, on one sample here.
    with FlopCounter() as counter:
        once = replace(Training.from_config(entry["m_step"], len(x)), steps=1)
        train(copy.deepcopy(denoiser), x, x[:1], once, 0)
    step = counter.get_total_flops()
    denoiser.requires_grad_(False)
    sampler = PosteriorSampler.from_config(sampling_of_lap(entry["e_step"], False))
    operator, y = case.operator["train"][:16], case.y["train"][:16]
    with FlopCounter() as counter:
        stream = torch_generator(0, Stage.E_STEP)
        sampler(Prior(case.gaussian, denoiser, {}), operator, y, case.sigma_y, stream)
    return counter.get_total_flops() / 16, step


def learn(case: Case, recipe: str, laps: int) -> Iterator[dict[str, Any]]:
    """Learns a prior, and yields a row for some laps and the last."""
    entry = settings(case.name, recipe, laps)
    per_sample, per_step = flops_of(case, entry)
    sampler = PosteriorSampler.from_config(entry["e_step"])
    event = tuple(case.clean["train"].shape[1:])
    stream = torch_generator(case.seed, Stage.NETWORK).initial_seed()
    denoiser = build_denoiser(entry["network"], entry["schedule"], event, stream)
    prior, samples, flops = Prior(case.gaussian, None, {}), {}, 0.0
    shown = {2**k for k in range(8)} | {3 * 2**k for k in range(7)} | {laps}
    for lap in range(1, laps + 1):
        level = restart_level(entry["e_step"]["restart"], lap)
        drawing = sampling_of_lap(entry["e_step"], lap == laps)
        drawn = PosteriorSampler.from_config(drawing)
        for number, split in enumerate(("train", "validation")):
            y = case.y[split]
            stream = torch_generator(case.seed, Stage.E_STEP, lap, number)
            observed = (prior, case.operator[split], y, case.sigma_y)
            before, most = samples[split] if level else None, entry["e_step"]["restart_residual"]
            draws = []
            for _ in range(drawing["repeats"]):
                start = before
                if level and most:
                    start = replace_contradicting(before, *observed, most, stream)
                draws.append(drawn(*observed, stream, start=start, sigma_start=level))
            samples[split] = torch.cat(draws)
            flops += per_sample * len(samples[split]) * (prior.denoiser is not None)
        of_lap = training_of_lap(entry["m_step"], lap, lap == laps)
        x, bound = samples["train"], of_lap["drop_outside"]
        if bound:
            x = x[(x.abs() <= bound).flatten(1).all(dim=1)]
        rank = entry["gaussian"]["rank"]
        training = Training.from_config(of_lap, len(x))
        flops += per_step * training.steps
        denoiser, _ = train(denoiser, x, samples["validation"], training, case.seed, lap)
        error = denoising_error(denoiser, samples["validation"], case.seed, training.batch)
        prior = Prior(fit_to_samples(x, rank), denoiser, {CARD_ERROR: error})
        if lap in shown:
            one = samples["train"][: len(case.y["train"])]  # of each observation
            measured = {**case.distances("e_step", one), **case.measure(prior, sampler)}
            yield {"lap": lap, "flops": flops, **measured, **case.residuals(one)}


def floor(case: Case) -> dict[str, Any]:
    """Measures the Gaussian prior, which was fitted to the observations."""
    sampler = PosteriorSampler.from_config(settings(case.name, "fast", 1)["e_step"])
    stream = torch_generator(case.seed, Stage.E_STEP)
    operator, y = case.operator["train"], case.y["train"]
    exact = case.gaussian.sample_posterior(operator, y, case.sigma_y, stream)
    measured = case.measure(Prior(case.gaussian, None, {}), sampler)
    return {"flops": 0.0, **measured, **case.distances("e_step", exact), **case.residuals(exact)}


def ceiling(case: Case, flops: float) -> dict[str, Any]:
    """Measures the network trained on clean data with so many FLOPs."""
    entry = settings(case.name, "fast", 1)
    sampler = PosteriorSampler.from_config(entry["e_step"])
    event = tuple(case.clean["train"].shape[1:])
    stream = torch_generator(case.seed, Stage.NETWORK).initial_seed()
    denoiser = build_denoiser(entry["network"], entry["schedule"], event, stream)
    steps = int(flops / flops_of(case, entry)[1])
    clean = (case.clean["train"], case.clean["validation"])
    of_lap = training_of_lap(entry["m_step"], 1, True)
    training = replace(Training.from_config(of_lap, len(clean[0])), steps=steps)
    denoiser, _ = train(denoiser, *clean, training, case.seed)
    card = {CARD_ERROR: denoising_error(denoiser, clean[1], case.seed, training.batch)}
    prior = Prior(fit_to_samples(clean[0], entry["gaussian"]["rank"]), denoiser, card)
    return {"flops": flops, **case.measure(prior, sampler)}


def laps_for(case: Case, recipe: str, flops: float) -> int:
    """Returns how many laps of a fast recipe cost at most so many FLOPs, and at least two."""
    entry = settings(case.name, recipe, 2)
    per_sample, per_step = flops_of(case, entry)
    lengths = [training_of_lap(entry["m_step"], lap, lap == 3)["steps"] for lap in (1, 2, 3)]
    drawing = per_sample * (len(case.y["train"]) + len(case.y["validation"]))
    # The first lap samples the Gaussian, which is no network, and the last one may draw more.
    spent = per_step * (lengths[0] + lengths[2] - lengths[1])
    spent += drawing * (entry["e_step"]["final"] - 1)
    return max(2, 1 + int((flops - spent) / (drawing + per_step * lengths[1])))


def case_of(name: str, seed: int, part: str, done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Does one case and returns its rows."""
    case = Case(name, seed)
    if part == "data":
        return [{"flops": 0.0, **case.distances("prior", case.clean["train"])}]
    if part in LAPS:
        return list(learn(case, part, LAPS[part]))

    def tenth(fast: str) -> float:
        return done[f"{name}/{seed}/{TENTH_OF[fast]}"][-1]["flops"] / 10

    if part == "bounds":
        rows = [{"bound": "floor", **floor(case)}]
        bounds = {"ceiling": "fast", "ceiling_short": "fast_short"}
        return rows + [{"bound": b, **ceiling(case, tenth(fast))} for b, fast in bounds.items()]
    return list(learn(case, part, laps_for(case, part, tenth(part))))


def table(rows: pd.DataFrame) -> str:
    """Returns the last laps of all recipes, as medians over seeds with their ranges."""

    def cell(values: pd.Series) -> str:
        values = values.dropna()
        if values.empty:
            return ""
        low, middle, high = values.min(), values.median(), values.max()
        return f"{middle:.3g} ({low:.3g} to {high:.3g})"

    lines = []
    for name in DATA:
        of = rows[rows["data"] == name].dropna(axis="columns", how="all")
        if of.empty:
            continue
        last = of.sort_values("lap").groupby(["part", "seed"], sort=False).tail(1)
        columns = [c for c in last if "/" in c]
        shown = pd.DataFrame(
            {
                LABELS[part]: {
                    "network FLOPs": cell(group["flops"]),
                    "laps": cell(group["lap"]),
                    **{column: cell(group[column]) for column in columns},
                }
                for part in LABELS
                if len(group := last[last["part"] == part])
            }
        )
        lines += [f"## {name}", "", shown.to_markdown(), ""]
    return "\n".join(lines)


def at_equal_flops(rows: pd.DataFrame) -> str:
    """Returns the fast recipe beside the paper's at the FLOPs of the shorter of the two curves."""

    def value(curve: pd.DataFrame, metric: str, flops: float) -> float:
        points = curve.sort_values("flops")
        return float(np.exp(np.interp(np.log(flops), *np.log(points[["flops", metric]].T.values))))

    lines = []
    for name, (metric, _) in MAIN.items():
        for seed, of in rows[rows["data"] == name].groupby("seed"):
            curves = dict(list(of.groupby("part")))
            if not {"data", "fast"} <= set(curves):
                continue
            own = float(curves["data"][metric].iloc[0])
            for slow in LAPS.keys() & curves.keys():
                flops = min(curves[part]["flops"].max() for part in (slow, "fast"))
                a, b = (value(curves[part], metric, flops) for part in (slow, "fast"))
                lines.append(
                    {
                        "data": name,
                        "metric": metric,
                        "seed": seed,
                        "against": LABELS[slow],
                        "network FLOPs": flops,
                        "paper's": a,
                        "fast": b,
                        "ratio": b / a,
                        "clean training data": own,
                        "ratio of what is above": (b - own) / (a - own),
                    }
                )
    if not lines:
        return ""
    found = pd.DataFrame(lines).sort_values(["data", "against", "seed"])
    return f"{EQUAL}\n{found.to_markdown(index=False, floatfmt='.3g')}\n"


def _label(axis: Axis) -> None:
    """Labels a logarithmic axis, which may span less than a decade or several."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


@styled
def figure(rows: pd.DataFrame) -> Figure:
    """Draws quality against FLOPs: a column a data set."""
    drawn = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    done = {name: MAIN[name] for name in DATA if name in set(rows["data"])}
    axes = drawn.subplots(2, len(done), squeeze=False)
    for column, (name, main) in enumerate(done.items()):
        of = rows[rows["data"] == name]
        for ax, (metric, label) in zip(axes[:, column], (main, PSNR), strict=True):
            for stage in ("floor", "ceiling"):
                value = of[of["part"] == stage][metric].median()
                ax.axhline(value, color="0.4", linestyle=":" if stage == "floor" else "--")
                ax.annotate(
                    stage,
                    (0.02, value),
                    xycoords=("axes fraction", "data"),
                    textcoords="offset points",
                    xytext=(0, 2),
                    color="0.4",
                    fontsize=7,
                )
            for part, (colour, line) in CURVES.items():
                values = of[of["part"] == part].groupby("lap")[["flops", metric]]
                middle = values.median()
                x = middle["flops"] / 1e12
                ax.plot(x, middle[metric], line, color=colour, label=LABELS[part], markersize=3)
                low, high = values.min()[metric], values.max()[metric]
                ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            ax.set_xscale("log")
            _label(ax.xaxis)
            ax.set_ylabel(label)
            if metric != PSNR[0]:
                ax.set_yscale("log")
                _label(ax.yaxis)
                ax.set_title(name)
            else:
                ax.set_xlabel("network TFLOPs")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawn


def main() -> None:
    """Does what is not done yet, and writes the table and the figure of what is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    path = HERE / "recipe.json"
    for part, name, seed in itertools.product(chosen.parts, chosen.data, chosen.seeds):
        done = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        key = f"{name}/{seed}/{part}"
        if key in done:
            continue
        rows = case_of(name, seed, part, done)
        if path.is_file():  # another process may have added to it
            done = json.loads(path.read_text(encoding="utf-8"))
        with atomic(path) as temporary:
            temporary.write_text(json.dumps({**done, key: rows}, indent=1), encoding="utf-8")
        print(key, rows[-1], flush=True)

    done = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for key, some in done.items():
        name, seed, part = key.split("/")
        shared = {"data": name, "seed": int(seed)}
        rows += [{**shared, "part": row.get("bound", part), **row} for row in some]
    rows = pd.DataFrame(rows)
    text = f"{HEAD}\n{table(rows)}\n{at_equal_flops(rows)}"
    with atomic(HERE / "recipe.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)
    for kind in ("pdf", "png"):
        save(figure(rows), HERE / f"recipe.{kind}", kind)


if __name__ == "__main__":
    main()
