"""The ledger's no, as a caller is told it: which limit, what remains, when it resets."""

from gatekeeper.errors import Code, LimitState, Refusal
from gatekeeper.money import amount_text
from gatekeeper.rules.limits import DOLLARS, Denied, Reason

_CODES = {
    Reason.USED: Code.QUOTA_EXCEEDED,
    Reason.CLOSED: Code.QUOTA_EXCEEDED,
    Reason.HELD: Code.LIMIT_HELD,
    Reason.EXCEEDS_LIMIT: Code.EXCEEDS_LIMIT,
    Reason.RATE: Code.RATE_LIMITED,
    Reason.EXCEEDS_RATE: Code.EXCEEDS_RATE,
}


def soft_refusal(limit: LimitState, instead: str, now_ms: int) -> Refusal:
    """What a caller is told who wants no cheaper model, although a soft limit asks for one."""
    figures = f"limit {limit.name}: {amount_text(limit.dimension, limit.used)} of "
    figures += f"{amount_text(limit.dimension, limit.cap or 0)} {limit.dimension} per {limit.window} used"
    sentence = Refusal(Code.BUDGET_SOFT_CAP).public.rstrip(".")
    return Refusal(
        Code.BUDGET_SOFT_CAP,
        f"{sentence} ({figures}).",
        hint=f"{instead} would serve: ask for it, or take X-Gatekeeper-No-Downgrade away",
        limit=limit,
        retry_after_s=None if limit.resets_ms is None else max(1, -(-(limit.resets_ms - now_ms) // 1000)),
    )


def refusal_of(denied: Denied) -> Refusal:
    """The Refusal that tells a caller why the ledger said no: which limit, what remains, when it resets."""
    limit, code = denied.limit, _CODES[denied.reason]
    if code is Code.QUOTA_EXCEEDED and limit.dimension == DOLLARS:
        code = Code.BUDGET_EXCEEDED

    def shown(amount: int) -> str:
        return amount_text(limit.dimension, amount)

    figures = f"limit {limit.name}: {shown(limit.cap or 0)} {limit.dimension} per {limit.window}"
    left = f"{shown(limit.used)} used, {shown(limit.held)} held, {shown(limit.remaining or 0)} remaining"
    missing = f"; {shown(denied.shortfall)} short" if denied.reason is Reason.EXCEEDS_LIMIT else ""
    hint = {
        Code.QUOTA_EXCEEDED: "a larger plan, or the next period, opens it again",
        Code.BUDGET_EXCEEDED: "a larger budget, or the next window, opens it again",
        Code.EXCEEDS_LIMIT: "ask for less output (max_tokens) or send a shorter input",
        Code.EXCEEDS_RATE: "send a shorter input",
    }.get(code)
    if denied.reason is Reason.CLOSED:
        left = f"used up, and closed until the billing period turns; {left}"
        hint = "the next billing period, a larger cap or a reset opens it again"
    sentence = Refusal(code).public.rstrip(".")
    return Refusal(
        code,
        f"{sentence} ({figures}; {left}{missing}).",
        hint=hint,
        limit=limit,
        retry_after_s=denied.retry_after_s,
    )
