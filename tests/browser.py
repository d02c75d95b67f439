"""Debian's Chromium, headless, told what to do by its debugging protocol through a pipe."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CHROMIUM", "chromium")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--hide-scrollbars"),
    *("--remote-debugging-pipe", "about:blank"),
]


class Browser:
    """A page in a browser.

    Arguments:
        requests: Where its commands are written.
        answers: Where its answers and events are read.
    """

    def __init__(self, requests, answers):
        self.requests, self.answers = requests, answers
        self.session, self.number, self.events = None, 0, []
        (target,) = [
            each for each in self.ask("Target.getTargets")["targetInfos"] if each["type"] == "page"
        ]
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def _next(self):
        text = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            text += byte
        return json.loads(text)

    def ask(self, method, **params):
        """Sends a command, and returns its result; events that come before it are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.requests.write(json.dumps(message).encode() + b"\0")
        self.requests.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method):
        while all(event["method"] != method for event in self.events):
            self.events.append(self._next())

    def open(self, path: Path, width: int, height: int = 800, dark: bool = False):
        """Opens a file in a window of some size, and forgets what happened before."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.ask("Page.navigate", url=path.absolute().as_uri())
        self.wait_for("Page.loadEventFired")

    def value(self, expression):
        """Returns the value of an expression of JavaScript, as JSON has it."""
        result = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def complaints(self):
        """Returns the errors and warnings of the console since the page was opened."""
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(event["params"]["exceptionDetails"])
            if event["method"] == "Log.entryAdded":
                found.append(event["params"]["entry"])
            if event["method"] == "Runtime.consoleAPICalled":
                found.append(event["params"])
        return found

    def requested(self):
        """Returns the addresses that the page asked for, itself first."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def screenshot(self, path: Path):
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Yields a browser whose files lie in a folder; skips where there is none."""
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"{CHROMIUM} is not installed (Debian's package chromium, or CHROMIUM=path)")
    requests_end, requests = os.pipe()
    answers, answers_end = os.pipe()

    # It reads its file 3 and writes its file 4.
    placed = f'exec "$@" 3<&{requests_end} 4>&{answers_end}'
    process = subprocess.Popen(
        ["bash", "-c", placed, "bash", CHROMIUM, f"--user-data-dir={folder}", *FLAGS],
        pass_fds=(requests_end, answers_end),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(requests_end)
    os.close(answers_end)
    with os.fdopen(requests, "wb") as writing, os.fdopen(answers, "rb") as reading:
        try:
            yield Browser(writing, reading)
        finally:
            process.terminate()
            process.wait(timeout=30)
