"""The page itself: everything gathered, and put into the template."""

import base64
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diem import __version__
from diem.errors import DiemError
from diem.files.atomic import REMEDY, atomic
from diem.report.page.captions import plain, render
from diem.report.page.outcomes import Outcome
from diem.report.page.tables import Table, read_table

__all__ = ["Part", "Run", "Shown", "gather", "write_page"]

KINDS = {
    "experiments": "Experiment",
    "heuristics": "Heuristics",
    "restoration": "Posterior samplers",
    "posterior": "Posterior samples",
    "paper": "Beside the paper",
}
"""What the parts of a page are called, by their sections."""

ENDINGS = {"pdf": "PDF", "csv": "CSV", "md": "Markdown", "tex": "LaTeX"}
"""The other formats of what is shown, by the endings of their files."""

DPI = 96
"""Points of a screen that an inch has in HTML."""


@dataclass(frozen=True)
class Run:
    """What is told of the run as a whole.

    Attributes:
        config: Its resolved configuration; for the page of one entry without the others.
        source: The file that it was read from.
        commit: The commit of the workflow, if it lies in a clone.
        introduction: The report's introduction, as for :func:`diem.report.page.captions.render`.
        versions: The versions of libraries by name.
        entry: The entry that the page is of, if it is of one.
    """

    config: Mapping[str, Any]
    source: str
    commit: str | None
    introduction: str
    versions: Mapping[str, str]
    entry: str = ""


class Image(NamedTuple):
    """A picture, with its size in the points of a screen."""

    data: str
    width: int
    height: int


class Shown(NamedTuple):
    """A figure or a table with its caption, and links to its other formats."""

    id: str
    title: str
    caption: Markup
    alt: str
    links: list[tuple[str, str]]
    image: Image | None
    table: Table | None


class Part(NamedTuple):
    """A section of the page."""

    id: str
    kind: str
    title: str
    about: str
    shown: list[Shown]


def gather(
    part: Mapping[str, Any], config: Mapping[str, Any], results: str | Path, page: str | Path
) -> Part:
    """Reads what a part of the page shows.

    Arguments:
        part: What :func:`diem.config.pages.page_parts` returns of it.
        config: The resolved configuration.
        results: The folder of the results.
        page: The page, which links are relative to.

    Raises:
        DiemError: If a file is damaged, or a caption cannot be rendered.
    """
    section, name = part["section"], part["name"]
    kind = KINDS[section]
    shown = []
    for told in part["shown"]:
        path, title = Path(results, told["path"]), told["title"]
        _, caption = render(told["caption"], part["wildcards"], config, told["path"])
        image = read_image(path) if path.suffix == ".png" else None
        others = [(text, path.with_suffix(f".{end}")) for end, text in ENDINGS.items()]
        others.append(("all rows (CSV)", path.with_name(f"{path.stem}_rows.csv")))
        links = [(text, _link(other, page)) for text, other in others if other.is_file()]
        alt = f"{name or kind}, {title}: {plain(caption)}"
        table = None if image else read_table(path)
        shown.append(
            Shown(f"{path.parent.name}-{path.stem}", title, caption, alt, links, image, table)
        )
    title = name or kind
    about = _about(section, config[section][name]) if name else ""
    return Part(f"{section}-{name}" if name else section, kind, title, about, shown)


def read_image(path: Path) -> Image:
    """Reads a PNG, for a page that holds it itself.

    Raises:
        DiemError: If it is none.
    """
    try:
        data = path.read_bytes()
        if data[:8] != b"\x89PNG\r\n\x1a\n":
            raise ValueError
        width, height = struct.unpack(">II", data[16:24])
    except (OSError, ValueError, struct.error):
        raise DiemError(f"{path}: this is no PNG image: {REMEDY}.") from None
    per_inch = DPI
    if (place := data.find(b"pHYs")) > 0:
        per_metre, _, unit = struct.unpack(">IIB", data[place + 4 : place + 13])
        per_inch = per_metre * 0.0254 if unit == 1 and per_metre else DPI
    size = (max(1, round(pixels * DPI / per_inch)) for pixels in (width, height))
    return Image(f"data:image/png;base64,{base64.b64encode(data).decode()}", *size)


