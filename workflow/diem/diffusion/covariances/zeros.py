"""No covariance."""

from diem.diffusion.covariances.base import Covariance
from diem.lazy import torch

__all__ = ["Zeros"]


class Zeros(Covariance):
    """No covariance, as in DPS."""

    name = "zeros"

    def variance(self, var_t, gaussian):
        from azula.linalg.covariance import IsotropicCovariance

        return IsotropicCovariance(torch.zeros_like(var_t))
