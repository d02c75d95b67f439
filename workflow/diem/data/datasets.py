"""Clean data, scaled to [-2, 2] here and nowhere else.

A data set is one function ``(spec, seed) -> {"train": Split, "validation": Split, "test": Split}``,
registered under the name that ``data.name`` selects.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from diem.data import cifar
from diem.data import fastmri as volumes
from diem.data import images as pictures
from diem.errors import DiemError, nearest
from diem.seeds import Stage, rng

__all__ = ["DATASETS", "Split", "load", "manifold_curve"]

SPLITS = ("train", "validation", "test")

# Every point of the manifold is rescaled by the range of this grid. Its steps are so short that
# the curve leaves the range of the grid by less than the precision of float32.
RANGE_GRID = 2**16 + 1

# Far more than the paper's 10. A small `alpha` would ask for more than any memory holds.
MAX_FREQUENCIES = 4096

# The ellipses within a phantom.
ELLIPSES = 8

# Where the splits of a photograph lie, in columns of its 640: no pixel is in two of them.
COLUMNS = {"train": slice(256, 640), "validation": slice(0, 128), "test": slice(128, 256)}


class Split(NamedTuple):
    """One split of a data set.

    Attributes:
        x: The data in [-2, 2], float32, with shape :math:`(N, *event)`; images are
            :math:`(N, C, H, W)`. Data that do not fit in memory are consecutive parts of this
            shape, which can be read once.
        label: The classes, int64, with shape :math:`(N,)`, or :py:`None` where there are none.
    """

    x: np.ndarray | Iterable[np.ndarray]
    label: np.ndarray | None = None

    def whole(self) -> np.ndarray:
        """Returns all data at once, where they fit in memory; parts are read."""
        return self.x if isinstance(self.x, np.ndarray) else np.concatenate(list(self.x))


def load(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    """Returns the splits "train", "validation" and "test" of a data set.

    Arguments:
        spec: The data set's name and its own keys, for example ``{"name": "digits", "validation":
            150, "test": 450}``.
        seed: The configuration's seed.

    Raises:
        DiemError: If the name is unknown, or a key is missing or has a bad value.
    """
    name = _value(spec, "name")
    if name not in DATASETS:
        raise DiemError(f"`data.name` is {name!r}, no data set{nearest(name, DATASETS)}.")
    return DATASETS[name](spec, seed)


def manifold(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    r"""Samples points of a smooth random 1-d manifold, a curve.

    Coordinate :math:`i` of the point with parameter :math:`z \sim \mathcal{U}(0, 1)` is, before it
    is rescaled to [-2, 2],

    .. math:: x_i(z) = \sum_{k=1}^K \frac{a_{ik}}{k^\alpha} \sin(2 \pi (k b_{ik} z + c_{ik}))

    with :math:`a_{ik}, b_{ik}, c_{ik} \sim \mathcal{U}(0, 1)` and
    :math:`K = \lceil \epsilon^{-1/\alpha} \rceil`. The curve depends on the seed, `dimensions`,
    `alpha` and `epsilon` alone. The points of a split do not depend on the other splits, and those
    of a larger split begin with those of a smaller one.

    References:
        | The Remarkable Robustness of Surrogate Gradient Learning for Instilling Complex Function
          in Spiking Neural Networks (Zenke & Vogels, 2021)
        | https://github.com/fzenke/randman

    Arguments:
        spec: The keys `train`, `validation` and `test` (numbers of points), `dimensions`,
            `alpha` (the smoothness) and `epsilon` (the amplitude at which the sum ends).
        seed: The configuration's seed.

    Returns:
        The splits, of events with shape :math:`(\text{dimensions},)`.
    """
    curve = _curve(spec, seed)
    splits = {}
    # The curve's own parameters are block 0.
    for block, name in enumerate(SPLITS, start=1):
        z = rng(seed, Stage.DATA, block=block).uniform(size=_integer(spec, name, minimum=1))
        splits[name] = Split(curve(z))
    return splits


def manifold_curve(spec: dict[str, Any], seed: int, points: int) -> np.ndarray:
    r"""Returns the curve that the points of :func:`manifold` lie on.

    Arguments:
        spec: The keys `dimensions`, `alpha` and `epsilon` of the data set.
        seed: The configuration's seed.
        points: The number of points :math:`P`.

    Returns:
        The points at equidistant parameters :math:`z` from 0 to 1, in this order, float32, with
        shape :math:`(P, \text{dimensions})`. The curve is open: its ends do not meet.
    """
    return _curve(spec, seed)(np.linspace(0.0, 1.0, points))


def digits(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    """Splits the 1,797 real 8x8 images of handwritten digits that scikit-learn embeds.

    References:
        | Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998)
        | https://archive.ics.uci.edu/dataset/80

    Arguments:
        spec: The keys `validation` and `test`, numbers of images; the other images are the training
            split.
        seed: The configuration's seed.

    Returns:
        The splits, of events with shape (1, 8, 8), with the digits as labels.
    """
    from sklearn.datasets import load_digits  # takes seconds, and other data sets do without

    validation = _integer(spec, "validation", minimum=1)
    test = _integer(spec, "test", minimum=1)
    images, label = load_digits(return_X_y=True)
    count = len(images)
    if validation + test >= count:
        raise DiemError(
            f"`data.validation` and `data.test` are {validation} and {test}, which leaves none of "
            f"the {count} digits to train on."
        )

    # The pixels are integers from 0 to 16.
    x = (images * (4 / 16) - 2).astype(np.float32).reshape(count, 1, 8, 8)
    label = label.astype(np.int64)
    order = rng(seed, Stage.SPLIT).permutation(count)
    parts = np.split(order, [test, test + validation])
    return {
        name: Split(x[part], label[part])
        for name, part in zip(("test", "validation", "train"), parts, strict=True)
    }


def cifar10(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    """Reads CIFAR-10, 32x32 photographs of ten classes, from its binary version.

    The paper observes all training images to train on and all test images to validate with, and
    shows posterior samples of test images. Neither of the latter touches the weights, and each has
    a corruption of its own; at the paper's sizes they are the same images.

    References:
        | Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009)
        | https://www.cs.toronto.edu/~kriz/cifar.html

    Arguments:
        spec: The keys `path` (the archive, or a folder of its files), `train` (how many of the
            first training images), `validation` (how many of the first test images) and `test`
            (how many of the last test images).
        seed: Not used, all is in the official order.

    Returns:
        The splits, of events with shape (3, 32, 32), in parts, with the classes as labels.
    """
    path = _value(spec, "path")
    label = cifar.labels(path)
    splits = {}
    for name, source in (("train", "train"), ("validation", "test"), ("test", "test")):
        count, total = _integer(spec, name, minimum=1), len(label[source])
        if count > total:
            raise DiemError(f"`data.{name}` is {count}, and {path} holds {total} {source} images.")
        rows = range(total - count, total) if name == "test" else range(count)
        # The pixels are integers from 0 to 255.
        x = (part * np.float32(4 / 256) - 2 for part in cifar.images(path, source, rows))
        splits[name] = Split(x, label[source][rows.start : rows.stop].astype(np.int64))
    return splits


def phantoms(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    r"""Draws phantoms of random ellipses, as simple as slices through a body can be.

    Each image is a bright rim around a body of grey tissue, in which smaller ellipses overlap; one
    in three is dark, and where several overlap the last one counts. A smooth shading multiplies
    all of it. Edges are one pixel wide. With `complex`, the image is the magnitude, and its phase
    varies smoothly. An image depends on the seed, its split and its number alone, at a given size.

    References:
        | The Fourier Reconstruction of a Head Section (Shepp & Logan, 1974)
        | https://doi.org/10.1109/TNS.1974.6499235

    Arguments:
        spec: The keys `train`, `validation` and `test` (numbers of images), `size` (their height
            and width in pixels) and `complex`.
        seed: The configuration's seed.

    Returns:
        The splits, in parts, of events with shape (1, size, size), black at -2 and white at 2; or,
        if `complex`, with shape (2, size, size), the real and imaginary parts of images of
        magnitudes from 0 to 2.
    """
    size = _integer(spec, "size", minimum=8)
    splits = {}
    for block, name in enumerate(SPLITS):
        count = _integer(spec, name, minimum=1)
        u = rng(seed, Stage.DATA, block=block).uniform(size=(count, 6 * (ELLIPSES + 2)))
        # A few images at a time keep the memory small.
        parts = np.array_split(u, math.ceil(count / 64))
        splits[name] = Split(_phantoms(part, size, spec["complex"]) for part in parts)
    return splits


def _phantoms(u: np.ndarray, size: int, phased: bool) -> np.ndarray:
    """Draws the phantoms of uniform numbers with shape (N, 6 (ELLIPSES + 2))."""
    u = np.moveaxis(u.reshape(len(u), ELLIPSES + 2, 6), 0, -1)[..., None, None]
    (outline, shading), inner = u[:2], u[2:]
    grid = (np.arange(size) + 0.5) * (2 / size) - 1
    y, x = grid[:, None], grid[None, :]

    def turned(angle: np.ndarray, at: tuple) -> tuple[np.ndarray, np.ndarray]:
        dx, dy = x - at[0], y - at[1]
        return dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)

    def ellipse(place: tuple[np.ndarray, np.ndarray], a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns how much of each pixel lies within the semi-axes a and b, about."""
        radius = np.sqrt((place[0] / a) ** 2 + (place[1] / b) ** 2)
        return np.clip((1 - radius) * np.minimum(a, b) * size / 2 + 0.5, 0, 1)

    centre = 0.1 * outline[0] - 0.05, 0.1 * outline[1] - 0.05
    angle = np.pi * (outline[2] - 0.5) / 2
    a, b, rim = 0.6 + 0.15 * outline[3], 0.75 + 0.15 * outline[4], 0.05 + 0.07 * outline[5]
    place = turned(angle, centre)
    body = ellipse(place, a - rim, b - rim)
    image = 0.9 * (ellipse(place, a, b) - body)
    tissue = np.full_like(image, 0.45)
    for v in inner:
        # Uniform over the inside of the body.
        r, phi = 0.8 * np.sqrt(v[0]), 2 * np.pi * v[1]
        along, across = r * (a - rim) * np.cos(phi), r * (b - rim) * np.sin(phi)
        at = (
            centre[0] + along * np.cos(angle) - across * np.sin(angle),
            centre[1] + along * np.sin(angle) + across * np.cos(angle),
        )
        cover = ellipse(turned(np.pi * v[2], at), 0.06 + 0.2 * v[3] ** 2, 0.06 + 0.2 * v[4] ** 2)
        grey = np.where(v[5] < 1 / 3, 0.3 * v[5], 0.2 + 0.6 * v[5])
        tissue += cover * (grey - tissue)
    image += body * tissue
    across, _ = turned(2 * np.pi * shading[0], (0, 0))
    image *= 1 - 0.2 * shading[1] * (1 + across) / 2
    if not phased:
        return (4 * image - 2).astype(np.float32)[:, None]
    along, across = turned(2 * np.pi * shading[2], (0, 0))
    phase = np.pi * (2 * shading[3] - 1 + shading[4] * along + (shading[5] - 0.5) * across**2)
    return np.stack((2 * image * np.cos(phase), 2 * image * np.sin(phase)), 1).astype(np.float32)


