"""Files that other programs wrote: each is read, or told in a sentence that names the remedy."""

import time

import h5py
import numpy as np
import pytest
from test_malformed import HELD_OUT, good

from diem.config.resolve import resolve
from diem.data.ingest import ingest
from diem.data.observations import Observations, users_observations
from diem.data.validate import check_file
from diem.errors import DiemError
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


@pytest.mark.slow
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
    # An endless one is stopped by the processor's time, of which a busy machine gives less.
    assert make is endless or time.monotonic() - began < 10
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


# What other programs write otherwise


def put(name, change):
    """Returns what changes a data set of a file, or adds it."""

    def make(file, path):
        data = file[name][()] if name in file else None
        if name in file:
            del file[name]
        file[name] = change(data)

    return make


def told(name, value):
    return lambda file, path: file.attrs.__setitem__(name, value)


def padded(file, path):
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(16)
    kind.set_strpad(h5py.h5t.STR_SPACEPAD)
    file.attrs.create("operator", np.bytes_(b"mask            "), dtype=h5py.Datatype(kind).dtype)


def enumerated(file, path):
    mask = file["train/operator/mask"][()]
    del file["train/operator/mask"]
    kind = h5py.enum_dtype({"OFF": 0, "ON": 1}, basetype="i1")
    file.create_dataset("train/operator/mask", data=mask.astype("i1"), dtype=kind)


def hidden(value):
    """Returns what puts a value where nothing is observed."""

    def make(file, path):
        observed = file["train/operator/mask"][()]
        y = file["train/y"][()]
        file["train/y"][...] = np.where(observed, y, value)

    return make


def root_noise(value):
    def make(file, path):
        del file["train/sigma_y"]
        file["sigma_y"] = value

    return make


READ = {
    "big-endian single": put("train/y", lambda y: y.astype(">f4")),
    "big-endian double": put("train/y", lambda y: y.astype(">f8")),
    "double": put("train/y", lambda y: y.astype(np.float64)),
    "extended": put("train/y", lambda y: y.astype(np.longdouble)),
    "masks of bytes": put("train/operator/mask", lambda m: m.astype(np.uint8)),
    "masks of signed bytes": put("train/operator/mask", lambda m: m.astype(np.int8)),
    "masks of doubles": put("train/operator/mask", lambda m: m.astype(np.float64)),
    "masks of big-endian integers": put("train/operator/mask", lambda m: m.astype(">i4")),
    "masks of unsigned 64 bits": put("train/operator/mask", lambda m: m.astype(">u8")),
    "masks of an enumeration": enumerated,
    "NaN where nothing is observed": hidden(np.nan),
    "infinity where nothing is observed": hidden(np.inf),
    "a fill value of netCDF": hidden(9.96921e36),
    "-9999 where nothing is observed": hidden(-9999.0),
    "an index of unsigned 16 bits": put("train/index", lambda _: np.arange(60, dtype=">u2")),
    "an index of unsigned 64 bits": put("train/index", lambda _: np.arange(60, dtype=np.uint64)),
    "big-endian noise": put("train/sigma_y", lambda s: s.astype(">f8")),
    "a shape of doubles": told("event_shape", np.array([1.0, 6.0, 6.0])),
    "a shape as MATLAB's": told("event_shape", np.array([[1.0, 6.0, 6.0]])),
    "a big-endian shape": told("event_shape", np.array([1, 6, 6], ">i8")),
    "a shape of bytes": told("event_shape", np.array([1, 6, 6], np.uint8)),
    "an operator of bytes": told("operator", np.bytes_(b"mask")),
    "an operator padded by zeros": told("operator", np.bytes_(b"mask\0\0\0")),
    "an operator padded by spaces": padded,
    "an operator in an array": told("operator", np.array([b"mask"])),
    "an operator of one cell": told("operator", np.array([["mask"]], object)),
}


