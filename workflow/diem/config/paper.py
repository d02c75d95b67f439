"""The sections of what is the paper's alone: heuristics, and posterior samplers of appendix E."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from diem.components import Count, Fraction, Integer, Model, Positive, option
from diem.config.entries import Entry, Names
from diem.config.sections import Gaussian, MStep, Schedule
from diem.config.types import Name, Text, unique
from diem.data.sets import DATASETS
from diem.diffusion.covariances import COVARIANCES
from diem.evaluation.metrics import METRICS
from diem.networks import NETWORKS
from diem.operators import OPERATORS
from diem.paper.methods import METHODS


class Coil(Model):
    """`heuristics.<name>.coil`, the figure of the coil."""

    sigma: Positive = option(0.25, "the noise level")
    prior_samples: Count = option(1048576, "samples of the prior")
    samples: Count = option(65536, "samples of each histogram", paper="-")


class Heuristics(Model):
    """`heuristics.<name>`."""

    cases: Count = option(64, "random curves, each with its observation")
    block: Count = option(8, "cases that one job does; it changes no number")
    dimensions: Integer = option(3, "of the curve, as for the data set `manifold`", ge=2)
    alpha: Positive = option(3.0, "its smoothness")
    epsilon: Fraction = option(0.001, "its cut-off")
    components: Count = option(256, "Gaussians along the curve")
    thickness: Positive = option(0.01, "their standard deviation")
    rows: Count = option(1, "of the random `A`, of unit norm each")
    sigma_y: Positive = option(0.01, "the standard deviation of the noise")
    sigmas: Annotated[list[Positive], Field(min_length=1)] = option(
        [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0], "the noise levels `sigma_t`"
    )
    covariances: Annotated[list[str], Names(COVARIANCES, many=True)] = option(
        ["tweedie", "cov_x", "cov_t", "zeros"], "the choices of `V`, as `e_step.covariance`"
    )
    prior_samples: Count = option(1048576, "samples of the prior that the others are drawn from")
    samples: Count = option(16384, "samples of each set that is compared")
    regularization: Positive = option(
        0.001, "`lambda` of the Sinkhorn iterations, in squared data units"
    )
    iterations: Count = option(1024, "the most Sinkhorn iterations")
    tolerance: Positive = option(
        0.128,
        "the iterations end once the relative error of the plan's masses (RMS) is this low. The"
        " paper ends at a Euclidean norm of 1e-3, which for 16,384 masses is 0.128",
    )
    floor: Positive = option(0.000001, "the least value that is shown")
    coil: Coil = option({}, "of the figure of the coil")

    _unique = field_validator("sigmas")(unique)

    @field_validator("covariances")
    @classmethod
    def _not_empty(cls, names: list[str]) -> list[str]:
        if not names:
            raise ValueError("{place} is [], and must be a list of at least 1")
        return names


class Training(Model):
    """`restoration.<name>.train`: the prior is trained on clean images."""

    network: Annotated[dict, Entry(NETWORKS)] = option(..., "as in an experiment")
    schedule: Schedule = option({}, "as in an experiment")
    gaussian: Gaussian = option({}, "as in an experiment")
    m_step: MStep = option({}, "as in an experiment")


class Pretrained(Model):
    """`restoration.<name>.pretrained`."""

    name: Literal["ffhq_256x256", "imagenet_256x256"] = option(..., "a denoiser that azula knows")
    weights: Text = option(
        ...,
        "the path of its file, a PyTorch file (only tensors are loaded from it, no pickled code) or"
        " safetensors",
    )


class PreservingSchedule(Model):
    """`restoration.<name>.schedule`, variance-preserving."""

    alpha_min: Fraction = option(0.01, "the least signal")
    sigma_min: Fraction = option(0.01, "the least noise")


class Task(Model):
    """`restoration.<name>.tasks.<name>`."""

    operator: Annotated[dict, Entry(OPERATORS)] = option(..., "the forward operator")
    sigma_y: Positive = option(..., "the standard deviation of the noise, of images in [-1, 1]")
    shared: bool = option(
        False, "whether all images have one operator, which is drawn once", paper="blur: true"
    )


TASKS = {
    "inpainting_box": {"operator": {"name": "mask", "box": 128, "margin": 16}, "sigma_y": 1.0},
    "inpainting_random": {"operator": {"name": "mask", "missing": 0.98}, "sigma_y": 0.01},
    "motion_deblur": {
        "operator": {"name": "blur", "size": 61, "intensity": 0.5, "boundary": "reflect"},
        "sigma_y": 0.1,
        "shared": True,
    },
    "super_resolution": {
        "operator": {"name": "downsample", "factor": 4, "filter": "bicubic"},
        "sigma_y": 0.1,
    },
}
"""The paper's tasks."""

