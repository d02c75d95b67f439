import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

WORKFLOW = Path(workflow.current_basedir.join("..").get_path_or_uri(secret_free=True)).resolve()
if not WORKFLOW.is_dir():
    # The rules are read from a remote source; the library beside them is the installed one.
    try:
        from diem.launch_workflow import workflow_folder
    except ImportError:
        raise WorkflowError(
            "Rules that are read from a remote source need the library of the same version:"
            " install it with pip (distribution diem-priors), or give a local path."
        ) from None
    WORKFLOW = workflow_folder()
PUBLISHED = WORKFLOW / "published"
# The library is found where it lies: by the rules here, and by the jobs through their environment.
sys.path.insert(0, str(WORKFLOW))
SEARCH_PATH = os.pathsep.join([str(WORKFLOW), os.environ.get("PYTHONPATH", "")])
# A user's component is looked for beside the configuration too.
CONFIG_FOLDERS = dict.fromkeys(str(Path(file).resolve().parent) for file in workflow.configfiles)
os.environ.update(DIEM_PATH=os.pathsep.join(CONFIG_FOLDERS))

from diem.config.inputs import Inputs, input_digest
from diem.config.reading import read_config
from diem.config.resolve import resolve
from diem.config.targets import nothing_told, posterior_targets, targets, targets_by_name
from diem.data.sets import DATASETS
from diem.errors import DiemError, placed
from diem.jobs.code import code_digest, remember
from diem.jobs.results import check_folder, hold, remove_pieces
from diem.replicates import all_entries
from scheduling import look_when_jobs_end
from terminal import show_compactly
from warm import fork_scripts

CONFIG_FILES = ", ".join(map(str, workflow.configfiles)) or "the configuration"

try:
    for file in filter(os.path.isfile, workflow.configfiles):
        read_config(file)  # Snakemake has read it, and is less strict
    CONFIG = resolve(config, CONFIG_FILES)
    config.update(CONFIG)  # the scripts' defaults
    RESULTS = CONFIG["results"]
    check_folder(RESULTS)
except DiemError as error:
    raise WorkflowError(str(error)) from None

IN = Inputs(CONFIG, lambda path: any(rule.is_producer(path) for rule in workflow.rules))
PATHS = IN.paths
EXPERIMENTS = all_entries(CONFIG, "experiments")
SHARDS = CONFIG["shards"]

THREADS = str(CONFIG["threads"])
os.environ.update(
    PYTHONPATH=SEARCH_PATH.rstrip(os.pathsep),
    # Sums are ordered by the number of threads: it is the config's in every library of every job.
    OMP_NUM_THREADS=THREADS,
    MKL_NUM_THREADS=THREADS,
    OPENBLAS_NUM_THREADS=THREADS,
    # No figure has a window: what a notebook has set here may not be there for a job.
    MPLBACKEND="agg",
)
if workflow.is_main_process:
    fork_scripts()
    show_compactly(workflow)


def names(found):
    """Returns the pattern of some names; no name matches where there is none."""
    return "|".join(dict.fromkeys(found)) or "(?!)"


wildcard_constraints:
    experiment=names(EXPERIMENTS),
    heuristics=names(CONFIG["heuristics"]),
    comparison=names(all_entries(CONFIG, "restoration")),
    posterior=names(CONFIG["posterior"]),
    observations=names(name for each in EXPERIMENTS.values() for name in each["observations"]),
    run=names(name for each in EXPERIMENTS.values() for name in each["runs"]),
    lap=r"\d{2,3}(_final)?",


def named_input(name, files):
    """Returns the input of a rule that stands for some files, which tells if there are none."""

    def checked(wildcards):
        if not files:
            raise DiemError(nothing_told(name, CONFIG_FILES))
        return files

    return told(checked)


def told(function):
    """Returns an input function whose errors end Snakemake in their one sentence."""

    def tells(wildcards):
        try:
            return function(wildcards)
        except DiemError as error:
            # What an input function raises would come with its traceback.
            sys.exit(f"Error: {error}")

    return tells


