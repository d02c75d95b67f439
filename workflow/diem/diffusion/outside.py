"""How posteriors are drawn outside of the E-step: in evaluations, and by a prior in use."""

from collections.abc import Mapping
from typing import Any

from diem.diffusion.covariances import CARD_ERROR
from diem.diffusion.covariances.measured import Measured
from diem.diffusion.samplers import changed_sampler

__all__ = ["GUARD", "SHAPING", "STEPS", "of_card", "outside_e_step"]

SHAPING = ("sampler", "covariance", "iterations", "limit")
"""The keys of ``e_step`` that shape a posterior sample."""

STEPS = 32
"""The fewest steps, unless fewer are asked for."""

GUARD = 8.0
"""The limit that takes the place of a smaller one: it stops the few chains that explode."""


def outside_e_step(
    entry: Mapping[str, Any], changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns an ``e_step`` entry as posteriors outside of the E-step are drawn by it.

    An E-step may take few steps, and a ``limit`` that leaves some samples far from their
    observations, since training averages over its samples. Samples that are looked at one by one
    take :data:`STEPS` steps at least, a limit that holds back only what is far beyond chance
    (:data:`GUARD`), and the covariance that needs it least.

    Arguments:
        entry: The entry, which need not be complete.
        changes: The keys of it that come last; ``sampler`` is changed key by key.

    Raises:
        DiemError: If a sampler is unknown.
    """
    changes, sampler = changes or {}, dict(entry.get("sampler", {}))
    if "steps" in sampler:
        sampler["steps"] = max(STEPS, sampler["steps"])
    sampler = changed_sampler(sampler, changes.get("sampler", {}))
    limited = entry.get("limit") is not None
    ours = {"limit": GUARD, "covariance": Measured.name} if limited else {}
    return {**entry, **ours, **changes, "sampler": sampler}


def of_card(card: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the ``e_step`` entry by which the posteriors of a prior in use are drawn.

    An exported prior tells how its evaluation drew them. One that an earlier version trained, whose
    card has no error of its denoiser, draws them as its own E-step.

    Arguments:
        card: The prior's card.
        changes: As for :func:`outside_e_step`.

    Raises:
        DiemError: If a sampler is unknown.
    """
    own = card.get("e_step", {})
    if "posterior" in card:
        own = {**own, **card["posterior"]}
    elif CARD_ERROR in card:
        return outside_e_step(own, changes)
    sampler = changed_sampler(own.get("sampler", {}), changes.get("sampler", {}))
    return {**own, **changes, "sampler": sampler}
