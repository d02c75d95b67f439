"""A prior of unit covariance."""

from diem.diffusion.covariances.base import Covariance

__all__ = ["Identity"]


class Identity(Covariance):
    r"""The covariance if the prior were a standard normal: :math:`(I + \Sigma_t^{-1})^{-1}`.

    It is that of PGDM.
    """

    name = "identity"

    def variance(self, var_t, gaussian):
        from azula.linalg.covariance import IsotropicCovariance

        return IsotropicCovariance(var_t / (1 + var_t))
