"""A customer's person in a real Chromium: signs in by mail, turns a key, buys a plan at the fake Stripe."""

import asyncio
import contextlib
import datetime as dt
import re
import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from browsing import faults, scrolls_sideways
from fakes.origin import replays
from fakes.postbox import Postbox
from fakes.stand import PLANS, ROUTES, running

from gatekeeper.billers.stripe_catalogue import StripeCatalogue
from gatekeeper.billing.catalogue import apply
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import MailSecurity, MailServer
from gatekeeper.demo.stripe import FakeStripe
from gatekeeper.rules.catalogue import wanted

BODY = b'{"id":"x","model":"m","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":40,"total_tokens":70}}'
CALL = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
EMAIL = "ada@acme.test"
PERIODS = {name: text.replace('window = "month"', 'window = "billing_period"') for name, text in PLANS.items()}
PAGES = ("", "/usage", "/keys", "/alerts", "/plan", "/invoices", "/password")


class Stripe:
    """The fake, served by a loop of its own."""

    def __init__(self) -> None:
        self.fake = FakeStripe(clock=SystemClock())
        self.loop = asyncio.new_event_loop()
        self.url = ""

    @contextlib.contextmanager
    def served(self) -> Iterator["Stripe"]:
        up, down = threading.Event(), asyncio.Event()

        async def serve() -> None:
            async with self.fake.serve() as self.url:
                up.set()
                await down.wait()

        thread = threading.Thread(target=self.loop.run_until_complete, args=(serve(),))
        thread.start()
        assert up.wait(20)
        try:
            yield self
        finally:
            self.loop.call_soon_threadsafe(down.set)
            thread.join(20)
            self.loop.close()

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=30)

    def deliver_to(self, url: str) -> None:
        """What the fake has to tell goes to the gateway's web hook."""

        async def receive(delivery) -> int:
            async with httpx.AsyncClient() as client:
                answer = await client.post(f"{url}/webhooks/stripe", content=delivery.body, headers=delivery.headers)
            return answer.status_code

        self.run(self.fake.deliver(receive))


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A gateway with a mail server, and with a Stripe at which its plans are sold."""
    with Stripe().served() as stripe:
        secret = stripe.fake.add_endpoint("http://gateway.test/webhooks/stripe")[1]
        sold = (
            f'[stripe]\nenabled = true\nsecret_key = "{stripe.fake.secret_key}"\nwebhook_secrets = ["{secret}"]\n'
            f'api_base = "{stripe.url}"\n'
        )
        folder = tmp_path_factory.mktemp("portal")
        with running(
            folder, replays(BODY, "application/json"), plan="free", plans=PERIODS, routes=ROUTES + sold
        ) as stand:
            postbox = Postbox()
            stand.run(postbox.start())
            declared = stand.house.live.declared
            mail = MailServer("127.0.0.1", postbox.port, MailSecurity.NONE, "portal@pay.test")
            # Not https: the browser would not send the cookie over plain http.
            server = replace(declared.server, public_url=stand.url)
            stand.house.live.gateway = replace(declared, mail=mail, server=server)
            stand.postbox, stand.stripe = postbox, stripe
            stand.run(prepared(stand))
            yield stand
            stand.run(postbox.stop())


async def prepared(stand):
    gateway, store = stand.house.live.gateway, stand.house.store
    catalogue = StripeCatalogue(gateway.stripe)
    try:
        want = wanted(gateway.plans, gateway.stripe.meter, None, live=False)
        await apply(catalogue, want, SystemClock(), "nonce", lambda change, secret: None)
    finally:
        await catalogue.close()
    customer = await store.customer("acme")
    await store.update_customer(replace(customer, email=EMAIL))


@pytest.fixture(scope="module")
def person(browser, shop):
    """The state of a browser that has signed in by mail."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{shop.url}/portal")
    page.locator("#link-email").fill(EMAIL)
    page.get_by_role("button", name="Mail me a link").click()
    page.get_by_role("heading", name="Look into your mail").wait_for()

    async def came():
        return bool(shop.postbox.mails)

    shop.wait_until(came)
    link = re.search(r"http://\S+", shop.postbox.mails[-1].message.get_content())
    page.goto(link[0])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Acme").wait_for()
    state = context.storage_state()
    context.close()
    return state


def is_complaint(said):
    """Whether the console complains; a form that is shown again with its mistakes is no trouble."""
    return said.type == "error" and "status of 400" not in said.text


