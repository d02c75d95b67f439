"""The choices of ``V``, the covariance of ``x`` given ``x_t``: one file each, see :mod:`.base`."""

from diem.components import Kind
from diem.diffusion.covariances.base import Covariance, System

__all__ = ["COVARIANCES", "Covariance", "System"]

COVARIANCES = Kind("covariance", __name__, Covariance, besides=["base"])
