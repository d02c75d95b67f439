r"""Posterior samplers compared on image restoration, as in the paper's appendix E.

One prior, several tasks :math:`y = A x + n`, several methods, several numbers of steps. MMPS is our
own :class:`diem.diffusion.posterior.PosteriorDenoiser`; DPS, PGDM, TMPD and DiffPIR are azula's. All of them
walk the same times of a variance-preserving schedule from the same noise, by steps of DDIM with
:math:`\eta = 1`: two of the rivals are steps themselves, which this schedule was made for.

Images span [-1, 1] here, unlike everywhere else: noise levels and guidance strengths are then those
of the publications. What is read and written is in [-2, 2].

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization (Rozet et al., 2024)
    | https://arxiv.org/abs/2405.13712
"""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from azula.denoise import Denoiser, DiracPosterior, KarrasDenoiser
from azula.guidance import DiffPIRDenoiser, DPSSampler, PGDMSampler, TMPDenoiser
from azula.noise import Schedule, VPSchedule
from azula.plugins import adm
from azula.plugins.utils import load_cards
from azula.sample import DDIMSampler, Sampler
from torch import Tensor

from diem import __version__, operators
from diem.data.simulate import observe
from diem.diffusion.denoisers import load_prior
from diem.diffusion.posterior import PosteriorDenoiser
from diem.diffusion.solvers import conjugate_gradient
from diem.errors import DiemError
from diem.evaluation import metrics
from diem.evaluation.evaluate import CARD
from diem.evaluation.lpips import NAME, Perceptual
from diem.files.hdf5 import Reader
from diem.files.tensors import content_digest, load_tensors, load_weights
from diem.jobs.resume import Keep, cached_tensor, no_cache
from diem.operators.base import Operator
from diem.seeds import Stage, rng, torch_generator

__all__ = [
    "COLUMNS",
    "METHODS",
    "Problem",
    "architecture",
    "compare",
    "pretrained",
    "restore",
    "trained",
]

COLUMNS = (*CARD, "standard_error", "settings")
"""The columns of a row: the card, the standard error of the mean over the images, and the settings
of task and method as JSON. ``observations`` is the task, ``run`` the method."""

SHOWN = 16
"""How many restored images are kept for figures, at the largest number of steps."""


# The prior


class _Doubled(Schedule):
    """The schedule of ``2 x`` where another is that of ``x``."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule(t)
        return alpha, 2 * sigma


class _Halved(Denoiser):
    """The denoiser of images in [-1, 1], by a network that was trained on [-2, 2]."""

    def __init__(self, backbone: torch.nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.denoiser = KarrasDenoiser(backbone, _Doubled(schedule))
        self.schedule = schedule

    def forward(self, x_t: Tensor, t: Tensor, **kwargs) -> DiracPosterior:
        return DiracPosterior(mean=self.denoiser(2 * x_t, t, **kwargs).mean / 2)


def trained(path: str | Path, schedule: Mapping[str, float]) -> tuple[Denoiser, dict[str, Any]]:
    """Loads a prior that this workflow trained, as a denoiser of images in [-1, 1].

    The network knows the noise by its ratio to the signal, so that it serves any schedule.

    Arguments:
        path: The prior's file.
        schedule: The variance-preserving schedule to sample on: ``alpha_min`` and ``sigma_min``.

    Returns:
        The denoiser, and the card of the prior.
    """
    prior = load_prior(path)
    steps = prior.card["optimizer_steps"]
    card = {
        "prior": f"a {prior.card['network']['name']} of {steps:,} optimizer steps on"
        f" {prior.card['training_samples']:,} clean images ({content_digest([path])})",
        "optimizer_steps": steps,
    }
    return _Halved(prior.denoiser.backbone, VPSchedule(**schedule)).eval(), card


def architecture(name: str) -> Denoiser:
    """Builds a denoiser of azula's plugin for ADM, with fresh weights."""
    return adm.make_model(**load_cards("azula.plugins.adm")[name].config)


