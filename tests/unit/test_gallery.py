"""The pictures of the gallery are figures of the demo, and small."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from importing import imported
from PIL import Image

from diem.config.resolve import resolve
from diem.config.targets import targets

ROOT = Path(__file__).parents[2]


gallery = imported(ROOT / "docs/gallery.py")


def test_the_pictures_are_figures_of_the_demo_and_small():
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    drawn = {Path(path).stem for path in targets(resolve(config, "config.yaml"), [])}
    names = gallery.PICTURE.findall((ROOT / "docs/gallery.md").read_text(encoding="utf-8"))

    shown = {
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs/gallery").iterdir()
    }
    assert sorted(shown) == sorted(names)
    assert {Path(name).stem for name in names} <= drawn
    assert all((ROOT / "docs" / name).stat().st_size <= gallery.LARGEST for name in names)


def test_a_figure_is_shrunk_and_one_that_stays_large_is_told(tmp_path):
    rng = np.random.default_rng(0)
    plain = np.full((300, 2000, 3), 255, np.uint8)
    Image.fromarray(plain).save(tmp_path / "plain.png")
    Image.fromarray(rng.integers(0, 255, (900, 1200, 3), np.uint8)).save(tmp_path / "noise.png")

    gallery.shrink(tmp_path / "plain.png", tmp_path / "small/plain.png")

    with Image.open(tmp_path / "small/plain.png") as small:
        assert small.size == (gallery.WIDTH, 135)
    with pytest.raises(
        SystemExit, match=r"noise\.png: it has [\d,]+ bytes, and 100,000 are the most"
    ):
        gallery.shrink(tmp_path / "noise.png", tmp_path / "small/noise.png")