def fastmri(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    """Reads slices of fastMRI's single-coil knee volumes, from folders or from its tar archives.

    The slices are scaled by their volume's maximum, and are read volume by volume as they are asked
    for. A folder's volumes are read once; an archive is read from its beginning once for its list
    of volumes and once for each split.

    References:
        | fastMRI: An Open Dataset and Benchmarks for Accelerated MRI (Zbontar et al., 2018)
        | https://fastmri.med.nyu.edu

    Arguments:
        spec: The keys `path` (a folder or an archive of volumes), `validation_path` (another one,
            or :py:`None`), `validation` and `test` (numbers of volumes that are drawn from
            `validation_path`, or from `path` if there is none; the other volumes of `path` are the
            training split), `slices` (the first slice of a volume, and the one to stop before) and
            `size` (the height and width in pixels).
        seed: The configuration's seed.

    Returns:
        The splits, of events with shape (1, size, size), black at -2.
    """
    path, held = _value(spec, "path"), _value(spec, "validation_path") or _value(spec, "path")
    validation = _integer(spec, "validation", minimum=1)
    test = _integer(spec, "test", minimum=1)
    first, last = _value(spec, "slices")
    if first >= last:
        raise DiemError(f"`data.slices` is [{first}, {last}], but the first must be the less.")

    found = volumes.names(held)
    if validation + test > len(found) - (held == path):
        raise DiemError(
            f"`data.validation` and `data.test` are {validation} and {test}, which is too many for"
            f" the {len(found)} volumes in {held}."
        )
    order = [found[i] for i in rng(seed, Stage.SPLIT).permutation(len(found))]
    chosen = {"validation": order[test : test + validation], "test": order[:test]}
    rest = order[test + validation :] if held == path else volumes.names(path)
    size = _integer(spec, "size", minimum=1)

    def read(source: str, names: list[str]) -> Iterable[np.ndarray]:
        for x in volumes.slices(source, set(names), first, last, size):
            yield 4 * x[:, None] - 2

    return {
        "train": Split(read(path, rest)),
        **{name: Split(read(held, names)) for name, names in chosen.items()},
    }


def photographs(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    """Cuts patches from the two colour photographs that scikit-learn embeds, a temple and a flower.

    The photographs are 640 pixels wide. Patches for validation lie in their columns 0 to 127, those
    for testing in 128 to 255, and training patches in 256 to 639, at random places. Patches of a
    split can overlap, patches of two splits share no pixel. Without reduction most small patches
    show little but one colour.

    References:
        | https://scikit-learn.org/stable/datasets/loading_other_datasets.html#sample-images

    Arguments:
        spec: The keys `train`, `validation` and `test` (numbers of patches), `size` (their height
            and width in pixels) and `reduce` (the photographs are reduced first, by averages over
            squares of so many pixels; with `size` times `reduce` at most 128).
        seed: The configuration's seed.

    Returns:
        The splits, in parts, of events with shape (3, size, size).
    """
    from sklearn.datasets import load_sample_images  # takes seconds, and other data do without

    size, factor = _integer(spec, "size", minimum=2), _integer(spec, "reduce", minimum=1)
    width = COLUMNS["validation"].stop - COLUMNS["validation"].start
    if size * factor > width:
        raise DiemError(
            f"`data.size` times `data.reduce` is {size * factor}, but the narrowest split is"
            f" {width} pixels wide."
        )
    images = load_sample_images().images
    splits = {}
    for block, (name, columns) in enumerate(COLUMNS.items()):
        count, stream = _integer(spec, name, minimum=1), rng(seed, Stage.DATA, block=block)
        parts = [pictures.reduced(image[:, columns], factor) for image in images]
        splits[name] = Split(map(_from_bytes, pictures.crops(parts, count, size, stream)))
    return splits


def images(spec: dict[str, Any], seed: int) -> dict[str, Split]:
    """Reads a folder of colour images, PNG or JPEG files of one size.

    Arguments:
        spec: The keys `path` (the folder), `size` (the height and width that every image must
            have), `train`, `validation` and `test` (numbers of images, drawn without repetition;
            `train` may be :py:`None` for all the others).
        seed: The configuration's seed.

    Returns:
        The splits, of events with shape (3, size, size). A split without images is left out.
    """
    path, size = _value(spec, "path"), _integer(spec, "size", minimum=1)
    test, validation = (_integer(spec, name, minimum=0) for name in ("test", "validation"))
    found = pictures.names(path)
    rest = len(found) - test - validation
    train = rest if _value(spec, "train") is None else _integer(spec, "train", minimum=0)
    if train > rest or rest < 0:
        raise DiemError(
            f"`data.train`, `data.validation` and `data.test` ask for more than the {len(found)}"
            f" images in {path}."
        )
    order = rng(seed, Stage.SPLIT).permutation(len(found))
    parts = np.split(order, np.cumsum([test, validation, train]))[:3]
    chosen = dict(zip(("test", "validation", "train"), parts, strict=True))
    return {
        name: Split(map(_from_bytes, pictures.read(path, [found[i] for i in rows], size)))
        for name, rows in chosen.items()
        if len(rows)
    }


def _from_bytes(x: np.ndarray) -> np.ndarray:
    """Scales integers from 0 to 255 to [-2, 2]."""
    return x.astype(np.float32) * np.float32(4 / 255) - 2


DATASETS: dict[str, Callable[[dict[str, Any], int], dict[str, Split]]] = {
    "cifar10": cifar10,
    "digits": digits,
    "fastmri": fastmri,
    "images": images,
    "manifold": manifold,
    "phantoms": phantoms,
    "photographs": photographs,
}


def _curve(spec: dict[str, Any], seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the map from parameters, with shape (N,), to points, with shape (N, dimensions)."""
    dimensions = _integer(spec, "dimensions", minimum=1)
    alpha = _positive(spec, "alpha")
    epsilon = _positive(spec, "epsilon")
    if epsilon >= 1:
        raise DiemError(f"`data.epsilon` is {epsilon}, but it must be less than 1.")

    if -math.log(epsilon) / alpha > math.log(MAX_FREQUENCIES):
        raise DiemError(
            f"`data.alpha` is {alpha}, which with `data.epsilon` {epsilon} asks for more than "
            f"{MAX_FREQUENCIES:,} frequencies: raise either."
        )
    k = np.arange(1, math.ceil(epsilon ** (-1 / alpha)) + 1)
    a, b, c = rng(seed, Stage.DATA).uniform(size=(3, dimensions, len(k)))

    def raw(z: np.ndarray) -> np.ndarray:
        # One frequency at a time keeps the memory of a long `z` small.
        x = np.zeros((len(z), dimensions))
        for j in range(len(k)):
            phase = k[j] * b[:, j] * z[:, None] + c[:, j]
            x += a[:, j] / k[j] ** alpha * np.sin(2 * np.pi * phase)
        return x

    grid = raw(np.linspace(0.0, 1.0, RANGE_GRID))
    low, high = grid.min(axis=0), grid.max(axis=0)

    def scaled(z: np.ndarray) -> np.ndarray:
        x = 4 * (raw(z) - low) / (high - low) - 2
        return np.clip(x, -2, 2).astype(np.float32)

    return scaled


def _value(spec: dict[str, Any], key: str) -> Any:
    if key not in spec:
        raise DiemError(f"`data.{key}` is missing.")
    return spec[key]


def _integer(spec: dict[str, Any], key: str, minimum: int) -> int:
    value = _value(spec, key)
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise DiemError(f"`data.{key}` is {value!r}, but it must be an integer >= {minimum}.")
    return value


def _positive(spec: dict[str, Any], key: str) -> float:
    value = _value(spec, key)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:
        raise DiemError(f"`data.{key}` is {value!r}, but it must be a number > 0.")
    return float(value)
