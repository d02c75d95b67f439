"""Files: whole or not at all, and refused in a sentence that names the file and the data set."""

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers import observe, random_gaussian, set_attributes

from diem.data.observations import Observations, save_observations, users_observations
from diem.em.samples import open_samples
from diem.errors import DiemError
from diem.files import hdf5
from diem.files.atomic import LossyFile, atomic
from diem.files.hdf5 import ATTRIBUTES, SCHEMA_VERSION, Reader, Rows, row_parts, write_hdf5
from diem.files.tensors import content_digest, load_tensors, save_tensors
from diem.jobs import resume

VECTOR, IMAGE = (5,), (1, 4, 4)
CASES = [
    pytest.param({"name": "projection", "rows": 2}, VECTOR, 0.1, id="projection"),
    pytest.param({"name": "mask", "missing": 0.5}, IMAGE, 0.1, id="mask"),
    pytest.param({"name": "projection", "rows": 2}, VECTOR, torch.tensor([0.1, 0.2]), id="noises"),
]
COUNTS = {"train": 40, "validation": 7}


def splits(spec, shape, sigma_y):
    gaussian = random_gaussian(shape, 2)
    return {
        split: observe(gaussian, spec, count, sigma_y, seed)[0]
        for seed, (split, count) in enumerate(COUNTS.items())
    }


@pytest.fixture
def path(tmp_path):
    """Returns a file of observations through projections."""
    observed = splits(*CASES[0].values)
    path = tmp_path / "observations.h5"
    save_observations(path, observed, "projection", {"experiment": "test", "seed": 0})
    return path


def load(path):
    with Observations(path) as file:
        return {split: file.load(split) for split in COUNTS}


def refused(path, *parts, read=load):
    """Asserts that a file is refused in one sentence that names it and some parts."""
    with pytest.raises(DiemError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def replace(path, name, data):
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if data is not None:
            file.create_dataset(name, data=data)


# Atomic writes


def test_atomic_makes_folders_and_leaves_no_temporary(tmp_path):
    target = tmp_path / "a" / "b" / "file"

    with atomic(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text("new")
        assert not target.exists()

    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, DiemError])
def test_a_failure_leaves_the_old_file(tmp_path, error):
    target = tmp_path / "file"
    target.write_text("old")

    with pytest.raises(error), atomic(target) as temporary:
        temporary.write_text("half")
        raise error("stop")

    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_can_be_written_too(tmp_path):
    with pytest.raises(ValueError, match="stop"), atomic(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "file").write_text("half")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []

    with atomic(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "file").write_text("whole")
    assert (tmp_path / "folder" / "file").read_text() == "whole"


def some_hdf5(path):
    write_hdf5(path, {"x": np.random.default_rng(0).random(100_000)}, {"lap": 1})


def tensors(path):
    save_tensors(path, {"x": torch.rand(100_000)}, {"lap": "1"})


@pytest.mark.parametrize("write", [some_hdf5, tensors])
@pytest.mark.parametrize("below", ["file/new", "file/folder/new", "."])
def test_a_place_that_cannot_be_written(tmp_path, write, below):
    (tmp_path / "file").write_text("")

    with pytest.raises(DiemError, match="cannot be written") as error:
        write(tmp_path / below)

    assert str(error.value).startswith(str(tmp_path / below))
    assert str(error.value).endswith(".")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
