"""The M-step: a denoiser is trained on a lap's posterior samples.

It starts from the average of the lap before, or from fresh weights. With it goes the Gaussian of
the samples, from whose mean the next E-step's chains start. :mod:`diem.em.loss` has the
loss, and :mod:`diem.em.training` the loop.
"""

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from azula.denoise import KarrasDenoiser

from diem.diffusion.covariances import CARD_ERROR
from diem.diffusion.gaussian import Gaussian, fit_to_samples
from diem.diffusion.prior import CARD_RANGE, Prior, build_denoiser, read_prior, sample_range
from diem.em.batches import held_on
from diem.em.checkpoint import checkpointed
from diem.em.distributed import is_first
from diem.em.loss import denoising_error
from diem.em.samples import event_shape_of, open_samples
from diem.em.training import Training, train
from diem.files.atomic import atomic
from diem.files.tensors import content_digest
from diem.jobs.job import Job
from diem.jobs.resume import fingerprint
from diem.networks.modules.gaussian_output import GaussianOutput
from diem.seeds import Stage, stream_seed, subset
from diem.versions import versions

__all__ = ["Lap", "m_step"]

logger = logging.getLogger("diem")

KEPT = 0.05
"""A lap whose average keeps a larger share of the weights that it started from is told."""


@dataclass(frozen=True)
class Lap:
    """What an M-step trains, and on what.

    Arguments:
        number: The lap, 0 for the ceiling.
        samples: The lap's file of posterior samples, or one of clean data for the ceiling.
        m_step: The config's ``m_step`` entry, with the ``steps`` of this lap.
        network: The config's ``network`` entry.
        schedule: The config's ``schedule`` entry.
        gaussian: The config's ``gaussian`` entry: the rank of the PPCA of the samples, and of how
            many of them.
        previous: The prior to start from; without it, the weights are fresh.
        card: What else the prior's card should tell: data, observations, E-step, ...
        on_divergence: What happens if the loss diverges, see
            :data:`diem.em.training.ON_DIVERGENCE`.
        checkpoint_seconds: The least time between two checkpoints.
    """

    number: int
    samples: Sequence[str | Path]
    m_step: Mapping[str, Any]
    network: Mapping[str, Any]
    schedule: Mapping[str, Any]
    gaussian: Mapping[str, Any]
    previous: str | Path | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    on_divergence: str = "stop"
    checkpoint_seconds: float = 60.0

    def fingerprint(self, seed: int, device: torch.device) -> str:
        """Returns what the training depends on, see :func:`diem.jobs.resume.fingerprint`."""
        files = [*self.samples, *([] if self.previous is None else [self.previous])]
        code = self.card.get("code")  # of components of one's own, too
        prior = (self.network, self.schedule, self.gaussian)
        return fingerprint(files, self.m_step, *prior, seed, self.number, code, device=device)

    def start(self, gaussian: Gaussian, seed: int) -> tuple[KarrasDenoiser, int]:
        """Returns the denoiser to start from, and how many steps it was trained for.

        Arguments:
            gaussian: The Gaussian of the samples, with which fresh weights may begin.
            seed: The config's seed.

        Raises:
            DiemError: If the previous prior is of another network or event.
        """
        shape = tuple(gaussian.mean.shape)
        stream = stream_seed(seed, Stage.NETWORK, self.number)
        # A fresh one tells which of its parameters are trained, a file does not.
        denoiser = build_denoiser(self.network, self.schedule, shape, stream)
        if self.previous is not None:
            prior = read_prior(self.previous, network=self.network, event_shape=shape)
            denoiser.load_state_dict(cast(KarrasDenoiser, prior.denoiser).state_dict())
            return denoiser, prior.card["optimizer_steps"]
        for module in denoiser.modules():
            if isinstance(module, GaussianOutput):
                # In double precision: single rounds the smallest variances to those below zero.
                module.begin_with(gaussian.mean.flatten(), gaussian.to(torch.float64).dense())
        return denoiser, 0


def m_step(lap: Lap, output: str | Path, losses: str | Path, job: Job) -> None:
    """Trains a lap's prior and writes it, with its loss curve.

    Arguments:
        lap: What is trained, and on what.
        output: The prior to write.
        losses: The loss curve to write (CSV).
        job: The job; its progress bar counts steps.

    Raises:
        DiemError: If the samples or the previous prior do not fit, or the loss diverges.
    """
    shape = event_shape_of(lap.samples)
    x, x_validation = (
        open_samples(lap.samples, split, shape, lap.m_step["drop_outside"], job.cache_mb)
        for split in ("train", "validation")
    )
    fitted = torch.from_numpy(x[subset(len(x), lap.gaussian["observations"], job.seed)])
    gaussian = fit_to_samples(fitted, lap.gaussian["rank"])
    denoiser, past = lap.start(gaussian, job.seed)

    training = Training.from_config(lap.m_step, x.total, lap.on_divergence)
    for change in training.augment:
        change.check(shape)
    job.progress.reset(total=training.steps)
    _warn_of_the_average(training, lap.number)

    def report(step: int, loss: float) -> None:
        job.progress.set_postfix(loss=f"{loss:.4f}", refresh=False)
        job.progress.update(step - job.progress.n)

    made_of = lap.fingerprint(job.seed, job.device)
    resumable = checkpointed(output, made_of, lap.checkpoint_seconds)
    with resumable as checkpoint, x, x_validation:
        held_out = held_on(x_validation, job.device)
        average, curve = train(
            denoiser.to(job.device),
            held_on(x, job.device),
            held_out,
            training,
            job.seed,
            lap.number,
            checkpoint,
            report,
        )
        error = denoising_error(average, held_out, job.seed, training.batch)
    if not is_first():
        return
    card = {
        CARD_RANGE: sample_range(fitted),
        "training_samples": len(x),
        "optimizer_steps": past + training.steps,
        "halvings": curve[-1]["halvings"],
        CARD_ERROR: error,
    }
    _write_prior(output, lap, job.seed, gaussian, average, card)
    _write_curve(losses, curve)


def _warn_of_the_average(training: Training, lap: int) -> None:
    """Tells where the average, which is what samples, is mostly what the lap started from."""
    left = 0.0 if training.ema_warmup else training.ema**training.steps
    if left > KEPT:
        logger.warning(
            "Lap %d: after %d steps the average of the weights still is %.0f %% what the lap"
            " started from: lower m_step.ema, or set m_step.ema_warmup to true.",
            *(lap, training.steps, 100 * left),
        )


def _write_prior(
    output: str | Path,
    lap: Lap,
    seed: int,
    gaussian: Gaussian,
    denoiser: KarrasDenoiser,
    card: Mapping[str, Any],
) -> None:
    settings = {
        **lap.card,
        "network": dict(lap.network),
        "schedule": dict(lap.schedule),
        "m_step": dict(lap.m_step),
        "lap": lap.number,
        "seed": seed,
    }
    digest = {"config_digest": content_digest([], settings), "versions": versions()}
    Prior(gaussian, denoiser.cpu(), {**settings, **digest, **card}).save(output)


def _write_curve(losses: str | Path, curve: Sequence[Mapping[str, float]]) -> None:
    with atomic(losses) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, curve[0])
        writer.writeheader()
        writer.writerows(curve)
