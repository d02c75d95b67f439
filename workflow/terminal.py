"""What a run says in the terminal: a line for each job that ends, and what is in work.

Snakemake says some ten lines a job, and thirty or more before the first. All of them are in its
log, .snakemake/log, and here too if it is asked for more (--verbose, --printshellcmds), for less
(--quiet), or for another logger. What it says of errors is said as it is.
"""

import logging
import os
import shutil
import threading
import time
from typing import Any, NamedTuple

from snakemake.logging import get_event, logger
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

from diem.report.bars import bar_of, told_bar

__all__ = ["Terminal", "show_compactly"]

SHOWN = 6
"""So many jobs in work are shown at once."""

HIDDEN = {Quietness.RULES, Quietness.PROGRESS}
"""What Snakemake says of jobs beside their events, by its own name for it."""

HIDDEN_EVENTS = {LogEvent.JOB_STARTED, LogEvent.WORKFLOW_STARTED, LogEvent.RESOURCES_INFO}
"""What it says of the machine, and of jobs that it is about to say more of."""

HIDDEN_LINES = (
    "Using shell: ",
    "Conda environments: ignored",
    "Singularity containers: ignored",
    "Select jobs to execute...",
)
"""How what it says without such a name or event begins."""

NAMED = 4
"""So many rules are named of those that have several jobs."""


def show_compactly(workflow: Any) -> None:
    """Makes Snakemake's terminal that of :class:`Terminal`, unless it is asked to say other things.

    A workflow that this one is a module of keeps its own.

    Arguments:
        workflow: Snakemake's workflow, of which the rules are being read: what it says first comes
            before `onstart`.
    """
    asked = workflow.output_settings
    other = asked.dryrun, asked.quiet, asked.verbose, asked.printshellcmds, asked.debug_dag
    if any(other) or not workflow.modifier.is_main_snakefile():
        return
    for usual in list(logger.handlers):
        if usual.name == "DefaultStreamHandler":
            logger.removeHandler(usual)
            logger.addHandler(Terminal(usual))


class Job(NamedTuple):
    """A job in work: what it says that it does, its logs, and when it began."""

    does: str
    logs: list[str]
    began: float


class Terminal(logging.Handler):
    """Says a line for each job that ends; in a terminal, the jobs in work stand below, redrawn.

    Arguments:
        usual: Snakemake's own handler, which says what is not of this.
        seconds: The time between two drawings of what is in work.
    """

    def __init__(self, usual: logging.StreamHandler, seconds: float = 1.0) -> None:
        super().__init__(usual.level)
        self.usual, self.stream = usual, usual.stream
        self.jobs: dict[int, Job] = {}
        self.ended: list[Job] = []
        self.done = self.total = self.drawn = 0
        self.drawing, self.closed = threading.RLock(), threading.Event()
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        if self.live:
            threading.Thread(target=self._redraw, args=(seconds,), daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            with self.drawing:
                self._say(record)
        except Exception:  # as every handler of Python's: what is said must not end what is done
            self.handleError(record)

    def _say(self, record: logging.LogRecord) -> None:
        event, told = get_event(record), vars(record)
        if event == LogEvent.JOB_INFO:
            does = told["rule_msg"] or told["rule_name"]
            self.jobs[told["jobid"]] = Job(does.rstrip("."), told["log"], time.monotonic())
        elif event == LogEvent.JOB_FINISHED:
            if ended := self.jobs.pop(told["job_id"], None):
                self.ended.append(ended)
        elif event == LogEvent.PROGRESS:
            self.done, self.total = told["done"], told["total"]
        elif event == LogEvent.RUN_INFO:
            self._write(f"{_jobs_told(told['stats'])}\n")
        elif not _hidden(record):
            if event == LogEvent.JOB_ERROR:
                self.jobs.pop(told["jobid"], None)
            self._clear()
            self.usual.handle(record)
        if event == LogEvent.PROGRESS:
            self._tell_ended()
        self._draw()

    def close(self) -> None:
        with self.drawing:
            self.closed.set()
            self._clear()
        self.usual.close()
        super().close()

    def _tell_ended(self) -> None:
        """Says which jobs have ended, once it is known how many there are."""
        for job in self.ended:
            took = tqdm.format_interval(time.monotonic() - job.began)
            self._write(f"[{self.done} of {self.total}] {job.does} ({took})\n")
        self.ended = []

    def _redraw(self, seconds: float) -> None:
        while not self.closed.wait(seconds):
            with self.drawing:
                self._draw()

    def _draw(self) -> None:
        """Draws the jobs in work anew, below all that was said."""
        if not self.live or self.closed.is_set():
            return
        width = shutil.get_terminal_size().columns - 1
        working = list(self.jobs.values())
        lines = [f"  {job.does}{_progress(job)}" for job in working[:SHOWN]]
        if len(working) > SHOWN:
            lines.append(f"  and {len(working) - SHOWN} more jobs")
        self._write("".join(f"{line[:width]}\n" for line in lines))
        self.drawn = len(lines)

    def _clear(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        """Writes in the place of what is drawn, at once."""
        if self.drawn:  # up to its first line, and all below that away
            text = f"\033[{self.drawn}F\033[J{text}"
        self.stream.write(text)
        self.stream.flush()
        self.drawn = 0


def _hidden(record: logging.LogRecord) -> bool:
    """Returns whether a record is one of those that come with every run or job and tell no more."""
    if get_event(record) in HIDDEN_EVENTS or str(record.msg).startswith(HIDDEN_LINES):
        return True
    return getattr(record, "quietness", None) in HIDDEN


def _jobs_told(stats: dict[str, int]) -> str:
    """Returns how many jobs there are, and of which rules the most."""
    total = f"{stats['total']} job{'s' * (stats['total'] != 1)}"
    several = {rule: count for rule, count in stats.items() if count > 1 and rule != "total"}
    most = sorted(several, key=lambda rule: -several[rule])[:NAMED]
    if not most:
        return f"{total}."
    return f"{total}, of which {', '.join(f'{several[rule]} {rule}' for rule in most)}."


def _progress(job: Job) -> str:
    """Returns how far a job is, by its log, and else for how long it has been in work."""
    for log in job.logs:
        if bar := bar_of(log):
            return f": {told_bar(bar)}"
    return f" ({tqdm.format_interval(time.monotonic() - job.began)})"
