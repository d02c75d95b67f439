# A plan before spending. It has no output, so that it measures whenever it is asked for.
rule estimate:
    log:
        f"{RESULTS}/logs/estimate.log",
    conda:
        "../../envs/diem.yaml"
    threads: CONFIG["threads"]
    params:
        files={
            kind: f"{RESULTS}/tables/estimate.{ending}"
            for kind, ending in {
                "csv": "csv",
                "markdown": "md",
                "latex": "tex",
                "html": "html",
            }.items()
        },
    message:
        "Calibrating on this machine, for about a minute"
    script:
        "../scripts/estimate.py"
