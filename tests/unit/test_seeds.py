import itertools

import numpy as np
import pytest
import torch

from diem.seeds import Stage, global_stream, rng, torch_generator


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
        "SPREAD": 16,
        "DROPOUT": 17,
        "CALIBRATION": 18,
        "SUBSET": 19,
        "PARTS": 20,
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


def test_a_stream_on_the_cpu_takes_all_bits_of_its_seed():
    # It is the Mersenne twister of NumPy, which takes 624 words; a number here takes two draws.
    sequence = np.random.SeedSequence(3, spawn_key=(int(Stage.PRIOR), 1, 2))
    raw = np.random.MT19937(sequence).random_raw(1001)[2::2] % 2**31

    drawn = torch.empty(500, dtype=torch.int64)
    drawn.random_(0, 2**31, generator=torch_generator(3, Stage.PRIOR, 1, 2))

    assert np.array_equal(drawn.numpy(), raw)


def test_layers_draw_from_the_stream_of_a_seed():
    seeds = (0, 1, 1 << 40, 1 << 62)  # of the last two, 32 bits would be zero
    before = torch.get_rng_state()

    def drawn(seed):
        with global_stream(seed):
            return torch.nn.Dropout()(torch.ones(64)).tolist()

    assert [drawn(seed) for seed in seeds] == [drawn(seed) for seed in seeds]
    assert len({tuple(drawn(seed)) for seed in seeds}) == len(seeds)
    assert torch.equal(before, torch.get_rng_state())


def test_the_global_generators_are_as_before_after_an_error():
    before = torch.get_rng_state()

    with pytest.raises(KeyError), global_stream(0):
        raise KeyError

    assert torch.equal(before, torch.get_rng_state())
