"""Who takes a signal, and when: handlers run between any two lines of Python, and may raise."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["handled", "postponed"]


@contextlib.contextmanager
def handled(
    handler: Callable[[int, FrameType | None], None] | signal.Handlers, *numbers: int
) -> Iterator[None]:
    """Has a handler take signals, in the main thread, which alone handles them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Has every signal that Python handles wait until the context is left.

    It is for moments at which no handler may raise, such as a library's call of Python.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    numbers = [n for n in signal.valid_signals() if callable(signal.getsignal(n))]
    try:
        with handled(note, *numbers):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])
