"""The verb ``diem run``: Snakemake with the workflow of the installed package, in any folder."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from diem.config.reading import read_config
from diem.errors import DiemError

__all__ = ["add_verb", "command", "workflow_folder"]

CONFIG = Path("config/config.yaml")
"""The configuration of a folder, where none is given."""

HELP = """\
usage: diem run [ARGUMENTS OF SNAKEMAKE]

Runs the workflow in this folder: 'snakemake' with the Snakefile of this installation.

examples:
  diem run --cores 4                           # config/config.yaml, or else the demo
  diem run --cores 4 --configfile my.yaml
  diem run --configfile my.yaml --dry-run results/tables/mine.csv
  diem run --help-snakemake                    # all of Snakemake's arguments

Results lie in results/. Interrupted, the same command goes on.
"""


def workflow_folder() -> Path:
    """Returns the folder of the Snakefile: of the repository, or of the installed package.

    Raises:
        DiemError: If neither is there.
    """
    beside = Path(__file__).parents[1]
    if (beside / "Snakefile").is_file():
        return beside
    package = importlib.util.find_spec("diem_workflow")
    for place in (package and package.submodule_search_locations) or ():
        if (Path(place) / "workflow" / "Snakefile").is_file():
            return Path(place) / "workflow"
    raise DiemError(f"{beside}: this installation lacks the workflow; install diem again.")


def command(arguments: Sequence[str]) -> list[str]:
    """Returns the command that runs the workflow in the working folder.

    Arguments:
        arguments: Snakemake's arguments. Without a configuration among them or in the folder, it
            is the demo's.

    Raises:
        DiemError: If this installation lacks the workflow, or a configuration cannot be read.
    """
    workflow = workflow_folder()
    configured = any(argument.startswith("--configfile") for argument in arguments)
    for path in _configurations(arguments):
        read_config(path)  # before Snakemake, which is less strict, and fails on what is recursive
    demo = [] if configured or CONFIG.is_file() else ["--configfile", str(workflow.parent / CONFIG)]
    snakefile = ["--snakefile", str(workflow / "Snakefile")]
    # The demo's stands last: --configfile takes all that follows it.
    return [sys.executable, "-m", "snakemake", *snakefile, *arguments, *demo]


def _configurations(arguments: Sequence[str]) -> list[Path]:
    """Returns the configurations among Snakemake's arguments, but for pipes, read only once."""
    found, follows = [], False
    for argument in arguments:
        key, _, value = argument.partition("=")
        if argument.startswith("-"):
            follows = key in ("--configfile", "--configfiles")
            found += [value] if follows and value else []
        elif follows:
            found.append(argument)
    isfile, isdir, exists = os.path.isfile, os.path.isdir, os.path.exists
    return [Path(name) for name in found if isfile(name) or isdir(name) or not exists(name)]


def _run(options: argparse.Namespace) -> None:
    arguments = options.arguments
    if arguments in (["-h"], ["--help"]):
        print(HELP, end="")
        return
    if arguments == ["--help-snakemake"]:
        arguments = ["--help"]
    found = command(arguments)
    sys.stdout.flush()
    os.execv(found[0], found)  # signals reach Snakemake itself, and its status is this one's


def add_verb(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb to the command's parser; all that follows it is Snakemake's to read."""
    # No argument begins with this prefix, so that none is taken for an option of diem's.
    verb = verbs.add_parser(
        "run", help="run the workflow in this folder", prefix_chars="\0", add_help=False
    )
    verb.add_argument("arguments", nargs=argparse.REMAINDER)
    verb.set_defaults(call=_run)