def pretrained(
    name: str, weights: str | Path, schedule: Mapping[str, float]
) -> tuple[Denoiser, dict[str, Any]]:
    """Loads a pretrained denoiser of azula's plugin for ADM, from weights that the user gives.

    Arguments:
        name: The name of azula's card.
        weights: The weights: a PyTorch file, from which nothing but tensors is loaded, or
            safetensors.
        schedule: The variance-preserving schedule to sample on: ``alpha_min`` and ``sigma_min``.

    Returns:
        The denoiser, and a card of the prior.

    Raises:
        DiemError: If the file is missing, or does not hold the weights of this network.
    """
    path = Path(weights)
    if path.suffix == ".safetensors":
        state, _ = load_tensors(path, ours=False)
    elif path.is_file():
        state = load_weights(path)
    else:
        raise DiemError(f"pretrained.weights: there is no such file: {path}.")
    denoiser = architecture(name)
    try:
        denoiser.backbone.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DiemError(f"{path}: these are no weights of {name!r} ({reason}).") from None
    denoiser.schedule = VPSchedule(**schedule)
    card = {"prior": f"the pretrained {name} ({content_digest([path])})", "optimizer_steps": ""}
    return denoiser.eval().requires_grad_(False), card


# The methods


class Problem(NamedTuple):
    """Some observations of a task.

    Attributes:
        operator: The forward operators, one an observation.
        y: The observations of images in [-1, 1], of shape ``(B, *observation)``.
        sigma_y: The noise's standard deviation.
    """

    operator: Operator
    y: Tensor
    sigma_y: float


def _mmps(denoiser: Denoiser, problem: Problem, *, iterations: int, solver: str, **grid) -> Sampler:
    """Moment matching, ours."""
    posterior = PosteriorDenoiser(denoiser, *problem, iterations=iterations, solver=solver)
    return DDIMSampler(posterior, eta=1.0, **grid)


def _tmpd(denoiser: Denoiser, problem: Problem, **grid) -> Sampler:
    """Tweedie moment projection (Boys et al., 2023), https://arxiv.org/abs/2310.06721."""
    operator, y, sigma_y = problem
    return DDIMSampler(TMPDenoiser(denoiser, y, operator.forward, sigma_y**2), eta=1.0, **grid)


def _dps(denoiser: Denoiser, problem: Problem, *, zeta: float, **grid) -> Sampler:
    """Diffusion posterior sampling (Chung et al., 2022), https://arxiv.org/abs/2209.14687."""
    operator, y, _ = problem

    def distance(x: Tensor) -> Tensor:
        return torch.linalg.vector_norm((y - operator.forward(x)).flatten(1), dim=1).sum()

    # azula takes the gradient of one norm over the whole batch, whose images would weaken each
    # other's guidance. The sum of each image's norm is a positive number, and its own norm.
    return DPSSampler(denoiser, y.new_zeros(()), distance, zeta, **grid)


class _NoisyPGDM(PGDMSampler):
    r"""azula's PGDM with the publication's pseudo-inverse for noisy observations.

    .. math:: A^\dagger = r_t^2 A^\top (r_t^2 A A^\top + \sigma_y^2 I)^{-1}, \qquad
        r_t^2 = \frac{\sigma_t^2}{\alpha_t^2 + \sigma_t^2}
    """

    def __init__(self, denoiser: Denoiser, problem: Problem, **kwargs) -> None:
        super().__init__(denoiser, problem.y, problem.operator.forward, self.inverse, **kwargs)
        self.problem = problem

    def step(self, x_t: Tensor, t: Tensor, s: Tensor, **kwargs) -> Tensor:
        alpha_t, sigma_t = self.denoiser.schedule(t)
        self.variance = sigma_t**2 / (alpha_t**2 + sigma_t**2)
        return super().step(x_t, t, s, **kwargs)

    def inverse(self, y: Tensor) -> Tensor:
        operator, _, sigma_y = self.problem

        def product(p: Tensor) -> tuple[Tensor, Tensor]:
            back = operator.adjoint(p)
            return self.variance * operator.forward(back) + sigma_y**2 * p, back

        # No network is asked: the iterations are nearly free.
        _, x = conjugate_gradient(product, y, iterations=64, tolerance=1e-4)
        return self.variance * x


