from diem.paper import inputs as paper

PAPER_CONFIG = WORKFLOW.parent / "config" / "paper.yaml"
PAIRS = paper.pairs_with_paper(CONFIG, PAPER_CONFIG)


TARGETS += paper.paper_targets(CONFIG, PAIRS)


rule hyperparameters:
    input:
        paper=str(PAPER_CONFIG),
        schema=str(SCHEMA),
    output:
        csv=f"{RESULTS}/tables/hyperparameters.csv",
        html=report(
            f"{RESULTS}/tables/hyperparameters.html",
            caption="../report/hyperparameters.rst",
            category="paper",
            labels={"result": "table of hyperparameters", "format": "html"},
        ),
        markdown=f"{RESULTS}/tables/hyperparameters.md",
        latex=f"{RESULTS}/tables/hyperparameters.tex",
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
        csv=f"{RESULTS}/tables/paper_vs_ours.csv",
        html=report(
            f"{RESULTS}/tables/paper_vs_ours.html",
            caption="../report/paper_vs_ours.rst",
            category="paper",
            labels={"result": "every published number beside ours", "format": "html"},
        ),
        markdown=f"{RESULTS}/tables/paper_vs_ours.md",
        latex=f"{RESULTS}/tables/paper_vs_ours.tex",
    log:
        f"{RESULTS}/logs/paper/paper_vs_ours.log",
    conda:
        "../../envs/diem.yaml"
    params:
        published=str(PUBLISHED),
        heuristics=paper.standing_for(PAIRS, "heuristics"),
        restoration=paper.standing_for(PAIRS, "restoration"),
        images={
            name: runs_by_setting(name)
            for name in paper.standing_for(PAIRS, "experiments", "cifar10")
        },
    message:
        "Every published number beside ours"
    script:
        "../scripts/paper_vs_ours.py"
