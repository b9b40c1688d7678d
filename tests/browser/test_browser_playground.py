"""The playground in a real browser: a mistake while typing, its mending, the charge; with JavaScript and without."""

from typing import Any
from urllib.request import Request, urlopen

import pytest
from browsing import faults, scrolls_sideways

MISTAKE, MENDED = (
    "last(events, .json.usage.total_tokens) + usge().total",
    "last(events, .json.usage.total_tokens) * 1000",
)


def settled(page: Any, words: str) -> None:
    page.get_by_text(words).first.wait_for()


def test_a_mistake_appears_while_typing_and_goes_when_it_is_mended(open_page, complaints, shoot):
    page = open_page("/playground")
    settled(page, "no mistakes, no warnings")
    shoot(page, "playground")
    code = page.get_by_label("Expression", exact=True)
    code.fill("")
    code.press_sequentially(MISTAKE, delay=4)
    mistake = page.locator(".mistake.is-error")
    mistake.wait_for()
    assert "unknown function 'usge'" in mistake.inner_text()
    assert "did you mean 'usage'?" in mistake.inner_text()
    line, caret = mistake.locator("pre").text_content().split("\n")[:2]
    assert line.strip() == MISTAKE
    assert caret.index("^") == line.index("usge")
    assert caret.count("^") == len("usge")
    # Its line is marked beside the code, which keeps the focus and what was typed.
    assert page.locator("[data-gutter] .is-error").text_content().strip() == "1"
    assert code.input_value() == MISTAKE
    assert page.evaluate("document.activeElement.id") == "expression"
    assert faults(page) == []
    shoot(page, "playground-mistake")
    code.fill(MENDED)
    settled(page, "21,000")
    assert page.locator(".mistake.is-error").count() == 0
    assert page.locator("[data-gutter] .is-error").count() == 0
    charge = page.get_by_role("region", name="Charge on each plan")
    assert "$" in charge.inner_text()
    assert complaints == []


def test_the_charge_follows_the_answer_and_the_use_before_it(open_page, complaints):
    page = open_page("/playground")
    page.get_by_label("Answer", exact=True).select_option("anthropic-messages.sse")
    settled(page, "18 events in")
    page.get_by_text("Request, and use so far").click()
    page.get_by_label("Units used before").fill("5000000")
    settled(page, "After 5000000 units")
    quotes = page.get_by_role("region", name="Charge on each plan").inner_text()
    assert "beyond" in quotes
    assert complaints == []


def test_an_answer_of_ones_own_is_pasted_and_its_events_shown(open_page, complaints):
    page = open_page("/playground")
    page.get_by_text("Paste or upload an answer").click()
    page.locator("#stream").fill('data: {"n": 3}\n\ndata: {"n": 4}\n\n')
    page.get_by_label("Expression", exact=True).fill("sum(events, .json.n)")
    settled(page, "2 events in")
    assert page.get_by_label("Answer", exact=True).input_value() == ""
    steps = page.locator(".step.hit")
    assert [step.locator(".step-changes").inner_text().split()[-1] for step in steps.all()] == ["3", "7"]
    assert '[[routes.example]]\nname = "from the playground"' in page.locator("#example").text_content()
    assert complaints == []


def test_files_are_read_as_text_or_as_they_are(open_page, complaints, tmp_path):
    page = open_page("/playground")
    page.get_by_text("Paste or upload an answer").click()
    text, packed = tmp_path / "mine.sse", tmp_path / "mine.bin"
    text.write_bytes(b'data: {"usage": {"total_tokens": 4321}}\n\n')
    page.locator("#upload").set_input_files(text)
    settled(page, "4,321")
    packed.write_bytes(b"\x00\x01\xff")
    page.locator("#upload").set_input_files(packed)
    settled(page, "is read as it is")
    settled(page, "Nothing was found")
    assert page.locator("#stream").input_value() == ""
    assert complaints == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("phone", [False, True], ids=["desktop", "phone"])
@pytest.mark.parametrize("path", ["/playground", "/playground/dry-run"])
def test_everybody_can_work_with_it(open_page, complaints, shoot, path, phone, dark):
    page = open_page(path, dark=dark, phone=phone)
    assert page.locator("h1").count() == 1
    for summary in page.locator("main summary").all():
        summary.click()
    assert faults(page) == []
    assert not scrolls_sideways(page)
    name = path.strip("/").replace("/", "-")
    shoot(page, f"{name}-{'phone' if phone else 'desktop'}-{'dark' if dark else 'light'}")
    assert complaints == []


def test_recorded_calls_are_read_again_by_a_button(open_page, complaints, demo, shoot):
    body = b'{"model": "demo-small", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}'
    headers = {"Authorization": f"Bearer {demo.key}", "Content-Type": "application/json"}
    call = Request(f"{demo.url}/v1/chat/completions", body, headers)
    with urlopen(call, timeout=20) as answer:
        assert answer.status == 200
    page = open_page("/playground/dry-run")
    page.get_by_label("Expression").fill("usge()")
    page.get_by_role("button", name="Read them again").click()
    settled(page, "did you mean 'usage'?")
    page.get_by_label("Route", exact=True).select_option("chat")
    page.get_by_label("Expression").fill("usage().total * 2")
    page.get_by_role("button", name="Read them again").click()
    page.locator("#told-title").wait_for()
    settled(page, "Every one of these calls was read again")
    assert page.locator("tbody tr").count() >= 1
    assert faults(page) == []
    shoot(page, "playground-recorded")
    assert complaints == []


def test_without_javascript_a_button_does_it(open_page):
    page = open_page("/playground", script=False)
    page.get_by_label("Expression", exact=True).fill("usage().totl")
    page.get_by_role("button", name="Try it").click()
    settled(page, "did you mean 'total'?")
    page.get_by_label("Expression", exact=True).fill("usage().total * 3")
    page.get_by_role("button", name="Try it").click()
    settled(page, "63")
    assert page.get_by_label("Expression", exact=True).input_value() == "usage().total * 3"
