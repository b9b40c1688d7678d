"""A real gateway process and a real Chromium: what a person would see. Without Chromium the tests are skipped, but
with CI set they fail. Screenshots go to ``GATEKEEPER_SCREENSHOTS``, else to the test's own folder."""

import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from last_week import fill

playwright_api = pytest.importorskip("playwright.sync_api", reason="no playwright: install the dev extra")

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
EMAIL, PASSWORD = "owner@example.com", "four plain words here"
_START_S = 40.0


@dataclass
class Demo:
    """``gatekeeper demo``: where it is, its admin key, and the link of the first owner."""

    process: "subprocess.Popen[str]"
    url: str
    key: str
    admin_key: str
    first: str


def _chromium() -> str | None:
    given = os.environ.get("GATEKEEPER_CHROMIUM")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return given or next((found for name in names if (found := shutil.which(name))), None)


def _read_until(process: "subprocess.Popen[str]", pattern: str) -> str:
    """What a process has printed, as soon as it holds ``pattern``."""
    assert process.stdout is not None
    said, ends_s = "", time.monotonic() + _START_S
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while not re.search(pattern, said):
            left_s = ends_s - time.monotonic()
            assert left_s > 0 and process.poll() is None, f"the demo did not start:\n{said}"
            if waiting.select(timeout=left_s):
                said += os.read(process.stdout.fileno(), 65_536).decode()
    return said


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One gateway for all tests of a process, with a week of business behind it."""
    folder = tmp_path_factory.mktemp("demo")
    fill(folder / "demo.sqlite")
    command = [sys.executable, "-m", "gatekeeper.cli.main", "demo", "--port", "0", "--tokens-per-s", "0"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ADMIN_", "STRIPE_", "DATABASE_"))}
    process = subprocess.Popen(
        [*command, "--database", str(folder / "demo.sqlite")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=env,
    )
    try:
        said = _read_until(process, r"/dashboard/first\?link=[\w-]{40,}\s")
        found = {
            name: re.search(pattern, said)
            for name, pattern in {
                "url": r"a gateway at (\S+),",
                "key": r"has the key (\S+)",
                "admin_key": r"X-Admin-Key: (\S+)'",
                "first": r"(\S+/dashboard/first\?link=\S+)",
            }.items()
        }
        yield Demo(process, **{name: match[1] for name, match in found.items() if match})
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the tests of a file. Playwright's loop runs in this thread as long as it is open, and whoever
    comes after it may want one of his own."""
    path = _chromium()
    if path is None:
        reason = "no Chromium: install it, or set GATEKEEPER_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with playwright_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def owner(browser: Any, demo: Demo) -> dict[str, Any]:
    """The cookies of the first owner, who came by the link that was printed."""
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(demo.first)
    page.get_by_label("Email").fill(EMAIL)
    for field in page.locator("input[type=password]").all():
        field.fill(PASSWORD)
    page.locator("main button[type=submit]").click()
    page.get_by_role("heading", name="Overview").wait_for()
    state: dict[str, Any] = context.storage_state()
    context.close()
    return state


@pytest.fixture
def complaints() -> list[str]:
    """What the browser's console complained of: a broken script, something that our CSP kept out."""
    return []


@pytest.fixture
def open_page(browser: Any, demo: Demo, owner: dict[str, Any], complaints: list[str]) -> Iterator[Callable[..., Any]]:
    """``open_page(path, dark=False, phone=False)``: a page of the signed-in owner."""
    contexts = []

    def opened(path: str, *, dark: bool = False, phone: bool = False, script: bool = True) -> Any:
        context = browser.new_context(
            viewport=PHONE if phone else DESKTOP,
            color_scheme="dark" if dark else "light",
            storage_state=owner,
            java_script_enabled=script,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(demo.url + path)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def shoot(tmp_path: Path) -> Callable[..., None]:
    """``shoot(page, name)``: the whole page as a PNG, or what the window shows of it."""
    folder = Path(os.environ.get("GATEKEEPER_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def shot(page: Any, name: str, *, whole: bool = True) -> None:
        page.screenshot(path=folder / f"{name}.png", full_page=whole, animations="disabled")

    return shot
