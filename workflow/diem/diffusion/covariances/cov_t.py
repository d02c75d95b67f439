"""The covariance of the noise."""

from diem.diffusion.covariances.base import Covariance

__all__ = ["CovT"]


class CovT(Covariance):
    r"""The covariance of the noise, :math:`\Sigma_t`: that of a flat prior."""

    name = "cov_t"

    def variance(self, var_t, gaussian):
        from azula.linalg.covariance import IsotropicCovariance

        return IsotropicCovariance(var_t)
