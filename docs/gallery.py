"""Makes the pictures of the gallery of the demo's figures, small enough to be kept with the code.

    make demo && python docs/gallery.py

The pictures are those that docs/gallery.md shows, of the names of the figures: PNG, or JPEG of
photographs.
"""

import re
import sys
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
PICTURE = re.compile(r"!\[[^\]]*\]\((gallery/[^)]+\.(?:png|jpg))\)")

WIDTH, COLOURS, QUALITY, LARGEST = 900, (64, 32, 16), 85, 100_000
"""The width in pixels, of PNG the numbers of colours to try, of JPEG the quality, and the largest
size in bytes."""


def shrink(figure: Path, picture: Path) -> None:
    """Writes a figure with fewer pixels, and as PNG with fewer colours.

    Arguments:
        figure: The figure as the workflow draws it.
        picture: The picture to write.
    """
    with Image.open(figure) as opened:
        image = opened.convert("RGB")
    height = round(image.height * WIDTH / image.width)
    small = image.resize((WIDTH, height), Image.Resampling.LANCZOS)
    picture.parent.mkdir(exist_ok=True)
    method = Image.Quantize.MAXCOVERAGE  # keeps colours that few pixels have
    for colours in COLOURS:
        if picture.suffix == ".jpg":
            small.save(picture, quality=QUALITY, optimize=True)
        else:
            # Without dithering, which makes noise of plain areas, and large files.
            small.quantize(colours, method, dither=Image.Dither.NONE).save(picture, optimize=True)
        if (size := picture.stat().st_size) <= LARGEST:
            return
    sys.exit(f"Error: {picture}: it has {size:,} bytes, and {LARGEST:,} are the most.")


if __name__ == "__main__":
    figures = Path(sys.argv[1] if len(sys.argv) > 1 else "results/figures")
    for name in PICTURE.findall((DOCS / "gallery.md").read_text(encoding="utf-8")):
        shrink(figures / f"{Path(name).stem}.png", DOCS / name)
