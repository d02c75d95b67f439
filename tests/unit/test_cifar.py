"""CIFAR-10's binary files, in a folder and in an archive, whole and damaged."""

import io
import tarfile
import weakref
from pathlib import Path

import numpy as np
import pytest

from diem.data.sets import DATASETS
from diem.data.sets import cifar10 as cifar
from diem.data.sets.cifar10 import RECORD, TEST, TRAINING
from diem.errors import DiemError

MINI = Path(__file__).parents[3] / "shared" / "data" / "cifar10-mini"
SPEC = {"name": "cifar10", "train": 7, "validation": 3, "test": 2}


@pytest.fixture
def files():
    """Five training files of two records, and a test file of four."""
    rng = np.random.default_rng(0)
    found = {}
    for name, count in [*((name, 2) for name in TRAINING), (TEST[0], 4)]:
        records = rng.integers(0, 256, (count, RECORD), np.uint8)
        records[:, 0] %= 10
        found[name] = records
    return found


def folder(path, files):
    path.mkdir()
    for name, records in files.items():
        records.tofile(path / name)
    return path


def archive(path, files, extra=()):
    with tarfile.open(path, "w:gz") as tar:
        for name, records in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = records.nbytes
            tar.addfile(member, io.BytesIO(records.tobytes()))
        for member in extra:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return path


@pytest.fixture(params=[folder, archive])
def path(request, tmp_path, files):
    return request.param(tmp_path / "data", files)


def loaded(spec):
    """Returns the images, which come in parts, and the labels of all splits."""
    splits = DATASETS.parse(spec).load(seed=0)
    return {name: (np.concatenate(list(x)), label) for name, (x, label, _) in splits.items()}


def test_the_official_layout(path, files):
    splits = loaded({**SPEC, "path": str(path)})

    training = np.concatenate([files[name] for name in TRAINING])
    for name, records in (
        ("train", training[:7]),
        ("validation", files[TEST[0]][:3]),
        ("test", files[TEST[0]][2:]),
    ):
        x, label = splits[name]
        assert x.shape == (len(records), 3, 32, 32)
        assert x.dtype == np.float32
        assert label.tolist() == records[:, 0].tolist()
        red, green, blue = 0, 1024, 2048
        for i in (0, len(records) - 1):
            for channel, start in enumerate((red, green, blue)):
                # Row 3, column 5, and back from [-2, 2] to 8 bits without loss.
                pixel = int(records[i, 1 + start + 3 * 32 + 5])
                assert x[i, channel, 3, 5] == pixel * 4 / 256 - 2
        assert x.min() >= -2
        assert x.max() < 2


def test_some_training_files_are_enough(tmp_path, files):
    del files[TRAINING[0]], files[TRAINING[3]]

    path = folder(tmp_path / "data", files)

    label = cifar._labels(path)
    assert (len(label["train"]), len(label["test"])) == (6, 4)
    x = np.concatenate(list(cifar._images(path, "train", range(1, 6))))
    left = np.concatenate([files[name] for name in TRAINING if name in files])
    assert np.array_equal(x.reshape(5, -1), left[1:, 1:])


def backwards(path, files):
    return archive(path, dict(reversed(files.items())))


@pytest.mark.parametrize("write", [folder, archive, backwards])
def test_one_file_is_read_at_a_time(tmp_path, files, write, monkeypatch):
    path = write(tmp_path / "data", files)
    held, records_of = [], cifar._records

    def records(content, where):
        assert all(ref() is None for ref in held)
        found = records_of(content, where).copy()
        held.append(weakref.ref(found))  # which views keep alive
        return found

    monkeypatch.setattr(cifar, "_records", records)
    monkeypatch.setattr(cifar, "BATCH", 1)
    splits = DATASETS.parse({**SPEC, "path": str(path), "train": 10}).load(seed=0)
    parts = list(splits["train"].x)

    assert len(held) == 6 + 5
    assert {part.shape for part in parts} == {(1, 3, 32, 32)}
    training = np.concatenate([files[name] for name in TRAINING])
    assert np.array_equal(np.concatenate(parts).reshape(10, -1), training[:, 1:] * 4.0 / 256 - 2)


