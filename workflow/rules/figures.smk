from diem.report.figures import files as figure_files
from diem.report.figures.base import figure_named

CAPTIONS = ".snakemake/diem/captions"

try:
    # The entries of every figure that an experiment names, by experiment.
    FIGURES = figure_files.named_figures(CONFIG["experiments"])
except DiemError as error:
    raise WorkflowError(str(error)) from None


# A rule for each figure, so that each has a caption of its own in the report.
for figure, entries in FIGURES.items():

    rule:
        name:
            f"figure_{figure}"
        input:
            unpack(figure_input(entries)),
        output:
            pdf=f"{RESULTS}/figures/{{experiment}}_{figure}.pdf",
            png=shown(
                f"{RESULTS}/figures/{{experiment}}_{figure}.png",
                caption=figure_caption(figure, entries),
                category="{experiment}",
                label=f"figure: {figure}",
            ),
        log:
            f"{RESULTS}/logs/{{experiment}}/figure_{figure}.log",
        wildcard_constraints:
            experiment="|".join(entries),
        conda:
            "../../envs/diem.yaml"
        params:
            figure=figure_entry(entries),
            metrics=lambda wildcards: IN.experiment(wildcards)["evaluation"]["metrics"],
            labels=IN.labels,
            ceilings=IN.ceiling_labels,
            trained=IN.training_sets,
        message:
            f"Figure {figure} of {{wildcards.experiment}}"
        script:
            "../scripts/figure.py"


rule table:
    input:
        lambda wildcards: PATHS.metrics(wildcards.experiment),
    output:
        **table_output(
            "{experiment}",
            category="{experiment}",
            table=("table", "table of the last laps"),
            csv=("table_csv", "table of the last laps"),
            rows=("rows", "table of all metric rows"),
        ),
    log:
        f"{RESULTS}/logs/{{experiment}}/table.log",
    conda:
        "../../envs/diem.yaml"
    params:
        runs=IN.labels_and_covariances,
        metrics=lambda wildcards: IN.experiment(wildcards)["evaluation"]["metrics"],
        ceilings=IN.ceiling_labels,
    message:
        "Table of {wildcards.experiment}"
    script:
        "../scripts/table.py"


rule calibration_table:
    input:
        lambda wildcards: PATHS.metrics(wildcards.experiment),
    output:
        **table_output(
            "{experiment}_calibration",
            category="{experiment}",
            table=("calibration", "table of calibration"),
        ),
    log:
        f"{RESULTS}/logs/{{experiment}}/calibration_table.log",
    conda:
        "../../envs/diem.yaml"
    params:
        labels=IN.labels,
        ceilings=IN.ceiling_labels,
    message:
        "Table of the calibration of {wildcards.experiment}"
    script:
        "../scripts/calibration_table.py"


rule reconstruction_table:
    input:
        lambda wildcards: PATHS.reconstructions(wildcards.experiment),
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
        labels=IN.labels,
        trained=IN.training_sets,
    message:
        "Table of the reconstructions of {wildcards.experiment}"
    script:
        "../scripts/reconstruction_table.py"


rule published:
    input:
        metrics=lambda wildcards: PATHS.metrics(wildcards.experiment),
        published=lambda wildcards: str(PUBLISHED / f"{IN.experiment(wildcards)['published']}.csv"),
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
        runs=lambda wildcards: IN.runs_by_setting(wildcards.experiment),
    message:
        "Published numbers beside those of {wildcards.experiment}"
    script:
        "../scripts/published.py"
