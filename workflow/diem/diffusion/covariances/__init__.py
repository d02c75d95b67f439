"""The choices of ``V``, the covariance of ``x`` given ``x_t``: one file each, see :mod:`.base`."""

from diem.components import Kind
from diem.diffusion.covariances.base import CARD_ERROR, Covariance, Denoising, System

__all__ = ["CARD_ERROR", "COVARIANCES", "Covariance", "Denoising", "System"]


class _Covariances(Kind[Covariance]):
    facts = ("name",)


COVARIANCES = _Covariances("covariance", __name__, Covariance, besides=["base"])
