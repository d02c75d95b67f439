"""DiEM: diffusion priors from observations by expectation maximization.

The library knows nothing of Snakemake; the scripts in ``workflow/scripts`` connect the two.

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization
    | Rozet et al., NeurIPS 2024, https://arxiv.org/abs/2405.13712
"""

from typing import Any

__all__ = ["write_observations"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # On first use: Snakemake imports the package at every start, and PyTorch takes seconds.
    if name == "write_observations":
        from .own import write_observations

        return write_observations
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
