import itertools

import numpy as np
import torch

from diem.seeds import Stage, rng, torch_generator


def test_stages_are_fixed_and_distinct():
    # Their values are part of every result: to renumber them would change all numbers.
    assert {stage.name: int(stage) for stage in Stage} == {
        "DATA": 0,
        "SPLIT": 1,
        "CORRUPTION": 2,
        "GAUSSIAN": 3,
        "E_STEP": 4,
        "M_STEP": 5,
        "VALIDATION": 6,
        "PRIOR": 7,
        "METRIC": 8,
        "EXTRACTOR": 9,
        "NETWORK": 10,
        "EPOCH": 11,
        "TEST_POSTERIOR": 12,
        "RESTORATION": 13,
        "HEURISTICS": 14,
        "PREDICTION": 15,
    }


def test_streams_repeat_and_differ():
    keys = list(itertools.product((0, 1), (Stage.E_STEP, Stage.M_STEP), (0, 1), (0, 1)))

    numpy = [rng(seed, *key).random() for seed, *key in keys]
    torches = [torch.rand(1, generator=torch_generator(seed, *key)).item() for seed, *key in keys]

    assert len(set(numpy)) == len(set(torches)) == len(keys)
    assert numpy == [rng(seed, *key).random() for seed, *key in keys]
    again = [torch.rand(1, generator=torch_generator(seed, *key)).item() for seed, *key in keys]
    assert torches == again


def test_a_stream_does_not_touch_the_global_generators():
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()

    torch.rand(3, generator=torch_generator(0, Stage.DATA))
    rng(0, Stage.DATA).random(3)

    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
