"""A headless Chromium for tests, driven over a pipe: what a page asks for, what it says on its console, how it looks. No network, no port."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = "needs Chromium: apt-get install chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", "--remote-debugging-pipe"]


class Browser:
    """One Chromium with one tab. `requests`: addresses other than the opened page's own; `console`: errors and warnings; `dialogs`: what called alert."""

    def __init__(self, read: int, write: int):
        self._read, self._write, self._left, self._n, self._session = read, write, b"", 0, ""
        self.events: list[dict] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, *, seconds: float = 40, **params: Any) -> dict:
        self._n += 1
        number = self._n
        message = {"id": number, "method": method, "params": params} | ({"sessionId": self._session} if self._session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + seconds
        while (answer := self._next(until)) is not None:
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
        raise TimeoutError(f"{method} took more than {seconds} seconds")

    def _next(self, until: float) -> dict | None:
        """The next message; events are kept (and an alert is closed, so that it cannot block the page)."""
        while b"\0" not in self._left:
            if not select.select([self._read], [], [], max(0, until - time.monotonic()))[0]:
                return None
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self._left += data
        raw, self._left = self._left.split(b"\0", 1)
        message = json.loads(raw)
        if "method" in message:
            self.events.append(message)
            if message["method"] == "Page.javascriptDialogOpening":
                self._n += 1
                close = {"id": self._n, "method": "Page.handleJavaScriptDialog", "params": {"accept": False}, "sessionId": self._session}
                os.write(self._write, json.dumps(close).encode() + b"\0")
        return message

    def open(self, page: Path, *, width: int = 1280, height: int = 900, ready: str = "document.readyState === 'complete'", seconds: float = 40) -> None:
        """Open a file and wait until the expression `ready` holds and the page is quiet."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.events.clear()
        self.url = page.resolve().as_uri()
        self.call("Page.navigate", url=self.url)
        until = time.monotonic() + seconds
        while not self.value(f"location.href !== 'about:blank' && document.readyState === 'complete' && ({ready})"):
            if time.monotonic() > until:
                raise TimeoutError(f"{page.name} was not ready: {ready}; console: {self.console}")
            time.sleep(.05)

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page (a promise is awaited)."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"])[:600])
        return answer["result"].get("value")

    def hover(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, out: Path, *, whole: bool = True) -> Path:
        out.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))
        return out

    def paper(self, out: Path) -> Path:
        out.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)["data"]))
        return out

    @property
    def requests(self) -> list[str]:
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if url.split("#")[0] != self.url]

    @property
    def console(self) -> list[str]:
        lines = []
        for event in self.events:
            method, params = event["method"], event["params"]
            if method == "Log.entryAdded":
                lines.append(f"{params['entry']['level']}: {params['entry']['text']}")
            elif method == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                lines.append(f"exception: {details.get('exception', {}).get('description') or details['text']}")
            elif method == "Runtime.consoleAPICalled":
                lines.append(f"{params['type']}: {' '.join(str(a.get('value', a.get('description'))) for a in params['args'])}")
        return lines

    @property
    def dialogs(self) -> list[str]:
        return [e["params"]["message"] for e in self.events if e["method"] == "Page.javascriptDialogOpening"]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium with an empty profile and end it, and only it, afterwards."""
    ask_read, ask_write = os.pipe()
    tell_read, tell_write = os.pipe()
    profile = tempfile.mkdtemp(prefix="chromium-")
    ends = fcntl.fcntl(ask_read, fcntl.F_DUPFD, 50), fcntl.fcntl(tell_write, fcntl.F_DUPFD, 50)  # out of the way of 3 and 4
    # Chromium reads commands on descriptor 3 and answers on 4.
    started = subprocess.Popen([str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"], pass_fds=(3, 4), start_new_session=True,
                               preexec_fn=lambda: (os.dup2(ends[0], 3), os.dup2(ends[1], 4)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for end in ends:
        os.close(end)
    os.close(ask_read)
    os.close(tell_write)
    try:
        yield Browser(tell_read, ask_write)
    finally:
        os.close(ask_write)
        os.close(tell_read)
        try:
            started.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        shutil.rmtree(profile, ignore_errors=True)
