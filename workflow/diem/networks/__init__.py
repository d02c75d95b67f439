"""The networks of denoisers."""

from diem.networks.base import MLP, NETWORKS, ResidualMLP, UNet, build, noise_embedding

__all__ = ["MLP", "NETWORKS", "ResidualMLP", "UNet", "build", "noise_embedding"]
