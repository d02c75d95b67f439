"""DiEM: diffusion priors from observations by expectation maximization.

The library knows nothing of Snakemake; the scripts in ``workflow/scripts`` connect the two.

References:
    | Learning Diffusion Priors from Observations by Expectation Maximization
    | Rozet et al., NeurIPS 2024, https://arxiv.org/abs/2405.13712
"""

import importlib
from typing import Any

__version__ = "0.3.0"

# Loaded at their first use: Snakemake imports the package at every start, and torch takes seconds.
_LAZY = {
    "fit": "in_python.fit",
    "load_prior": "inference.prior_denoiser",
    "write_observations": "data.ingest",
}

_ROOMS = ("errors", "operators")
"""Those that a user calls by name, as in ``diem.errors.DiemError``."""

__all__ = ["fit", "load_prior", "write_observations"]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
