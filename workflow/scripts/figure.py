"""Draws one figure of an experiment, as PDF and PNG."""

import contextlib
from typing import TYPE_CHECKING

from diem.files.hdf5 import Reader, Rows
from diem.jobs.job import job
from diem.report import figures, tables

if TYPE_CHECKING:
    from snakemake.script import snakemake


with (
    job(snakemake.log[0], snakemake.config["threads"]),
    contextlib.ExitStack() as opened,
):

    def rows(path: str, name: str) -> Rows:
        return opened.enter_context(Rows([path], name, cache_mb=0))

    def evaluation(path: str, figure: str) -> figures.Evaluation:
        names, count = figures.READS[figure]
        with Reader(path) as file:
            # There is no truth where there are no clean data.
            names = [name for name in names if name in file]
            return figures.Evaluation(
                **{key: file.attribute(key) for key in ("observations", "run", "stage", "lap")},
                arrays={
                    name: rows(path, name) if count is None else file.read(name, slice(count))
                    for name in names
                },
            )

    files, params = snakemake.input, snakemake.params
    metrics, clean = files.get("metrics"), files.get("clean")
    source = figures.Source(
        snakemake.wildcards.experiment,
        params.labels,
        rows=tables.read_rows(metrics) if metrics else None,
        truth=rows(clean, "test/x") if clean else None,
        evaluations=[evaluation(path, params.figure) for path in files.get("evaluations", [])],
    )
    figure = figures.FIGURES[params.figure](source)
    for kind, path in snakemake.output.items():
        figures.save(figure, path, kind)
