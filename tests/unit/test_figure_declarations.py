"""A figure is one declaration: what it reads, what it needs, its caption, and how it is drawn."""

import ast
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from docutils import nodes
from docutils.core import publish_doctree

from diem.errors import DiemError
from diem.files.tables import write_csv
from diem.report import figures
from diem.report.drawing.losses import overfitting
from diem.report.drawing.style import save
from diem.report.figures import FIGURES, Evaluation, Facts, Losses, Reads, Source
from diem.report.figures.base import ByLap, check_figures, figure_named
from diem.report.figures.files import evaluated, named_figures, opened, write_caption

NAMES = (
    *(
        "evolution",
        "evolution_posterior",
        "corner_truth",
        "corner_model",
        "divergence",
        "distance",
        "lap_choice",
    ),
    *("prior", "inpainting", "slices", "uncertainty", "calibration", "losses"),
)
STAGES = {"floor": 0, "lap": 2, "ceiling": 0}
MASK = SimpleNamespace(keeps_shape=True, kspace=False)
FOURIER = SimpleNamespace(keeps_shape=False, kspace=True)
UNKNOWN = SimpleNamespace(keeps_shape=None, kspace=False)

OWN = '''
from matplotlib.figure import Figure as Drawing

from diem.components import Count, option
from diem.report.figures import Figure, Reads


class Means(Figure):
    """The mean of the clean test data."""

    name = "means"
    caption = "Means of ``{{ snakemake.wildcards.experiment }}``."
    reads = Reads(truth=True)
    bins: Count = option(10, "the number of bins")

    def draw(self, source):
        drawing = Drawing()
        drawing.subplots().hist(source.truth[:].mean(axis=1), self.bins)
        return drawing


class Other(Means):
    reads = Reads()
'''


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's own, beside the configuration."""
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.setenv("DIEM_PATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    yield tmp_path
    sys.modules.pop("mine", None)


def source_of(name: str) -> Source:
    """Returns a tiny source that holds what a figure's declaration says that it reads."""
    figure = figure_named(name)
    reads, rng = figure.reads, np.random.default_rng(0)
    vectors = figure.problem(Facts((5,))) is None and not reads.rows
    shape = (5,) if vectors else (1, 8, 8)
    count = reads.count or 20
    arrays = {
        "prior/x": rng.standard_normal((count, *shape)),
        "e_step/x": rng.standard_normal((count, *shape)),
        "posterior/x": rng.standard_normal((count, 3, *shape)),
        "posterior/y": rng.standard_normal((count, 2 if name == "slices" else 1, *shape[1:])),
        "posterior/observed": rng.random((count, 1, *shape[1:])) < 0.5,
        "posterior/adjoint": rng.standard_normal((count, *shape)),
        "posterior/truth": rng.standard_normal((count, *shape)),
        "calibration/values": rng.random((count, *shape)),
        "calibration/total": rng.random(count),
        "calibration/distance": rng.random(count),
    }
    wanted = {"laps": "lap", "last": "lap", "reconstructions": "lap"}
    stages = dict.fromkeys(wanted.get(stage, stage) for stage in reads.stages)
    evaluations = [
        Evaluation(*("half", "base" if stage == "lap" else stage), stage, STAGES[stage],
                   {key: arrays[key] for key in reads.arrays})
        for stage in stages
    ]  # fmt: skip
    card = dict.fromkeys(("extractor", "reference", "reference_samples"), "")
    card |= {"subject": "prior", "samples": 4, "split": "none", "sampler": "ddim", "seed": 1}
    card |= {"sampler_steps": 3, "denoiser_evaluations": 4, "observations": "half"}
    card |= {"standard_error": ""}
    rows = [
        {**card, "run": "base", "stage": stage, "lap": lap, "metric": metric, "value": 2.0 + lap}
        for metric in (figure.shown(()) if isinstance(figure, ByLap) else ())
        for stage, lap in STAGES.items()
    ]
    truth = rng.standard_normal((20, *shape)) if reads.truth else None
    losses = [Losses("base", lap, losses_of([0.9, 0.8, 0.7])) for lap in (1, 2) if reads.losses]
    return Source(
        *("tiny", {"base": "MMPS"}, pd.DataFrame(rows), truth),
        losses,
        chosen={"base": 2} if reads.chosen else {},
        trained={"base": "half"},
        evaluations=evaluations,
    )


def losses_of(validation: list[float]) -> pd.DataFrame:
    """Returns a loss curve of a lap with some validation losses."""
    steps = [64.0 * (n + 1) for n in range(len(validation))]
    losses = {"loss": 0.5, "validation_loss": validation, "learning_rate": 0.001}
    return pd.DataFrame({"step": steps, **losses})


def test_the_figures_are_the_files():
    assert sorted(NAMES) == FIGURES.names
    assert all(cls.name == name for name, cls in FIGURES.all().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_is_drawn_from_what_it_reads(name, tmp_path):
    figure = figure_named(name)

    drawn = figure.draw(source_of(name))

    assert drawn.get_suptitle().startswith("tiny: ")
    save(drawn, tmp_path / "figure.png", "png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize("name", NAMES)
def test_every_caption_is_text_for_the_report(name):
    figure = FIGURES.find(name)()

    assert len(figure.caption.split()) > 15
    assert not list(publish_doctree(figure.told).findall(nodes.system_message))
    # Metric rows are means over seeds; samples and losses are of one.
    reads = figure.reads
    one = bool(reads.stages or reads.losses or reads.truth)
    assert figure.told.endswith("\nOf several seeds it shows the first.\n") == one


def test_declarations_import_nothing_that_takes_long():
    code = (
        "import sys; from diem.report.figures import FIGURES; FIGURES.all();"
        "print({'torch', 'matplotlib', 'pandas', 'h5py'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr


def test_no_other_file_knows_the_name_of_a_figure():
    """Of the library; a word such as ``prior`` is no name of a figure alone."""
    library = Path(figures.__file__).parents[2]
    names = {*NAMES} - {"prior", "divergence", "slices", "distance", "calibration", "losses"}
    for path in library.rglob("*.py"):
        # What `diem init` writes is a configuration, which names figures.
        if path.parent.name != "figures" and path.name != "beginning.py":
            found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            known = {node.value for node in found if isinstance(node, ast.Constant)} & names
            assert not known, (path, known)


# What a figure needs

ALL = {"sliced_wasserstein", "fid", "prediction"}


@pytest.mark.parametrize(
    ("facts", "possible"),
    [
        (
            Facts((5,), ALL, operators={"line": FOURIER}),
            {*("evolution", "evolution_posterior", "corner_truth", "corner_model"), "prior"},
        ),
        (Facts((5,), ALL, clean=False), {"evolution", "evolution_posterior", "prior"}),
        (Facts((1,), ALL), {"prior"}),
        (Facts((1, 8, 8), ALL, operators={"half": MASK}), {"prior", "inpainting"}),
        (Facts((3, 8, 8), ALL, operators={"mine": UNKNOWN}), {"prior", "inpainting"}),
        (Facts((1, 8, 8), ALL, operators={"r": FOURIER}), {"prior", "slices"}),
        (Facts((1, 8, 8), ALL, operators={"r": FOURIER, "m": MASK}), {"prior"}),
        (
            Facts((2, 8, 8), ALL, operators={"r": FOURIER}, reconstructs=True),
            {"slices", "uncertainty"},
        ),
        (Facts((1, 8, 8), ALL, clean=False, operators={"r": FOURIER}), {"prior"}),
    ],
)
def test_what_can_be_drawn(facts, possible):
    always = {"divergence", "distance", "lap_choice", "losses"}
    assert {n for n in NAMES if not figure_named(n).problem(facts)} == possible | always


def test_what_cannot_be_drawn_is_told_with_what_can():
    facts = Facts((1, 8, 8), {"fid"}, operators={"small": FOURIER})

    check_figures(["prior", "distance"], facts, "mine.yaml: experiments.a.figures")
    with pytest.raises(DiemError) as error:
        check_figures(["prior", "inpainting"], facts, "mine.yaml: experiments.a.figures")

    assert str(error.value) == (
        "mine.yaml: experiments.a.figures: 'inpainting' cannot be drawn: it needs observations of"
        " the data's shape, and those of observations.small have another (what can: distance,"
        " losses, prior, slices)."
    )
    with pytest.raises(DiemError, match=r"'divergence'.*needs evaluation\.metrics with sinkhorn"):
        check_figures(["divergence"], facts, "figures")


# What a figure reads


RUNS = {
    "a": {"observations": "half", "laps": 4},
    "b": {"observations": "half", "laps": 2},
    "c": {"observations": "few", "laps": 2},
}
EXPERIMENT = {"runs": RUNS, "evaluation": {"laps": [1], "reconstruct": ["few", "half"]}}


@pytest.mark.parametrize(
    ("reads", "ceiling", "expected"),
    [
        (Reads(), True, []),
        (
            Reads(stages=("floor", "laps")),
            True,
            [("floor", "a", "half", 0), ("lap", "a", "half", 1), ("lap", "a", "half", 4)],
        ),
        (Reads(stages=("last",)), True, [("lap", "a", "half", 4)]),
        (
            Reads(stages=("last", "ceiling"), every=True),
            True,
            [
                *(("lap", "a", "half", 4), ("ceiling", "a", "half", 0)),
                *(("lap", "c", "few", 2), ("ceiling", "c", "few", 0)),
            ],
        ),
        (Reads(stages=("last", "ceiling")), False, [("lap", "a", "half", 4)]),
        (
            Reads(stages=("reconstructions",)),
            True,
            [("reconstruction", "a", "few", 4), ("reconstruction", "a", "half", 4)],
        ),
    ],
)
def test_evaluations_are_of_the_runs_and_stages_that_are_read(reads, ceiling, expected):
    assert evaluated(reads, EXPERIMENT, ceiling) == expected


def test_an_unknown_stage_is_told():
    with pytest.raises(DiemError, match=r"'lap', which is none of floor, laps"):
        evaluated(Reads(stages=("lap",)), EXPERIMENT, True)


def test_a_caption_is_written_where_it_differs(tmp_path):
    path = write_caption("means", "Means.", tmp_path / "captions")
    before = path.stat().st_mtime_ns
    assert write_caption("means", "Means.", tmp_path / "captions") == path
    assert path.stat().st_mtime_ns == before
    write_caption("means", "Other means.", tmp_path / "captions")
    assert path.read_text() == "Other means."


# What the figure of losses says

FALLS, FLAT, RISES = [0.9, 0.8, 0.7], [0.9, 0.7, 0.71], [0.9, 0.5, 0.6]


@pytest.mark.parametrize(
    ("laps", "told", "rising"),
    [
        ([FALLS, FLAT], "no lap overfits", []),
        (
            [FALLS, RISES, [0.9, 0.8, 0.88]],
            "2 of 3 laps overfit: lap 2 ends 20 % above its lowest validation loss",
            [[0.5, 0.6], [0.8, 0.88]],
        ),
    ],
)
def test_overfitting_is_a_validation_loss_that_ends_above_its_lowest(laps, told, rising):
    losses = [Losses("base", lap, losses_of(curve)) for lap, curve in enumerate(laps, 1)]

    assert overfitting(losses) == told
    drawn = figure_named("losses").draw(Source("tiny", {"base": "MMPS"}, losses=losses))

    (ax,) = drawn.axes
    assert ax.get_title(loc="left") == f"base (MMPS): {told}"
    # Laps stand side by side, and what rises is drawn again from its lowest on.
    widest = [line for line in ax.lines if line.get_linewidth() > 2]
    assert [list(line.get_ydata()) for line in widest] == rising
    assert ax.get_xlim() == (0, 192 * len(laps))


def test_losses_are_read_by_run_and_lap_with_the_chosen_lap(tmp_path):
    files = []
    for lap in ("01", "02_final"):
        folder = tmp_path / "tiny" / "runs" / "base" / f"lap_{lap}"
        folder.mkdir(parents=True)
        losses_of(FALLS).to_csv(folder / "losses.csv", index=False)
        files.append(str(folder / "losses.csv"))
    chosen = tmp_path / "tiny_chosen_lap.csv"
    laps = [{"run": "base", "lap": lap, "verdict": v} for lap, v in ((1, "chosen"), (2, "tie"))]
    write_csv(chosen, pd.DataFrame(laps))
    reads, labels = figure_named("losses").reads, {"base": "MMPS"}

    def read():
        found = {"losses": files, "chosen": str(chosen)}
        with opened(reads, "tiny", labels, (), {}, {}, found) as source:
            return source

    source = read()
    assert [(each.run, each.lap, len(each.curve)) for each in source.losses] == [
        *(("base", 1, 3), ("base", 2, 3))
    ]
    assert source.chosen == {"base": 1}
    header = "step,loss,validation_loss,learning_rate"
    for content in ("", "step,loss\n64,0.5\n", f"{header}\n64,0.5,,0.1\n"):
        Path(files[1]).write_text(content)
        with pytest.raises(DiemError, match=r"lap_02_final/losses.csv: this is no table of losses"):
            read()


# A figure of the user's own


def test_entries_are_gathered_by_the_figures_names(mine):
    own = {"name": "mine:Means", "bins": 3}
    experiments = {"a": {"figures": ["prior", own]}, "b": {"figures": ["mine:Means"]}}

    entries = named_figures(experiments)

    assert entries == {"prior": {"a": "prior"}, "means": {"a": own, "b": "mine:Means"}}
    assert figure_named(own).bins == 3


@pytest.mark.parametrize(
    "experiments",
    [
        {"a": ["mine:Means", "mine:Other"]},
        {"a": ["mine:Means"], "b": ["mine:Other"]},
        {"a": ["mine:Means", {"name": "mine:Means", "bins": 3}]},
    ],
)
def test_two_figures_of_one_name(mine, experiments):
    experiments = {name: {"figures": specs} for name, specs in experiments.items()}
    with pytest.raises(DiemError, match="would both be called 'means'"):
        named_figures(experiments)


def test_figures_that_are_incomplete(mine):
    (mine / "mine.py").write_text(
        "from diem.report.figures import Figure, Reads\n"
        "class Bare(Figure): pass\n"
        "class Half(Figure):\n    def draw(self, source): pass\n"
        "class Named(Half):\n    name, caption, reads = 'a b', 'c', Reads()\n"
    )
    for name, words in (
        ("mine:Bare", "does not define draw"),
        ("mine:Half", "does not define name, caption, reads"),
        ("mine:Named", "is called 'a b', and must have a name of letters"),
        ("mine:Nothing", "is no subclass of diem.report.figures.base.Figure"),
        ("divergences", "which is unknown.*divergence"),
    ):
        with pytest.raises(DiemError, match=words):
            figure_named(name)


def test_a_metric_of_the_users_own_is_drawn_where_its_declaration_says(mine):
    (mine / "mine.py").write_text(
        "from diem.evaluation.metrics import Label, Metric, Panel\n"
        "class Own(Metric):\n"
        "    name, subject, panel = 'own', 'samples', Panel('divergence')\n"
        "    labels = {'own': Label('My number', 'apples', '↑')}\n"
        "    def measure(self, *arguments): return []\n"
    )
    entries = [{"name": "mine:Own"}]
    source = source_of("divergence")
    rows = source.rows[source.rows["metric"] == "sliced_wasserstein"].assign(metric="own")

    assert figure_named("divergence").problem(Facts((5,), entries)) is None
    drawn = figure_named("divergence").draw(replace(source, rows=rows, metrics=entries))

    assert [ax.get_ylabel() for ax in drawn.axes] == ["My number\n(apples) ↑"]
