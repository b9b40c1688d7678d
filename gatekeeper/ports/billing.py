"""What the billing room asks of a biller, and of the store that holds what is owed."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from gatekeeper.rules.allowances import Counted
from gatekeeper.rules.billing import Backlog, Batch, BatchState, Reported
from gatekeeper.rules.notices import Kind
from gatekeeper.rules.statements import StatementLine


class Biller(Protocol):
    """Whoever makes invoices of usage. At most one call is in flight for each customer and meter."""

    @property
    def name(self) -> str:
        """For logs: ``stripe``, ``paper``."""
        ...

    async def report(self, batch: Batch) -> Reported:
        """Tell it of a batch. An identifier that it has is DUPLICATE, and not counted again.

        Raises ``billing.NotTaken`` for what it will never take, ``billing.Throttled`` where it says when to come back,
        and Fault for everything else: ``retryable`` then says that nothing was acted on, else the outcome is unknown.
        Cancelled: the outcome is unknown."""
        ...

    async def summary(self, batch: Batch, start_ms: int, end_ms: int) -> int:
        """How many units it has counted for the customer and meter of ``batch``, with instants in [start, end), which
        are whole minutes. Raises Fault, or ``billing.NotTaken`` where it cannot say."""
        ...

    async def close(self) -> None:
        """Closing twice does nothing."""
        ...


class Outbox(Protocol):
    """Batches, shared by all processes. Every method is one transaction; each raises Fault."""

    async def elect(self, owner: str, now_ms: int, lease_ms: int) -> bool:
        """Whether ``owner`` is the one process that flushes, until ``lease_ms``; asked again by the same, it stays."""
        ...

    async def resign(self, owner: str) -> None:
        """Let another process be elected at once."""
        ...

    async def owing_customers(self, *, after: str = "", limit: int = 100, known_only: bool = False) -> Sequence[str]:
        """Customers with usage that is in no batch, in order; with ``known_only`` those with an account at Stripe."""
        ...

    async def freeze(
        self,
        customers: Sequence[str],
        meters: Mapping[str, str | None],
        meter: str,
        seed: str,
        now_ms: int,
        *,
        known_only: bool = False,
    ) -> int:
        """Put what these customers owe into batches; returns how many were made. ``meters`` says on which meter a plan
        is reported (None: on none), ``meter`` where it does not. ``seed`` is random: ids are made of it. With
        ``known_only`` what a customer without an account at Stripe owes waits until there is one."""
        ...

    async def is_due(self, now_ms: int) -> bool:
        """Whether any batch is. Only reads."""
        ...

    async def claim_batches(
        self, now_ms: int, lease_ms: int, limit: int, *, customer_id: str | None = None
    ) -> Sequence[Batch]:
        """Take batches that are due, at most one of each customer and meter, of which nobody gets another until
        ``lease_ms`` or until it is told how it went. Durable before it returns. ``attempts`` counts this one;
        ``first_sent_ms`` is as it was before."""
        ...

    async def batch_sent(self, batch: Batch, now_ms: int) -> None:
        """The biller has it."""
        ...

    async def batch_unsent(
        self, batch: Batch, error: str, next_ms: int | None, now_ms: int, *, clear: bool = False
    ) -> None:
        """It was not taken: try again at ``next_ms``, or give up (None). With ``clear`` the biller surely has not
        counted it. Does nothing when the lease was lost."""
        ...

    async def batch_unknown_to_biller(self, batch: Batch, now_ms: int) -> bool:
        """The biller's sums say that it does not have it: it may be sent as if for the first time. False when the lease
        was lost."""
        ...

    async def redate_batch(self, batch: Batch, now_ms: int) -> Batch | None:
        """It was surely counted nowhere, and the invoice of its period is closed: from now on it is one of the present
        period, late. Value and identifier stay. None when the lease was lost."""
        ...

    async def reopen_batch(self, identifier: str, error: str, now_ms: int) -> Batch | None:
        """What was accepted was found not to count: send it again under a new identifier, or give it up after
        ``billing.REOPENED_MAX`` times. None where there is no such batch that was sent."""
        ...

    async def hurry_batches(self, customer_id: str, now_ms: int) -> None:
        """What waits of this customer is due now."""
        ...

    async def retry_batches(self, now_ms: int, batch_id: str | None = None) -> int:
        """Begin anew with what was given up (all of it, or one batch); returns how many."""
        ...

    async def settle_by_hand(self, batch_id: str, now_ms: int, *, told: bool) -> bool:
        """A person says that the biller has a batch (``told``), or that it does not: then it is sent without asking."""
        ...

    async def batches_beside(self, batch: Batch, start_ms: int, end_ms: int) -> Sequence[Batch]:
        """The batches of its customer and meter in [start, end)."""
        ...

    async def batches(
        self,
        *,
        state: BatchState | None = None,
        customer_id: str | None = None,
        after: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> Sequence[Batch]:
        """The latest first; ``after`` is the ``created_ms`` and id of the last one seen."""
        ...

    async def batch(self, batch_id: str) -> Batch | None:
        """One, by its id or identifier."""
        ...

    async def backlog(self, *, known_only: bool = False) -> Backlog:
        """What is still to be told; with ``known_only`` without what waits for an account at Stripe. Only reads."""
        ...

    async def tell_of(self, kind: Kind, batch: Batch, why: str, now_ms: int) -> None:
        """Write an event of this batch, once, where anybody wants it."""
        ...


class Statements(Protocol):
    """What a customer's period comes to."""

    async def statement_lines(self, customer_id: str, start_ms: int, end_ms: int) -> Sequence[StatementLine]:
        """What was used between two instants for each plan, route and model, the dearest first."""
        ...

    async def statement_batches(self, customer_id: str, start_ms: int) -> Mapping[str, int]:
        """Units in the batches of the period that began then, by their state."""
        ...

    async def counted(self, customer_id: str, start_ms: int, since_ms: int, now_ms: int) -> Counted:
        """What counts against what a subscription item includes: see ``rules.allowances``."""
        ...

    async def batch_charge_nano(self, batch_id: str) -> int | None:
        """What the calls of a batch were charged above what their plan includes; None: their rows are gone."""
        ...

    async def customers_by_plan(self) -> Mapping[str, int]:
        """How many customers that are not disabled each plan has."""
        ...
