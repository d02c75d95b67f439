from diem.paper import inputs as paper


rule heuristics_block:
    output:
        f"{RESULTS}/heuristics/{{heuristics}}/block_{{block}}.csv",
    log:
        f"{RESULTS}/logs/heuristics/{{heuristics}}/block_{{block}}.log",
    wildcard_constraints:
        block=r"\d+",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        runtime=long_minutes,
    params:
        entry=lambda wildcards: paper.case_settings(CONFIG, wildcards.heuristics),
        cases=lambda wildcards: paper.heuristics_cases(
            CONFIG, wildcards.heuristics, int(wildcards.block)
        ),
        seed=IN.seed,
    message:
        "Heuristics under exact priors, {wildcards.heuristics}: cases {params.cases}"
    script:
        "../scripts/heuristics_block.py"


rule heuristics_coil:
    output:
        f"{RESULTS}/heuristics/{{heuristics}}/coil.h5",
    log:
        f"{RESULTS}/logs/heuristics/{{heuristics}}/coil.log",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        runtime=long_minutes,
    params:
        entry=lambda wildcards: paper.coil_settings(CONFIG, wildcards.heuristics),
        seed=IN.seed,
    message:
        "Samples of the coil, {wildcards.heuristics}"
    script:
        "../scripts/heuristics_coil.py"


rule heuristics_table:
    input:
        rows=lambda wildcards: paper.heuristics_blocks(CONFIG, wildcards.heuristics),
        published=str(PUBLISHED / "heuristics_divergence.csv"),
    output:
        **table_output(
            "heuristics_{heuristics}",
            category="heuristics",
            table=("heuristics_table", "{heuristics}: table of medians"),
            csv=("heuristics_table", "{heuristics}: table at full precision"),
            rows=("heuristics_rows", "{heuristics}: table of all rows"),
        ),
    log:
        f"{RESULTS}/logs/heuristics/{{heuristics}}/table.log",
    conda:
        "../../envs/diem.yaml"
    message:
        "Table of the heuristics, {wildcards.heuristics}"
    script:
        "../scripts/heuristics_table.py"


rule heuristics_figures:
    input:
        table=f"{RESULTS}/tables/heuristics_{{heuristics}}.csv",
        coil=f"{RESULTS}/heuristics/{{heuristics}}/coil.h5",
    output:
        divergence_pdf=f"{RESULTS}/figures/heuristics_{{heuristics}}_divergence.pdf",
        divergence_png=shown(
            f"{RESULTS}/figures/heuristics_{{heuristics}}_divergence.png",
            caption="../report/heuristics_divergence.rst",
            category="heuristics",
            label="{heuristics}: figure: divergence",
        ),
        coil_pdf=f"{RESULTS}/figures/heuristics_{{heuristics}}_coil.pdf",
        coil_png=shown(
            f"{RESULTS}/figures/heuristics_{{heuristics}}_coil.png",
            caption="../report/heuristics_coil.rst",
            category="heuristics",
            label="{heuristics}: figure: coil",
        ),
    log:
        f"{RESULTS}/logs/heuristics/{{heuristics}}/figures.log",
    conda:
        "../../envs/diem.yaml"
    message:
        "Figures of the heuristics, {wildcards.heuristics}"
    script:
        "../scripts/heuristics_figures.py"
