def shown_runs(experiment):
    """Returns the first run of each set of observations, whose samples the figures show."""
    shown = {}
    for name, run in EXPERIMENTS[experiment]["runs"].items():
        shown.setdefault(run["observations"], name)
    return list(shown.values())


def bound_samples(experiment, run, stage):
    observations = EXPERIMENTS[experiment]["runs"][run]["observations"]
    return observations_path(experiment, observations, f"{stage}/evaluation.h5")


def lap_samples(experiment, run):
    return [
        lap_path(experiment, run, lap, "evaluation.h5") for lap in evaluated_laps(experiment, run)
    ]


def evolution_input(experiment):
    run = shown_runs(experiment)[0]
    samples = [bound_samples(experiment, run, "floor"), *lap_samples(experiment, run)]
    return {"evaluations": samples, "clean": clean_path(experiment)}


def corner_model_input(experiment):
    run = shown_runs(experiment)[0]
    return {"evaluations": lap_samples(experiment, run)[-1:], "clean": clean_path(experiment)}


def prior_input(experiment):
    paths = []
    for run in shown_runs(experiment):
        floor, ceiling = (bound_samples(experiment, run, stage) for stage in ("floor", "ceiling"))
        paths += [floor, *lap_samples(experiment, run), ceiling]
    return {"evaluations": paths}


def inpainting_input(experiment):
    paths = []
    for run in shown_runs(experiment):
        paths += [bound_samples(experiment, run, "floor"), *lap_samples(experiment, run)]
    return {"evaluations": paths}


# Each figure that a config may name, and the files that it is drawn from.
FIGURES = {
    "evolution": evolution_input,
    "corner_truth": lambda experiment: {"clean": clean_path(experiment)},
    "corner_model": corner_model_input,
    "divergence": lambda experiment: {"metrics": metrics_paths(experiment)},
    "distance": lambda experiment: {"metrics": metrics_paths(experiment)},
    "prior": prior_input,
    "inpainting": inpainting_input,
}

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


def figure_input(figure):
    return lambda wildcards: FIGURES[figure](wildcards.experiment)


# A rule for each figure, so that each has a caption of its own in the report.
for figure in FIGURES:

    rule:
        name:
            f"figure_{figure}"
        message:
            f"Figure {figure} of {{wildcards.experiment}}"
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
        params:
            figure=figure,
            labels=lambda wildcards: {
                name: run["label"] for name, run in experiment_of(wildcards)["runs"].items()
            },
        conda:
            "../../envs/diem.yaml"
        script:
            "../scripts/figure.py"


rule table:
    message:
        "Table of {wildcards.experiment}"
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
    params:
        runs=lambda wildcards: {
            name: {"label": run["label"], "covariance": run["e_step"]["covariance"]}
            for name, run in experiment_of(wildcards)["runs"].items()
        },
    conda:
        "../../envs/diem.yaml"
    script:
        "../scripts/table.py"
