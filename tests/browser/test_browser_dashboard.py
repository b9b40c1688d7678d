"""The dashboard in a real browser: a business from its first customer to a refused call, and every page for
everybody."""

import json
import re
import urllib.error
import urllib.request
from typing import Any

import pytest
from browsing import faults, scrolls_sideways

expect = pytest.importorskip("playwright.sync_api", reason="no playwright: install the dev extra").expect
expect.set_options(timeout=15_000)

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOOKS = (
    ("light", "desktop", DESKTOP),
    ("dark", "desktop", DESKTOP),
    ("dark", "phone", PHONE),
    ("light", "phone", PHONE),
)
MODEL = "gpt-4o-mini"
CHAT = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
PAGES = {
    "overview": "/dashboard",
    "overview-7d": "/dashboard?range=7d",
    "customers": "/dashboard/customers",
    "customer-new": "/dashboard/customers/new",
    "customer": "/dashboard/customers/northwind",
    "customer-usage": "/dashboard/customers/northwind/usage",
    "customer-keys": "/dashboard/customers/northwind/keys",
    "customer-billing": "/dashboard/customers/northwind/billing",
    "customer-settings": "/dashboard/customers/northwind/settings",
    "budgets": "/dashboard/budgets",
    "budget-new": "/dashboard/budgets/new?scope=customer&subject=northwind",
    "requests": "/dashboard/requests",
    "spikes": "/dashboard/spikes",
    "outbox": "/dashboard/outbox",
    "events": "/dashboard/outbox/events",
    "received": "/dashboard/outbox/received",
    "plans": "/dashboard/plans",
    "routes": "/dashboard/plans/routes",
    "health": "/dashboard/health",
    "audit": "/dashboard/audit",
    "operators": "/dashboard/operators",
    "not-found": "/dashboard/requests/call_nothing",
}


def post(url: str, path: str, key: str, body: Any, **headers: str) -> tuple[int, bytes]:
    """A call as a customer's program makes it."""
    asked = urllib.request.Request(
        url + path,
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def make_customer(page: Any, url: str, name: str, customer_id: str, plan: str = "pro") -> None:
    page.goto(f"{url}/dashboard/customers/new")
    page.locator("#name").fill(name)
    page.locator("#plan").select_option(plan)
    page.locator("#customer_id").fill(customer_id)
    page.get_by_role("button", name="Make the customer").click()
    page.get_by_role("heading", name=name, level=1).wait_for()


def make_key(page: Any) -> str:
    page.locator("#name").fill("from a browser")
    page.get_by_role("button", name="Make the key").click()
    page.get_by_role("heading", name=re.compile("It is shown this once")).wait_for()
    secret: str = page.locator("#secret").text_content()
    return secret


def test_a_business_from_its_first_customer_to_a_refused_call(demo, open_page, shoot, complaints):
    page = open_page("/dashboard/customers/new")
    make_customer(page, demo.url, "Ada <script>alert(1)</script> & Sons", "ada")
    key = make_key(page)
    assert key.startswith("gk_")
    shoot(page, "key-shown-once")
    page.goto(f"{demo.url}/dashboard/customers/ada/keys")
    assert key not in page.content()

    # Streams move the figures, and the page is not loaded again.
    page.goto(f"{demo.url}/dashboard?range=1h")
    page.evaluate("window.same = true")
    expect(page.locator("[data-live-sign]")).to_have_text("live")
    requests = page.locator("[data-live=requests]")
    before = int(requests.text_content().replace(",", ""))
    for _ in range(3):
        status, body = post(demo.url, "/v1/chat/completions", key, CHAT)
        assert status == 200 and b"[DONE]" in body
    expect(requests).to_have_text(f"{before + 3:,}")
    assert page.evaluate("window.same") is True
    shoot(page, "overview-live")

    # A budget of two requests a day: two calls go, and the third is refused with the figures of the page.
    page.goto(f"{demo.url}/dashboard/budgets/new?scope=customer&subject=ada")
    page.locator("#cap").fill("2")
    page.locator("#dimension").select_option("requests")
    page.locator("#name").fill("ada-tries")
    page.get_by_role("button", name="Set the limit").click()
    page.get_by_role("heading", name="ada-tries").wait_for()
    for _ in range(2):
        assert post(demo.url, "/v1/chat/completions", key, CHAT)[0] == 200
    status, body = post(demo.url, "/v1/chat/completions", key, CHAT)
    refused = json.loads(body)["error"]
    assert (status, refused["code"], refused["limit"]["name"]) == (402, "quota_exceeded", "ada-tries")
    page.reload()
    told = page.locator(".bar").text_content()
    assert f"{refused['limit']['used']} of {refused['limit']['cap']}" in " ".join(told.split())
    assert "used up" in told
    shoot(page, "budget-used-up")

    # And what a call cost is explained to the digit.
    page.goto(f"{demo.url}/dashboard/requests?customer_id=ada")
    page.locator("tbody th a").first.click()
    page.get_by_role("heading", name=re.compile("Why this call cost")).wait_for()
    said = page.locator("main").text_content()
    assert "usage().total" in said and "the same" in said and "ada-tries" in said
    shoot(page, "request-explained")
    assert complaints == []


def test_the_pictures_of_the_readme_are_taken(open_page, shoot):
    page = open_page("/dashboard?range=7d")
    expect(page.locator("[data-live-sign]")).to_have_text("live")
    assert page.locator(".uplot").count() == 4
    shoot(page, "readme-overview", whole=False)
    page.goto(page.url.split("/dashboard")[0] + "/dashboard/requests?customer_id=northwind&source=measured")
    page.locator("tbody th a").first.click()
    page.get_by_role("heading", name=re.compile("Why this call cost")).wait_for()
    assert page.get_by_text("the same").count() >= 1
    shoot(page, "readme-request", whole=False)


def test_a_stream_that_broke_comes_back(demo, open_page):
    page = open_page("/dashboard?range=1h")
    expect(page.locator("[data-live-sign]")).to_have_text("live")
    page.context.set_offline(True)
    page.context.set_offline(False)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("[data-live-sign]")).to_have_text("live")