def _pgdm(denoiser: Denoiser, problem: Problem, **grid) -> Sampler:
    """Pseudo-inverse guidance (Song et al., 2023), https://openreview.net/forum?id=9_gsMA8MRKQ."""
    return _NoisyPGDM(denoiser, problem, eta=1.0, **grid)


class _Reshaped(Denoiser):
    """A denoiser that works in another shape of the event."""

    def __init__(self, denoiser: Denoiser, *shape: int) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule = denoiser.schedule
        self.shape = shape

    def forward(self, x_t: Tensor, t: Tensor, **kwargs) -> DiracPosterior:
        mean = self.denoiser(x_t.reshape(len(x_t), *self.shape), t, **kwargs).mean
        return DiracPosterior(mean=mean.reshape(x_t.shape))


def _diffpir(
    denoiser: Denoiser, problem: Problem, *, lmbda: float, iterations: int, **grid
) -> Sampler:
    """Plug-and-play restoration (Zhu et al., 2023), https://arxiv.org/abs/2305.08995."""
    operator, y, sigma_y = problem
    shape = operator.event_shape

    def forward(x: Tensor) -> Tensor:
        return operator.forward(x.reshape(-1, *shape)).flatten(1)

    # azula solves for vectors.
    inner = _Reshaped(denoiser, *shape)
    posterior = DiffPIRDenoiser(
        inner, y.flatten(1), forward, sigma_y**2, lmbda=lmbda, iterations=iterations
    )
    return DDIMSampler(_Reshaped(posterior, math.prod(shape)), eta=1.0, **grid)


METHODS: dict[str, Callable[..., Sampler]] = {
    "mmps": _mmps,
    "dps": _dps,
    "pgdm": _pgdm,
    "tmpd": _tmpd,
    "diffpir": _diffpir,
}
"""From a denoiser, a problem and the method's own settings to a sampler."""


def restore(
    method: Mapping[str, Any], denoiser: Denoiser, problem: Problem, steps: int, seed: int
) -> Tensor:
    """Draws one posterior sample an observation.

    Arguments:
        method: The config's entry of ``methods``: ``name`` and the method's settings.
        denoiser: The prior's denoiser of images in [-1, 1], on a variance-preserving schedule.
        problem: The observations, on the denoiser's device.
        steps: The number of steps.
        seed: The seed of the noise. azula draws from the global random state, which is left as
            it was.

    Returns:
        The samples, of shape ``(B, *event)``. What a method made of an image that it lost need not
        be finite.
    """
    options = {key: value for key, value in method.items() if key != "name"}
    sampler = METHODS[method["name"]](denoiser, problem, steps=steps, silent=True, **options)
    device = problem.y.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        shape = len(problem.y), *problem.operator.event_shape
        start = sampler.init(shape, device=device, dtype=problem.y.dtype)
        return sampler(start)


# The comparison


