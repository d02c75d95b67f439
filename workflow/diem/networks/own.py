"""A module of PyTorch as a network, without any declaration.

A user names any :class:`torch.nn.Module` by its import path, ``network: {name: "mine:Net"}``:

- the first argument of its constructor is the event shape, and the others are the options;
- its call takes ``(x, t)``, of shapes ``(B, *event)`` and ``(B,)``, and returns the shape of ``x``.

``t`` is the logarithm of the noise level ``sigma``, or with ``conditioning: sigma`` the level.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, create_model
from torch import nn

from diem.components import option, options_of
from diem.errors import DiemError
from diem.networks.base import Network
from diem.networks.modules.conditioned import Conditioned

__all__ = ["ModuleNetwork", "declared"]


class ModuleNetwork(Network):
    """A module of PyTorch with its options.

    Attributes:
        module: The module's class.
    """

    # A constructor may ask for tuples, which no configuration can have.
    model_config = ConfigDict(strict=False, arbitrary_types_allowed=True)

    module: ClassVar[type[nn.Module]]

    conditioning: Literal["log_sigma", "sigma"] = option(
        "log_sigma",
        "what the network is told of the noise: its level, or the logarithm of it",
    )

    def build(self, event_shape: Sequence[int]) -> nn.Module:
        options = self.model_dump(exclude={"conditioning"})
        try:
            module = self.module(tuple(event_shape), **options)
        except DiemError:
            raise
        except Exception as error:  # whatever a user's class raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DiemError(f"network {self.name!r} cannot be built ({reason}).") from None
        self._check_buffers(module)
        return Conditioned(module, self.name, exponential=self.conditioning == "sigma")

    def _check_buffers(self, module: nn.Module) -> None:
        """Refuses a module with buffers that no file keeps."""
        kept = module.state_dict()
        for key, value in module.named_buffers():
            infinite = value.is_floating_point() and not (value.is_meta or value.isfinite().all())
            if infinite and key in kept:
                raise DiemError(
                    f"network {self.name!r}: the buffer {key!r} holds values that are not finite,"
                    " which no file keeps: register it with persistent=False."
                )


@functools.lru_cache
def declared(found: Any, name: str) -> type[Network]:
    """Returns the declaration of a module's class, made from its constructor's signature.

    Options whose default JSON cannot hold, such as another module, keep their default.

    Arguments:
        found: What the import path names.
        name: The import path.

    Raises:
        DiemError: If it is no class of modules, or its constructor does not suit.
    """
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        base = f"{Network.__module__}.{Network.__qualname__}"
        raise DiemError(f"network {name!r} is no subclass of torch.nn.Module or {base}.")
    _, *parameters = inspect.signature(found.__init__).parameters.values()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if not parameters or parameters[0].kind not in positional:
        raise DiemError(f"network {name!r}: its constructor takes no event shape first.")
    taken = {"name", "module", *ModuleNetwork.model_fields}
    for parameter in parameters[1:]:
        if parameter.name in taken or hasattr(ModuleNetwork, parameter.name):
            raise DiemError(
                f"network {name!r}: the argument {parameter.name!r} of its constructor needs"
                " another name, since every network has something of this name."
            )
    try:
        options = options_of(found.__init__, skip=2)
    except Exception as error:  # of annotations that name what is not there
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DiemError(f"network {name!r}: its options cannot be read ({reason}).") from None
    fields: dict[str, Any] = {}
    for key, field in options.model_fields.items():
        if not field.is_required() and not _is_json(field.default):
            continue
        fields[key] = (field.annotation, field)
    network = create_model(
        found.__name__,
        __base__=ModuleNetwork,
        __module__=found.__module__,
        __cls_kwargs__={"extra": options.model_config["extra"]},
        **fields,
    )
    network.name, network.module = name, found
    return network


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
