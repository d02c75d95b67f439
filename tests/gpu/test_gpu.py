"""What only a GPU shows: the parts of benchmarks/gpu.py that prove something, as tests."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
    pytest.mark.filterwarnings("ignore"),  # the compiler's own
]


@pytest.mark.parametrize("part", ["chain", "library", "precision", "memory", "resume", "ddp"])
def test_every_case_holds_on_a_gpu(part, tmp_path, monkeypatch):
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent / "workflow")]
    monkeypatch.setattr(sys, "path", [*paths, *sys.path])
    monkeypatch.setenv("PYTHONPATH", ":".join(paths), prepend=":")
    setup = importlib.import_module("gpu_parts.setup")
    cases = importlib.import_module(f"gpu_parts.{part}").cases
    failed = {}
    for case, call in cases(setup.Setup(torch.device("cuda", 0), True, tmp_path)):
        try:
            call()
        except Exception as error:  # the others are of interest too
            failed[case] = error
    assert not failed
