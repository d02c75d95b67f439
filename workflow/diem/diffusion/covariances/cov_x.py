"""The covariance of a Gaussian prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.diffusion.covariances.base import Covariance
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CovX"]


class CovX(Covariance):
    r"""The covariance if the prior were Gaussian: :math:`(\Sigma_x^{-1} + \Sigma_t^{-1})^{-1}`."""

    name = "cov_x"
    needs_gaussian = True

    def variance(self, var_t, gaussian):
        return gaussian.denoising_covariance(var_t)

    def matrix(self, var_t: float, covariance: Tensor, hessian: Tensor) -> Tensor:
        identity = torch.eye(len(covariance)).to(covariance)
        return var_t * torch.linalg.solve(covariance + var_t * identity, covariance)
