"""An operator of one's own: a telescope whose beam blurs the sky, and whose pixels can be dead.

In a config: ``operator: telescope:Beam``. This file is found if it lies beside the config, in the
working folder, or in a folder of ``PYTHONPATH``.
"""

import torch
from torch import Tensor

from diem.operators import Operator


class Beam(Operator):
    """Convolves an image with a Gaussian beam of each observation's own width, and masks it.

    Parameters:
        width: The standard deviations of the beams in pixels, of shape ``(B,)``.
        alive: Which pixels see something, booleans of shape ``(B, 1, height, width)``.
    """

    fields = ("width", "alive")

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.event_shape

    def forward(self, x: Tensor) -> Tensor:
        return self._blurred(x) * self.parameters["alive"]

    def adjoint(self, y: Tensor) -> Tensor:
        # The beam is symmetric, so that its transpose is itself; what comes first comes last.
        return self._blurred(y * self.parameters["alive"])

    def observed(self) -> Tensor:
        return self.parameters["alive"].expand(-1, *self.event_shape)

    def _blurred(self, x: Tensor) -> Tensor:
        # A convolution is a product of spectra; that of a Gaussian is a Gaussian.
        height, width = self.event_shape[1:]
        rows = torch.fft.fftfreq(height, device=x.device)[:, None]
        columns = torch.fft.rfftfreq(width, device=x.device)
        sigma = self.parameters["width"][:, None, None, None]
        spectrum = torch.exp(-2 * (torch.pi * sigma) ** 2 * (rows**2 + columns**2))
        return torch.fft.irfft2(torch.fft.rfft2(x) * spectrum, s=(height, width))
