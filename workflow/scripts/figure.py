"""Draws one figure of an experiment, as PDF and PNG."""

import contextlib
from typing import TYPE_CHECKING

from diem.evaluation.rows import read_rows
from diem.files.hdf5 import Reader, Rows
from diem.jobs.job import job
from diem.report.drawing.style import save
from diem.report.figures.base import Evaluation, Reads, Source, figure_named

if TYPE_CHECKING:
    from snakemake.script import snakemake


with (
    job(snakemake.log[0], snakemake.config["threads"]),
    contextlib.ExitStack() as opened,
):

    def rows(path: str, name: str) -> Rows:
        return opened.enter_context(Rows([path], name, cache_mb=0))

    def evaluation(path: str, reads: Reads) -> Evaluation:
        with Reader(path) as file:
            # There is no truth where there are no clean data.
            names = [name for name in reads.arrays if name in file]
            return Evaluation(
                **{key: file.attribute(key) for key in ("observations", "run", "stage", "lap")},
                arrays={
                    name: rows(path, name)
                    if reads.count is None
                    else file.read(name, slice(reads.count))
                    for name in names
                },
            )

    files, params = snakemake.input, snakemake.params
    metrics, clean = files.get("metrics"), files.get("clean")
    figure = figure_named(params.figure)
    source = Source(
        snakemake.wildcards.experiment,
        params.labels,
        rows=read_rows(metrics) if metrics else None,
        truth=rows(clean, "test/x") if clean else None,
        evaluations=[evaluation(path, figure.reads) for path in files.get("evaluations", [])],
    )
    drawn = figure.draw(source)
    for kind, path in snakemake.output.items():
        save(drawn, path, kind)
