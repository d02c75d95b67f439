"""The engine at the paper's size: the U-Net of its CIFAR-10, against azula's MMPS and a plain loop.

The machine's peaks are those of large products and convolutions. FLOPs are counted by PyTorch's
counter at a small batch. A batch that does not fit is halved. Of the fastest setting, the kernels
are listed that take most of the time, and where the host waits for the device; and whole blocks of
an E-step and whole chunks of an M-step are set beside the network's own time in them.
"""

import contextlib
import copy
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

import engine as rivals
import numpy as np
import torch

from diem.data.observations import Observations, Observed, save_observations
from diem.diffusion.gaussian import Gaussian
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.diffusion.samplers.ddpm import DDPM
from diem.em.e_step import EStep, e_step
from diem.em.training import CHUNK, Training, train
from diem.jobs.job import Job
from gpu_parts.machine import clocks
from gpu_parts.setup import Case, Setup, timed

__all__ = ["COMPILED", "Measured", "cases"]

BATCHES = (256, 128, 64)
COMPILE_SECONDS = 90
SINGLE: dict[str, Any] = {}
HALF = {"precision": "bfloat16"}
LAST = {**HALF, "channels_last": True}
COMPILED = {**LAST, "compile": True}
ALGORITHMS = ("deterministic", "benchmark")
"""How cuDNN can be told to choose: what gives the same bits, or by trying all."""
SMALL = {
    "label": "a small U-Net",
    "network": {"name": "unet", "channels": [8, 16], "blocks": 1, "embedding": 8},
    "shape": (3, 8, 8),
    "operator": {"name": "mask", "missing": 0.75},
}


