"""What every test shares: one thread, and the same random numbers at every run."""

import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    """Seeds every global generator; a test that draws elsewhere makes its own generator."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
