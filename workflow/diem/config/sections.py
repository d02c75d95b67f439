"""The sections of an experiment: the diffusion, the two halves of a lap, the evaluation."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from diem.components import Count, Integer, Model, Number, Positive, option
from diem.config.entries import Changes, Entry, Names, Values
from diem.config.types import Lap, Text, unique
from diem.diffusion.covariances import COVARIANCES
from diem.diffusion.options import Engine, Guiding
from diem.diffusion.samplers import SAMPLERS
from diem.em.augmentations import AUGMENTATIONS
from diem.evaluation.metrics import METRICS


class Schedule(Model):
    """`schedule`."""

    sigma_min: Positive = option(0.001, "the lowest noise level", paper="1e-3")
    sigma_max: Positive = option(100.0, "the highest noise level", paper="1e2 / 10 / 1e2")


class Gaussian(Model):
    """`gaussian`, the fit of the Gaussian prior to the observations."""

    rank: Annotated[Integer, Field(ge=0)] | None = option(
        None,
        "the rank of the PPCA's factors, here and in each lap; less than the size of `x`. Null is"
        " 64, or the size of `x` less one if that is smaller",
        paper="64 / - / 64",
    )
    iterations: Count = option(16, "EM iterations from `N(0, I)`", paper="16")
    shrinkage: Annotated[Number, Field(ge=0)] = option(
        0.0,
        "shrinks the covariance as so many more observations would, which vary alike in all"
        " directions. Of few rows it is otherwise too narrow in some",
        paper="0",
    )
    observations: Count = option(
        16384,
        "the training observations, drawn at random and at most so many, that it is fitted to; and"
        " in each lap the samples of the PPCA",
        paper="16384",
    )
    every: Count = option(
        1,
        "every how manieth of these observations it is fitted to: 4 takes a fourth of them",
        paper="1 / 1 / 4",
    )


class EStep(Guiding):
    """`e_step`."""

    sampler: Annotated[dict, Entry(SAMPLERS, default="ddpm")] = option({}, "see below")
    covariance: Annotated[str, Names(COVARIANCES)] = option(
        "tweedie",
        "the `V` of the guidance: `tweedie` (MMPS), `cov_x`, `measured`, `identity`, `cov_t`,"
        " `zeros`",
        paper="`tweedie`",
    )
    restart: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = option(
        None,
        "null, or two noise levels: from the third lap on, chains start from the previous lap's"
        " samples, re-noised to a level that is halved in every two laps, from the first to the"
        " second. Restarted laps are not independent of each other",
        paper="null",
    )
    restart_residual: Positive | None = option(
        None,
        "the largest residual, the RMS over an observation's values of `(y - A x) / sigma_y`, of a"
        " sample that a chain restarts from; in the place of others comes a sample of the Gaussian"
        " posterior. Null keeps all. Only with `restart`",
        paper="null",
    )
    repeats: Count = option(1, "posterior samples of each observation", paper="1 / 1 / 2")
    final: Count = option(
        1,
        "how many times as many samples of each observation as the others the last lap draws, to"
        " train on. Its restarted chains start several from each sample",
        paper="1",
    )
    storage: Literal["float32", "float16"] = option(
        "float32",
        "how samples are stored, `float32`, or `float16`, which takes half the disk and rounds them"
        " to one part in two thousand: for noise of 0.001 or more, in units of what is learned",
        paper="`float32`",
    )
    block: Count = option(
        256,
        "observations that share a random stream: the unit of shards and of resuming. It changes"
        " the numbers",
    )
    drop_last: bool = option(
        False,
        "whether the observations of a last block that is not full are left out, as the authors'"
        " code does (49,920 of 50,000)",
        paper="true",
    )


class MStep(Engine):
    """`m_step`."""

    steps: Count = option(65536, "optimizer steps a lap", paper="- / 65536 / -")
    epochs: Count | None = option(
        None,
        "passes over the samples a lap, in the place of `steps`, or null. They are counted of all"
        " that the E-step draws, `repeats` times the observations, also those of `drop_outside`",
        paper="256 / - / 64",
    )
    first: Count = option(1, "how many times as long as the others the first lap trains", paper="1")
    final: Count = option(1, "how many times as long as the others the last lap trains", paper="1")
    final_decay: bool = option(
        False,
        "whether the learning rate falls linearly to zero over the last lap",
        paper="false",
    )
    batch: Count = option(256, "the batch size", paper="256 / 1024 / 256")
    learning_rate: Positive = option(2e-4, "Adam's learning rate", paper="2e-4 / 1e-3 / 1e-4")
    learning_rate_final: Positive | None = option(
        None,
        "the rate falls linearly to this over each lap, or null for a constant rate",
        paper="null / 1e-6 / null",
    )
    clip: Positive = option(1.0, "the largest global norm of the gradient", paper="1.0")
    ema: Annotated[Number, Field(ge=0, lt=1)] = option(
        0.9999, "the decay of the weights' moving average", paper="0.9999 / - / 0.999"
    )
    ema_warmup: bool = option(
        False,
        "whether the decay grows as `(1 + n) / (10 + n)` first, from the start of each lap on",
        paper="false",
    )
    warm_start: bool = option(
        True,
        "whether a lap starts from the average of the lap before, or from fresh weights",
        paper="true",
    )
    processes: Count = option(
        1,
        "processes that share each batch, one GPU each: see [docs/cluster.md](../docs/cluster.md)."
        " It changes the last digits of the numbers, and with dropout its random masks",
    )
    nodes: Count = option(
        1,
        "machines that share each batch, with so many `processes` on each: nodes of a Slurm"
        " allocation, see [docs/cluster.md](../docs/cluster.md). Two machines of one process have"
        " the numbers of one with two",
    )
    drop_outside: Positive | None = option(
        None,
        "samples with a value outside `[-b, b]` are not trained on, or null",
        paper="null / 3 / null",
    )
    drop_from: Count = option(
        1, "the first lap of `drop_outside`; those before train on all samples", paper="- / 2 / -"
    )
    augment: Annotated[dict, Values(AUGMENTATIONS)] = option(
        {},
        "how training images are changed at random, see below",
        paper="`flip`, `hue`, `saturation` / none / `flip`, `shift`",
    )


class PosteriorChanges(Model):
    """`evaluation.posterior`: what is not as it is drawn outside of the E-step by default."""

    sampler: Annotated[dict, Changes(SAMPLERS)] | None = option(
        None, "as in `e_step`, key by key; by default the E-step's of 32 steps or more", absent=True
    )
    covariance: Annotated[str, Names(COVARIANCES)] | None = option(
        None,
        "as in `e_step`; by default the E-step's, or `measured` if that has a `limit`",
        absent=True,
    )
    iterations: Count | None = option(None, "as in `e_step`; by default the E-step's", absent=True)
    limit: Positive | None = option(
        None,
        "as in `e_step`, null for none; by default none, or 8 if that has one",
        absent=True,
        nullable=True,
    )


class Evaluation(Model):
    """`evaluation`."""

    laps: list[Lap] = option(
        [1, 2, 4, 8, 16, 32], "the laps to evaluate; the last one always is", paper="the same"
    )
    samples: Integer = option(50000, "unconditional samples", paper="50000 / 16384 / -", ge=2)
    sampler: Annotated[dict, Entry(SAMPLERS, default="ddpm")] = option(
        {"name": "ddim", "steps": 256, "spacing": "log_linear"},
        "their sampler",
        paper="DDIM, 256 steps",
    )
    block: Count = option(1024, "samples that share a random stream")
    metrics: Annotated[list[Any], Names(METRICS, many=True)] | None = option(
        None,
        "which metrics, see below; by default `[sliced_wasserstein]`, and of a user's own"
        " observations all that need no clean data",
    )
    inception_weights: Text | None = option(
        None,
        "the file of torch-fidelity's Inception weights,"
        " `weights-inception-2015-12-05-6726825d.pth`, for `fid` and `inception_score`; null"
        " downloads it and checks its SHA256",
    )
    dinov2_weights: Text | None = option(
        None,
        "the file of DINOv2's weights, `dinov2_vitl14_pretrain.pth` (1.2 GB), for `fd_dinov2`; null"
        " downloads it and checks its SHA256",
        paper="-",
    )
    reconstruct: list[str] = option(
        [],
        "sets of observations, also such as no run is trained on, whose test images each run's"
        " last prior reconstructs, beside the adjoint and the Gaussian prior: a table, and the"
        " figure `uncertainty`",
        paper="-",
    )
    test_observations: Count | None = option(
        None,
        "how many test observations, drawn at random, are sampled, no more than there are; null is"
        " 16, or all of fewer",
        paper="16",
    )
    posterior: PosteriorChanges = option(
        {},
        "how posteriors of test observations are drawn: `sampler`, `covariance`, `iterations`,"
        " `limit`, see `posterior.<name>`; what is not told is as there",
        paper="-",
    )
    posterior_samples: Integer = option(4, "how often each is sampled", paper="-", ge=2)
    predicted_observations: Integer = option(
        512,
        "how many validation observations, drawn at random, `prediction`, which the lap is chosen"
        " by, is measured on, at most, `posterior_samples` times each",
        paper="-",
        ge=2,
    )
    sinkhorn_samples: Integer = option(
        16384,
        "the most samples of the Sinkhorn divergence; its memory grows with the square",
        paper="16384",
        ge=2,
    )

    _unique = field_validator("laps", "reconstruct")(unique)