@pytest.fixture
def portal(browser, shop, person):
    """``portal(path)``: a page of that person; a broken script or a breach of our CSP fails the test."""
    contexts, complaints = [], []

    def opened(path="", *, dark=False, phone=False):
        size = {"width": 390, "height": 844} if phone else {"width": 1280, "height": 900}
        context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light", storage_state=person)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda said: complaints.append(said.text) if is_complaint(said) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{shop.url}/portal{path}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def test_a_key_is_made_called_with_turned_and_revoked(shop, portal):
    page = portal("/keys")
    page.get_by_label("Name").fill("laptop")
    last = (dt.datetime.now(dt.UTC).date() + dt.timedelta(days=90)).isoformat()
    page.get_by_label("Last day").fill(last)
    page.get_by_role("button", name="Make the key").click()
    assert f"until {last} 23:59 UTC" in " ".join(page.get_by_role("row").nth(1).inner_text().split())
    secret = page.locator("#secret").inner_text()
    headers = {"Authorization": f"Bearer {secret}"}
    assert httpx.post(f"{shop.url}/v1/chat/completions", json=CALL, headers=headers).status_code == 200
    shop.records(1)
    page.goto(f"{shop.url}/portal")
    assert page.locator(".figure", has_text="Units this month").locator("dd").inner_text() == "70"
    page.goto(f"{shop.url}/portal/keys")
    assert page.locator("#secret").count() == 0
    page.get_by_role("button", name="Rotate laptop").first.click()
    turned = page.locator("#secret").inner_text()
    assert turned != secret
    # Both are good for a day.
    for each in (secret, turned):
        call = httpx.post(f"{shop.url}/v1/chat/completions", json=CALL, headers={"Authorization": f"Bearer {each}"})
        assert call.status_code == 200
    page.on("dialog", lambda dialog: dialog.accept())
    row = page.get_by_role("row").filter(has_text=turned[:8]).filter(has=page.get_by_role("button", name="Revoke"))
    row.first.get_by_role("button", name="Revoke laptop").click()
    page.get_by_text("The key is revoked").wait_for()


def test_a_plan_is_bought_at_stripe_and_holds_here(shop, portal):
    page = portal("/plan")
    assert page.locator(".plan.mine h2").inner_text() == "Free"
    page.get_by_role("button", name="Choose Pro").click()
    link = page.get_by_role("link", name="Go on")
    assert "/c/pay/" in link.get_attribute("href")
    session = shop.stripe.fake.objects("checkout.session")[-1]
    assert session["url"] == link.get_attribute("href")
    # Nothing is granted before Stripe says so.
    page.goto(f"{shop.url}/portal/plan")
    assert page.locator(".plan.mine h2").inner_text() == "Free"
    shop.stripe.fake.complete_checkout(session["id"])
    shop.stripe.deliver_to(shop.url)

    async def granted():
        return (await shop.house.store.customer("acme")).plan_id == "pro"

    shop.wait_until(granted, 30)
    page.reload()
    assert page.locator(".plan.mine h2").inner_text() == "Pro"
    page.goto(f"{shop.url}/portal/invoices")
    page.get_by_text("$99.00").first.wait_for()
    page.goto(f"{shop.url}/portal/plan")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="End the subscription").click()
    page.get_by_text("The subscription ends with its period").wait_for()
    page.get_by_role("button", name="Go on after all").click()
    page.get_by_text("The subscription goes on").wait_for()


def test_an_alert_is_asked_for_with_a_mistake_and_without(portal):
    page = portal("/alerts")
    page.get_by_label("At").fill("lots")
    page.get_by_role("button", name="Tell me").click()
    assert "A number above 0" in page.locator(".field.wrong").inner_text()
    assert page.get_by_label("At").input_value() == "lots"
    page.get_by_label("At").fill("2,500")
    page.get_by_role("button", name="Tell me").click()
    page.get_by_text("2,500 units used in a month").wait_for()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everybody_can_work_with_every_page(portal, shoot, dark):
    found = {}
    for path in PAGES:
        page = portal(path, dark=dark)
        name = f"portal{path.replace('/', '-') or '-overview'}-{'dark' if dark else 'light'}"
        shoot(page, name)
        found[path] = faults(page)
    assert {path: said for path, said in found.items() if said} == {}


def test_a_telephone_shows_every_page_without_sideways_scrolling(portal, shoot):
    wide = []
    for path in PAGES:
        page = portal(path, phone=True)
        shoot(page, f"portal{path.replace('/', '-') or '-overview'}-phone")
        if scrolls_sideways(page):
            wide.append(path)
    assert wide == []
