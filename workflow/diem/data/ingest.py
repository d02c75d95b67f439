"""The user's own observations: how their file is written, and how the workflow takes it in.

The file is HDF5, with a group for each of ``train``, ``validation`` and ``test`` (only ``train`` is
needed), in it

- ``y``: the observations, of shape ``(N, *observation)``, NaN or anything where the operator
  observes nothing;
- ``operator/<field>``: the operator's parameters, with one row an observation or one for all;
- ``sigma_y`` (optional): the noise's standard deviation, one number, one an observation, or one a
  value of ``y``;
- ``index`` (optional): the number of the ``x`` that each observation is of;
- ``groups`` (optional): a label of each observation, such as its subject or day.

Its attribute ``event_shape`` is the shape of one ``x``, its attribute ``operator`` (optional) the
name of a built-in operator, and ``sigma_y`` may also be a data set of the root, for all splits.
"""

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diem import operators
from diem.components import short
from diem.data.observations import (
    SPLITS,
    Observations,
    Units,
    check_noise,
    detached,
    numbers,
    numbers_of_pandas,
    unit_of_values,
)
from diem.data.sets.hdf5 import held_out
from diem.data.validate import Finding, check_file
from diem.errors import DiemError, nearest, placed
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import logger
from diem.operators.given import shape_of
from diem.seeds import Stage, rng

__all__ = ["ingest", "write_observations"]

ROWS = 4096
"""Arrays are written so many rows at a time."""


def write_observations(
    path: str | Path,
    splits: Mapping[str, Any],
    operator: str | None = None,
    sigma_y: float | Sequence[float] | None = None,
    event_shape: Sequence[int] | None = None,
) -> None:
    """Writes a file of observations for ``data: {name: hdf5, path: ...}``.

    Any array that can be sliced will do, such as a memory map or a data set of HDF5: rows are
    copied some at a time.

    Arguments:
        path: The file.
        splits: By split (``train``, and where they are not to be held out of it at random,
            ``validation`` and ``test``): the observations ``y``, or a mapping of ``y``, the
            operator's parameters by field, and optionally ``sigma_y``, ``index``, and labels
            ``groups`` of what is to be held out together. Of the operator ``mask``, the mask may be
            left out: what is not finite in ``y`` is missing.
        operator: The name of a built-in operator. A class of one's own is named in the config.
        sigma_y: The noise's standard deviation, for all splits: a number, or an array that
            broadcasts to one ``y``, such as ``(C, 1, 1)``, one a channel; without it the config or
            each split tells it.
        event_shape: The shape of one ``x``; without it, the shape of one ``y``.

    Raises:
        DiemError: If the arrays do not fit each other.
    """
    if operator is not None and operator not in operators.OPERATORS.names:
        hint = nearest(operator, operators.OPERATORS.names)
        raise DiemError(f"{path}: operator {operator!r} is no built-in operator{hint}.")
    if not isinstance(splits, Mapping):
        raise DiemError(f"{path}: splits is no mapping, such as {{'train': y}}.")
    if "train" not in splits:
        raise DiemError(f"{path}: 'train' is missing (given: {', '.join(splits) or 'nothing'}).")
    if event_shape is not None:
        with placed(f"{path}: "):
            event_shape = shape_of(event_shape)
    arrays: dict[str, Any] = {}
    for split, given in splits.items():
        fields = _fields(path, split, given)
        y = fields.pop("y")
        if event_shape is None:
            event_shape = y.shape[1:]
        arrays[f"{split}/y"] = _converted(y, np.dtype(np.float32), missing=operator == "mask")
        if operator == "mask" and "mask" not in fields:
            _refuse_too_large(f"{path}: {split}/y", y)
            arrays[f"{split}/operator/mask"] = _present(y)
        for name, values in fields.items():
            of_observations = name in ("groups", "index", "sigma_y")
            place = f"{split}/{name}" if of_observations else f"{split}/operator/{name}"
            arrays[place] = _converted(values, values.dtype) if values.ndim else values[()]
            if name == "sigma_y":
                noise = np.asarray(values, float)
                check_noise(noise[~np.isnan(noise)], f"{path}: {split}/sigma_y")
        if operator is not None:
            _check_operator(f"{path}: {split}", operator, event_shape, y, fields)
        if operator == "mask" and "mask" in fields:
            _refuse_contradictions(f"{path}: {split}", y, fields["mask"])
    attributes: dict[str, Any] = {"event_shape": np.asarray(event_shape)}
    if operator is not None:
        attributes["operator"] = operator
    if sigma_y is not None:
        noise = numbers(sigma_y, f"{path}: sigma_y").astype(np.float32)
        check_noise(noise, f"{path}: sigma_y")
        if noise.ndim > 1:  # such as one a channel, (C, 1, 1)
            with contextlib.suppress(ValueError):  # of another shape: who reads it refuses it
                noise = np.broadcast_to(noise, y.shape[1:])
        arrays["sigma_y"] = noise
    write_hdf5(path, arrays, attributes)


