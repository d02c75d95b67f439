"""A prior to give away: weights, what made them and how good they are, in one file with a card.

The workflow knows the metrics of a prior only after the prior is written. :func:`export` puts both
into one safetensors file, and writes the same for human readers beside it.
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from diem.diffusion.outside import SHAPING
from diem.diffusion.prior import read_prior
from diem.em.laps import FINAL
from diem.errors import DiemError
from diem.evaluation.rows import provenance, read_rows
from diem.files.atomic import atomic
from diem.files.hdf5 import Reader
from diem.report.tables.labels import SUBJECTS, metric_label

__all__ = ["card_text", "export"]

USE = """\
```python
import diem

prior = diem.load_prior("{name}")  # an azula denoiser
x = prior.sample(16)
x = prior.posterior(y, operator, sigma_y, 16)  # of observations y = A x + noise
```"""

HEADING = "# Prior "
"""How a card begins."""

SETTINGS = {
    "data": "data",
    "observations": "observations",
    "event_shape": "shape of one x",
    "lap": "lap",
    "chosen_by": "chosen by",
    "training_samples": "training samples",
    "fitted_to": "observations that it was fitted to",
    "optimizer_steps": "optimizer steps",
    "halvings": "times that a diverging loss halved the learning rate",
    "network": "network",
    "schedule": "noise levels",
    "e_step": "E-step",
    "posterior": "posteriors",
    "m_step": "M-step",
    "gaussian": "Gaussian fit",
    "seed": "seed",
    "config_digest": "digest of all settings",
    "version": "diem",
    "versions": "libraries",
    "code": "digest of the code",
    "commit": "commit",
}
"""The settings that the card shows, in its order, with their labels."""


def export(run: str | Path, output: str | Path, lap: int | None = None) -> dict[str, Any]:
    """Writes a run's prior with its metrics: ``output``, and its card as Markdown beside it.

    Arguments:
        run: The run's folder, ``results/<experiment>/runs/<run>``.
        output: The file to write, ``*.safetensors``.
        lap: The lap; without it the one that was chosen by validation observations, or the last.

    Returns:
        The prior's card, with ``metrics``: the rows of its evaluation.

    Raises:
        DiemError: If the run has no such prior, or a file would be overwritten that is another's.
    """
    run, output = Path(run), Path(output)
    if output.suffix != ".safetensors":
        raise DiemError(f"{output}: the name of a prior's file must end in .safetensors.")
    source, beside = _prior_file(run, lap), output.with_suffix(".md")
    if output.resolve().is_relative_to(run.resolve()):
        raise DiemError(
            f"{output}: this is in the run's own folder, give the output a place elsewhere."
        )
    if beside.exists() and not beside.read_bytes().startswith(HEADING.encode()):
        raise DiemError(
            f"{beside}: this file is no card of a prior and would be overwritten, give the output"
            " another name."
        )
    prior = read_prior(source)
    metrics = _metrics_file(run, source, prior.card)
    rows = read_rows([metrics]).to_dict("records") if metrics.is_file() else []
    prior.card |= _drawing(metrics.with_name("evaluation.h5"))
    prior.card["metrics"] = [{k: v for k, v in row.items() if v != ""} for row in rows]
    prior.save(output)
    card = read_prior(output).card
    with atomic(beside) as temporary:
        temporary.write_text(card_text(card, output.name), encoding="utf-8")
    return card


def _drawing(evaluation: Path) -> dict[str, Any]:
    """Returns how an evaluation drew posteriors, for a card; earlier versions do not tell it."""
    if not evaluation.is_file():
        return {}
    with Reader(evaluation) as file:
        told = json.loads(file.attribute("posterior", default="null"))
    return {} if told is None else {"posterior": {key: told[key] for key in SHAPING}}


def _prior_file(run: Path, lap: int | None) -> Path:
    if lap is not None:
        as_others = run / f"lap_{lap:02d}" / "prior.safetensors"
        as_last = run / f"lap_{lap:02d}{FINAL}" / "prior.safetensors"
        return as_last if as_last.is_file() and not as_others.is_file() else as_others
    found = [*run.glob("chosen/prior.safetensors"), *sorted(run.glob("lap_*/prior.safetensors"))]
    if not found:
        raise DiemError(f"{run}: there is no lap with a prior in this folder.")
    return found[0] if found[0].parent.name == "chosen" else found[-1]


def _metrics_file(run: Path, source: Path, card: Mapping[str, Any]) -> Path:
    """Returns the rows of a lap; those of the Gaussian prior lie with the run's observations."""
    if card["lap"] == 0:
        return run.parents[1] / "observations" / card["observations"]["name"] / "floor/metrics.csv"
    if source.parent.name != "chosen":
        return source.with_name("metrics.csv")
    last = card["lap"] == max(card["chosen_by"].get("laps", [0]))
    names = [f"lap_{card['lap']:02d}{end}" for end in ([FINAL, ""] if last else [""])]
    found = [run / name / "metrics.csv" for name in names]
    return next((path for path in found if path.is_file()), found[-1])


def card_text(card: Mapping[str, Any], name: str) -> str:
    """Returns a prior's card for human readers, as Markdown.

    Arguments:
        card: The card of an exported prior.
        name: The name of its file.
    """
    title = "/".join(str(card[key]) for key in ("experiment", "run") if key in card)
    settings = [(label, _on_one_line(card[key])) for key, label in SETTINGS.items() if key in card]
    metrics = [
        (
            SUBJECTS.get(row["subject"], row["subject"]),
            metric_label(row["metric"], row.get("extractor", "")),
            f"{row['value']:.4g}",
            provenance(defaultdict(str, row)),  # empty columns are left out of a card
        )
        for row in card["metrics"]
    ]
    paragraphs = [
        f"{HEADING}{title}, lap {card['lap'] or '0 (Gaussian)'}",
        "A prior of `x` that was learned from observations `y = A x + noise` alone, in the units of"
        " these observations.",
        USE.format(name=name),
        "## What made it",
        tabulate(settings, ("", ""), "pipe", disable_numparse=True),
        "## How good it is",
        tabulate(metrics, ("of", "metric", "value", "made by"), "pipe")
        if metrics
        else "It has not been evaluated.",
    ]
    return "\n\n".join(paragraphs) + "\n"


def _on_one_line(value: Any) -> str:
    """Returns a setting on one line, as YAML would have it, but for the rows of a table."""
    if isinstance(value, Mapping):
        told = {key: child for key, child in value.items() if key != "rows"}
        entries = ", ".join(f"{key}: {_on_one_line(child)}" for key, child in told.items())
        return f"{{{entries}}}"
    return value if isinstance(value, str) else json.dumps(value)
