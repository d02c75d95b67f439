"""The tutorials run as they stand, print what they say, and draw their pictures."""

import importlib.util
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def load():
    spec = importlib.util.spec_from_file_location("tutorials", DOCS / "tutorials.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tutorials = load()


def shape(text):
    """Returns a text without the numbers, and tables without their cells: chips may differ."""
    text = re.sub(r"^\|.*$", "|", text, flags=re.MULTILINE)
    return re.sub(r"-?\d[\d.,]*(e-?\d+)?", "N", re.sub(r" +", " ", text))


def ran(name, folder):
    """Runs a tutorial and returns what it printed, if it is what the tutorial says."""
    tutorial = DOCS / f"{name}.md"
    text = tutorials.run(tutorial, folder)
    assert shape(text) == shape(tutorial.read_text(encoding="utf-8"))
    for picture in tutorials.pictures(text):
        (drawn,) = folder.rglob(Path(picture).name)
        assert drawn.stat().st_size > 1000
        assert (DOCS / picture).is_file()
    return text


def number(text, after):
    return float(re.search(re.escape(after) + r" (\d+\.\d+)", text)[1])


def test_operator(tmp_path):
    text = ran("tutorial_operator", tmp_path)

    assert "adjoint is not the adjoint of forward" in text
    assert number(text, "of posterior means:") < 0.7 * number(text, "of observations:")