@pytest.mark.parametrize("case", READ)
def test_what_other_programs_write_is_read_as_the_same(case, tmp_path):
    path, plain = tmp_path / "own.h5", tmp_path / "plain.h5"
    good(plain)
    changed(READ[case])(path)

    for source, output in ((path, "one.h5"), (plain, "other.h5")):
        assert [text for level, text in check_file(source) if level == "error"] == []
        ingest(source, tmp_path / output, {}, HELD_OUT, 0, "some")

    with Observations(tmp_path / "one.h5") as one, Observations(tmp_path / "other.h5") as other:
        for split in ("train", "validation", "test"):
            a, b = one.load(split), other.load(split)
            assert (a.y == b.y).all()
            assert (a.operator.observed() == b.operator.observed()).all()
            assert np.array_equal(a.sigma_y.numpy(), b.sigma_y.numpy())
            assert np.array_equal(a.index, b.index)


@pytest.mark.parametrize("value", [0.1, [0.1], [[0.1]], np.array([0.1], ">f8")])
def test_a_noise_of_one_value_is_one_for_all(value, tmp_path):
    path = tmp_path / "own.h5"
    changed(root_noise(value))(path)

    with Observations(path) as file:
        assert file.load("train").sigma_y.shape == ()
        assert float(file.load("train").sigma_y) == np.float32(0.1)


REFUSED = {
    "channels last": (put("train/y", lambda y: np.moveaxis(y, 1, -1)), ["moveaxis(y, -1, 1)"]),
    "complex numbers": (put("train/y", lambda y: y * 1j), ["real and imaginary parts"]),
    "NaN where something is observed": (
        put("train/y", lambda y: np.full_like(y, np.nan)),
        ["non-finite", "observed, first at (0, 0, 0, "],
    ),
    "masks of probabilities": (put("train/operator/mask", lambda m: 0.5 * m), ["0 and 1"]),
    "a mask of 255": (put("train/operator/mask", lambda m: 255 * m.astype("u1")), ["0 and 1"]),
    "noise that is zero as float32": (root_noise(1e-300), ["'sigma_y'", "from 1e-18 to 1e+18"]),
    "noise that is infinite as float32": (root_noise(1e300), ["'sigma_y'", "from 1e-18 to 1e+18"]),
    "noise of one value that is zero": (root_noise([0.0]), ["'sigma_y'", "positive"]),
    "a shape of halves": (told("event_shape", [1.0, 6.5, 6.0]), ["event_shape", "integers"]),
    "a shape of text": (told("event_shape", "1 6 6"), ["event_shape", "integers"]),
    "a shape of nothing": (told("event_shape", h5py.Empty("i8")), ["event_shape"]),
    "an operator of numbers": (told("operator", 5), ["'operator'", "text"]),
    "an operator as Python shows it": (told("operator", "b'mask'"), ["b'mask'", "built-in"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_told_with_its_remedy(case, tmp_path):
    change, words = REFUSED[case]
    path = tmp_path / "own.h5"
    changed(change)(path)

    errors = [text for level, text in check_file(path) if level == "error"]

    assert errors
    assert errors[0].startswith(f"{path}: ")
    assert all(word in errors[0] for word in words), errors


@pytest.mark.parametrize("sigma_y", [1e-300, 1e300, [0.1, 1e-60], 0])
def test_a_noise_is_checked_in_the_precision_that_it_is_used_in(sigma_y, tmp_path):
    good(tmp_path / "own.h5")
    with h5py.File(copied(tmp_path / "own.h5"), "r+") as file:
        del file["train/sigma_y"]
    with (
        pytest.raises(DiemError, match="sigma_y"),
        users_observations(tmp_path / "own.h5", None, sigma_y) as file,
    ):
        file.load("train")

    config = {"observations": {"half": {"operator": {"name": "mask", "missing": 0.5}}}}
    config["observations"]["half"]["sigma_y"] = sigma_y
    config |= {"data": {"name": "digits"}, "network": {"name": "mlp"}, "laps": 1}
    config["runs"] = {"base": {"observations": "half"}}
    with pytest.raises(DiemError, match=r"observations\.half\.sigma_y"):
        resolve({"experiments": {"some": config}}, "mine.yaml")


def test_a_noise_that_vanishes_in_the_network_s_units_is_told(tmp_path):
    good(tmp_path / "own.h5")
    data = {**HELD_OUT, "scale": 1e37}
    with pytest.raises(DiemError, match=r"sigma_y divided by data\.scale"):
        ingest(tmp_path / "own.h5", tmp_path / "out.h5", {}, data, 0, "some")
    assert not (tmp_path / "out.h5").exists()
