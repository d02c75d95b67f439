from diem.paper import inputs as paper

PAPER_CONFIG = WORKFLOW.parent / "config" / "paper.yaml"
PAIRS = paper.pairs_with_paper(CONFIG, PAPER_CONFIG)


rule hyperparameters:
    input:
        paper=str(PAPER_CONFIG),
        published=str(PUBLISHED / "settings.csv"),
    output:
        **table_output(
            "hyperparameters",
            category="paper",
            table=("hyperparameters", "table of hyperparameters"),
        ),
    log:
        f"{RESULTS}/logs/paper/hyperparameters.log",
    conda:
        "../../envs/diem.yaml"
    params:
        config={key: CONFIG[key] for key in ("experiments", "heuristics", "restoration")},
    message:
        "The settings of this run beside the paper's"
    script:
        "../scripts/hyperparameters.py"


rule paper_vs_ours:
    input:
        **paper.paper_tables(CONFIG, PAIRS),
    output:
        **table_output(
            "paper_vs_ours",
            category="paper",
            table=("paper_vs_ours", "every published number beside ours"),
        ),
    log:
        f"{RESULTS}/logs/paper/paper_vs_ours.log",
    conda:
        "../../envs/diem.yaml"
    params:
        published=str(PUBLISHED),
        heuristics=paper.standing_for(PAIRS, "heuristics"),
        restoration=paper.standing_for(PAIRS, "restoration"),
        images={
            name: IN.runs_by_setting(name)
            for name in paper.standing_for(PAIRS, "experiments", "cifar10")
        },
    message:
        "Every published number beside ours"
    script:
        "../scripts/paper_vs_ours.py"
