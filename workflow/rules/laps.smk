rule e_step:
    input:
        unpack(e_step_input),
    output:
        kept(f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/samples_{{shard}}-of-{SHARDS}.h5"),
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/lap_{{lap}}_e_step_{{shard}}-of-{SHARDS}.log",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        mem_mb=asked_memory(resources.e_step),
        runtime=asked_minutes(resources.e_step),
    params:
        e_step=run_setting("e_step"),
        laps=lambda wildcards: (
            run_of(wildcards)["laps"] if run_of(wildcards)["e_step"]["restart"] else None
        ),
        network=setting("network"),
        seed=SEED,
    message:
        "E-step of {wildcards.experiment}/{wildcards.run}, lap {wildcards.lap}, shard {wildcards.shard}"
    script:
        "../scripts/e_step.py"


rule m_step:
    input:
        unpack(m_step_input),
    output:
        prior=f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/prior.safetensors",
        losses=f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/losses.csv",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/lap_{{lap}}_m_step.log",
    conda:
        "../../envs/diem.yaml"
    threads: asked_threads(resources.training)
    resources:
        gpu=asked_gpus(resources.training),
        mem_mb=asked_memory(resources.training),
        runtime=asked_minutes(resources.training),
    params:
        made=lambda wildcards: made_of(wildcards, run_of(wildcards)),
        m_step=m_step_entry,
        network=setting("network"),
        schedule=setting("schedule"),
        gaussian=setting("gaussian"),
        seed=SEED,
    message:
        "M-step of {wildcards.experiment}/{wildcards.run}, lap {wildcards.lap}"
    script:
        "../scripts/m_step.py"


use rule m_step as ceiling with:
    input:
        clean=f"{RESULTS}/{{experiment}}/clean.h5",
    output:
        prior=f"{RESULTS}/{{experiment}}/ceiling/prior.safetensors",
        losses=f"{RESULTS}/{{experiment}}/ceiling/losses.csv",
    log:
        f"{RESULTS}/logs/{{experiment}}/ceiling.log",
    params:
        made=lambda wildcards: {"data": experiment_of(wildcards)["data"]},
        m_step=ceiling_entry,
        network=setting("network"),
        schedule=setting("schedule"),
        gaussian=setting("gaussian"),
        seed=SEED,
    message:
        "Ceiling of {wildcards.experiment}: the same network trained on clean data"
