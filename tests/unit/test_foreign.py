"""Files that other programs wrote: each is read, or told in a sentence that names the remedy."""

import time

import h5py
import numpy as np
import pytest
from test_malformed import good

from diem.data.validate import check_file
from diem.files import probe
from diem.files.foreign import check_foreign

SHAPE = (60, 1, 6, 6)


def copied(path):
    """Writes the same file as another program would, with text of variable length."""
    from helpers import set_attributes

    set_attributes(good(path))
    return path


def endless(path):
    """Has HDF5 follow an object of no size, in the heap of text of variable length, for ever."""
    raw = bytearray(copied(path).read_bytes())
    first = raw.index(b"GCOL") + 16
    raw[first : first + 16] = bytes(16)
    path.write_bytes(raw)


def changed(change):
    def make(path):
        with h5py.File(copied(path), "r+") as file:
            change(file, path)

    return make


def moved(file, path):
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["y"] = file["train/y"][:]
    del file["train/y"]


def linked(file, path):
    moved(file, path)
    file["train/y"] = h5py.ExternalLink("other.h5", "y")


def virtual(file, path):
    moved(file, path)
    layout = h5py.VirtualLayout(SHAPE, np.float32)
    layout[...] = h5py.VirtualSource("other.h5", "y", SHAPE)
    file.create_virtual_dataset("train/y", layout)


def sourceless(file, path):
    virtual(file, path)
    path.with_name("other.h5").unlink()


def external(file, path):
    del file["train/y"]
    size = 4 * np.prod(SHAPE)
    place = path.with_name("raw")
    place.write_bytes(np.random.default_rng(0).random(SHAPE).astype(np.float32).tobytes())
    file.create_dataset("train/y", SHAPE, np.float32, external=[(str(place), 0, size)])


def dangling(file, path):
    file["train/sigma"] = h5py.SoftLink("/nowhere")


def terabytes(file, path):
    del file["train/y"]
    y = file.create_dataset("train/y", (10**10, 1, 6, 6), np.float32, chunks=(1000, 1, 6, 6))
    y[:60] = 1


def never_written(file, path):
    del file["train/y"]
    file.create_dataset("train/y", SHAPE, np.float32)


def bomb(file, path):
    del file["train/y"]
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((2**29, 1))
    layout.set_deflate(9)
    h5py.h5d.create(
        file["train"].id, b"y", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((2**29, 1)), layout
    ).write_direct_chunk((0, 0), b"x" * 2**21)


CASES = {
    "an endless structure": (endless, ["does not come to an end"]),
    "a link to another file": (changed(linked), ["'train/y'", "other.h5", "--links"]),
    "a virtual data set": (changed(virtual), ["'train/y'", "virtual", "--links"]),
    "a virtual data set without its source": (changed(sourceless), ["'train/y'", "--links"]),
    "external storage": (changed(external), ["'train/y'", "raw", "--links"]),
    "a link to nowhere": (changed(dangling), ["'train/sigma'", "/nowhere"]),
    "declared terabytes": (changed(terabytes), ["'train/y'", "1,440,000,000,000 bytes"]),
    "values that were never written": (changed(never_written), ["'train/y'", "no values"]),
    "a chunk that becomes gigabytes": (changed(bomb), ["'train/y'", "chunks of 2,147,483,648"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_looked_into_before_it_is_opened(case, tmp_path):
    make, words = CASES[case]
    path = tmp_path / "own.h5"
    make(path)
    before, began = path.read_bytes(), time.monotonic()

    errors = [sentence for level, sentence in check_file(path) if level == "error"]

    assert len(errors) == 1
    assert errors[0].startswith(f"{path}: ")
    assert all(word in errors[0] for word in words), errors
    assert time.monotonic() - began < 10 + probe.SECONDS * (make is endless)
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [linked, virtual, external])
def test_a_file_may_read_others_where_it_is_allowed(change, tmp_path):
    path = tmp_path / "own.h5"
    changed(change)(path)

    errors = [text for level, text in check_file(path, links=True) if level == "error"]

    assert errors == []


def test_a_missing_source_is_told_where_links_are_allowed(tmp_path):
    path = tmp_path / "own.h5"
    changed(sourceless)(path)

    with pytest.raises(Exception, match=r"'train/y' has values in 'other\.h5', which is not there"):
        check_foreign(path, links=True)
