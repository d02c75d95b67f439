"""Configurations, HDF5 files and priors that nobody would write: one sentence, and no harm.

Each kind is tried in a process of its own, for a third of ``FUZZ_SECONDS`` (60; an hour by ``make
fuzz``). Whatever is tried is answered in ten seconds, in bounded memory, by a result or by one
sentence of a :class:`DiemError`, and leaves the file that it is of as it was.
"""

import copy
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import pytest
import torch
import yaml
from helpers import random_gaussian, set_attributes
from test_estimate import TINY
from test_malformed import good

from diem.config.reading import read_config
from diem.config.resolve import resolve
from diem.data.validate import check_file
from diem.diffusion.prior import Prior, build_denoiser
from diem.errors import DiemError
from diem.files.tensors import load_tensors, save_tensors
from diem.inference.prior_denoiser import load_prior

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60")) / 3
EXAMPLES = 20
"""Between two looks at the clock."""

HANG, STUCK = 10, 60
"""Seconds that an answer may compute, and take; what looks into a file computes up to eight.

A machine that does much else makes each second of computing several."""

MEMORY = 2**31
"""Bytes that a process may have held, PyTorch's libraries included."""

NUMBERS = [0, 1, -1, 2, 10**9, 10**30, 0.5, -0.0, 1e-300, 1e300, math.nan, math.inf, True, False]
WORDS = ["", "mask", "tweedie", "ddim", "os:system", "=1+1", "$x", "<b>", "a\nb", "~", "..", "\0"]
LEAVES = st.one_of(
    st.none(),
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.integers(),
    st.floats(),
    st.text(),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
CHANGES = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["put", "drop", "add"]), st.text(), VALUES),
    min_size=1,
    max_size=3,
)

NETWORK = {"name": "mlp", "hidden": [8], "embedding": 4}
CARD = {"network": NETWORK, "schedule": {"sigma_min": 0.1, "sigma_max": 5.0}}
CARD |= {"data": {"offset": 0.0, "scale": 1.0}, "e_step": {"sampler": {"name": "ddim", "steps": 2}}}


def places(value):
    """Yields every collection in a value with each of its keys."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def changed(value, changes):
    """Returns a value with some of its entries changed, dropped, or others beside them."""
    value = copy.deepcopy(value)
    for number, what, name, new in changes:
        found = list(places(value))
        if not found:
            break
        place, key = found[number % len(found)]
        if what == "put":
            place[key] = new
        elif what == "drop":
            del place[key]
        elif isinstance(place, dict):
            place[name] = new
        else:
            place.append(new)
    return value


def computing():
    """Returns the seconds that this process and those that it waited for have computed."""
    return sum(os.times()[:4])


def answered(work, path):
    """Does something with a file, which must be answered by a result or in one sentence."""
    before, began, computed = path.read_bytes(), time.monotonic(), computing()
    try:
        work()
    except DiemError as error:
        message = str(error)
        assert "\n" not in message, message
        assert message.endswith("."), message
        assert len(message) < 2000, message
    assert computing() - computed < HANG
    assert time.monotonic() - began < STUCK
    assert path.read_bytes() == before


def configurations(folder):
    path = folder / "mine.yaml"

    def attempt(changes, data):
        path.write_bytes(data(yaml.safe_dump(changed(TINY, changes), allow_unicode=True).encode()))
        answered(lambda: resolve(read_config(path), str(path)), path)

    return attempt


def files(folder):
    plain, path = good(folder / "plain.h5"), folder / "own.h5"
    set_attributes(plain)
    names = ["train/y", "train/operator/mask", "train/sigma_y"]

    def attempt(changes, data):
        raw = plain.read_bytes()
        path.write_bytes(raw)
        with h5py.File(path, "r+") as file:
            for number, what, name, new in changes:
                place = names[number % 3]
                if what == "drop" and place in file:
                    del file[place]
                elif what == "put":
                    if place in file:
                        del file[place]
                    _stored(lambda at=place, value=new: file.__setitem__(at, value))
                elif what == "add":
                    key = ["event_shape", "operator", name or "x"][number % 3]
                    _stored(lambda at=key, value=new: file.attrs.__setitem__(at, value))
        path.write_bytes(data(path.read_bytes()))

        def check():
            for level, sentence in check_file(path):
                if level == "error":
                    raise DiemError(sentence)

        answered(check, path)

    return attempt


def _stored(write):
    """Writes what HDF5 can hold."""
    try:
        write()
    except (TypeError, ValueError, OverflowError, OSError, KeyError, RuntimeError):
        hypothesis.assume(False)


def cards(folder):
    path = folder / "prior.safetensors"
    denoiser = build_denoiser(NETWORK, CARD["schedule"], (1, 4, 4), seed=0)
    Prior(random_gaussian((1, 4, 4), 2, torch.float32), denoiser, dict(CARD)).save(path)
    tensors, header = load_tensors(path)
    card = json.loads(header["diem"])

    def attempt(changes, data):
        made = json.dumps(changed(card, changes))
        save_tensors(path, tensors, {"diem": data(made.encode()).decode("utf-8", "replace")})
        answered(lambda: load_prior(path).sample(1, steps=2), path)

    return attempt


KINDS = {"configurations": configurations, "files": files, "cards": cards}


@st.composite
def damages(draw):
    """Draws a function that changes no byte of a file, or some."""
    flips = draw(st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 255)), max_size=2))

    def damage(raw):
        raw = bytearray(raw)
        for place, bits in flips if raw else []:
            raw[place % len(raw)] ^= bits
        return bytes(raw)

    return damage


def fuzz(kind, seconds):
    """Tries examples of a kind until the time is over, and prints their number."""
    end, count = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as folder:
        attempt = KINDS[kind](Path(folder))
        while time.monotonic() < end:

            @hypothesis.seed(count)
            @hypothesis.settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(CHANGES, damages())
            def some(changes, damage):
                attempt(changes, damage)

            some()
            count += EXAMPLES
    # Not the kernel's ru_maxrss, which begins with what the process that started this one held.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    held = 1024 * int(status.split("VmHWM:")[1].split()[0])
    assert held < MEMORY, f"{held:,} bytes"
    print(count)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_tried_is_answered(kind):
    code = f"import test_fuzz; test_fuzz.fuzz({kind!r}, {SECONDS})"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-6000:]
    count = int(result.stdout.split()[-1])
    print(f"{count} {kind} were tried")
    assert count >= EXAMPLES