def test_no_more_files_are_read_than_images_are_asked_for(tmp_path, files, monkeypatch):
    path, asked, files_of = folder(tmp_path / "data", files), [], cifar._files
    monkeypatch.setattr(cifar, "_files", lambda p, names: asked.append(names) or files_of(p, names))

    assert sum(map(len, cifar._images(path, "train", range(3)))) == 3

    assert asked == [(name,) for name in TRAINING[:2]]


@pytest.mark.skipif(not MINI.is_dir(), reason="the real records are not here")
def test_real_records():
    x, label = loaded({**SPEC, "path": str(MINI), "train": 2000, "test": 1000})["train"]

    assert label[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # frog, truck, truck, deer, ...
    assert np.bincount(label).min() > 150
    # Photographs: neighbours are alike, the mean is that of the training set.
    assert np.corrcoef(x[..., 1:].ravel(), x[..., :-1].ravel())[0, 1] > 0.9
    np.testing.assert_allclose((x.mean(axis=(0, 2, 3)) + 2) / 4, [0.49, 0.48, 0.445], atol=0.02)


def same_name(path, files):
    archive(path, files, [tarfile.TarInfo(f"other/{TEST[0]}")])


def link(path, files):
    del files[TEST[0]]
    member = tarfile.TarInfo(f"cifar-10-batches-bin/{TEST[0]}")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archive(path, files, [member])


def huge(path, files):
    del files[TEST[0]]
    member = tarfile.TarInfo(TEST[0])
    member.size = 10_001 * RECORD
    archive(path, files, [member])


def no_test(path, files):
    del files[TEST[0]]
    archive(path, files)


def cut(path, files):
    archive(path, files)
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path, files):
    archive(path, files)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def cut_record(path, files):
    folder(path, files)
    file = path / TRAINING[1]
    file.write_bytes(file.read_bytes()[:-1])


def empty(path, files):
    folder(path, files)
    (path / TRAINING[1]).write_bytes(b"")


def label(path, files):
    files[TRAINING[1]][1, 0] = 10
    folder(path, files)


def text(path, files):
    path.write_text("no archive")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (same_name, [f"other/{TEST[0]}", "twice"]),
        (link, [TEST[0], "link"]),
        (huge, [TEST[0], "10,000 records"]),
        (no_test, [TEST[0], "there is no"]),
        (cut, ["no complete tar.gz archive"]),
        (flipped, ["no complete tar.gz archive"]),
        (cut_record, [TRAINING[1], f"{2 * RECORD - 1:,} bytes"]),
        (empty, [TRAINING[1], "0 bytes"]),
        (label, [TRAINING[1], "labels"]),
        (text, ["no complete tar.gz archive"]),
        (lambda path, files: None, ["data.path", "no such folder or archive"]),
    ],
)
def test_damaged_files_are_named(tmp_path, files, damage, words):
    path = tmp_path / "data"
    damage(path, files)

    with pytest.raises(DiemError) as error:
        cifar._labels(path)

    for word in [str(path), *words]:
        assert word in str(error.value)
    assert str(error.value).endswith(".")


def test_of_a_small_folder_images_are_counted_before_they_are_read(tmp_path, files):
    path = folder(tmp_path / "data", files)
    data = {**SPEC, "path": str(path)}

    assert DATASETS.parse({**data, "validation": 2}).shares_images() is False
    assert DATASETS.parse(data).shares_images() is True  # 3 and 2 of 4
    with pytest.raises(DiemError, match=r"data\.train is 11, and .* holds 10 train images"):
        DATASETS.parse({**data, "train": 11}).check()


@pytest.mark.parametrize(("key", "count"), [("train", 11), ("validation", 5), ("test", 5)])
def test_more_images_than_there_are(path, key, count):
    with pytest.raises(DiemError, match=rf"data\.{key} is {count}") as error:
        DATASETS.parse({**SPEC, "path": str(path), key: count}).load(seed=0)

    assert str(path) in str(error.value)
