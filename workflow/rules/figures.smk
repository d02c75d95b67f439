include: "figure_inputs.smk"


TARGETS = [
    f"{RESULTS}/figures/{experiment}_{figure}.{kind}"
    for experiment, entry in EXPERIMENTS.items()
    for figure in entry["figures"]
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


# A rule for each figure, so that each has a caption of its own in the report.
for figure in FIGURES:

    rule:
        name:
            f"figure_{figure}"
        input:
            unpack(figure_input(figure)),
        output:
            pdf=f"{RESULTS}/figures/{{experiment}}_{figure}.pdf",
            png=report(
                f"{RESULTS}/figures/{{experiment}}_{figure}.png",
                caption=f"../report/{figure}.rst",
                category="{experiment}",
                labels={"result": f"figure: {figure}", "format": "png"},
            ),
        log:
            f"{RESULTS}/logs/{{experiment}}/figure_{figure}.log",
        conda:
            "../../envs/diem.yaml"
        params:
            figure=figure,
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
        csv=report(
            f"{RESULTS}/tables/{{experiment}}.csv",
            caption="../report/table_csv.rst",
            category="{experiment}",
            labels={"result": "table at full precision", "format": "csv"},
        ),
        html=report(
            f"{RESULTS}/tables/{{experiment}}.html",
            caption="../report/table.rst",
            category="{experiment}",
            labels={"result": "table", "format": "html"},
        ),
        markdown=f"{RESULTS}/tables/{{experiment}}.md",
        latex=f"{RESULTS}/tables/{{experiment}}.tex",
        rows=report(
            f"{RESULTS}/tables/{{experiment}}_rows.csv",
            caption="../report/rows.rst",
            category="{experiment}",
            labels={"result": "table of all metric rows", "format": "csv"},
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
        csv=f"{RESULTS}/tables/{{experiment}}_reconstructions.csv",
        html=report(
            f"{RESULTS}/tables/{{experiment}}_reconstructions.html",
            caption="../report/reconstructions.rst",
            category="{experiment}",
            labels={"result": "table of reconstructions", "format": "html"},
        ),
        markdown=f"{RESULTS}/tables/{{experiment}}_reconstructions.md",
        latex=f"{RESULTS}/tables/{{experiment}}_reconstructions.tex",
        rows=f"{RESULTS}/tables/{{experiment}}_reconstructions_rows.csv",
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
        csv=f"{RESULTS}/tables/{{experiment}}_published.csv",
        html=report(
            f"{RESULTS}/tables/{{experiment}}_published.html",
            caption="../report/published.rst",
            category="{experiment}",
            labels={"result": "table beside the published numbers", "format": "html"},
        ),
        markdown=f"{RESULTS}/tables/{{experiment}}_published.md",
        latex=f"{RESULTS}/tables/{{experiment}}_published.tex",
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
