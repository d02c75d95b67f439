"""A figure of the user's own, named by import path: from its rule to its files and the report."""

import pytest

FIGURE = """
from matplotlib.figure import Figure as Drawing

from diem.components import Count, option
from diem.report.figures import Figure, Reads


class Means(Figure):
    name = "means"
    caption = "The means of ``{{ snakemake.wildcards.experiment }}``, in bins."
    reads = Reads(truth=True)
    bins: Count = option(10, "the number of bins")

    def draw(self, source):
        drawing = Drawing()
        drawing.subplots().hist(source.truth[:].mean(axis=1), self.bins)
        return drawing
"""


@pytest.mark.slow
def test_a_figure_of_ones_own(workflow):
    workflow.path("mine.py").write_text(FIGURE)
    workflow.experiment["figures"] = ["corner_truth", {"name": "mine:Means", "bins": 7}]
    files = [f"results/figures/tiny_means.{kind}" for kind in ("pdf", "png")]

    plan = workflow.run("--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "Figure means of tiny" in plan.stdout + plan.stderr
    result = workflow.run(*files)
    assert result.returncode == 0, result.stderr
    assert all(workflow.path(name).stat().st_size > 1000 for name in files)

    report = workflow.run("--report", "report.html", *files)
    assert report.returncode == 0, report.stderr
    html = workflow.path("report.html").read_text(encoding="utf-8")
    assert "in bins." in html


@pytest.mark.slow
def test_a_figure_that_cannot_be_imported_is_told_at_once(workflow):
    workflow.experiment["figures"] = ["mine:Means"]

    result = workflow.run("--dry-run")

    assert result.returncode == 1
    said = result.stdout + result.stderr
    assert "'mine:Means' cannot be imported (there is no module 'mine'" in said


@pytest.mark.slow
def test_a_figure_of_an_unknown_stage_is_told_in_a_sentence(workflow):
    text = FIGURE.replace("Reads(truth=True)", 'Reads(stages=("lasst",))')
    workflow.path("mine.py").write_text(text)
    workflow.experiment["figures"] = ["mine:Means"]

    result = workflow.run("--dry-run")

    assert result.returncode == 1
    said = result.stdout + result.stderr
    assert "Error: figures: a figure reads the stage 'lasst'" in said
    assert "Traceback" not in said
