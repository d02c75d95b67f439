"""The parts of ``benchmarks/gpu.py``: each module has ``cases``, which yields names and calls."""
