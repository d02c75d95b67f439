"""CUDA graphs: a compiled network's steps, launched kernel by kernel and as one graph.

They matter where the kernels are so short that the GPU waits for the next launch: the network of
the manifold, and small batches of the paper's U-Net; a full batch is set beside them.
"""

from collections.abc import Iterator
from functools import partial

from gpu_parts.engine import BATCHES, COMPILED, Measured
from gpu_parts.setup import Case, Setup

__all__ = ["cases"]


def cases(setup: Setup) -> Iterator[Case]:
    """Yields the cases; the compiled network without graphs is what they are compared with."""
    # On the CPU, which has no graphs, the part itself is tried.
    graphs = {**COMPILED, "compile": "reduce-overhead" if setup.cuda else True}
    problems = [("mlp", 1024), ("unet", BATCHES[-1]), ("unet", BATCHES[0])]
    for problem, batch in problems[:1] if setup.tiny else problems:
        measured = Measured(setup)
        measured.problem = problem
        for half in ("e_step",) if setup.tiny else ("e_step", "m_step"):
            for label, name, options in (
                ("compiled", "rival", COMPILED),
                ("CUDA graphs", "graphs", graphs),
            ):
                call = partial(measured.variant, half, name, options, batch)
                yield f"{half}, {problem}, {label}, {batch}", call
