"""The networks of denoisers: one declaration a file, and what needs PyTorch in ``modules``."""

from diem.networks.base import NETWORKS, Network

__all__ = ["NETWORKS", "Network"]