def _link(path: Path, page: str | Path) -> str:
    return quote(Path(os.path.relpath(path, Path(page).parent)).as_posix())


def _about(section: str, entry: Mapping[str, Any]) -> str:
    """Returns in words what an entry of the configuration asks for."""
    if section == "experiments":
        sets = [f"{name} ({_observing(told)})" for name, told in entry["observations"].items()]
        laps = " or ".join(str(n) for n in dict.fromkeys(r["laps"] for r in entry["runs"].values()))
        return (
            f"Data: {entry['data']['name']}. Observations: {'; '.join(sets)}."
            f" Network: {_named(entry['network'])}. Runs: {', '.join(entry['runs'])}, of {laps}"
            " laps."
        )
    if section == "heuristics":
        return (
            f"{entry['cases']} random cases at {len(entry['sigmas'])} noise levels;"
            f" covariances: {', '.join(entry['covariances'])}."
        )
    if section == "restoration":
        tasks = [f"{name} ({_observing(told)})" for name, told in entry["tasks"].items()]
        return (
            f"Data: {entry['data']['name']}, {entry['images']} images. Tasks: {'; '.join(tasks)}."
            f" Methods: {', '.join(entry['methods'])}, with"
            f" {', '.join(str(n) for n in entry['steps'])} steps."
        )
    prior = entry["prior"]
    if not isinstance(prior, str):
        lap = "" if prior["lap"] is None else f", lap {prior['lap']}"
        prior = f"{prior['experiment']}/{prior['run']}{lap}"
    return f"Observations: {entry['observations']}. Prior: {prior}."


def _named(spec: Any) -> str:
    return spec["name"] if isinstance(spec, Mapping) else str(spec)


def _observing(told: Mapping[str, Any]) -> str:
    """Returns an operator with its options and the noise, in words."""
    operator = told.get("operator")
    words = []
    if isinstance(operator, Mapping):
        options = [f"{key} {value}" for key, value in operator.items() if key != "name"]
        words.append(" ".join([operator["name"], *options]))
    elif operator:
        words.append(str(operator))
    if told.get("sigma_y") is not None:
        words.append(f"noise {told['sigma_y']}")
    return ", ".join(words) or "as the file tells"


def _lead(run: Run) -> str:
    """Returns in a sentence what was run."""
    config, counts = run.config, []
    for section, one, many in (
        ("experiments", "experiment", "experiments"),
        ("heuristics", "comparison of heuristics", "comparisons of heuristics"),
        ("restoration", "comparison of posterior samplers", "comparisons of posterior samplers"),
        ("posterior", "set of posterior samples", "sets of posterior samples"),
    ):
        if names := list(config[section]):
            counts.append(f"{len(names)} {one if len(names) == 1 else many} ({', '.join(names)})")
    seeds = config["seeds"] or [config["seed"]]
    told = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    commit = f", commit {run.commit}" if run.commit else ""
    return f"{', '.join(counts)} of {run.source}, {told}; written by diem {__version__}{commit}."


def write_page(
    path: str | Path,
    run: Run,
    parts: Sequence[Part],
    outcomes: Sequence[Outcome],
    costs: Table | None,
) -> None:
    """Writes a page, whole or not at all; the same results give the same bytes.

    Arguments:
        path: The file.
        run: What is told of the run as a whole.
        parts: The sections of the page, in its order.
        outcomes: What came out of entries that have parts.
        costs: What the stages took, if that is known.
    """
    introduction = render(run.introduction, {}, run.config, "the report")
    environment = Environment(
        autoescape=True,
        loader=PackageLoader("diem.report.page", ""),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    text = environment.get_template("page.html.j2").render(
        title=f"{run.entry}: {introduction.title}" if run.entry else introduction.title,
        introduction=introduction,
        lead=_lead(run),
        parts=parts,
        outcomes=outcomes,
        costs=costs,
        configuration=yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True),
        versions={"diem": __version__, **run.versions},
        commit=run.commit,
    )
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
