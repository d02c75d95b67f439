"""Tables on the disk: a digest tells damage, cards tell whose numbers they are."""

import re

import pandas as pd
import pytest

from diem.errors import DiemError
from diem.evaluation.rows import CARD, read_rows, write_rows
from diem.files import atomic as files
from diem.files.tables import DIGEST, read_csv, write_csv

ROW = dict.fromkeys(CARD, "") | {"metric": "psnr", "value": 0.1 + 0.2, "lap": 1, "stage": "lap"}
ROW |= {"experiment": "some", "run": "base", "observations": "half"}
ROWS = [{**ROW, "subject": subject} for subject in ("prior", "posterior", "posterior_mean")]


def changed(change):
    return lambda path: path.write_text(change(path.read_text()))


DAMAGE = {
    "cut in half": changed(lambda text: text[: len(text) // 2]),
    "a row is missing": changed(lambda text: text.rpartition("\n")[0].rpartition("\n")[0] + "\n"),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "zeros at the end": lambda path: path.write_bytes(path.read_bytes()[:-60] + bytes(60)),
    "empty": changed(lambda text: ""),
    "the header alone": changed(lambda text: text.partition("\n")[0] + "\n"),
    "an edited number": changed(lambda text: text.replace("0.30000000000000004", "0.3", 1)),
    "another digest": changed(lambda text: text[:-2] + "x\n"),
    "no digest": lambda path: pd.read_csv(path).drop(columns=["torch", DIGEST]).to_csv(path),
    "no text": lambda path: path.write_bytes(path.read_bytes().replace(b"psnr", b"ps\xff\xfe")),
    "a row twice": changed(lambda text: text + text.splitlines()[-1] + "\n"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_told_in_a_sentence_that_names_the_file_and_the_remedy(case, tmp_path):
    path = tmp_path / "metrics.csv"
    write_rows(path, ROWS)
    DAMAGE[case](path)

    with pytest.raises(DiemError, match=f"^{re.escape(str(path))}: .*delete it") as error:
        read_rows([path])
    assert "\n" not in str(error.value)


def test_a_table_is_read_as_it_was_written_and_by_pandas(tmp_path):
    table = pd.DataFrame({"a": [0.1 + 0.2, float("nan")], "b": ['x,"y"', "=1"], "c": [1, 2]})
    write_csv(tmp_path / "t.csv", table)

    pd.testing.assert_frame_equal(read_csv(tmp_path / "t.csv"), table, check_dtype=False)
    assert [*pd.read_csv(tmp_path / "t.csv")] == ["a", "b", "c", DIGEST]


def test_rows_of_0_3_are_read_without_a_digest(tmp_path):
    former = pd.DataFrame(ROWS).drop(columns="standard_error")
    former.to_csv(tmp_path / "metrics.csv", index=False)

    rows = read_rows([tmp_path / "metrics.csv"])

    assert (len(rows), rows["standard_error"].tolist()) == (3, [""] * 3)


PLACES = {
    "some/runs/base/lap_01": None,
    "some/runs/base/lap_02": "lap",
    "some/runs/other/lap_01": "run",
    "other/runs/base/lap_01": "experiment",
    "some/observations/half/floor": None,
    "some/observations/all/floor": "observations",
    "some/ceilings/base/half": None,
    "some/ceilings/base/all": "observations",
    "elsewhere": None,
}


@pytest.mark.parametrize("place", PLACES)
def test_numbers_in_the_place_of_others_are_told(place, tmp_path):
    path = tmp_path / place / "metrics.csv"
    write_rows(path, ROWS)

    if PLACES[place] is None:
        assert len(read_rows([path])) == 3
        return
    with pytest.raises(DiemError, match=f"of another place: their {PLACES[place]} is "):
        read_rows([path])


def test_a_file_and_its_folder_are_on_the_disk_before_what_follows(tmp_path, monkeypatch):
    done = []
    real = files._sync
    monkeypatch.setattr(files, "_sync", lambda path: (done.append(path.name), real(path)))

    with files.atomic(tmp_path / "x") as temporary:
        temporary.write_text("x")
        name = temporary.name

    assert done == [name, tmp_path.name]


def test_a_number_that_is_none_is_read_as_it_was_written(tmp_path):
    write_rows(tmp_path / "rows.csv", [{**ROWS[0], "value": float("nan")}, *ROWS[1:]])

    values = read_rows([tmp_path / "rows.csv"])["value"]

    assert values.isna().tolist() == [True, False, False]
