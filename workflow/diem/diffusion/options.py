"""The options by which a posterior is drawn and a network is run, with their bounds.

The configuration, the command line and :func:`diem.load_prior` ask the same ones.
"""

from typing import Literal

from diem.components import Count, Model, Positive, option

__all__ = ["Engine", "Guiding"]


class Engine(Model):
    """How the network is run."""

    precision: Literal["float32", "bfloat16"] = option(
        "float32",
        "`float32`, or `bfloat16`: the network's products in bfloat16 (autocast); weights, noise,"
        " loss, optimizer and solver stay in float32. It pays where the machine multiplies faster"
        " in it, as GPUs and some CPUs do: of the two that were measured one is three times as"
        " fast and the other is slower",
    )
    channels_last: bool = option(
        False, "whether images and kernels of a U-Net are laid out channels-last in memory"
    )
    compile: bool | Literal["reduce-overhead"] = option(
        False,
        "whether the network is compiled by `torch.compile`, which needs a C++ compiler (and Triton"
        " on GPUs) and some minutes for a U-Net. `reduce-overhead` also records it as CUDA graphs,"
        " for networks and batches so small that a GPU waits for launches",
    )


class Guiding(Engine):
    """What shapes a posterior sample beside the sampler and the covariance."""

    iterations: Count = option(
        1,
        "conjugate-gradient iterations; with `tweedie` each costs one vector-Jacobian product",
        paper="1 / to convergence / 3",
    )
    limit: Positive | None = option(
        None,
        "the largest Mahalanobis residual `sqrt(b' S^-1 b / m)` that the guidance follows, or null"
        " for no limit. It trades data fit for plausibility: read the residuals beside every"
        " quality number",
        paper="null",
    )
    batch: Count | None = option(
        None,
        "the most observations that the network evaluates at once, or null for the whole block. It"
        " bounds the memory, and changes the numbers by rounding only, so"
        " that finished results stay",
    )
