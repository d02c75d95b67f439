"""Files of the user's are known by what they hold, and the inputs of jobs by their names."""

import os
import shutil

import pytest

from diem.config.inputs import input_digest
from diem.jobs import contents
from diem.jobs.contents import MEMORY, known_digest


class Files(list):
    """The inputs of a job as Snakemake has them, in which a list is named as a whole."""

    def __init__(self, **named):
        super().__init__()
        self.named = named
        for some in named.values():
            self.extend([some] if isinstance(some, str) else some)

    def items(self):
        return self.named.items()


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sky.h5"
    path.write_bytes(b"stars")
    return path


def test_a_copy_is_known_and_a_change_is(file, tmp_path):
    digest = known_digest(file)
    copy = tmp_path / "copy.h5"
    shutil.copy(file, copy)
    assert known_digest(copy) == digest
    copy.write_bytes(b"stare")
    assert known_digest(copy) != digest
    assert known_digest(tmp_path / "missing.h5") == ""


def test_it_is_read_once(file, monkeypatch):
    digest = known_digest(file)
    monkeypatch.setattr(contents, "_digest", lambda path: pytest.fail("read again"))
    assert known_digest(file) == digest
    monkeypatch.setattr(contents, "_digest", lambda path: "anew")
    os.utime(file, ns=(0, 0))
    assert known_digest(file) == "anew"


@pytest.mark.parametrize("damage", ["{", "[1]", '{"a": 1}'])
def test_a_damaged_memory_is_made_anew(file, damage):
    MEMORY.parent.mkdir(parents=True)
    MEMORY.write_text(damage)
    assert known_digest(file) == known_digest(file) != ""


def test_inputs_are_told_apart_but_for_shards_and_places():
    base = input_digest(Files(prior="p", shards=["a", "b"], own="here.h5"))
    assert input_digest(Files(prior="p", shards=["a"], own="there.h5")) == base
    assert input_digest(Files(prior="p")) == base
    assert input_digest(Files(prior="q")) != base
    assert input_digest(Files(prior="p", metrics=["a", "b"])) != base