def _fields(path: str | Path, split: str, given: Any) -> dict[str, Any]:
    """Returns a split's observations ``y``, and what else is given with them, as arrays."""
    if split not in SPLITS:
        raise DiemError(f"{path}: the split {split!r} is unknown{nearest(split, SPLITS)}.")
    named = given if isinstance(given, Mapping) else {"y": given}
    if "y" not in named:
        raise DiemError(f"{path}: {split} lacks 'y'.")
    for name in map(str, named):
        if name in ("", ".") or "/" in name or not name.isprintable():
            raise DiemError(f"{path}: {split} holds {name!r}, which is no name for a parameter.")
    fields = {name: _array(path, f"{split}/{name}", values) for name, values in named.items()}
    count = len(fields["y"])
    for name, values in fields.items():
        if values.shape == () and name != "sigma_y":
            raise DiemError(f"{path}: {split}/{name} is one number, where rows are needed.")
        if values.shape[:1] not in ((count,), (1,), ()):
            raise DiemError(f"{path}: {split}/{name} has {len(values)} rows, where y has {count}.")
    return fields


def _array(path: str | Path, name: str, values: Any) -> Any:
    """Returns something that has a shape, a type and slices."""
    pandas = values if hasattr(values, "dtypes") else None
    if not (hasattr(values, "shape") and hasattr(values, "dtype")):
        try:
            values = np.asarray(values)
        except ValueError:
            raise DiemError(f"{path}: {name} is no array (its rows differ in shape).") from None
    if isinstance(values, Tensor):
        values = detached(values)
    elif hasattr(values, "numpy"):  # a tensor of another library
        values = values.numpy()
    if not isinstance(values.dtype, np.dtype):  # of pandas
        values = np.asarray(values)
    if name.endswith("/groups") and np.dtype(values.dtype).kind not in "iub":
        if any(label is None or label != label for label in np.asarray(values).ravel().tolist()):
            raise DiemError(f"{path}: {name} has labels that are missing: give each one a group.")
        values = _texts(np.asarray(values))
    elif pandas is not None and values.dtype.kind == "O":
        values = numbers_of_pandas(pandas, f"{path}: {name}")
    elif np.dtype(values.dtype).kind not in "fiub":
        problem = f"{values.dtype}, where numbers are needed"
        if np.dtype(values.dtype).kind == "c":
            problem = "complex: write real and imaginary parts as channels"
        raise DiemError(f"{path}: {name} is {problem}.")
    if name.endswith("/y") and (len(values.shape) < 2 or 0 in values.shape):
        raise DiemError(
            f"{path}: {name} has shape {values.shape}, where (observations, ...) is needed."
        )
    return values


def _texts(labels: np.ndarray) -> np.ndarray:
    """Returns labels as bytes, which they may be already."""
    if labels.dtype.kind == "O":  # each of its own type
        texts = (v if isinstance(v, bytes) else str(v).encode() for v in labels.ravel().tolist())
        labels = np.array([*texts]).reshape(labels.shape)
    return labels if labels.dtype.kind == "S" else np.char.encode(labels.astype(str), "utf-8")


def _converted(values: Any, dtype: np.dtype, missing: bool = False) -> Iterator[np.ndarray]:
    """Yields a few rows at a time; where values may be missing, zeros take their place."""
    for start in range(0, len(values), ROWS):
        part = np.ma.filled(np.ma.asarray(values[start : start + ROWS], dtype), _blank(dtype))
        yield np.where(np.isfinite(part), part, 0).astype(dtype) if missing else part


def _present(y: Any) -> Iterator[np.ndarray]:
    for start in range(0, len(y), ROWS):
        yield np.isfinite(np.ma.filled(np.ma.asarray(y[start : start + ROWS], np.float32), np.nan))