def without_names(message, **known):
    """Returns the message of a rule's jobs with the names of wildcards in the place of wildcards."""
    return re.sub(
        r"\{(?:\w+\.)?(\w+)\}", lambda found: known.get(found[1], f"<{found[1]}>"), message
    )


remember(Path(".snakemake/diem/code.json"))


def code_of(script, params):
    """Returns the parameter that tells what code a rule's numbers come from.

    Snakemake makes results anew whose parameters have changed. Its own look at the scripts, which
    sees comments too and nothing of the library, is off in the profiles.
    """
    path = WORKFLOW / "scripts" / Path(script).name

    def code(wildcards):
        return code_digest(path, [each(wildcards) if callable(each) else each for each in params])

    return code


def inputs_of(rule):
    """Returns the parameter that tells which files a rule's jobs read.

    Snakemake's own look at them is off in the profiles: it sees how many shards a lap was drawn in,
    and where a user's file lies. Of parameters that are made of a job's ``input`` it keeps no
    record: this one is made of the wildcards.
    """
    return lambda wildcards: input_digest(rule.expand_input(dict(wildcards.items()))[0])


def check_given_data(jobs):
    """Refuses data that are not there before Snakemake removes what was made of others."""
    sections = {"clean_data": "experiments", "restoration_data": "restoration"}
    for job in jobs:
        if section := sections.get(job.rule.name):
            (name,) = job.wildcards
            with placed(f"{section}.{name}."):
                DATASETS.parse(job.params.data).check_given()


onstart:
    try:
        LOCK = hold(RESULTS)
        check_given_data(workflow.dag.needrun_jobs())
    except DiemError as error:
        raise WorkflowError(str(error)) from None
    look_when_jobs_end(workflow)


def kept(samples):
    """Marks samples that are removed once nothing needs them, if they are not to be kept."""
    return samples if CONFIG["keep_samples"] else temp(samples)


CAPTIONS_OF = {}
"""The label and the file of the caption of all that is shown, by its path with wildcards."""


def shown(path, caption, category, label, kind="png"):
    """Marks a result as one that Snakemake's report and the page show.

    Arguments:
        path: The result, which may hold wildcards.
        caption: The file of its caption, which lies beside the rules if its path is relative.
        category: The report's category.
        label: What it is called.
        kind: Its format.
    """
    CAPTIONS_OF[path] = label, str(WORKFLOW / "rules" / caption)
    return report(
        path, caption=caption, category=category, labels={"result": label, "format": kind}
    )


def table_output(name, category, table, csv=None, rows=None):
    """Returns the output of a job that makes a table in each format, and where asked for its rows.

    What the report shows is given as a caption (a file of workflow/report) and a label.

    Arguments:
        name: The table's name, which may hold wildcards.
        category: The report's category.
        table: The caption and label of the table as a page.
        csv: Those of the table at full precision, if the report shows it.
        rows: Those of the metric rows that the table is made of; "plain" if there are such rows
            and the report does not show them.
    """
    stem = f"{RESULTS}/tables/{name}"

    def listed(path, kind, told):
        caption, label = told
        return shown(path, f"../report/{caption}.rst", category, label, kind)

    output = {
        "csv": listed(f"{stem}.csv", "csv", csv) if csv else f"{stem}.csv",
        "html": listed(f"{stem}.html", "html", table),
        "markdown": f"{stem}.md",
        "latex": f"{stem}.tex",
    }
    if rows:
        path = f"{stem}_rows.csv"
        output["rows"] = path if rows == "plain" else listed(path, "csv", rows)
    return output


def figure_input(entries):
    return told(lambda wildcards: IN.figure_input(wildcards, entries[wildcards.experiment]))


def figure_entry(entries):
    return lambda wildcards: entries[wildcards.experiment]


def figure_caption(figure, entries):
    """The report takes captions from files, and a figure declares its own beside its code."""
    text = figure_named(next(iter(entries.values()))).told
    try:
        return str(figure_files.write_caption(figure, text, CAPTIONS))
    except DiemError as error:
        raise WorkflowError(str(error)) from None