def compare(
    denoiser: Denoiser,
    clean: str | Path,
    entry: Mapping[str, Any],
    method: str,
    seed: int,
    card: Mapping[str, Any],
    perceptual: Perceptual | None = None,
    device: str | torch.device = "cpu",
    keep: Keep = no_cache,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Restores test images with one method, at every task and number of steps, and measures them.

    Every method sees the same observations, and starts from the same noise.

    Arguments:
        denoiser: The prior's denoiser of images in [-1, 1].
        clean: The file of clean data.
        entry: The config's entry of ``restoration``, with the data's name as ``data``.
        method: The name of the method's entry.
        seed: The config's seed.
        card: What else the rows should tell: ``experiment``, ``optimizer_steps``, and ``prior``
            in words.
        perceptual: LPIPS; without it there are no rows of it.
        device: The device to compute on.
        keep: Makes the pieces of the work that were not kept, see :mod:`diem.jobs.resume`.
        progress: Called with the number of images restored.

    Returns:
        The rows, and what figures are made of: of the first images of each task ``task/x``
        (restored, at the largest number of steps), ``task/y`` (the observation, enlarged to the
        image's size), ``task/observed`` and ``task/truth``, in [-2, 2].

    Raises:
        DiemError: If there are too few test images, or an operator does not fit them.
    """
    count, settings = entry["images"], entry["methods"][method]
    with Reader(clean) as file:
        truth = torch.from_numpy(file.read("test/x", slice(count)))
    if len(truth) < count:
        raise DiemError(
            f"{clean}: there are {len(truth)} test images, where {count} are asked for."
        )
    denoiser = denoiser.to(device)
    told = {"prior": {"name": card["prior"], "data": entry["data"]}}
    rows, arrays = [], {}
    for task, problem in entry["tasks"].items():
        observed = _observe(problem, truth / 2, entry["block"], seed)
        shared = {
            **card,
            "run": method,
            "observations": task,
            "stage": "sampler",
            "lap": 0,
            "subject": "posterior",
            "split": "test",
            "samples": count,
            "reference": "clean test",
            "reference_samples": count,
            "sampler": "ddim (eta 1)",
            "seed": seed,
            "diem": __version__,
            "torch": torch.__version__,
            "settings": json.dumps({**told, "method": settings, "task": problem}),
        }
        for steps in entry["steps"]:
            parts = []
            for number, part in enumerate(observed):
                stream = torch_generator(seed, Stage.RESTORATION, 1, number).initial_seed()
                there = Problem(part.operator.to(device), part.y.to(device), part.sigma_y)
                sample = partial(restore, settings, denoiser, there, steps, stream)
                parts.append(cached_tensor(keep, f"{task}/{steps}/{number}", sample))
                progress(len(parts[-1]))
            # Pixels are clipped to their range, as they would be in an image file.
            x = (2 * torch.cat(parts)).clamp(-2, 2)
            made = {**shared, "sampler_steps": steps, "denoiser_evaluations": steps}
            rows += _measured(x, truth, entry["metrics"], perceptual, made)
            if steps == max(entry["steps"]):
                arrays |= _shown(task, x, truth, observed[0])
    return rows, arrays


def _observe(task: Mapping[str, Any], x: Tensor, block: int, seed: int) -> list[Problem]:
    """Observes images, block by block; the streams are the same for every task."""
    problems = []
    for number, part in enumerate(x.split(block)):
        stream = rng(seed, Stage.RESTORATION, 0, number)
        operator = operators.simulate(task["operator"], part.shape[1:], len(part), stream)
        y = observe(operator, part, task["sigma_y"], stream)
        problems.append(Problem(operator, y, task["sigma_y"]))
    return problems


def _measured(
    x: Tensor,
    truth: Tensor,
    wanted: list[str],
    perceptual: Perceptual | None,
    shared: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Returns the rows of restored images."""
    values = {}
    if "psnr" in wanted:
        values["psnr"] = metrics.psnr(x, truth), {}
    if "ssim" in wanted:
        values["ssim"] = metrics.ssim(x, truth), {}
    if "lpips" in wanted and perceptual is not None:
        values["lpips"] = (
            perceptual(x, truth),
            {"extractor": NAME, "extractor_digest": perceptual.digest},
        )
    rows = []
    for metric, (value, made) in values.items():
        error = value.std() / math.sqrt(len(value)) if len(value) > 1 else math.nan
        row = {**shared, **made, "metric": metric, "value": float(value.mean())}
        row["standard_error"] = float(error)
        rows.append({column: row.get(column, "") for column in COLUMNS})
    return rows


def _shown(task: str, x: Tensor, truth: Tensor, observed: Problem) -> dict[str, np.ndarray]:
    """Returns the arrays that figures are made of."""
    count, size = min(SHOWN, len(observed.y)), truth.shape[2:]
    seen = observed.operator.observed()[:count].float()
    y = 2 * observed.y[:count]
    if y.shape[2:] != size:
        y, seen = F.interpolate(y, size), F.interpolate(seen, size)
    arrays = {"x": x[:count], "y": y, "observed": seen.bool(), "truth": truth[:count]}
    return {f"{task}/{name}": value.numpy() for name, value in arrays.items()}