def test_a_limit_of_two_scopes_is_written_wrongly_and_then_set(open_page, shoot):
    page = open_page("/dashboard/budgets/new")
    page.locator("#scope").select_option("user,model")
    page.locator("#subject").fill("alice")
    page.locator("#cap").fill("20")
    page.locator("#dimension").select_option("requests")
    page.locator("#release").select_option("billing_period")
    page.locator("#name").fill("each-on-gpt")
    page.get_by_role("button", name="Set the limit").click()
    page.locator("#subject-error").wait_for()
    assert "both with a comma" in page.locator("#subject-error").text_content()
    shoot(page, "budget-pair-mistake")
    # All that was chosen stands there still.
    chosen = [page.locator(f"#{name}").input_value() for name in ("scope", "subject", "cap", "dimension", "release")]
    assert chosen == ["user,model", "alice", "20", "requests", "billing_period"]
    page.locator("#subject").fill("each, gpt-4o")
    page.get_by_role("button", name="Set the limit").click()
    page.get_by_role("heading", name="each-on-gpt").wait_for()
    assert "requests of user,model each,gpt-4o" in " ".join(page.locator(".head").text_content().split())
    shoot(page, "budget-pair")


def test_somebody_who_changed_the_limit_meanwhile_is_not_overwritten(demo, open_page, shoot):
    page = open_page("/dashboard/budgets/new?scope=customer&subject=demo")
    page.locator("#cap").fill("100")
    page.locator("#name").fill("demo-both")
    page.get_by_role("button", name="Set the limit").click()
    page.get_by_role("heading", name="demo-both").wait_for()
    at = page.url.split("?")[0]
    other = open_page(at.removeprefix(demo.url))
    other.locator("#cap").fill("50")
    other.get_by_role("button", name="Save").click()
    other.get_by_text("The limit holds from now on").wait_for()
    page.locator("#cap").fill("70")
    page.get_by_role("button", name="Save").click()
    warning = page.get_by_role("alert")
    warning.wait_for()
    assert "cap 50" in warning.text_content() and "cap 70" in warning.text_content()
    shoot(page, "budget-conflict")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("The limit holds from now on").wait_for()
    assert page.locator("#cap").input_value() == "70"


def test_mistakes_stand_beside_their_fields_and_what_was_typed_is_kept(open_page, shoot):
    page = open_page("/dashboard/customers/new")
    page.locator("#name").fill("Kept")
    page.locator("#customer_id").fill("../no")
    page.get_by_role("button", name="Make the customer").click()
    wrong = page.locator("#customer_id")
    assert wrong.get_attribute("aria-invalid") == "true"
    assert "letters" in page.locator(f"#{wrong.get_attribute('aria-describedby').split()[-1]}").text_content()
    assert page.locator("#name").input_value() == "Kept"
    shoot(page, "customer-new-mistake")


def test_customers_are_found_while_somebody_types(demo, open_page):
    page = open_page("/dashboard/customers")
    page.locator("#find").press_sequentially("nobody at all", delay=5)
    page.get_by_text("Nobody is found").wait_for()
    assert "find=nobody" in page.url
    page.locator("#find").fill("demo")
    page.get_by_role("link", name="Demo customer").wait_for()


def test_the_doctor_is_asked_by_a_button(open_page, shoot):
    page = open_page("/dashboard/health")
    page.get_by_role("button", name="Run the doctor").click()
    page.get_by_text(re.compile("All is well|Something is wrong")).wait_for()
    assert page.get_by_role("cell", name=re.compile("migration")).count() == 1
    shoot(page, "health-examined")


def test_without_scripts_the_pages_say_the_same(demo, open_page):
    page = open_page("/dashboard", script=False)
    assert page.locator("[data-live=requests]").text_content().strip() != ""
    page.get_by_role("link", name="Customers", exact=True).first.click()
    page.locator("#find").fill("demo")
    page.get_by_role("button", name="Find").click()
    assert page.get_by_role("link", name="Demo customer").count() == 1
    page.goto(f"{demo.url}/dashboard/health")
    page.get_by_role("button", name="Run the doctor").click()
    assert page.get_by_role("heading", name="The doctor").count() == 1


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_for_everybody(demo, open_page, shoot, complaints, name):
    page = open_page(PAGES[name])
    assert page.locator("h1").count() == 1 and page.title().endswith("· gatekeeper")
    for scheme, window, size in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        assert not scrolls_sideways(page), (name, scheme, window)
        shoot(page, f"{name}-{scheme}-{window}")
        assert faults(page) == [], (name, scheme, window)
    said = [each for each in complaints if "404" not in each]
    assert said == []


def test_the_door_is_for_everybody(demo, browser, shoot):
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(f"{demo.url}/dashboard/customers")
        assert "/dashboard/login" in page.url
        shoot(page, f"login-{scheme}")
        assert faults(page) == []
        context.close()


def test_the_keyboard_reaches_the_content_first(open_page):
    page = open_page("/dashboard/customers")
    page.keyboard.press("Tab")
    skip = page.locator("a.skip")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert skip.evaluate("it => getComputedStyle(it).top") == "0px"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
