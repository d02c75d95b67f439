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


KNOWN_DEFECTS = {
    "test_no_flipped_byte_is_read_as_something_else": "HDF5 structures lack checksums",
    "test_a_restart_goes_on_from_the_same_observation[1-repeated]": "indices must be unique",
    "test_a_restart_goes_on_from_the_same_observation[2-repeated]": "indices must be unique",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.name in KNOWN_DEFECTS:
            item.add_marker(pytest.mark.xfail(reason=KNOWN_DEFECTS[item.name]))
