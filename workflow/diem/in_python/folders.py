"""The folder of a fit: where results lie, and whether a call may go on with what is there."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from diem.components import short
from diem.em.laps import without_batch
from diem.errors import DiemError
from diem.files.atomic import atomic
from diem.files.tensors import content_digest
from diem.in_python.settings import EXPERIMENT
from diem.jobs.code import own_digest
from diem.jobs.results import hold
from diem.jobs.resume import fingerprint
from diem.operators import Operator
from diem.operators.verify import PROBED

__all__ = ["OBSERVED", "PRIOR", "made_of", "placed_in", "prepared", "workplace"]

CONFIG, OBSERVED, PRIOR, RECORD = (
    *("config.yaml", "observations.h5", "prior.safetensors"),
    ".diem.fit.json",
)
"""The files of a fit's folder beside the workflow's."""


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """Yields a temporary folder, which no sentence of an error names."""
    with tempfile.TemporaryDirectory(prefix="diem-") as name:
        try:
            yield Path(name)
        except DiemError as error:
            raise DiemError(str(error).replace(f"{name}/", "")) from None


def placed_in(config: dict[str, Any], folder: Path) -> None:
    """Has a resolved configuration write its results to a folder.

    Its file of observations is the one there.
    """
    config["results"] = str(folder)
    config["experiments"][EXPERIMENT]["data"]["path"] = OBSERVED


def made_of(
    config: Mapping[str, Any], observed: Path, operator: Operator, device: torch.device
) -> dict[str, Any]:
    """Returns all that the numbers of a fit depend on, but for the number of laps.

    Arguments:
        config: The resolved configuration.
        observed: The file of observations.
        operator: Their operators: what they make of some vectors tells them apart, whatever their
            code looks like.
        device: The device.
    """
    experiment = config["experiments"][EXPERIMENT]
    data = {key: value for key, value in experiment["data"].items() if key != "path"}
    runs = {name: _of_numbers(entry) for name, entry in experiment["runs"].items()}
    of_numbers = {**_of_numbers(experiment), "data": data, "runs": runs}
    # What the operator does is told below, whatever its code looks like.
    of_learning = {key: value for key, value in of_numbers.items() if key != "observations"}
    some = operator.to("cpu")[:PROBED]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(PROBED, *some.event_shape, generator=generator)[: max(len(some), 1)]
    seen = some.forward(x).contiguous().numpy().tobytes().hex()
    return {
        "settings": {**of_numbers, "threads": config["threads"]},
        "seed": config["seed"],
        "observations": content_digest([observed]),
        "operator": content_digest([], seen),
        "software": fingerprint([], own_digest([of_learning]), device=device),
    }


def _of_numbers(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Returns of an experiment or a run what the numbers of its laps depend on."""
    kept = {key: value for key, value in entry.items() if key not in ("figures", "laps")}
    return {**kept, "e_step": without_batch(entry["e_step"])}


@contextlib.contextmanager
def prepared(
    folder: Path, config: Mapping[str, Any], observed: Path, known: Mapping[str, Any]
) -> Iterator[None]:
    """Makes a folder one of this fit, or finds that it is, and holds it.

    Arguments:
        folder: The folder.
        config: The configuration as it would be written.
        observed: The file of observations, which is copied.
        known: What the numbers depend on, see :func:`made_of`.

    Raises:
        DiemError: If the folder cannot be used, or holds results of another fit or of the workflow.
    """
    record = folder / RECORD
    with hold(folder, "folder"):
        if record.is_file():
            _compare(folder, _read(record), json.loads(json.dumps(known)))
        elif any(not path.name.startswith(".") for path in folder.iterdir()):
            raise DiemError(
                f"folder: {str(folder)!r} holds results of the workflow, choose another folder."
            )
        else:
            with atomic(record) as temporary:
                temporary.write_text(json.dumps(known), encoding="utf-8")
        if not (folder / OBSERVED).is_file():
            with atomic(folder / OBSERVED) as temporary:
                shutil.copyfile(observed, temporary)
        written = {**config, "results": str(folder)}
        written["experiments"][EXPERIMENT]["data"]["path"] = str(folder / OBSERVED)
        with atomic(folder / CONFIG) as temporary:
            temporary.write_text(yaml.safe_dump(written, sort_keys=False), encoding="utf-8")
        yield


def _read(record: Path) -> Any:
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except ValueError:
        raise DiemError(
            f"folder: {record} is damaged, so that nobody knows what the results are of: choose"
            " another folder."
        ) from None


WORDS = {
    "observations": "of other observations, or another sigma_y",
    "operator": "of another operator",
    "seed": "with another seed",
    "software": "by another version of diem, of its libraries or of your own code, or on another"
    " kind of device",
}


def _compare(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses a folder whose results were learned of other things."""
    for key in ("observations", "operator", "seed", "settings", "software"):
        if before.get(key) == now[key]:
            continue
        words = WORDS.get(key) or _difference(before.get(key), now[key], "settings")
        raise DiemError(
            f"folder: {str(folder)!r} holds what was learned {words}: choose another folder, or"
            " give the arguments of before."
        )


def _difference(before: Any, now: Any, place: str) -> str:
    """Returns where two settings differ first."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        key = min(key for key in {*before, *now} if before.get(key) != now.get(key))
        return _difference(before.get(key), now.get(key), f"{place}.{key}")
    return f"with {place} {short(before)} rather than {short(now)}"
