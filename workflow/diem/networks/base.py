"""What a network is, and how networks are found.

A network knows nothing of diffusion. It maps a batch ``x`` of shape ``(B, *event)`` and a noise
conditioning variable ``t = log(sigma)`` of shape ``(B,)`` to a tensor of the shape of ``x``. It
also takes one ``t`` for the whole batch, of shape ``(1,)`` or ``()``. One that holds a
:class:`~diem.networks.modules.gaussian_output.GaussianOutput` has it told the moments of the
samples that fresh weights are first trained on.

References:
    Rozet et al., Learning Diffusion Priors from Observations by Expectation Maximization,
    NeurIPS 2024, https://arxiv.org/abs/2405.13712
"""

from __future__ import annotations

import abc
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diem.components import Component, Kind

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NETWORKS", "Network", "dense"]


class Network(Component):
    """A network: its options, what it costs, and how it is built.

    A class of one's own defines :meth:`build`; its cost is counted where it declares none.
    """

    def check(self, event_shape: Sequence[int]) -> None:
        """Raises a :class:`DiemError` if the network is not for samples of this shape."""

    @abc.abstractmethod
    def build(self, event_shape: Sequence[int]) -> nn.Module:
        """Builds the network.

        The initial weights come from PyTorch's global generator.

        Arguments:
            event_shape: The shape of one sample.

        Raises:
            DiemError: If the network is not for samples of this shape.
        """

    def multiplications(self, event_shape: Sequence[int]) -> float:
        """Returns the multiplications of one forward pass on one sample."""
        from diem.networks.counting import counted

        return counted(self, event_shape).multiplications

    def activations(self, event_shape: Sequence[int]) -> float:
        """Returns how many values a forward pass on one sample keeps for the backward pass."""
        from diem.networks.counting import counted

        return counted(self, event_shape).activations


def dense(widths: Sequence[int]) -> float:
    """Returns the multiplications of linear layers between layers of these widths."""
    return float(sum(a * b for a, b in itertools.pairwise(widths)))


class _Networks(Kind[Network]):
    """The networks, among which a module of PyTorch is one too."""

    def accepted(self, found: Any, name: str) -> type[Network]:
        if isinstance(found, type) and issubclass(found, Network):
            return super().accepted(found, name)
        from diem.networks.own import declared

        return declared(found, name)

    def entry(self, spec: str | Mapping[str, Any], where: str = "") -> dict[str, Any]:
        # A constructor may have tuples, which JSON has not.
        return json.loads(json.dumps(super().entry(spec, where)))


NETWORKS = _Networks(
    "network",
    "diem.networks",
    Network,  # type: ignore[type-abstract]
    besides=("base", "counting", "modules", "own", "runtime"),
)
"""The networks, see :class:`diem.components.Kind`.

Of a user's own, an import path names a :class:`Network`, or any :class:`torch.nn.Module` whose
constructor takes the event shape first, see :mod:`diem.networks.own`.
"""
