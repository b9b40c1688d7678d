"""What subscriptions ask of a biller's account, and of the store that remembers what was decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gatekeeper.ports.accounts import Customer
from gatekeeper.rules.catalogue import PlanPrices
from gatekeeper.rules.hints import Event
from gatekeeper.rules.subscriptions import Decision, News, Standing, Subscribed


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice at the biller. Amounts are whole cents of ``currency``; ``reason`` is Stripe's billing_reason."""

    id: str
    account: str
    number: str | None
    status: str
    reason: str
    currency: str
    total_cents: int
    due_cents: int
    paid_cents: int
    attempts: int
    created_ms: int
    period_start_ms: int
    period_end_ms: int
    subscription_id: str | None = None
    page: str | None = None
    pdf: str | None = None


class Preview(NamedTuple):
    """What the next invoice comes to by now, in whole cents; each line (text, cents, units)."""

    total_cents: int
    currency: str
    lines: tuple[tuple[str, int, int | None], ...]


class Rejected(NamedTuple):
    """Usage that was accepted and not counted. ``identifiers`` are samples; ``errors`` is how many there were."""

    identifiers: Sequence[str]
    errors: int


class Item(NamedTuple):
    """An amount for an invoice, in whole cents. ``name`` says what it is for, once and for all."""

    account: str
    cents: int
    text: str
    name: str
    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Letter:
    """An event as it stands. ``next_ms``: when it is worked on next, or when it ended."""

    event: Event
    state: str
    received_ms: int
    next_ms: int
    attempts: int
    error: str | None


class Kept(NamedTuple):
    """An event that waits, leased. ``attempts`` counts this one, and is the proof of the lease."""

    event: Event
    attempts: int


class Sales(Protocol):
    """An account that sells subscriptions. Methods raise ``billing.NotTaken``, ``billing.Throttled`` and Fault as those
    of ``Biller`` do. ``key`` makes one thing of however many calls within a day."""

    @property
    def live(self) -> bool:
        """Whether real money moves there."""
        ...

    async def open_account(self, customer: Customer) -> str:
        """The id of a new account for this customer; the same one for the same customer within a day."""
        ...

    async def owner(self, account: str) -> str | None:
        """The customer of ours for whom this account was opened, as is written on it there, where no customer can
        write; None: it was not opened by us, or is gone."""
        ...

    async def subscriptions(self, account: str) -> Sequence[Subscribed]:
        """All that this account has and had."""
        ...

    async def checkout(self, account: str, customer_id: str, prices: PlanPrices, trial_days: int, back: str) -> str:
        """The URL of a page on which he subscribes; afterwards he is sent to ``back``."""
        ...

    async def portal(self, account: str, portal_id: str | None, back: str) -> str:
        """The URL of a page on which he sees to his card, invoices and end."""
        ...

    async def change(self, one: Subscribed, prices: PlanPrices) -> None:
        """Sell these prices from now on; what was used so far is invoiced at once, and so is the difference in fees.
        While that is not paid, nothing changes."""
        ...

    async def change_later(self, one: Subscribed, prices: PlanPrices) -> None:
        """Sell these prices from the end of the period on."""
        ...

    async def cancel(self, one: Subscribed, *, at_end: bool) -> None:
        """End it at the end of the period, or now, and invoice what was used."""
        ...

    async def resume(self, one: Subscribed) -> None:
        """Take back what was to happen at the end of the period."""
        ...

    async def invoice(self, invoice_id: str) -> Invoice:
        """One invoice."""
        ...

    async def invoices(self, account: str, *, after: str | None, limit: int) -> Sequence[Invoice]:
        """A page, the latest first; ``after`` is the id of the last one seen."""
        ...

    async def preview(self, subscription_id: str) -> Preview:
        """The next invoice as it stands."""
        ...

    async def undelivered(self) -> Sequence[Event]:
        """What could not be delivered to some endpoint in the last 30 days, the oldest first."""
        ...

    async def reports(self, since_ms: int) -> Sequence[Event]:
        """The thin events since then, delivered or not (that cannot be asked), the oldest first."""
        ...

    async def rejected(self, event_id: str) -> Rejected:
        """What a report of errors says."""
        ...

    async def charge(self, item: Item) -> str:
        """Put an amount on the account's next invoice; the id of what was made, now or by a call before it: one of a
        ``name`` in an account."""
        ...

    async def close(self) -> None:
        """Closing twice does nothing."""
        ...


class Standings(Protocol):
    """What was decided. Every method is one transaction; each raises Fault."""

    async def customer_of_account(self, account: str) -> Customer | None:
        """Whose account at the biller this is."""
        ...

    async def link_account(self, customer_id: str, account: str) -> str | None:
        """Give a customer who has none this account; returns the one that he has then. None: there is no such customer,
        or the account is another's."""
        ...

    async def standing(self, customer_id: str) -> Standing | None:
        """What was decided of him the last time."""
        ...

    async def decided(self, decision: Decision, now_ms: int) -> bool:
        """Carry a decision out. False: somebody else has decided meanwhile (``version``), so look again."""
        ...

    async def out_of_grace(self, now_ms: int, limit: int) -> Sequence[str]:
        """Customers whose time of grace is over and who are not blocked yet."""
        ...


class Mailroom(Protocol):
    """Events of the biller and invoices as they were seen last. Every method is one transaction; each raises Fault."""

    async def keep_events(self, events: Sequence[Event], now_ms: int) -> int:
        """Keep, durably, those that are new; returns how many were."""
        ...

    async def claim_events(self, now_ms: int, lease_ms: int, limit: int) -> Sequence[Kept]:
        """Take events that are due, which nobody else gets until ``lease_ms``."""
        ...

    async def event_ended(
        self,
        kept: Kept,
        now_ms: int,
        *,
        error: str | None = None,
        next_ms: int | None = None,
        news: Sequence[News] = (),
    ) -> None:
        """Without ``error`` it is done, with ``next_ms`` it is tried again then, else it is given up, with ``news``.
        Does nothing when the lease was lost."""
        ...

    async def letters(self, *, state: str | None = None, limit: int = 100) -> Sequence[Letter]:
        """The latest first; ``state`` is ``waiting``, ``done`` or ``dead``."""
        ...

    async def letter(self, event_id: str) -> Letter | None:
        """One."""
        ...

    async def retry_events(self, now_ms: int, event_id: str | None = None) -> int:
        """Begin anew, at once, with what was given up (all of it), or with one event that is not done; returns how
        many."""
        ...

    async def forget_biller_events(self, before_ms: int, limit: int) -> int:
        """Forget what ended before; returns how many rows."""
        ...

    async def keep_invoices(
        self, customer_id: str, invoices: Sequence[Invoice], now_ms: int, news: Sequence[News] = ()
    ) -> None:
        """Remember these as they are now; one that was paid stays so. ``news`` are told once."""
        ...

    async def kept_invoices(self, customer_id: str, limit: int) -> Sequence[Invoice]:
        """As they were seen last, the latest first."""
        ...
