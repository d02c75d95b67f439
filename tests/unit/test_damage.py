"""Damaged bytes, bits and blocks are told by the file's name, or change nothing that is read."""

import logging
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import observe, random_gaussian
from test_training import LapFiles, Stop, interrupt

from diem.data.observations import Observations, save_observations
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior, read_prior
from diem.diffusion.samplers.ddpm import DDPM
from diem.em.e_step import EStep, e_step
from diem.errors import DiemError
from diem.evaluation.rows import CARD, read_rows, write_rows
from diem.files.hdf5 import Reader
from diem.files.tensors import load_tensors
from diem.jobs.job import Job
from diem.jobs.results import checkpoint_file

SHAPE, MASK = (1, 4, 4), {"name": "mask", "missing": 0.5}
COUNTS = {"bytes": 400, "bits": 1000, "zeroed": 200, "swapped": 200, "cut": 50}
BLOCK = 512
HANG = 10  # seconds


def observations(path):
    gaussian = random_gaussian(SHAPE, 2, torch.float32)
    splits = {"train": 40, "validation": 7}
    observed = {
        split: observe(gaussian, MASK, count, 0.1, seed)[0]
        for seed, (split, count) in enumerate(splits.items())
    }
    save_observations(path, observed, "mask", {"experiment": "test", "seed": 0})


def samples(path):
    observations(path.with_name("observations.h5"))
    with Observations(path.with_name("observations.h5")) as file:
        prior = Prior(random_gaussian(SHAPE, 2, torch.float32), None, {})
        e_step(path, prior, file, EStep(PosteriorSampler(DDPM()), 16), 1, Job())


def prior(path):
    folder = path.with_name("lap")
    folder.mkdir()
    LapFiles(folder).run()[0].rename(path)


def checkpoint(path):
    folder = path.with_name("cut")
    folder.mkdir()
    with pytest.raises(Stop):
        LapFiles(folder).run(settings={"steps": 192}, progress=interrupt(128))
    checkpoint_file(folder / "out" / "prior").rename(path)


def hdf5_contents(path, names, attributes):
    with Reader(path) as file:
        told = [(name, file.attribute(name)) for name in attributes]
        read = [
            (name, file.read(name, () if file.shape(name) == () else slice(None))) for name in names
        ]
    return {name: np.asarray(value).tobytes() for name, value in told + read}


def tensor_contents(path):
    tensors, header = load_tensors(path)
    return {name: value.numpy().tobytes() for name, value in tensors.items()}, header


def row_contents(path):
    return read_rows([path]).to_csv()


def reader(path):
    """Returns a function that reads all that is in a file, as the workflow would."""
    if path.suffix == ".safetensors":
        return tensor_contents
    if path.suffix == ".csv":
        return row_contents
    with Reader(path) as file:
        names, attributes = [], list(file.attributes)
        file.file.visititems(
            lambda name, item: names.append(name) if hasattr(item, "dtype") else None
        )
    return lambda path: hdf5_contents(path, names, attributes)


def flipped_bytes(raw, rng):
    for place in rng.integers(len(raw), size=COUNTS["bytes"]):
        damaged = bytearray(raw)
        damaged[place] ^= int(rng.integers(1, 256))
        yield f"byte {place}", damaged


def flipped_bits(raw, rng):
    for place in rng.integers(8 * len(raw), size=COUNTS["bits"]):
        damaged = bytearray(raw)
        damaged[place // 8] ^= 1 << (place % 8)
        yield f"bit {place}", damaged


def zeroed_blocks(raw, rng):
    for start in rng.permutation(np.arange(0, len(raw), BLOCK))[: COUNTS["zeroed"]]:
        damaged = bytearray(raw)
        damaged[start : start + BLOCK] = bytes(len(damaged[start : start + BLOCK]))
        yield f"zeros at {start}", damaged


def swapped_blocks(raw, rng):
    whole = len(raw) // BLOCK
    for _ in range(COUNTS["swapped"] if whole > 1 else 0):
        one, other = sorted(BLOCK * rng.choice(whole, 2, replace=False))
        damaged = bytearray(raw)
        damaged[one : one + BLOCK] = raw[other : other + BLOCK]
        damaged[other : other + BLOCK] = raw[one : one + BLOCK]
        yield f"{one} and {other} swapped", damaged


def cut(raw, rng):
    for length in rng.integers(len(raw), size=COUNTS["cut"]):
        yield f"cut at {length}", bytearray(raw[:length])


FAULTS = {
    "bytes": flipped_bytes,
    "bits": flipped_bits,
    "zeroed": zeroed_blocks,
    "swapped": swapped_blocks,
    "cut": cut,
}


def damage(path, fault):
    """Damages a file here and there, and tells what was neither refused nor harmless."""
    path, found, count = Path(path), 0, 0
    read, raw = reader(path), path.read_bytes()
    good = read(path)
    for what, damaged in FAULTS[fault](raw, np.random.default_rng(0)):
        path.write_bytes(damaged)
        count, began = count + 1, time.monotonic()
        try:
            outcome = None if read(path) == good else "other contents"
        except DiemError as error:
            found += 1
            outcome = None if str(error).startswith(f"{path}: ") else str(error)
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"
        if time.monotonic() - began > HANG:
            outcome = f"{time.monotonic() - began:.1f} s"
        if outcome is not None:
            print(f"{what}: {outcome}", flush=True)
    print("found", found, "of", count)


def metrics(path):
    rows = [{name: f"{name} {i}" for name in CARD} | {"value": i / 7, "lap": 1} for i in range(30)]
    write_rows(path, rows)


KINDS = {
    "metrics.csv": metrics,
    "observations.h5": observations,
    "samples.h5": samples,
    "prior.safetensors": prior,
    "checkpoint.safetensors": checkpoint,
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", KINDS)
def test_no_damage_is_read_as_something_else(name, fault, tmp_path):
    path = tmp_path / name
    KINDS[name](path)

    # In a process of its own: HDF5 may follow a damaged structure for ever, or crash.
    code = f"import test_damage; test_damage.damage({str(path)!r}, {fault!r})"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    *undetected, last = result.stdout.splitlines()
    assert undetected == []
    found, count = map(int, last.removeprefix("found ").split(" of "))
    assert found > count // 4  # the rest lies where nothing is stored


def test_a_prior_of_another_program_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3)}, tmp_path / "other.safetensors")

    with pytest.raises(DiemError, match=r"other\.safetensors: .* no checksum"):
        read_prior(tmp_path / "other.safetensors")
    assert load_tensors(tmp_path / "other.safetensors", ours=False)[0].keys() == {"x"}


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_lap_starts_anew(tmp_path, caplog):
    lap = LapFiles(tmp_path)
    options = {"settings": {"steps": 192}}
    whole = lap.run("whole", **options)
    with pytest.raises(Stop):
        lap.run("cut", progress=interrupt(128), **options)
    path = checkpoint_file(tmp_path / "cut" / "prior")
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)

    with caplog.at_level(logging.WARNING, "diem"):
        again = lap.run("cut", **options)

    assert str(path) in caplog.text
    assert "starts anew" in caplog.text
    assert whole[0].read_bytes() == again[0].read_bytes()
    assert whole[1].read_bytes() == again[1].read_bytes()
