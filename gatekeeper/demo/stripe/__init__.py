"""A fake Stripe for tests and the demo: one account in memory behind the real URLs, with the real SDK as client.

The rule: each behaviour names its documented source beside it; what is not documented is marked (unverified); what is
not imitated is refused with the code ``fake_unsupported``, never ignored. ``FakeStripe`` is the handle.
"""

from gatekeeper.demo.stripe.account import NEWEST_VERSION, Settings
from gatekeeper.demo.stripe.customers import Card
from gatekeeper.demo.stripe.fake import LIVE_KEY, START_MS, TEST_KEY, FakeStripe, InvalidCalls
from gatekeeper.demo.stripe.faults import Fault
from gatekeeper.demo.stripe.refusing import Refused
from gatekeeper.demo.stripe.usage import UsageEvent
from gatekeeper.demo.stripe.webhooks import Delivery, Sender

__all__ = [
    "LIVE_KEY",
    "NEWEST_VERSION",
    "START_MS",
    "TEST_KEY",
    "Card",
    "Delivery",
    "FakeStripe",
    "Fault",
    "InvalidCalls",
    "Refused",
    "Sender",
    "Settings",
    "UsageEvent",
]