class Measured:
    """Measures, and remembers what later cases are compared with."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.problem = setup, "unet"
        self.peaks: dict[str, float] = {}
        self.seconds: dict[tuple[str, str, int], float] = {}
        self.flops: dict[str, float] = {}
        if setup.tiny:
            rivals.PROBLEMS["small"] = SMALL
            self.problem = "small"

    def peak(self, precision: str) -> dict[str, Any]:
        """Measures the peak of a precision, in FLOP/s."""
        rates = {}
        for name, (run, operations) in rivals.products(self.setup.device).items():
            if name.endswith(precision):
                rates[name.partition(" ")[0]] = operations / timed(self.setup, run, 1.5)[0]
        self.peaks[precision] = max(rates.values())
        return {f"{name}_tflop_per_s": rate / 1e12 for name, rate in rates.items()} | clocks()

    def step(self, half: str, batch: int) -> Any:
        """Returns a step of a half, which has every variant."""
        if half == "e_step":
            return rivals.EStep(self.problem, batch, 1, self.setup.device)
        return rivals.MStep(self.problem, batch, self.setup.device)

    def counted(self, half: str) -> float:
        """Returns the FLOPs of one sample."""
        if half not in self.flops:
            batch = 2
            self.flops[half] = rivals.count(self.step(half, batch).diem()) / batch
        return self.flops[half]

    def by(self, algorithm: str, half: str, batch: int) -> dict[str, Any]:
        """Measures the fastest setting while cuDNN chooses its algorithms otherwise."""
        flags = dict.fromkeys(ALGORITHMS, False) | {algorithm: True}
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=True, **flags):
            return self.variant(half, f"cuDNN {algorithm}", LAST, batch)

    def variant(self, half: str, name: str, options: dict[str, Any] | None, batch: int):
        """Measures a variant; the rival's has no options."""
        counted = self.counted(half)
        while True:
            try:
                seconds, memory, turns = self._timed(half, options, batch)
                break
            except torch.OutOfMemoryError:
                if batch <= BATCHES[-1] // 4:
                    raise
            self._forget()
            batch //= 2
        self._forget()
        self.seconds[half, name, batch] = seconds
        rate = counted * batch / seconds
        rival = self.seconds.get((half, "rival", batch))
        peak = self.peaks.get("bfloat16")
        return {
            "batch": batch,
            "ms": 1e3 * seconds,
            "samples_per_s": batch / seconds,
            "gflop_per_sample": counted / 1e9,
            "tflop_per_s": rate / 1e12,
            "share_of_bfloat16_peak": rate / peak if peak else None,
            "speed_over_rival": rival / seconds if rival else None,
            "peak_gib": memory,
            "turns": turns,
            "sm_clock": clocks().get("clocks.sm"),
        }

    def _timed(self, half: str, options: dict[str, Any] | None, batch: int):
        setup, compiled = self.setup, bool(options and options.get("compile"))
        step = self.step(half, batch)
        rival = "azula" if half == "e_step" else "plain"
        run = getattr(step, rival)() if options is None else step.diem(**options)
        if setup.cuda:
            torch.cuda.reset_peak_memory_stats(setup.device)
        with _time_limit(COMPILE_SECONDS if compiled else 0):
            run()
        seconds, turns = timed(setup, run)
        memory = torch.cuda.max_memory_allocated(setup.device) / 2**30 if setup.cuda else None
        return seconds, memory, turns

    def _forget(self) -> None:
        if self.setup.cuda:
            torch.cuda.empty_cache()

    def kernels(self, half: str, batch: int) -> dict[str, Any]:
        """Lists the kernels that take most of the time of a step."""
        from torch.profiler import ProfilerActivity, profile

        run = self.step(half, batch).diem(**LAST)
        for _ in range(3):
            run()
        self.setup.synchronize()
        activities = [ProfilerActivity.CPU]
        activities += [ProfilerActivity.CUDA] if self.setup.cuda else []
        began = time.perf_counter()
        with profile(activities=activities) as profiler:
            run()
            self.setup.synchronize()
        wall = time.perf_counter() - began
        spent: Counter[str] = Counter()
        calls: Counter[str] = Counter()
        for event in profiler.events():
            on_device = event.device_type == torch.autograd.DeviceType.CUDA
            if on_device == self.setup.cuda:
                of_kernel = event.time_range.elapsed_us()
                spent[event.name] += of_kernel if on_device else event.self_cpu_time_total
                calls[event.name] += 1
        total = sum(spent.values()) or 1.0
        top = [
            f"{time_ / total:.1%} {calls[name]} x {name[:90]}"
            for name, time_ in spent.most_common(16)
        ]
        return {
            "device_ms": total / 1e3,
            "wall_ms_profiled": 1e3 * wall,
            "kernels": sum(calls.values()),
            "top": top,
        }

    def waits(self, half: str, batch: int) -> dict[str, Any]:
        """Tells where the host waits for the device in a step."""
        if not self.setup.cuda:
            return {"waits": "none: no GPU"}
        run = self._sampling(batch) if half == "e_step" else self.step(half, batch).diem(**LAST)
        run()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        places = Counter(
            f"{'/'.join(w.filename.split('/')[-2:])}:{w.lineno}"
            for w in caught
            if "synchroniz" in str(w.message)
        )
        return {"waits": sum(places.values()), "places": dict(places.most_common(12))}

    def _prior(self, step: Any) -> Prior:
        shape = rivals.PROBLEMS[self.problem]["shape"]
        gaussian = Gaussian.standard(shape).to(self.setup.device)
        return Prior(gaussian, copy.deepcopy(step.denoiser), {})

    def _sampling(self, batch: int, steps: int = 4) -> Callable[[], Any]:
        step = self.step("e_step", batch)
        prior, device = self._prior(step), self.setup.device
        sampler = PosteriorSampler(DDPM(steps=steps), iterations=1, **LAST)
        return lambda: sampler(
            prior, step.operator, step.y, 0.01, torch.Generator(device).manual_seed(0)
        )

    def whole_e_step(self, batch: int) -> dict[str, Any]:
        """An E-step of two blocks, from its file of observations to its file of samples."""
        setup, steps = self.setup, 2 if self.setup.tiny else 8
        step = self.step("e_step", batch)
        folder = setup.new_folder(f"e_step_{batch}")
        some = Observed(step.operator.to("cpu"), step.y.cpu(), torch.tensor(0.01), np.arange(batch))
        splits = {"train": some, "validation": some}
        save_observations(folder / "observations.h5", splits, "mask", {})
        sampler = PosteriorSampler(DDPM(steps=steps), iterations=1, **LAST)
        network, _ = timed(setup, step.diem(**LAST), 1.0)
        prior, seconds = self._prior(step), []
        job = Job(device=setup.device)
        with Observations(folder / "observations.h5") as observations:
            for number in range(2):  # the first one warms up
                began = time.perf_counter()
                settings, own = EStep(sampler, block=batch), replace(job, keep=Job().keep)
                e_step(folder / f"{number}.h5", prior, observations, settings, 2, own)
                seconds.append(time.perf_counter() - began)
        return self._whole("e_step", 2 * sampler.sampler.evaluations, batch, network, seconds[-1])

    def whole_m_step(self, batch: int) -> dict[str, Any]:
        """Two chunks of an M-step's training, with the losses on validation samples."""
        setup, step = self.setup, self.step("m_step", batch)
        network, _ = timed(setup, step.diem(**LAST), 1.0)
        x, seconds = torch.randn(4 * batch, *step.x.shape[1:], device=setup.device), []
        training = Training(CHUNK, batch, 1e-4, **LAST)
        for count in (2 if setup.tiny else 8, CHUNK):
            began = time.perf_counter()
            some = replace(training, steps=2 if setup.tiny else count)
            train(copy.deepcopy(step.denoiser), x, x[:batch], some, seed=0)
            setup.synchronize()
            seconds.append(time.perf_counter() - began)
        return self._whole("m_step", some.steps, batch, network, seconds[-1])

    def _whole(self, half: str, steps: int, batch: int, network: float, seconds: float):
        """Returns the values of a whole half: the rest is what is not the network's steps."""
        peak, rate = self.peaks.get("bfloat16"), self.counted(half) * batch * steps / seconds
        return {
            "whole_seconds": seconds,
            "steps": steps,
            "batch": batch,
            "step_ms": 1e3 * network,
            "share_outside": 1 - steps * network / seconds,
            "share_of_bfloat16_peak": rate / peak if peak else None,
        }


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    """Raises an error after some seconds; 0 is no limit."""

    def refuse(*_: object) -> NoReturn:
        raise TimeoutError(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, refuse)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def cases(setup: Setup) -> Iterator[Case]:
    """Yields the cases, the ones that matter most first."""
    measured = Measured(setup)
    large, middle, small = (4, 4, 2) if setup.tiny else BATCHES
    halves = ("e_step", "m_step")
    for precision in ("bfloat16", "float32"):
        yield f"peak in {precision}", partial(measured.peak, precision)

    def variant(half: str, name: str, options: dict[str, Any] | None, batch: int) -> Case:
        label = {"e_step": "azula's MMPS", "m_step": "a plain loop"}[half]
        label = label if name == "rival" else name
        return f"{half}, {label}, {batch}", partial(measured.variant, half, name, options, batch)

    for half in halves:
        yield variant(half, "bfloat16, channels-last", LAST, large)
        yield variant(half, "rival", None, large)
        yield variant(half, "float32", SINGLE, large)
    for half in halves:
        yield f"kernels of the {half}", partial(measured.kernels, half, large)
    yield "whole e_step", partial(measured.whole_e_step, large)
    yield "whole m_step", partial(measured.whole_m_step, large)
    for half in halves:
        yield f"waits of the {half}", partial(measured.waits, half, small)
        yield variant(half, "bfloat16", HALF, large)
    for half in halves:
        yield variant(half, "bfloat16, channels-last", LAST, middle)
        yield variant(half, "bfloat16, channels-last", LAST, small)
    for algorithm in ALGORITHMS:
        for half in halves:
            call = partial(measured.by, algorithm, half, large)
            yield f"{half}, bfloat16, channels-last, cuDNN {algorithm}, {large}", call
    yield "peak in bfloat16, again", partial(measured.peak, "bfloat16")
    if not setup.tiny:  # last, since an attempt that is ended may leave the compiler at work
        for half in halves:
            yield variant(half, "bfloat16, channels-last, compiled", COMPILED, large)
