"""The versions of the libraries that numbers depend on."""

from importlib import metadata

__all__ = ["versions"]


def versions() -> dict[str, str]:
    """Returns the versions of the libraries that a prior's numbers depend on."""
    return {name: metadata.version(name) for name in ("azula", "numpy", "torch")}
