"""The tutorials run as they stand, print what they say, and draw their pictures."""

import re
from pathlib import Path

import pytest
from importing import imported

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"

tutorials = imported(DOCS / "tutorials.py")


def shape(text):
    """Returns a text without numbers and units, and tables without cells: machines may differ."""
    text = re.sub(r"^\|.*$", "|", text, flags=re.MULTILINE)
    text = re.sub(r"-?\d[\d.,]*(e[-+]?\d+)?", "N", re.sub(r" +", " ", text))
    return re.sub(r"N (s|min|h|[kMG]?B)\b", "N", re.sub(r"-{2,}", "-", text))


SELECTED = re.compile(
    r"lap \d+ is chosen, .*\)\.|the Gaussian prior predicts better than every lap, and is chosen\."
)
"""What was selected, which of two laps is another prior than of eight."""


def ran(name, folder):
    """Runs a tutorial and returns what it printed, if it is what the tutorial says."""
    tutorial = DOCS / f"{name}.md"
    text = tutorials.run(tutorial, folder)
    same = [SELECTED.sub("selected.", told) for told in (text, tutorial.read_text("utf-8"))]
    assert shape(same[0]) == shape(same[1])
    for picture in tutorials.pictures(text):
        (drawn,) = folder.rglob(Path(picture).name)
        assert drawn.stat().st_size > 1000
        assert (DOCS / picture).is_file()
    return text


def number(text, after):
    return float(re.search(re.escape(after) + r" (\d+\.\d+)", text)[1])


def commands(text):
    """Returns what each command of a tutorial printed."""
    blocks = [block for kind, block in tutorials.BLOCK.findall(text) if kind == "console"]
    found = re.split(r"^\$ (.+)\n", "".join(blocks), flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def test_operator(tmp_path):
    text = ran("tutorial_operator", tmp_path)

    assert "adjoint is not the adjoint of forward" in text
    assert number(text, "of posterior means:") < 0.7 * number(text, "of observations:")


def test_gaps(tmp_path):
    text = ran("tutorial_gaps", tmp_path)

    means, line = number(text, "means of columns:"), number(text, "linear interpolation:")
    table, series = map(float, re.findall(r"RMS error of posterior: (.+)", text))
    assert table < 0.7 * means
    assert series < 0.5 * line
    assert 84 < number(text, "within their 90 % intervals:") < 95


def test_observations(tmp_path):
    """Eight laps are minutes; here are two, which learn too little to look at."""
    whole = (DOCS / "tutorial_observations.md").read_text(encoding="utf-8")
    short = whole
    for many, few in (("laps: 8", "laps: 2"), ("{steps: 300", "{steps: 100")):
        assert whole.count(many) == 1
        short = short.replace(many, few)
    tutorial, folder = tmp_path / "short.md", tmp_path / "run"
    tutorial.write_text(short, encoding="utf-8")
    folder.mkdir()

    text = tutorials.run(tutorial, folder)

    printed, told = commands(text), commands(whole)
    laps = "cat results/tables/photographs_chosen_lap.md"
    for command, output in printed.items():
        same = [SELECTED.sub("selected.", text) for text in (output, told[command])]
        assert command == laps or shape(same[0]) == shape(same[1])
    for picture in tutorials.pictures(text):
        (drawn,) = folder.rglob(Path(picture).name)
        assert drawn.stat().st_size > 1000
        assert (DOCS / picture).is_file()
    # A Gaussian prior that does not know the units is at 30 grey levels, the
    # mean colour of the observed pixels of each patch at 33.
    assert number(text, "RMS error with the Gaussian prior:") < 25
    assert number(text, "RMS error with the learned prior:") < 30
    assert "| 2 |" in printed[laps]
    # With all of its laps.
    assert re.search(r"\| 8 \|.*chosen \|", told[laps])
    learned, gaussian = (
        number(whole, f"RMS error with the {name} prior:") for name in ("learned", "Gaussian")
    )
    assert learned < 0.9 * gaussian


def test_in_python(tmp_path):
    text = ran("in_python", tmp_path)

    assert number(text, "RMS error") < 0.5
    assert (tmp_path / "two/figures/fit_lap_choice.pdf").stat().st_size > 1000
