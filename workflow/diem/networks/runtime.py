"""How a network is run: in which precision, in which memory format, and whether compiled.

None of this changes what is computed, only how it is rounded and how long it takes. Where a config
asks for something that a machine cannot do, that is an error and never done without.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import nn

from diem.errors import DiemError

__all__ = [
    "PRECISIONS",
    "Compile",
    "autocast",
    "bounded_memory",
    "compile_network",
    "set_memory_format",
]

PRECISIONS = ("float32", "bfloat16")
"""The precisions of a network's products. Weights, noise, losses and solvers are single precision
in both."""

Compile: TypeAlias = bool | Literal["reduce-overhead"]
"""Whether a network is compiled, and whether a GPU then runs it as CUDA graphs."""


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Returns the context in which a network is evaluated, and its gradients are not taken.

    Raises:
        ValueError: If the precision is none of :data:`PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"The precision must be one of {PRECISIONS}, not {precision!r}.")
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def set_memory_format(network: nn.Module, channels_last: bool) -> None:
    """Lays the kernels of convolutions out channels-last; images then follow from the first on."""
    if channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compile_network(network: nn.Module, key: str, how: Compile = True) -> None:
    """Compiles a network, in place and once; its parameters and their names stay as they are.

    Arguments:
        network: The network, on its device.
        key: The config's key that asks for it, for the message.
        how: With ``reduce-overhead`` its kernels are recorded as CUDA graphs, and a launch of one
            takes the place of theirs. What it returned is then gone once it is called again, and
            so are the gradients that were taken of that.

    Raises:
        DiemError: If this machine cannot compile, or has no CUDA graphs.
    """
    import torch._functorch.config as functorch

    if network._compiled_call_impl is not None:
        return
    # The backward pass would otherwise free what the next product with the same graph needs.
    functorch.donated_buffer = False
    device = next(network.parameters()).device
    # Shapes are compiled one by one: the numbers of a block then depend on its own shape only, not
    # on which shapes came before. A graph break or a shape too many is an error.
    options: dict[str, Any] = {"fullgraph": True, "dynamic": False}
    graphs = how is not True
    if graphs:
        if device.type != "cuda":
            raise DiemError(f"{key} is {how}, and CUDA graphs need a GPU: set it to true.")
        options |= {"mode": how}
    try:
        torch.compile(torch.square, **options)(torch.ones(2, device=device))
    except Exception as error:  # of the compilers, which have no common one
        reason = str(error).strip().splitlines()[0].rstrip(".")
        asked = how if graphs else "true"
        raise DiemError(f"{key} is {asked}, and this machine cannot compile: {reason}.") from None
    network.compile(**options)
    if graphs:
        _begin_steps(network)


def _begin_steps(network: nn.Module) -> None:
    """Lets each call of a compiled network reuse the memory of the call before."""
    import torch._inductor.config as inductor

    # What cannot be recorded is then an error, where PyTorch would run it kernel by kernel.
    inductor.triton.cudagraph_or_error = True
    compiled = cast(Callable[..., Any], network._compiled_call_impl)

    def call(*args: Any, **kwargs: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*args, **kwargs)

    network._compiled_call_impl = call


@contextlib.contextmanager
def bounded_memory(key: str, count: int, device: str | torch.device) -> Iterator[None]:
    """Tells of memory that is not enough in a sentence that names what to lower.

    Arguments:
        key: The config's key that bounds how many samples are evaluated at once.
        count: How many they are.
        device: The device that they are evaluated on.

    Raises:
        DiemError: If PyTorch runs out of the device's memory within the context.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise DiemError(
            f"{key}: the memory of the device {str(device)!r} is not enough for {count} samples at"
            " once: set it to less."
        ) from None
