"""How networks are told the noise level."""

import torch
from torch import Tensor

__all__ = ["noise_embedding"]


def noise_embedding(t: Tensor, features: int) -> Tensor:
    r"""Returns cosine and sine features of the noise conditioning variable.

    .. math:: [\cos(\omega_i t), \sin(\omega_i t)]_i \quad \omega_i = 10^{-4 i / (n - 1)}

    The ``n = features / 2`` frequencies multiply ``t``: with ``log(sigma)`` between -7 and 5, the
    frequency 1 turns less than twice over the whole noise schedule and the lower ones tell its
    turns apart. Dividing by them instead would turn up to 1e4 times per unit of ``log(sigma)``.

    Arguments:
        t: The conditioning variable, of shape ``(B,)``.
        features: The even number of features.

    Returns:
        The features, of shape ``(B, features)`` and of the type of ``t``.
    """
    # Not a buffer: the frequencies keep the precision of t whatever the type of the weights is,
    # and a saved network holds parameters only.
    omega = torch.logspace(0, -4, features // 2, dtype=t.dtype, device=t.device)
    angle = torch.atleast_1d(t)[:, None] * omega
    return torch.cat((angle.cos(), angle.sin()), dim=1)