def _refuse_too_large(name: str, y: Any) -> None:
    """Refuses values that are none in single precision, and would pass for missing ones."""
    for start in range(0, len(y) if np.dtype(y.dtype).itemsize > 4 else 0, ROWS):
        values: np.ndarray = np.ma.filled(np.ma.asarray(y[start : start + ROWS], float), np.nan)
        with np.errstate(over="ignore"):
            places = np.argwhere(np.isinf(values.astype(np.float32)) & np.isfinite(values))
        if len(places):
            first = (int(places[0][0]) + start, *places[0][1:].tolist())
            raise DiemError(
                f"{name} holds values that are infinite as float32, first at {first}: what is"
                " missing is NaN."
            )


def _refuse_contradictions(where: str, y: Any, mask: Any) -> None:
    """Refuses values that the mask calls observed, and that are none."""
    count, first = 0, None
    for start in range(0, len(y), ROWS):
        rows = slice(start, start + ROWS)
        present = next(_present(y[rows]))
        observed = np.asarray(mask if len(mask) == 1 else mask[rows], bool)
        places = np.argwhere(np.broadcast_to(observed, present.shape) & ~present)
        if len(places) and first is None:
            first = (int(places[0][0]) + start, *places[0][1:].tolist())
        count += len(places)
    if first is not None:
        raise DiemError(
            f"{where}: {count} values are not finite where the mask says that they were observed,"
            f" first at {first}."
        )


def _blank(dtype: np.dtype) -> float:
    return np.nan if np.dtype(dtype).kind == "f" else 0


def _check_operator(
    where: str, operator: str, event_shape: Sequence[int], y: Any, fields: Mapping[str, Any]
) -> None:
    """Builds the first observations' operators, as a reader will."""
    first = {name: np.asarray(values[:2]) for name, values in fields.items() if values.ndim}
    if operator == "mask" and "mask" not in first:
        first["mask"] = next(_present(y[:2]))
    try:
        built = operators.build(operator, event_shape, first)
    except DiemError as error:
        raise DiemError(f"{where}: {error}") from None
    if built.observation_shape != tuple(y.shape[1:]):
        raise DiemError(
            f"{where}/y has rows of shape {tuple(y.shape[1:])}, where the operator"
            f" {operator!r} of x with shape {tuple(event_shape)} gives {built.observation_shape}."
        )


def ingest(
    source: str | Path,
    output: str | Path,
    entry: Mapping[str, Any],
    data: Mapping[str, Any],
    seed: int,
    experiment: str,
) -> None:
    """Checks a user's file, and copies it to the workflow's observations, with all three splits.

    A split that the file lacks is held out of ``train`` at random, by whole groups. The copy is
    checksummed and single precision, so that later jobs find damage and do not depend on a file
    that may change.

    Arguments:
        source: The user's file.
        output: The file of observations to write.
        entry: The config's entry of ``observations``: ``operator`` and ``sigma_y`` where the file
            does not tell them.
        data: The config's ``data`` entry: the fractions to hold out, and the ``offset`` and
            ``scale`` of ``x``, numbers or lists; what is written is of ``(x - offset) / scale``.
        seed: The config's seed.
        experiment: The experiment's name, for the file's attributes.

    Raises:
        DiemError: If the file cannot be used.
    """
    operator, sigma_y = entry.get("operator", {}).get("name"), entry.get("sigma_y")
    _refuse_bad(check_file(source, operator, sigma_y, data.get("links", False)), source)
    arrays: dict[str, Any] = {}
    offset, scale = data["offset"], data["scale"]
    with Observations(source, operator, sigma_y) as file:
        for split, (group, chosen) in _splits(file, data, seed).items():
            names = ["y", *(f"operator/{field}" for field in file.names(f"{group}/operator"))]
            if f"{group}/sigma_y" in file:
                names.append("sigma_y")
            for name in names:
                arrays[f"{split}/{name}"] = _copied(file, group, name, chosen, offset, scale)
            arrays[f"{split}/index"] = _index(file, group)[chosen]
            if (groups := file.groups(group)) is not None:
                arrays[f"{split}/groups"] = groups[chosen]
        if file.sigma_y is not None:
            arrays["sigma_y"] = _scaled_noise(file, file.sigma_y.numpy(), scale)
        attributes = {
            "operator": file.operator,
            "event_shape": list(file.event_shape),
            "experiment": experiment,
            "seed": seed,
            "source": str(source),
            "offset": offset,
            "scale": scale,
        }
        write_hdf5(output, arrays, attributes)


