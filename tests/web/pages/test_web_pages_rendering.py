"""Templates into answers: nothing is a script that we did not write, every file is named by its bytes."""

import gzip
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Code, Refusal
from gatekeeper.web.pages.assets import PREFIX, STATIC, Assets
from gatekeeper.web.pages.rendering import CSP, TEMPLATES, Pages, script_json, wants_page

PROJECT = Path(__file__).resolve().parents[3]
# npm pack htmx.org@2.0.11, uplot@1.6.32 and, for tests alone, axe-core@4.14.1: the files as they are in the packages.
VENDORED = {
    STATIC / "vendor/htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    STATIC / "vendor/htmx.LICENSE.txt": "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
    STATIC / "vendor/uPlot.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    STATIC / "vendor/uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    STATIC / "vendor/uPlot.LICENSE.txt": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    PROJECT / "tests/browser/vendor/axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c",
    PROJECT
    / "tests/browser/vendor/axe.LICENSE.txt": "af175b9d96ee93c21a036152e1b905b0b95304d4ae8c2c921c7609100ba8df7e",
    PROJECT / "tests/browser/vendor/axe.LICENSE-3RD-PARTY.txt": (
        "4f8563870d0fca38bbc3e00b6f670cb7fa9f380ba9f26a7f7d1184a6b18b1653"
    ),
}


def asked(path: str = "/dashboard") -> Request:
    """A request that nobody has let in."""
    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "server": ("x", 80)}
    return Request({**scope, "scheme": "http", "root_path": ""})


@pytest.mark.parametrize("path", VENDORED, ids=lambda path: path.name)
def test_what_others_wrote_is_what_they_published(path):
    assert hashlib.sha256(path.read_bytes()).hexdigest() == VENDORED[path]


def test_nothing_is_vendored_that_is_not_listed():
    assert set((STATIC / "vendor").iterdir()) == {path for path in VENDORED if path.is_relative_to(STATIC)}


def test_no_template_holds_a_script_a_style_or_another_host():
    for path in sorted(TEMPLATES.rglob("*.html")):
        text = path.read_text("utf-8")
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=[\"']|javascript:|\|\s*safe\b|hx-on|hx-vals=.js:", text), path
        for opening in re.findall(r"<script\b[^>]*>", text):
            assert 'src="{{ asset(' in opening or 'type="application/json"' in opening, (path, opening)
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text), path


def test_a_refusal_is_a_page_with_every_guard_in_its_head():
    pages = Pages(SystemClock())
    answer = pages.refused(
        asked(), Refusal(Code.NOT_FOUND, "There is no <b>x</b>.", hint="look & see", retry_after_s=3)
    )
    body = bytes(answer.body).decode()
    assert answer.status_code == 404 and answer.headers["retry-after"] == "3"
    assert "There is no &lt;b&gt;x&lt;/b&gt;." in body and "look &amp; see" in body
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["cache-control"] == "no-store"
    assert "unsafe" not in CSP and "*" not in CSP
    assert body.count("<h1>") == 1 and 'lang="en"' in body and 'href="#main"' in body


def test_every_asset_of_a_page_is_there_under_its_hash():
    assets, pages = Assets(), Pages(SystemClock())
    body = bytes(pages.refused(asked(), Refusal(Code.NOT_FOUND)).body).decode()
    urls = re.findall(rf'{PREFIX}[^"]+', body)
    assert len(urls) >= 5
    for url in urls:
        found = assets._found[url.removeprefix(PREFIX)]
        assert hashlib.sha256(found.body).hexdigest()[:16] in url
        assert gzip.decompress(found.zipped) == found.body


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_in_a_page_is_the_value_and_ends_no_script(value):
    try:
        json.dumps(value).encode().decode().encode("utf-8")
        text = script_json(value)
    except (TypeError, UnicodeEncodeError):
        # Lone surrogates and numbers beyond 64 bits are no JSON of ours.
        return
    assert not set(text) & set("<>&'\u2028\u2029")
    assert json.loads(text) == value


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/dashboard", True),
        ("/dashboard/x", True),
        ("/portal/keys", True),
        ("/playground", True),
        ("/dashboards", False),
        ("/admin/customers", False),
        ("/v1/chat/completions", False),
    ],
)
def test_only_people_are_answered_with_pages(path, page):
    assert wants_page(asked(path)) is page


def test_templates_and_static_files_are_shipped():
    # Hatch packs what is in a package and is not left out of the repository.
    wheel = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["gatekeeper"] and not {"exclude", "include", "only-include"} & set(wheel)
    web = PROJECT / "gatekeeper/web"
    files = [path for folder in ("templates", "static") for path in (web / folder).rglob("*") if path.is_file()]
    assert len(files) > 20
    if (PROJECT / ".git").exists():
        asked = ["git", "check-ignore", *(path.relative_to(PROJECT).as_posix() for path in files)]
        done = subprocess.run(asked, cwd=PROJECT, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout) == (1, ""), done


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling builds the wheel")
def test_the_wheel_holds_templates_and_static_files(tmp_path):
    build = "from hatchling.build import build_wheel; print(build_wheel(__import__('sys').argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=PROJECT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    web = PROJECT / "gatekeeper/web"
    wanted = [path for folder in ("templates", "static") for path in (web / folder).rglob("*") if path.is_file()]
    assert {path.relative_to(PROJECT).as_posix() for path in wanted} <= names
