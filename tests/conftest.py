"""What every test shares: one thread, and the same random numbers at every run."""

import os
import random
import subprocess

import numpy as np
import pytest
import torch
import torchvision_operators

torchvision_operators.declare_when_needed()
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    """Seeds every global generator; a test that draws elsewhere makes its own generator."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """Writes the weights of a random Inception network, as torch-fidelity keeps them."""
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        patch.setattr(inception, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *args, **kwargs: None)
        network = inception.FeatureExtractorInceptionV3("random", ["2048"])
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)  # its signals neither fade nor grow
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def dinov2_weights(tmp_path_factory):
    """Writes the weights of a small random network of DINOv2's kind."""
    from diem.evaluation.dinov2 import VisionTransformer

    path = tmp_path_factory.mktemp("dinov2") / "weights.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(VisionTransformer(64, 2).state_dict(), path)
    return path


@pytest.fixture
def small_disk():
    """Returns a function that mounts a disk of some size, which asks for root."""
    mounted = []

    def mount(folder, size):
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if (
            os.geteuid() != 0
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("mounting a small disk needs root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
