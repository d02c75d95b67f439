"""Gathers figures, tables, captions and outcomes on one page."""

from typing import TYPE_CHECKING

from diem.config.paths import Paths
from diem.jobs.job import started
from diem.paper.heuristics.outcome import of_heuristics
from diem.paper.restoration.outcome import of_restoration
from diem.report.page.costs import cost_table
from diem.report.page.outcomes import of_experiment
from diem.report.page.writing import Run, gather, write_page
from diem.versions import commit, versions

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    params, page = snakemake.params, snakemake.output[0]
    config, parts = params.config, params.parts
    entry = snakemake.wildcards.get("entry")
    # A workflow of which this one is a module may have the results in another folder.
    results = page.removesuffix(Paths({**config, "results": ""}).page(entry))
    paths = Paths({**config, "results": results})

    def outcome(section, name):
        """Returns what came out of an entry, if its section tells."""
        told = config.get(section, {}).get(name)
        if section == "experiments":
            rows = paths.table(name, rows=True)[-1]
            chosen = paths.table(f"{name}_chosen_lap")[0] if paths.selects(name) else None
            return of_experiment(name, told, rows, chosen)
        if section == "heuristics":
            return of_heuristics(name, paths.table(f"heuristics_{name}")[0])
        if section == "restoration":
            return of_restoration(name, told, paths.table(f"restoration_{name}", rows=True)[-1])
        return None

    found = [outcome(part["section"], part["name"]) for part in parts]
    write_page(
        page,
        Run(config, params.source, commit(), params.introduction, versions(), entry or ""),
        [gather(part, config, results, page) for part in parts],
        [each for each in found if each is not None],
        cost_table(f"{results}/logs", config),
    )
