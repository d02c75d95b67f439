include: "sampler_inputs.smk"


TARGETS += comparison_targets()


use rule clean_data as sampler_data with:
    input:
        [],
    output:
        comparison_path("clean.h5"),
    log:
        f"{RESULTS}/logs/samplers/{{experiment}}/clean_data.log",
    wildcard_constraints:
        experiment=COMPARISONS,
    params:
        data=lambda wildcards: comparison_of(wildcards)["data"],
        seed=SEED,
    message:
        "Images of the comparison {wildcards.experiment}"


use rule m_step as sampler_prior with:
    input:
        clean=comparison_path("clean.h5"),
    output:
        prior=comparison_path("prior.safetensors"),
        losses=comparison_path("losses.csv"),
    log:
        f"{RESULTS}/logs/samplers/{{experiment}}/prior.log",
    wildcard_constraints:
        experiment=COMPARISONS,
    threads: training_threads(trained_for_samplers)
    resources:
        gpu=training_gpus(trained_for_samplers),
        mem_mb=training_memory(trained_for_samplers),
        runtime=training_minutes(trained_for_samplers),
    params:
        made=lambda wildcards: {"data": comparison_of(wildcards)["data"]},
        m_step=lambda wildcards: training_of_lap(comparison_of(wildcards)["train"]["m_step"], 1, 1),
        network=train_setting("network"),
        schedule=train_setting("schedule"),
        gaussian=train_setting("gaussian"),
        seed=SEED,
    message:
        "Prior of the comparison {wildcards.experiment}, trained on clean images"


rule restored:
    input:
        unpack(restored_input),
    output:
        rows=comparison_path("methods/{method}.csv"),
        images=comparison_path("methods/{method}.h5"),
    log:
        f"{RESULTS}/logs/samplers/{{experiment}}/{{method}}.log",
    wildcard_constraints:
        experiment=COMPARISONS,
        method=r"[A-Za-z0-9][A-Za-z0-9_-]*",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        runtime=long_minutes,
    params:
        entry=restored_entry,
        weights=lambda wildcards: comparison_of(wildcards).get("pretrained", {}).get("weights"),
        seed=SEED,
    message:
        "Restoration by {wildcards.method} in {wildcards.experiment}"
    script:
        "../scripts/restored.py"


rule sampler_table:
    input:
        rows=restored_paths(".csv"),
        published=str(PUBLISHED / "posterior_samplers_ffhq.csv"),
    output:
        csv=f"{RESULTS}/tables/samplers_{{experiment}}.csv",
        markdown=f"{RESULTS}/tables/samplers_{{experiment}}.md",
        latex=f"{RESULTS}/tables/samplers_{{experiment}}.tex",
        html=report(
            f"{RESULTS}/tables/samplers_{{experiment}}.html",
            caption="../report/samplers_table.rst",
            category="{experiment}",
            labels={"result": "table of posterior samplers", "format": "html"},
        ),
        rows=report(
            f"{RESULTS}/tables/samplers_{{experiment}}_rows.csv",
            caption="../report/samplers_rows.rst",
            category="{experiment}",
            labels={"result": "table of all metric rows", "format": "csv"},
        ),
    log:
        f"{RESULTS}/logs/samplers/{{experiment}}/table.log",
    wildcard_constraints:
        experiment=COMPARISONS,
    conda:
        "../../envs/diem.yaml"
    message:
        "Table of the posterior samplers in {wildcards.experiment}"
    script:
        "../scripts/sampler_table.py"


rule sampler_figures:
    input:
        rows=restored_paths(".csv"),
        images=restored_paths(".h5"),
    output:
        metrics_pdf=f"{RESULTS}/figures/samplers_{{experiment}}_metrics.pdf",
        metrics_png=report(
            f"{RESULTS}/figures/samplers_{{experiment}}_metrics.png",
            caption="../report/samplers_metrics.rst",
            category="{experiment}",
            labels={"result": "figure: metrics by steps", "format": "png"},
        ),
        images_pdf=f"{RESULTS}/figures/samplers_{{experiment}}_images.pdf",
        images_png=report(
            f"{RESULTS}/figures/samplers_{{experiment}}_images.png",
            caption="../report/samplers_images.rst",
            category="{experiment}",
            labels={"result": "figure: restored images", "format": "png"},
        ),
    log:
        f"{RESULTS}/logs/samplers/{{experiment}}/figures.log",
    wildcard_constraints:
        experiment=COMPARISONS,
    conda:
        "../../envs/diem.yaml"
    message:
        "Figures of the posterior samplers in {wildcards.experiment}"
    script:
        "../scripts/sampler_figures.py"
