from diem.report.figures import files as figure_files
from diem.report.figures.base import figure_named

CAPTIONS = ".snakemake/diem/captions"

try:
    # The entries of every figure that an experiment names, by experiment.
    FIGURES = figure_files.named_figures(EXPERIMENTS)
except DiemError as error:
    raise WorkflowError(str(error)) from None

TARGETS = [
    f"{RESULTS}/figures/{experiment}_{figure}.{kind}"
    for figure, entries in FIGURES.items()
    for experiment in entries
    for kind in ("pdf", "png")
] + [
    f"{RESULTS}/tables/{experiment}{ending}"
    for experiment in EXPERIMENTS
    for ending in (".csv", ".md", ".tex", ".html", "_rows.csv")
]
TARGETS += [
    f"{RESULTS}/tables/{experiment}_published.{kind}"
    for experiment, entry in EXPERIMENTS.items()
    if "published" in entry
    for kind in ("csv", "md", "tex", "html")
]


def evaluation_path(experiment, found):
    """Returns the file of one of the evaluations that a figure reads."""
    name = "evaluation.h5"
    if found.stage == "lap":
        return lap_path(experiment, found.run, found.lap, name)
    if found.stage == "reconstruction":
        return reconstruction_path(experiment, found.run, found.observations, name)
    return observations_path(experiment, found.observations, f"{found.stage}/{name}")


def figure_input(entries):
    """Returns the input function of a figure's rule: what its declaration says that it reads."""

    def look_up(wildcards):
        experiment, files = wildcards.experiment, {}
        reads = figure_named(entries[experiment]).reads
        if reads.rows:
            files["metrics"] = metrics_paths(experiment)
        if reads.truth:
            files |= clean_input(experiment)
        if reads.stages:
            ceiling = "ceiling" in bounds_of(experiment)
            found = figure_files.evaluated(reads, EXPERIMENTS[experiment], ceiling)
            files["evaluations"] = [evaluation_path(experiment, each) for each in found]
        return files

    return look_up


def figure_entry(entries):
    return lambda wildcards: entries[wildcards.experiment]


def figure_caption(figure, entries):
    """The report takes captions from files, and a figure declares its own beside its code."""
    text = figure_named(next(iter(entries.values()))).caption
    return str(figure_files.write_caption(figure, text, CAPTIONS))


# A rule for each figure, so that each has a caption of its own in the report.
for figure, entries in FIGURES.items():

    rule:
        name:
            f"figure_{figure}"
        input:
            unpack(figure_input(entries)),
        output:
            pdf=f"{RESULTS}/figures/{{experiment}}_{figure}.pdf",
            png=report(
                f"{RESULTS}/figures/{{experiment}}_{figure}.png",
                caption=figure_caption(figure, entries),
                category="{experiment}",
                labels={"result": f"figure: {figure}", "format": "png"},
            ),
        log:
            f"{RESULTS}/logs/{{experiment}}/figure_{figure}.log",
        wildcard_constraints:
            experiment="|".join(entries),
        conda:
            "../../envs/diem.yaml"
        params:
            figure=figure_entry(entries),
            labels=lambda wildcards: {
                name: run["label"] for name, run in experiment_of(wildcards)["runs"].items()
            },
        message:
            f"Figure {figure} of {{wildcards.experiment}}"
        script:
            "../scripts/figure.py"


rule table:
    input:
        lambda wildcards: metrics_paths(wildcards.experiment),
    output:
        **table_output(
            "{experiment}",
            category="{experiment}",
            table=("table", "table"),
            csv=("table_csv", "table"),
            rows=("rows", "table of all metric rows"),
        ),
    log:
        f"{RESULTS}/logs/{{experiment}}/table.log",
    conda:
        "../../envs/diem.yaml"
    params:
        runs=lambda wildcards: {
            name: {"label": run["label"], "covariance": run["e_step"]["covariance"]}
            for name, run in experiment_of(wildcards)["runs"].items()
        },
    message:
        "Table of {wildcards.experiment}"
    script:
        "../scripts/table.py"


TARGETS += [
    f"{RESULTS}/tables/{experiment}_reconstructions{ending}"
    for experiment, entry in EXPERIMENTS.items()
    if entry["evaluation"]["reconstruct"]
    for ending in (".csv", ".md", ".tex", ".html", "_rows.csv")
]


rule reconstruction_table:
    input:
        reconstructions,
    output:
        **table_output(
            "{experiment}_reconstructions",
            category="{experiment}",
            table=("reconstructions", "table of reconstructions"),
            rows="plain",
        ),
    log:
        f"{RESULTS}/logs/{{experiment}}/reconstruction_table.log",
    conda:
        "../../envs/diem.yaml"
    params:
        labels=lambda wildcards: {
            name: run["label"] for name, run in experiment_of(wildcards)["runs"].items()
        },
        trained=lambda wildcards: {
            name: run["observations"] for name, run in experiment_of(wildcards)["runs"].items()
        },
    message:
        "Table of the reconstructions of {wildcards.experiment}"
    script:
        "../scripts/reconstruction_table.py"


rule published:
    input:
        metrics=lambda wildcards: metrics_paths(wildcards.experiment),
        published=lambda wildcards: published_path(wildcards.experiment),
    output:
        **table_output(
            "{experiment}_published",
            category="{experiment}",
            table=("published", "table beside the published numbers"),
        ),
    log:
        f"{RESULTS}/logs/{{experiment}}/published.log",
    conda:
        "../../envs/diem.yaml"
    params:
        runs=lambda wildcards: runs_by_setting(wildcards.experiment),
    message:
        "Published numbers beside those of {wildcards.experiment}"
    script:
        "../scripts/published.py"