@pytest.mark.parametrize("write", [some_hdf5, tensors])
def test_a_disk_that_is_full(tmp_path, write):
    # A limit on the size of files stands for the end of the disk. The process is one of its own,
    # since HDF5 does not survive it.
    code = f"import test_storage; test_storage.fill({write.__name__!r}, {str(tmp_path)!r})"
    target = tmp_path / "new"
    target.write_text("old")

    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.stdout.startswith(f"DiemError: {target} cannot be written"), result.stderr
    assert len(result.stdout.splitlines()) == 1
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def fill(name, folder):
    """Writes a file that is larger than the process may write, and tells how that ends."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        {"some_hdf5": some_hdf5, "tensors": tensors}[name](f"{folder}/new")
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)


# Round trips


@pytest.mark.parametrize(
    ("handled", "number", "stop"),
    [
        (resume.stoppable, signal.SIGTERM, resume.Stopped),
        (resume.stoppable, signal.SIGINT, resume.Stopped),
        (contextlib.nullcontext, signal.SIGINT, KeyboardInterrupt),
    ],
)
def test_an_interruption_in_the_midst_of_a_write_is_not_lost(
    tmp_path, monkeypatch, request, handled, number, stop
):
    """HDF5 swallows what a handler raises while it writes, and the bytes are missing."""
    # Whoever runs the tests may ignore it.
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, former))
    usual, writes, left, original = signal.getsignal(number), [], [-1], LossyFile.write

    def write(self, data):
        writes.append(len(data))
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)
        return original(self, data)

    def made():
        parts = [np.full((100, 1000), float(i)) for i in range(3)]
        write_hdf5(tmp_path / "x.h5", {"a/x": parts, "b": parts[0], "c": np.float64(1)}, {})

    monkeypatch.setattr(LossyFile, "write", write)
    made()
    (tmp_path / "x.h5").unlink()
    assert len(writes) > 40
    for number_of_write in range(1, len(writes) + 1, 4):
        left[0] = number_of_write
        with pytest.raises(stop), handled():
            made()
        assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) == usual


def test_hdf5_round_trip(tmp_path):
    arrays = {
        "a/x": np.arange(12, dtype=np.float32).reshape(3, 4),
        "a/mask": np.array([True, False]),
        "index": np.arange(5),
        "scalar": np.float32(0.5),
        "empty": np.zeros((0, 3), np.float32),
    }
    write_hdf5(tmp_path / "file", arrays, {"lap": 3, "name": "ddpm"})

    with Reader(tmp_path / "file") as file:
        assert file.attribute("lap") == 3
        assert file.attribute("name") == "ddpm"
        assert file.attribute("diem_version")
        assert file.attribute("schema_version") == SCHEMA_VERSION
        assert file.names("a") == ["mask", "x"]
        assert file.names("b") == []
        assert "a/x" in file
        assert "a/y" not in file
        assert file.shape("a/x") == (3, 4)
        assert np.array_equal(file.read("a/x", slice(1, 3)), arrays["a/x"][1:])
        for name in ("a/x", "a/mask", "index", "empty"):
            read = file.read(name)
            assert read.dtype == arrays[name].dtype
            assert np.array_equal(read, arrays[name])
        assert file.read("scalar", rows=()) == arrays["scalar"]


def test_data_sets_are_chunked_and_checksummed(path):
    names = []

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and item.shape:
            names.append(name)
            assert item.chunks
            assert item.fletcher32

    with h5py.File(path) as file:
        file.visititems(visit)
    assert {"train/y", "train/index", "train/operator/matrix"} <= set(names)


@pytest.mark.parametrize(("spec", "shape", "sigma_y"), CASES)
def test_observations_round_trip(tmp_path, spec, shape, sigma_y):
    observed, path = splits(spec, shape, sigma_y), tmp_path / "observations.h5"
    save_observations(path, observed, spec["name"], {"experiment": "test", "seed": 9})

    with Observations(path) as file:
        assert file.attribute("experiment") == "test"
        assert file.attribute("seed") == 9
        assert file.operator == spec["name"]
        assert file.event_shape == shape
        for split, some in observed.items():
            assert file.count(split) == COUNTS[split]
            for rows in (slice(None), slice(2, 6)):
                loaded = file.load(split, rows).to("cpu")
                assert torch.equal(loaded.y, some.y[rows])
                assert torch.equal(loaded.sigma_y, some.sigma_y)
                assert np.array_equal(loaded.index, some.index[rows])
                assert len(loaded.operator) == len(loaded.y)
                for field, value in some.operator.parameters.items():
                    assert loaded.operator.parameters[field].dtype == value.dtype
                    assert torch.equal(loaded.operator.parameters[field], value[rows])


def test_masks_take_a_byte_a_pixel(tmp_path):
    path = tmp_path / "observations.h5"
    save_observations(path, splits(*CASES[1].values), "mask", {})

    with h5py.File(path) as file:
        assert file["train/operator/mask"].dtype.itemsize == 1


def test_observations_in_double_precision_are_read_in_single(path):
    with h5py.File(path) as file:
        y = file["train/y"][:]
    replace(path, "train/y", y.astype(np.float64))

    assert load(path)["train"].y.dtype == torch.float32


def test_tensors_can_be_read_by_whom_other_files_can(tmp_path):
    (tmp_path / "other").touch()
    save_tensors(tmp_path / "file", {"some": torch.ones(3)}, {})
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_tensors_round_trip(tmp_path):
    some = {"a": torch.randn(3, 4).T, "b": torch.tensor(3), "c": torch.zeros(2, 0)}

    save_tensors(tmp_path / "file", some, {"key": "value"})
    loaded, header = load_tensors(tmp_path / "file")

    assert header == {"key": "value"}
    assert loaded.keys() == some.keys()
    assert all(torch.equal(loaded[key], some[key]) for key in some)


def test_digests_tell_contents_and_settings_apart(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    settings = {"a": 1, "b": [1, 2]}
    first = content_digest([one, two], settings, 3)

    assert re.fullmatch("[0-9a-f]{16}", first)
    assert first == content_digest([one, two], {"b": [1, 2], "a": 1}, 3)
    others = [
        content_digest([two, one], settings, 3),
        content_digest([one], settings, 3),
        content_digest([one, two], {**settings, "a": 2}, 3),
        content_digest([one, two], settings, 4),
    ]
    one.write_text("3")
    others.append(content_digest([one, two], settings, 3))
    assert len({first, *others}) == 6


# Shards of samples


def shard(path, rows, count=10):
    x = np.arange(count * 2, dtype=np.float32).reshape(count, 2)[rows]
    index = np.arange(count)[rows]
    arrays = {"train/x": x, "train/index": index} if len(index) else {}
    write_hdf5(path, arrays, {})
    return path


def test_samples_of_all_shards_come_in_the_order_of_the_shards(tmp_path):
    paths = [
        shard(tmp_path / "1", slice(6, 10)),
        shard(tmp_path / "2", slice(0, 6)),
        shard(tmp_path / "3", slice(0, 0)),
        shard(tmp_path / "4", slice(2, 5)),
    ]

    x, index = Rows(paths, "train/x", (2,))[:], Rows(paths, "train/index", ())[:]

    assert index.tolist() == [6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 2, 3, 4]
    assert np.array_equal(x[:, 0], 2 * index)


@pytest.mark.parametrize(("bound", "kept"), [(None, [0, 1, 2]), (2.0, [0, 2]), (1.5, [2])])
def test_samples_any_of_whose_values_lies_outside_are_left_out(tmp_path, bound, kept):
    x = np.zeros((3, 2, 2, 2), dtype=np.float32)
    x[0, 0, 1, 1], x[1, 1, 0, 1], x[2, 0, 0, 0] = -2, 2.5, 1.5
    write_hdf5(tmp_path / "samples.h5", {"train/x": x}, {})

    with open_samples([tmp_path / "samples.h5"], "train", (2, 2, 2), bound, 1) as rows:
        assert np.array_equal(rows[:], x[kept])


def test_samples_of_another_shape_are_refused(tmp_path):
    path = shard(tmp_path / "1", slice(0, 10))

    other = shard(tmp_path / "2", slice(0, 10))
    replace(other, "train/x", np.zeros((10, 3)))
    refused(other, "(2,)", "(3,)", read=lambda p: Rows([path, p], "train/x"))
    assert Rows([path], "train/x").shape == (2,)
    for name, parts in (("train/x", ["(2,)", "(3,)"]), ("validation/x", ["missing"])):
        refused(path, name, *parts, read=lambda p, name=name: Rows([p], name, (3,)))


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_rows_of_several_files_in_any_order(tmp_path, cache_mb):
    paths = [
        shard(tmp_path / "1", slice(6, 10)),
        shard(tmp_path / "2", slice(0, 0)),
        shard(tmp_path / "3", slice(0, 6)),
    ]
    x = Rows(paths, "train/x", (2,))[:]

    rows = Rows(paths, "train/x", (2,), cache_mb)

    assert (rows.held is None) == (cache_mb == 0)
    assert len(rows) == 10
    for some in (slice(None), slice(2, 7), slice(3, 3), np.array([7, 3, 4, 3, 9, 0]), np.arange(0)):
        assert np.array_equal(rows[some], x[some])
        assert rows[some].dtype == np.float32
    assert np.array_equal(np.concatenate(list(row_parts(rows))), x)
    keep = x[:, 0] % 3 > 0
    rows.keep(keep)
    assert len(rows) == keep.sum()
    assert np.array_equal(rows[:], x[keep])
    assert np.array_equal(rows[np.array([4, 1])], x[keep][[4, 1]])


def test_parts_hold_some_bytes_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "PART_BYTES", 3 * 8)
    path = shard(tmp_path / "1", slice(0, 10))

    for cache_mb in (0, 1):
        with Rows([path], "train/x", (2,), cache_mb) as rows:
            assert [len(part) for part in row_parts(rows)] == [3, 3, 3, 1]
    for x in (rows[:], torch.from_numpy(rows[:])):
        assert [len(part) for part in row_parts(x)] == [3, 3, 3, 1]


def opened():
    """Returns the HDF5 files that this process has open."""
    return h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)


def test_rows_close_their_files(tmp_path):
    paths = [shard(tmp_path / str(i), slice(0, 10)) for i in range(2)]
    before = opened()

    with Rows(paths, "train/x", (2,), 0) as rows:
        assert opened() == before + 2
        assert len(rows[:]) == 20
    assert opened() == before
    with pytest.raises(DiemError, match="missing") as error:
        Rows(paths, "train/z", (2,), 0)
    assert error.traceback  # whose frames keep what they opened alive
    assert opened() == before
    held = Rows(paths, "train/x", (2,), 1)
    assert opened() == before
    assert len(held[:]) == 20


def test_rows_that_are_damaged_are_refused_when_they_are_read(path):
    with h5py.File(path) as file:
        chunk = file["train/y"].id.get_chunk_info(0)
    raw = bytearray(path.read_bytes())
    raw[chunk.byte_offset] ^= 1
    path.write_bytes(raw)
    rows = Rows([path], "train/y", (2,), 0)

    refused(path, "'train/y'", "damaged", read=lambda _: rows[np.array([3])])


# What is refused


def test_a_missing_file(tmp_path):
    refused(tmp_path / "nothing.h5", "no such file")
    refused(tmp_path, "no such file")


@pytest.mark.parametrize("keep", [0, 1, 7, 100, 0.3, 0.5, 0.9, 0.99, -1])
def test_a_truncated_file(path, keep):
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw)) if isinstance(keep, float) else keep])

    refused(path, "HDF5")


def test_another_format(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    refused(path, "HDF5")
    tensors(path)
    refused(path, "HDF5")


@pytest.mark.parametrize("name", ["y", "index", "operator/matrix"])
@pytest.mark.parametrize("place", [0, -1])
def test_a_flipped_byte_is_found(path, name, place):
    with h5py.File(path) as file:
        data = file[f"train/{name}"]
        chunks = [data.id.get_chunk_info(i) for i in range(data.id.get_num_chunks())]
    raw = bytearray(path.read_bytes())
    chunk = chunks[place]
    raw[chunk.byte_offset + chunk.size // 2 + place] ^= 0x10
    path.write_bytes(raw)

    refused(path, f"'train/{name}'", "damaged")


@pytest.mark.parametrize("signature", [b"HEAP", b"SNOD", b"TREE", b"GCOL", b"OHDR", b"FRHP"])
@pytest.mark.parametrize("place", [0, -1])
def test_a_damaged_structure_is_told_in_a_sentence(path, signature, place):
    # The signatures of HDF5's own structures; which ones there are depends on the layout.
    raw = bytearray(path.read_bytes())
    places = [match.start() for match in re.finditer(signature, raw)]
    if not places:
        return
    raw[places[place]] ^= 0xFF
    path.write_bytes(raw)

    refused(path)


@pytest.mark.parametrize(
    "name",
    ["train/y", "train/operator/matrix", "validation/y", "sigma_y"],
)
def test_a_missing_data_set(path, name):
    replace(path, name, None)

    # An operator's field is told by the operator, which knows what it needs.
    refused(path, "operator/matrix" if "operator" in name else f"'{name}'", "missing")


@pytest.mark.parametrize("name", ["train", "validation", "train/operator"])
def test_a_missing_group(path, name):
    with h5py.File(path, "a") as file:
        del file[name]

    refused(path, name.partition("/")[0], "missing")


def test_a_group_in_the_place_of_a_data_set(path):
    with h5py.File(path, "a") as file:
        del file["train/y"]
        file.create_group("train/y")

    refused(path, "'train/y'", "missing")


@pytest.mark.parametrize("name", ["operator", "event_shape"])
def test_a_missing_attribute(path, name):
    set_attributes(path, **{name: None})

    refused(path, f"'{name}'", "attribute", "missing")


@pytest.mark.parametrize(
    ("name", "value"),
    [("event_shape", "large"), ("event_shape", 0.5), ("event_shape", [4]), ("operator", "blur")],
)
def test_an_attribute_that_does_not_fit(path, name, value):
    set_attributes(path, **{name: value})

    refused(path)


@pytest.mark.parametrize(
    "value", ["projection", b"projection", np.bytes_(b"projection\0\0"), np.array([b"projection"])]
)
def test_text_is_read_however_it_was_stored(path, value):
    set_attributes(path, operator=value)

    with Observations(path) as file:
        assert file.operator == "projection"


@pytest.mark.parametrize(
    "value", [np.bytes_(b"evil:Code"), np.array(["evil:Code"], object), "evil:Code"]
)
def test_no_stored_name_has_code_imported(path, value):
    set_attributes(path, operator=value)

    with pytest.raises(DiemError, match="the class 'evil:Code', which is imported only if you"):
        users_observations(path)


def test_a_file_that_another_program_has_locked(path):
    code = (
        f"import h5py, time; f = h5py.File({str(path)!r}, 'a'); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(DiemError, match="another program has locked this file"):
            Observations(path)
        other.kill()


def test_attributes_beside_those_of_diem_are_told(path):
    with h5py.File(path, "a") as file:
        file.attrs["operator"] = "mask"

    refused(path, "attributes", f"'{ATTRIBUTES}'")


def test_no_text_of_variable_length_is_written(path):
    # It lies in a heap without checksums, in which HDF5 may follow a damaged size for ever.
    assert b"GCOL" not in path.read_bytes()


SHAPES = [
    ("train/y", (40, 3), "'train/y'"),
    ("train/y", (40,), "'train/y'"),
    ("train/y", (40, 2, 1), "'train/y'"),
    ("train/y", (), "'train/y'"),
    ("train/index", (40, 1), "'train/index'"),
    ("train/index", (), "'train/index'"),
    ("train/operator/matrix", (40, 2, 4), "operator/matrix"),
    ("train/operator/matrix", (40, 5), "operator/matrix"),
    ("train/operator/matrix", (40, 3, 5), "'train/y'"),
    ("sigma_y", (3,), "'sigma_y'"),
    ("sigma_y", (40, 2), "'sigma_y'"),
]


@pytest.mark.parametrize(("name", "shape", "part"), SHAPES)
def test_wrong_shapes(path, name, shape, part):
    replace(path, name, np.ones(shape, np.float32))

    refused(path, part)


@pytest.mark.parametrize("name", ["y", "index", "operator/matrix"])
@pytest.mark.parametrize("count", [39, 41, 0])
def test_lengths_that_do_not_fit(path, name, count):
    with h5py.File(path) as file:
        data = np.resize(file[f"train/{name}"][:], (count, *file[f"train/{name}"].shape[1:]))
    replace(path, f"train/{name}", data)

    refused(path, "'train'", str(count), "40")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["train/y", "train/operator/matrix", "sigma_y", "validation/y"])
def test_non_finite_values(path, name, value):
    with h5py.File(path, "a") as file:
        data = np.asarray(file[name])
        data.flat[-1] = value
    replace(path, name, data)

    refused(path, f"'{name}'", "finite")


@pytest.mark.parametrize("value", [0.0, -0.1, [0.1, 0.0], [0.1, -1.0]])
def test_noise_that_is_not_positive(path, value):
    replace(path, "sigma_y", np.float32(value))

    refused(path, "'sigma_y'", "positive")


@pytest.mark.parametrize("name", ["train/y", "train/operator/matrix", "train/index", "sigma_y"])
def test_text_in_the_place_of_numbers(path, name):
    with h5py.File(path) as file:
        shape = file[name].shape
    replace(path, name, np.full(shape, b"text"))

    refused(path, name.removeprefix("train/"))


def test_values_that_are_not_finite_in_tensors(tmp_path):
    path = tmp_path / "file"
    save_tensors(path, {"some": torch.tensor([1.0, torch.nan])}, {})

    refused(path, "'some'", "finite", read=load_tensors)