def _refuse_bad(findings: Sequence[Finding], source: str | Path) -> None:
    """Writes what a check of the file found to the log, and raises its first error."""
    for level, sentence in findings:
        logger.info("%s: %s", level, sentence)
    errors = [sentence for level, sentence in findings if level == "error"]
    if errors:
        command = f"diem check {shlex.quote(str(source))}"
        more = f" ({len(errors) - 1} more: {command})" if len(errors) > 1 else ""
        raise DiemError(f"{errors[0].removesuffix('.')}{more}.")


def _splits(
    file: Observations, data: Mapping[str, Any], seed: int
) -> dict[str, tuple[str, np.ndarray]]:
    """Returns, for each split, the group that it comes from and which of the group's rows."""
    sources = {
        split: (split, np.ones(file.count(split), bool)) for split in SPLITS if split in file
    }
    lacking = [split for split in SPLITS if split not in sources]
    if not lacking:
        return sources
    unit = _units(file)
    count = int(unit.max()) + 1
    order = rng(seed, Stage.SPLIT).permutation(count)
    fractions = {split: data[split] for split in lacking}
    sizes = [*held_out(str(file.path), count, fractions).values()]
    for split, part in zip(lacking, np.split(order, np.cumsum(sizes)), strict=False):
        sources[split] = ("train", np.isin(unit, part))
    sources["train"] = ("train", np.isin(unit, order[sum(sizes) :]))
    return {split: sources[split] for split in SPLITS}


def _units(file: Observations) -> np.ndarray:
    """Returns the number of the ``x``, or group, that each row of ``train`` is held out with.

    Raises:
        DiemError: If the file's groups part observations of the same ``x``.
    """
    scenes, scene = np.unique(_index(file, "train"), return_inverse=True)
    if "train/groups" not in file:
        return scene
    group = file.numbered("train", "groups")
    if len(np.unique(np.stack([scene, group]), axis=1).T) > len(scenes):
        raise DiemError(
            f"{file.path}: 'train/groups' puts observations of the same x, by 'train/index', into"
            " different groups."
        )
    return group


def _index(file: Observations, split: str) -> np.ndarray:
    if f"{split}/index" in file:
        return file.read(f"{split}/index", shape=())
    return np.arange(file.count(split))


def _copied(
    file: Observations, group: str, name: str, chosen: np.ndarray, offset: Units, scale: Units
) -> np.ndarray | Iterator[np.ndarray]:
    """Returns chosen rows of a data set, in parts; or all of it, if it is for all observations."""
    shape = file.shape(f"{group}/{name}")
    if name == "sigma_y" and np.ndim(scale):
        pass  # divided by a list of scales, it is one of each value
    elif shape == ():
        return np.asarray(_rows(file, group, name, (), offset, scale))
    elif shape[0] == 1 < len(chosen):
        return _rows(file, group, name, slice(None), offset, scale)
    return (
        _rows(file, group, name, rows, offset, scale)[chosen[rows]] for rows in file.blocks(group)
    )


def _rows(
    file: Observations,
    group: str,
    name: str,
    rows: slice | tuple[()],
    offset: Units,
    scale: Units,
) -> np.ndarray:
    """Returns rows of a data set; ``y`` and ``sigma_y`` are those of ``(x - offset) / scale``."""
    if name == "y":  # what is not observed may be anything
        observed = file.load(group, rows)
        return (observed if (offset, scale) == (0, 1) else observed.scaled(offset, scale)).y.numpy()
    if name == "sigma_y" and not isinstance(rows, tuple):
        observed = file.load(group, rows)
        sigma_y = observed.sigma_y.numpy()  # of what is missing too
        if np.ndim(scale):
            return _scaled_noise(file, np.broadcast_to(sigma_y, observed.y.shape), scale)
        return _scaled_noise(file, sigma_y.reshape(-1, *file.shape(f"{group}/{name}")[1:]), scale)
    values = file.read(f"{group}/{name}", rows)
    return _scaled_noise(file, values, scale) if name == "sigma_y" else values


def _scaled_noise(file: Observations, sigma_y: np.ndarray, scale: Units) -> np.ndarray:
    divisor: Any = scale
    if np.ndim(scale):
        divisor = unit_of_values(scale, file.event_shape).numpy()
        if sigma_y.size == divisor.size:  # one a value, which may be flat
            sigma_y = sigma_y.reshape(divisor.shape)
    scaled = sigma_y / np.asarray(divisor, np.float32)
    check_noise(scaled, f"{file.path}: sigma_y divided by data.scale, {short(scale)},")
    return scaled.astype(np.float32)