METHODS_OF_PAPER = {
    "mmps_1": {"name": "mmps", "iterations": 1},
    "mmps_3": {"name": "mmps", "iterations": 3},
    "mmps_5": {"name": "mmps", "iterations": 5},
    "dps": {"name": "dps"},
    "pgdm": {"name": "pgdm"},
    "tmpd": {"name": "tmpd"},
    "diffpir": {"name": "diffpir"},
}
"""The paper's methods."""


class Restoration(Model):
    """`restoration.<name>`."""

    data: Annotated[dict, Entry(DATASETS)] = option(
        ...,
        "images of one channel or three, see `data` above; the test split is restored",
        paper="FFHQ: `{name: images, path: ..., size: 256}`",
    )
    train: Training | None = option(
        None,
        "the prior is trained here on the training split: `network` (required), `schedule`,"
        " `gaussian` and `m_step`, as in an experiment and in its units, [-2, 2]. Twice the ratio"
        " of noise to signal that is sampled at, 2 `sigma_min` to about 2 / `alpha_min`, should lie"
        " within its noise levels",
        paper="-",
        absent=True,
    )
    pretrained: Pretrained | None = option(
        None,
        "or it is one that azula knows: `name` is `ffhq_256x256` or `imagenet_256x256`, and"
        " `weights` the path of its file. Nothing is downloaded",
        paper="`ffhq_256x256`",
        absent=True,
    )
    schedule: PreservingSchedule = option(
        {},
        "`alpha_min`, `sigma_min`: the least signal and the least noise",
        paper="-, see `respaced`",
    )
    respaced: bool = option(
        False,
        "whether the noise levels are the 1,000 of DDPM (its `beta` from 1e-4 to 0.02), respaced to"
        " the number of steps, in the place of `schedule`",
        paper="true",
    )
    clip: bool = option(
        False, "whether denoised images are clipped to [-1, 1], their range", paper="true"
    )
    tasks: Annotated[dict[Name, Task], Field(min_length=1)] = option(
        TASKS,
        "by name: `operator`, `sigma_y` (one number) and `shared`. The published numbers are of"
        " tasks with the default's names",
        paper="box of 128 with a margin of 16, 1.0; 98 % missing, 0.01; one blur of 61 pixels and"
        " intensity 0.5, reflected, 0.1; factor 4, bicubic, 0.1",
    )
    methods: Annotated[dict[Name, Annotated[dict, Entry(METHODS)]], Field(min_length=1)] = option(
        METHODS_OF_PAPER, "by name, see below"
    )
    steps: Annotated[list[Count], Field(min_length=1)] = option(
        [10, 100, 1000], "numbers of steps, each run from the beginning", paper="the same"
    )
    images: Count = option(100, "how many test images are restored, once each", paper="100")
    block: Count = option(
        16,
        "images that are restored together, which share a random stream. It changes the numbers",
    )
    metrics: Annotated[list[str], Names(METRICS, many=True)] = option(
        ["psnr", "ssim", "lpips"],
        "`psnr`, `ssim` (images of 11 pixels or more), `lpips` (31 pixels or more)",
        paper="all",
    )
    lpips_weights: Text | None = option(
        None,
        "a folder of torch.hub, such as `~/.cache/torch/hub`, whose `checkpoints` hold `alex.pth`"
        " (LPIPS, version 0.1) and `alexnet-owt-7be5be79.pth` (torchvision's AlexNet), as piqa"
        " leaves them there; with null there is no LPIPS",
        paper="AlexNet, by piqa",
    )

    _unique = field_validator("steps")(unique)
