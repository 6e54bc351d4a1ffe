"""The page in Chromium, as a person has it: on a phone and on a desk, by day and by night, with scripts off."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from drain.page import page
from drain.status import Backlog, Ends, Status
from tests.test_page import EMPTY, HOSTILE, days, rich

PHONE, DESK = (360, 800), (1280, 900)
_BINARY = shutil.which("chromium") or shutil.which("google-chrome")
_LIMIT_SECONDS = 60.0

pytestmark = pytest.mark.skipif(_BINARY is None, reason="no chromium on PATH")


class Chromium:
    """A headless Chromium, spoken to over its debugging pipe: JSON and NUL.

    https://chromedevtools.github.io/devtools-protocol/
    """

    def __init__(self, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        assert _BINARY is not None
        # The pipe is 3 and 4 in the child.
        command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", command, _BINARY, *flags, *quiet],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer = b""
        self._number = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: object) -> dict[str, Any]:
        """One command, and its answer; events meanwhile are kept."""
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        timer = Timer(_LIMIT_SECONDS, self._process.kill)
        timer.start()
        try:
            while b"\0" not in self._buffer:
                chunk = os.read(self._in, 1 << 16)
                assert chunk, "Chromium ended"
                self._buffer += chunk
        finally:
            timer.cancel()
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def show(self, path: Path, size: tuple[int, int], *, dark: bool = False, scripts: bool = False) -> None:
        """Loads a page."""
        width, height = size
        phone = width < 600
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def of(self, method: str) -> list[Mapping[str, Any]]:
        """The events of that name since the page was asked for."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def ask(self, expression: str) -> Any:
        """What an expression gives in the page; works with its own scripts off."""
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def shot(self, path: Path) -> None:
        """The whole page as a picture."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": self.ask("innerWidth"), "height": size["height"], "scale": 1}
        data = self("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._in)
        os.close(self._out)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    made = Chromium(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()


def spiky() -> Status:
    """Numbers as large as they can be, and words as long and as bad."""
    long = "x" * 400 + HOSTILE
    one = replace(
        rich(),
        days=days(
            Ends(5, 1),
            Ends(123_456_789_000, 200_000_000, 300_000_000),
            *[Ends(5)] * 5,
            delay_median=5.0,
            delay_p95=90 * 86400.0,
        ),
        backlog=tuple(Backlog(EMPTY.at - 86400 * n, 1_234_567 if n == 9 else 3) for n in range(20, -1, -1)),
        concerns=(f"bucket: {long}",),
        quarantine={long: 1_234_567},
        troubles=(long,),
    )
    deferred = tuple(replace(each, words=long, reason="y" * 200) for each in one.deferred)
    assert one.relay is not None
    return replace(one, deferred=deferred, relay=replace(one.relay, diagnostic=long))


EXAMPLES = {
    "rich": rich(),
    "empty": replace(EMPTY, days=days()),
    "bare": EMPTY,
    "one": replace(rich(), days=days(Ends(3), delay_median=0.4, delay_p95=1.2), backlog=(Backlog(EMPTY.at - 100, 2),)),
    "spiky": spiky(),
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_fits_its_window_asks_for_nothing_and_says_all(
    chromium: Chromium, tmp_path: Path, name: str, size: tuple[int, int], *, dark: bool
) -> None:
    path = tmp_path / f"{name}.html"
    path.write_text(page(EXAMPLES[name]), encoding="utf-8")
    chromium.show(path, size, dark=dark)
    requests = [event["request"]["url"] for event in chromium.of("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    assert chromium.of("Log.entryAdded") == []
    assert chromium.of("Runtime.consoleAPICalled") == []
    assert chromium.of("Runtime.exceptionThrown") == []
    assert chromium.ask("window.innerWidth") == size[0]
    assert chromium.ask("document.documentElement.scrollWidth") <= size[0]
    # Nothing is cut off by its own box either, but where a person can scroll it.
    sticking_out = chromium.ask(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, svg') &&"
        " e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80)).join('; ')"
    )
    assert sticking_out == ""
    text = chromium.ask("document.body.innerText")
    for words in ("drain", "In the bucket", "Last pass", *(["Delivered today"] if EXAMPLES[name].days else [])):
        assert words in text
    background = chromium.ask("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(13, 17, 23)" if dark else "rgb(246, 248, 250)")
    if keep := os.environ.get("DRAIN_KEEP_SCREENSHOTS"):
        chromium.shot(Path(keep) / f"{name}-{size[0]}-{'dark' if dark else 'light'}.png")
    chromium.ask("for (const details of document.querySelectorAll('details')) details.open = true")
    assert chromium.ask("document.documentElement.scrollWidth") <= size[0]


def test_on_a_phone_every_table_of_a_usual_page_fits(chromium: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "open.html"
    path.write_text(page(rich()).replace("<details", "<details open"), encoding="utf-8")
    chromium.show(path, PHONE)
    widths = chromium.ask("[...document.querySelectorAll('.scroll')].map(e => [e.scrollWidth, e.clientWidth])")
    assert len(widths) == 4
    assert all(inner <= outer for inner, outer in widths), widths


def test_words_of_strangers_stay_words_even_with_scripts_on(chromium: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(page(spiky()), encoding="utf-8")
    chromium.show(path, DESK, scripts=True)
    assert chromium.ask("document.querySelectorAll('script, img, iframe, [onerror]').length") == 0
    assert "<script>alert(1)</script>" in chromium.ask("document.body.innerText")
    assert chromium.of("Page.javascriptDialogOpening") == []


def test_the_policy_stops_what_would_slip_through(chromium: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "slipped.html"
    slipped = "<script>document.title = 'taken'</script><img src='https://drain.invalid/x.png'></main>"
    path.write_text(page(rich()).replace("</main>", slipped), encoding="utf-8")
    chromium.show(path, DESK, scripts=True)
    assert chromium.ask("document.title") == "drain: something wants a look"
    # Asked for in words only: nothing leaves the browser.
    (refused,) = chromium.of("Network.loadingFailed")
    assert refused["blockedReason"] == "csp"
    assert chromium.of("Network.responseReceived")[-1]["response"]["url"] == path.as_uri()


def test_each_plot_has_a_name_and_a_description_for_who_does_not_see_it(chromium: Chromium, tmp_path: Path) -> None:
    path = tmp_path / "rich.html"
    path.write_text(page(rich()), encoding="utf-8")
    chromium.show(path, PHONE)
    nodes = chromium("Accessibility.getFullAXTree")["nodes"]
    plots = [node for node in nodes if node.get("role", {}).get("value") in ("image", "img")]
    assert len(plots) == 3
    for plot in plots:
        assert plot["name"]["value"].strip()
    headings = [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == "heading"]
    assert headings[0] == "drain"
    assert {"Mails a day", "From bucket to inbox", "In the bucket"} <= set(headings)
