LAP_SAMPLES = f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/samples.h5"
SHARD = f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/samples_{{shard}}-of-{SHARDS}.h5"
OF_SHARD = f"_{{shard}}-of-{SHARDS}" if SHARDS > 1 else ""
TOLD_SHARD = ", shard {wildcards.shard}" if SHARDS > 1 else ""


rule e_step:
    input:
        unpack(IN.e_step_input),
    output:
        temp(SHARD) if SHARDS > 1 else kept(LAP_SAMPLES),
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/lap_{{lap}}_e_step{OF_SHARD}.log",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    resources:
        gpu=GPUS,
        mem_mb=asked_memory(resources.e_step),
        runtime=asked_minutes(resources.e_step),
    params:
        e_step=IN.e_step,
        network=IN.setting("network"),
        seed=IN.seed,
    message:
        f"E-step of {{wildcards.experiment}}/{{wildcards.run}}, lap {{wildcards.lap}}{TOLD_SHARD}"
    script:
        "../scripts/e_step.py"


if SHARDS > 1:

    # It has the parameters of an E-step, so that a lap stays that was drawn in another number of shards.
    use rule e_step as gather with:
        input:
            unpack(IN.gathered_input),
        output:
            kept(LAP_SAMPLES),
        log:
            f"{RESULTS}/logs/{{experiment}}/{{run}}/lap_{{lap}}_gather.log",
        threads: 1
        resources:
            gpu=0,
        message:
            "Samples of {wildcards.experiment}/{wildcards.run}, lap {wildcards.lap}, of all shards"


rule m_step:
    input:
        unpack(IN.m_step_input),
    output:
        prior=f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/prior.safetensors",
        losses=f"{RESULTS}/{{experiment}}/runs/{{run}}/lap_{{lap}}/losses.csv",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/lap_{{lap}}_m_step.log",
    conda:
        "../../envs/diem.yaml"
    threads: asked_threads(resources.training)
    resources:
        **asked_on_slurm(resources.training),
        gpu=asked_gpus(resources.training),
        mem_mb=asked_memory(resources.training),
        runtime=asked_minutes(resources.training),
    params:
        made=IN.provenance,
        m_step=IN.m_step,
        network=IN.setting("network"),
        schedule=IN.setting("schedule"),
        gaussian=IN.setting("gaussian"),
        seed=IN.seed,
    message:
        "M-step of {wildcards.experiment}/{wildcards.run}, lap {wildcards.lap}"
    script:
        "../scripts/m_step.py"


use rule m_step as ceiling with:
    input:
        clean=f"{RESULTS}/{{experiment}}/clean.h5",
    output:
        prior=f"{RESULTS}/{{experiment}}/ceilings/{{run}}/prior.safetensors",
        losses=f"{RESULTS}/{{experiment}}/ceilings/{{run}}/losses.csv",
    log:
        f"{RESULTS}/logs/{{experiment}}/{{run}}/ceiling.log",
    params:
        made=IN.ceiling_provenance,
        m_step=IN.ceiling,
        network=IN.setting("network"),
        schedule=IN.setting("schedule"),
        gaussian=IN.setting("gaussian"),
        seed=IN.seed,
    message:
        "Ceiling of {wildcards.experiment}/{wildcards.run}: as many steps on clean data"
