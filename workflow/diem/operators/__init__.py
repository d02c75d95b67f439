"""Linear forward operators ``A`` of ``y = A x + n``."""

from diem.operators.base import (
    OPERATORS,
    SEARCH_PATH,
    Blur,
    Downsample,
    Fourier,
    Mask,
    Operator,
    Partial,
    Projection,
    Sparse,
    build,
    csr_parameters,
    find,
    simulate,
)

__all__ = [
    "OPERATORS",
    "SEARCH_PATH",
    "Blur",
    "Downsample",
    "Fourier",
    "Mask",
    "Operator",
    "Partial",
    "Projection",
    "Sparse",
    "build",
    "csr_parameters",
    "find",
    "simulate",
]
