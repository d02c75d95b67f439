"""A second device on a machine that has none: a tensor is on it if the tensors it came from are.

Its tensors lie in the memory of the CPU, and :class:`OtherDevice` knows which they are. It asks of
every call what PyTorch asks on a GPU, that all tensors are on one device, and so finds a tensor
that a computation makes on the CPU in its middle.
"""

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("xpu", 0)
"""What the second device is called: PyTorch knows the name, and nothing here treats it apart."""

COPIES = {"copy_", "to", "cpu", "as_tensor", "tensor"}
INDEXED = {"__getitem__", "__setitem__", "index_put_", "index"}
MOVED = {"_has_compatible_shallow_copy_type", "__set__"}  # how a module moves its parameters
JOINED = {"cat", "stack", "_fused_adam_"}  # where a number must be there too
TO_NUMPY = {"numpy", "__array__", "from_dlpack", "__dlpack__"}


class Stream(torch.Generator):
    """A generator that remembers its device."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls)

    def __init__(self, device="cpu"):
        self.place = torch.device(device)

    @property
    def device(self):
        return self.place


class Misplaced(AssertionError):
    """Tensors of two devices have met."""


class OtherDevice(TorchFunctionMode):
    """The mode in which :data:`DEVICE` exists."""

    @cached_property
    def storages(self):
        """The storages on the device by their addresses, which are not given away meanwhile."""
        return {}

    @cached_property
    def empty(self):
        """The tensors on the device without values, which have no address, by their identities."""
        return {}

    def there(self, x: Tensor) -> bool:
        """Tells whether a tensor is on the device."""
        return x.untyped_storage().data_ptr() in self.storages or id(x) in self.empty

    def put(self, x: object, there: bool) -> object:
        """Puts the tensors in a result on the device, or on the CPU."""
        for t in filter(_is_tensor, tree_leaves(x)):
            storage = t.untyped_storage()
            if there and storage.nbytes():
                self.storages[storage.data_ptr()] = storage
            elif there:
                self.empty[id(t)] = t
        return x

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        tensors = list(filter(_is_tensor, tree_leaves((args, kwargs))))
        if name == "__get__" and _getter(func) == "device":
            return DEVICE if self.there(args[0]) else func(*args)
        wanted, args, kwargs = _device_of(self, name, args, kwargs)
        there = any(map(self.there, tensors)) if wanted is None else wanted
        if name in TO_NUMPY and there:
            raise Misplaced(f"{name} of a tensor that is not on the CPU")
        if name not in COPIES | MOVED:
            self._check(name, args, tensors)
        generator = kwargs.get("generator")
        if generator is not None and (getattr(generator, "device", None) == DEVICE) != there:
            raise Misplaced(f"{name} with a generator of another device")
        if name == "copy_":
            there = self.there(args[0])
        result = func(*args, **kwargs)
        if name in COPIES and wanted is not None and tensors and wanted != self.there(tensors[0]):
            result = result.clone()  # moved, not the same memory
        return self.put(result, there) if wanted is None or wanted else result

    def _check(self, name: str, args: tuple, tensors: Iterable[Tensor]) -> None:
        """Raises unless tensors are on one device, but for numbers and indices on the CPU."""
        if not tensors or not any(map(self.there, tensors)):
            return
        first = args[0] if args and _is_tensor(args[0]) else None
        if name in INDEXED and first is not None and self.there(first):
            tensors = [first, *filter(_is_tensor, args[2:])]  # indices may be on the CPU
        for t in tensors:
            number = t.ndim == 0 and name not in JOINED and not (t is first and _places(name))
            if not (self.there(t) or number):
                raise Misplaced(f"{name} of tensors on two devices, {[t.shape for t in tensors]}")


def _is_tensor(x: object) -> bool:
    return isinstance(x, Tensor)


def _places(name: str) -> bool:
    """Tells whether a method puts its result into its first argument."""
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def _getter(func: object) -> str:
    return getattr(getattr(func, "__self__", None), "__name__", "")


def _device_of(mode: OtherDevice, name: str, args: tuple, kwargs: dict) -> tuple:
    """Returns the device that a call asks for, as whether it is the other one, and the rest of it.

    It is none where a call asks for no device and has tensors, whose device it takes then.
    """
    given = kwargs.pop("device", None)
    if name == "cpu":
        given = "cpu"
    if name == "to":
        first, *rest = args
        kinds = [a for a in rest if isinstance(a, torch.dtype)]
        for like in filter(_is_tensor, rest):
            return mode.there(like), (first, like.dtype), kwargs
        given = next((a for a in rest if isinstance(a, str | torch.device)), given)
        args = (first, *(kinds or [kwargs.pop("dtype", None) or first.dtype]))
    if given is not None:
        return torch.device(given).type == DEVICE.type, args, kwargs
    return None, args, kwargs
