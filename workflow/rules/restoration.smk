from diem.em.laps import training_of_lap
from diem.paper import inputs as paper


use rule clean_data as restoration_data with:
    input:
        [],
    output:
        paper.comparison_path(CONFIG, "{comparison}", "clean.h5"),
    log:
        f"{RESULTS}/logs/restoration/{{comparison}}/clean_data.log",
    params:
        data=lambda wildcards: IN.comparison(wildcards)["data"],
        seed=IN.seed,
    message:
        "Images of the comparison {wildcards.comparison}"


use rule m_step as restoration_prior with:
    input:
        clean=paper.comparison_path(CONFIG, "{comparison}", "clean.h5"),
    output:
        prior=paper.comparison_path(CONFIG, "{comparison}", "prior.safetensors"),
        losses=paper.comparison_path(CONFIG, "{comparison}", "losses.csv"),
    log:
        f"{RESULTS}/logs/restoration/{{comparison}}/prior.log",
    threads: asked_threads(resources.restoration_training)
    resources:
        **asked_on_slurm(resources.restoration_training),
        gpu=asked_gpus(resources.restoration_training),
        mem_mb=asked_memory(resources.restoration_training),
        runtime=asked_minutes(resources.restoration_training),
    params:
        made=lambda wildcards: {"data": IN.comparison(wildcards)["data"]},
        m_step=lambda wildcards: training_of_lap(IN.comparison(wildcards)["train"]["m_step"], 1, 1),
        network=IN.training_setting("network"),
        schedule=IN.training_setting("schedule"),
        gaussian=IN.training_setting("gaussian"),
        seed=IN.seed,
    message:
        "Prior of the comparison {wildcards.comparison}, trained on clean images"


rule restoration_samples:
    input:
        unpack(lambda wildcards: paper.restoration_inputs(CONFIG, wildcards.comparison)),
    output:
        rows=paper.comparison_path(CONFIG, "{comparison}", "methods/{method}.csv"),
        images=paper.comparison_path(CONFIG, "{comparison}", "methods/{method}.h5"),
    log:
        f"{RESULTS}/logs/restoration/{{comparison}}/{{method}}.log",
    wildcard_constraints:
        method=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        runtime=long_minutes,
    params:
        entry=lambda wildcards: paper.restoration_settings(
            CONFIG, wildcards.comparison, wildcards.method
        ),
        weights=lambda wildcards: IN.comparison(wildcards).get("pretrained", {}).get("weights"),
        seed=IN.seed,
    message:
        "Restoration by {wildcards.method} in {wildcards.comparison}"
    script:
        "../scripts/restoration_samples.py"


rule restoration_table:
    input:
        rows=lambda wildcards: paper.restoration_files(CONFIG, wildcards.comparison, ".csv"),
        published=str(PUBLISHED / "posterior_samplers_ffhq.csv"),
    output:
        **table_output(
            "restoration_{comparison}",
            category="{comparison}",
            table=("restoration_table", "table of posterior samplers"),
            rows=("restoration_rows", "table of all metric rows"),
        ),
    log:
        f"{RESULTS}/logs/restoration/{{comparison}}/table.log",
    conda:
        "../../envs/diem.yaml"
    message:
        "Table of the posterior samplers in {wildcards.comparison}"
    script:
        "../scripts/restoration_table.py"


rule restoration_figures:
    input:
        rows=lambda wildcards: paper.restoration_files(CONFIG, wildcards.comparison, ".csv"),
        images=lambda wildcards: paper.restoration_files(CONFIG, wildcards.comparison, ".h5"),
    output:
        metrics_pdf=f"{RESULTS}/figures/restoration_{{comparison}}_metrics.pdf",
        metrics_png=shown(
            f"{RESULTS}/figures/restoration_{{comparison}}_metrics.png",
            caption="../report/restoration_metrics.rst",
            category="{comparison}",
            label="figure: metrics by steps",
        ),
        images_pdf=f"{RESULTS}/figures/restoration_{{comparison}}_images.pdf",
        images_png=shown(
            f"{RESULTS}/figures/restoration_{{comparison}}_images.png",
            caption="../report/restoration_images.rst",
            category="{comparison}",
            label="figure: restored images",
        ),
    log:
        f"{RESULTS}/logs/restoration/{{comparison}}/figures.log",
    conda:
        "../../envs/diem.yaml"
    message:
        "Figures of the posterior samplers in {wildcards.comparison}"
    script:
        "../scripts/restoration_figures.py"
