"""Reverse samplers, from noise to a sample: one file a sampler, see :mod:`.base`."""

from collections.abc import Mapping
from typing import Any

from diem.components import Kind
from diem.diffusion.samplers.base import Sampler, noise_levels, sample_prior, sigma_to_time
from diem.diffusion.samplers.ddpm import DDPM

__all__ = [
    "SAMPLERS",
    "Sampler",
    "changed_sampler",
    "noise_levels",
    "sample_prior",
    "sigma_to_time",
]


class _Samplers(Kind[Sampler]):
    facts = ("name",)


SAMPLERS = _Samplers("sampler", __name__, Sampler, besides=["base"])  # type: ignore[type-abstract]


def changed_sampler(entry: Mapping[str, Any], changes: Mapping[str, Any] | str) -> dict[str, Any]:
    """Returns a ``sampler`` entry with some keys changed.

    Arguments:
        entry: The entry, such as that of the E-step that made a prior. It need not have a name.
        changes: The keys that take the place of its own, or the name of another sampler. Options
            that the named sampler does not have are left out of the entry.

    Raises:
        DiemError: If the sampler is unknown.
    """
    own = {"name": DDPM.name, **entry}
    asked = {"name": changes} if isinstance(changes, str) else changes
    options = SAMPLERS.find(asked.get("name", own["name"]), "sampler.name").model_fields
    return {**{key: own[key] for key in own if key == "name" or key in options}, **asked}
