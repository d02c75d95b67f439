"""What a network costs that declares nothing of it: counted, without computing anything."""

import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from diem.errors import DiemError
from diem.networks.base import Network

__all__ = ["Count", "counted"]


class Count(NamedTuple):
    """The cost of a network on one sample.

    Attributes:
        multiplications: The multiplications of a forward pass, in products of matrices,
            convolutions and attention.
        activations: The values that it keeps for the backward pass.
    """

    multiplications: float
    activations: float


def counted(network: Network, event_shape: Sequence[int]) -> Count:
    """Counts the cost of a network on one sample, once for each of its options and shapes.

    Nothing is computed, on PyTorch's meta device; a network that cannot be evaluated there is run
    on the CPU.

    Raises:
        DiemError: If the network cannot be evaluated.
    """
    options = json.dumps(network.model_dump(), sort_keys=True)
    return _counted(type(network), options, tuple(event_shape))


@functools.lru_cache(maxsize=256)
def _counted(cls: type[Network], options: str, event_shape: tuple[int, ...]) -> Count:
    network = cls.model_validate(json.loads(options))
    try:
        return _count(network, event_shape, "meta")
    except Exception:  # the many things that a module may do which the meta device cannot
        pass
    try:
        return _count(network, event_shape, "cpu")
    except DiemError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DiemError(
            f"network {cls.name!r} cannot be evaluated on samples of shape {event_shape}"
            f" ({reason})."
        ) from None


def _count(network: Network, event_shape: tuple[int, ...], device: str) -> Count:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        module = network.build(event_shape).eval()
        x, t = torch.zeros(1, *event_shape), torch.zeros(1)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(x, t)
        weights = {_storage(weight) for weight in module.parameters()}
        saved: dict[Any, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            saved[_storage(tensor)] = tensor
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            result = module(x, t)
        activations = sum(
            tensor.untyped_storage().nbytes() / tensor.element_size()
            for storage, tensor in saved.items()
            if storage not in weights
        )
        del result  # which held what was saved
    return Count(counter.get_total_flops() / 2, activations)


def _storage(tensor: torch.Tensor) -> int:
    """Returns what tells storages apart, of which several tensors can be views."""
    return tensor.untyped_storage()._cdata
