"""What a run says in the terminal: a line a job that ends, and below what is in work."""

import io
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.logging import DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

sys.path.append(str(Path(__file__).parents[2] / "workflow"))

import terminal

BAR = " 33%|###3  | 128/384 [00:07<00:13, 18.50 step/s, loss=0.6301]"
ERASED = "\033[{}F\033[J"


class Screen(io.StringIO):
    """A stream that is a terminal, or is none."""

    def __init__(self, tty):
        super().__init__()
        self.tty = tty

    def isatty(self):
        return self.tty


@pytest.fixture
def screen(request, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(terminal.time, "monotonic", lambda: 100.0)
    usual = logging.StreamHandler(Screen(getattr(request, "param", False)))
    usual.setFormatter(DefaultFormatter())
    usual.name = "DefaultStreamHandler"
    made = terminal.Terminal(usual, seconds=1e6)
    yield made
    made.closed.set()


def say(screen, event=None, msg=None, level=logging.INFO, **told):
    """Returns what is written of a record of Snakemake's."""
    before = len(screen.stream.getvalue())
    fields = {"event": event, "msg": msg, "levelno": level, "levelname": "", **told}
    screen.handle(logging.makeLogRecord(fields))
    return screen.stream.getvalue()[before:]


def begin(screen, job, message, log=()):
    return say(screen, LogEvent.JOB_INFO, jobid=job, rule_msg=message, rule_name="r", log=[*log])


def end(screen, job, done, total=9):
    told = say(screen, LogEvent.JOB_FINISHED, "Finished", job_id=job)
    return told + say(screen, LogEvent.PROGRESS, done=done, total=total)


def test_a_job_is_a_line_when_it_ends(screen):
    said = [
        say(screen, msg="Select jobs to execute..."),
        say(screen, LogEvent.JOB_STARTED, "Execute 2 jobs..."),
        begin(screen, 3, "M-step of digits/half, lap 03"),
        begin(screen, 4, "All of digits is in results."),
        say(screen, msg="Removing temporary output x.", quietness=terminal.Quietness.RULES),
    ]
    assert said == [""] * 5

    assert end(screen, 3, done=1) == "[1 of 9] M-step of digits/half, lap 03 (00:00)\n"
    assert end(screen, 4, done=2) == "[2 of 9] All of digits is in results (00:00)\n"


def test_what_comes_before_the_first_job_is_a_line(screen):
    said = [
        say(screen, LogEvent.WORKFLOW_STARTED, "Workflow has started!"),
        say(screen, msg="Using shell: /usr/bin/bash"),
        say(screen, LogEvent.RESOURCES_INFO, "Provided cores: 2"),
        say(screen, msg="Conda environments: ignored"),
    ]
    assert said == [""] * 4
    stats = {"data": 1, "e_step": 2, "m_step": 3, "figure": 2, "table": 2, "page": 2, "total": 12}
    told = say(screen, LogEvent.RUN_INFO, "Job stats", stats=stats)
    assert told == "12 jobs, of which 3 m_step, 2 e_step, 2 figure, 2 table.\n"
    assert say(screen, LogEvent.RUN_INFO, "Job stats", stats={"data": 1, "total": 1}) == "1 job.\n"


def test_what_else_snakemake_says_is_said_as_it_says_it(screen):
    assert say(screen, msg="Complete log(s): a.log") == "Complete log(s): a.log\n"
    told = {"rule_name": "m_step", "rule_msg": None, "jobid": 3, "input": [], "output": ["p"]}
    told |= {"log": ["m.log"], "conda_env": None, "shellcmd": None, "aux": {}, "indent": False}
    said = say(screen, LogEvent.JOB_ERROR, "Error", logging.ERROR, **told)
    assert "Error in rule m_step:" in said
    assert "log: m.log (check log file(s) for error details)" in said


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_in_a_terminal_what_is_in_work_stands_below_and_is_drawn_anew(screen, tmp_path):
    log = tmp_path / "m.log"
    assert begin(screen, 3, "M-step", [log]) == "  M-step (00:00)\n"
    log.write_text(BAR)

    said = begin(screen, 4, "E-step, of which the name does not fit into the width of the screen")

    first = "  M-step: 128 of 384, 00:13 left (18.50 step/s)\n"
    second = "  E-step, of which the name does not fit into the width of the screen"[:59]
    assert said == f"{ERASED.format(1)}{first}{second}\n"
    assert say(screen, msg="Waiting.") == f"{ERASED.format(2)}Waiting.\n{first}{second}\n"
    said = end(screen, 3, done=1)
    assert said.endswith(f"{ERASED.format(1)}[1 of 9] M-step (00:00)\n{second}\n")
    screen.close()
    assert screen.stream.getvalue().endswith(ERASED.format(1))


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_of_many_jobs_in_work_some_are_shown(screen):
    for job in range(40):
        said = begin(screen, job, f"E-step {job}")
    assert said.count("E-step") == terminal.SHOWN
    assert said.endswith(f"  and {40 - terminal.SHOWN} more jobs\n")


def test_a_defect_here_does_not_end_the_run(screen, capsys):
    assert say(screen, LogEvent.JOB_INFO, "A record without fields") == ""
    assert "KeyError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "compact"),
    [
        ({}, True),
        *(({key: True}, False) for key in ("dryrun", "verbose", "printshellcmds", "debug_dag")),
        ({"module": True}, False),
    ],
)
def test_whoever_asks_for_more_gets_it(asked, compact, monkeypatch):
    logger = logging.Logger("snakemake")
    usual, other = logging.StreamHandler(Screen(False)), logging.NullHandler()
    usual.name = "DefaultStreamHandler"
    logger.addHandler(usual)
    logger.addHandler(other)
    monkeypatch.setattr(terminal, "logger", logger)
    settings = dict.fromkeys(("dryrun", "verbose", "printshellcmds", "debug_dag"), False)
    modifier = SimpleNamespace(is_main_snakefile=lambda: "module" not in asked)
    output = SimpleNamespace(quiet=None, **(settings | asked))

    terminal.show_compactly(SimpleNamespace(output_settings=output, modifier=modifier))

    assert [isinstance(h, terminal.Terminal) for h in logger.handlers].count(True) == compact
    assert other in logger.handlers
    assert (usual in logger.handlers) is not compact
