"""Jobs: their logs, their errors, their device."""

import logging
import re
import sys
import time
import warnings

import pytest
import torch

from diem.errors import DiemError, nearest
from diem.jobs.job import job, logger, progress, select_device


def test_an_error_of_the_user_is_one_sentence_and_an_exit_code(tmp_path, capsys):
    log = tmp_path / "logs" / "some" / "job.log"

    with pytest.raises(SystemExit) as stop, job(str(log), threads=1):
        raise DiemError("file.h5: the key is wrong.")

    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert captured.err == "Error: file.h5: the key is wrong.\n"
    assert captured.out == ""
    assert log.read_text() == "Error: file.h5: the key is wrong.\n"


def test_an_error_that_was_raised_from_another_is_one_sentence_too(tmp_path, capsys):
    with pytest.raises(SystemExit), job(str(tmp_path / "log"), threads=1):
        try:
            raise OSError("deep")
        except OSError as error:
            raise DiemError("Told.") from error

    assert capsys.readouterr().err == (tmp_path / "log").read_text() == "Error: Told.\n"


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, ZeroDivisionError, KeyError])
def test_a_defect_keeps_its_traceback_and_propagates(tmp_path, kind):
    with pytest.raises(kind, match="broken"), job(str(tmp_path / "log"), threads=1):
        raise kind("broken")

    log = (tmp_path / "log").read_text()
    assert "Traceback" in log
    assert kind.__name__ in log
    assert "test_jobs.py" in log
    assert "Error: broken" not in log.splitlines()


def test_an_interruption_propagates(tmp_path):
    with pytest.raises(KeyboardInterrupt), job(str(tmp_path / "log"), threads=1):
        raise KeyboardInterrupt


def test_a_job_that_succeeds_logs_what_the_library_tells(tmp_path, capsys):
    before = list(logger.handlers)
    logging.captureWarnings(False)  # of another test's job, which pytest has undone by half

    with job(str(tmp_path / "log"), threads=1):
        logger.info("kept %d of %d", 3, 4)
        warnings.warn("look out", UserWarning, stacklevel=1)

    log = (tmp_path / "log").read_text()
    assert "kept 3 of 4" in log
    assert "look out" in log
    assert capsys.readouterr().err == ""
    assert logger.handlers == before


def test_handlers_go_even_after_an_error(tmp_path):
    before = list(logger.handlers)

    with pytest.raises(SystemExit), job(str(tmp_path / "log"), threads=1):
        raise DiemError("Told.")

    assert logger.handlers == before


def test_a_job_has_the_threads_of_the_config(tmp_path):
    try:
        with job(str(tmp_path / "log"), threads=2):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_progress_tells_rate_and_time_left_in_the_log(tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")

    with progress(str(log), unit="sample", total=10) as bar:
        bar.mininterval = 0
        for _ in range(10):
            time.sleep(0.01)
            bar.update(1)

    told = log.read_text()
    assert told.startswith("before\n")
    assert "10/10" in told
    # Elapsed and left, then the rate: [00:00<00:00, 95.1 sample/s].
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, +[\d.]+ sample/s\]", told)


def test_a_bar_whose_total_comes_later(tmp_path):
    with progress(str(tmp_path / "log"), unit="step") as bar:
        bar.reset(total=4)
        bar.update(4)

    assert "4/4" in (tmp_path / "log").read_text()


def test_devices_that_are_there():
    assert select_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert select_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "nonsense", ""])
def test_devices_that_are_not_there(name):
    with pytest.raises(DiemError, match="device") as error:
        select_device(name)

    message = str(error.value)
    assert repr(name) in message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.skipif(sys.platform == "darwin", reason="there may be one")
def test_a_mac_gpu_elsewhere():
    with pytest.raises(DiemError, match="device: 'mps'"):
        select_device("mps")


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("tweedy", ["tweedie", "zeros"], " (did you mean 'tweedie'?)"),
        ("TWEEDIE", ["tweedie", "zeros"], " (did you mean 'tweedie'?)"),
        ("x", ["b", "a"], " (known: a, b)"),
        (50, ["50", "a"], " (did you mean '50'?)"),
    ],
)
def test_nearest(name, known, hint):
    assert nearest(name, known) == hint
