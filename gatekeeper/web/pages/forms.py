"""Forms as they are shown again with their mistakes. The rule: what a person has typed
is kept, and a mistake stands beside the field that it is about."""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from starlette.requests import Request

from gatekeeper.errors import Code, Refusal
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.web.forms import form_of

_SECRETS = frozenset({"csrf", "password"})


@dataclass(frozen=True, slots=True)
class Form:
    """What was typed, the mistakes by field, and one that belongs to none. ``values`` has no secrets."""

    values: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    said: str | None = None
    hint: str | None = None

    def get(self, name: str, usual: str = "") -> str:
        """What stands in a field."""
        return self.values.get(name, usual)

    def error(self, name: str) -> str | None:
        """What is wrong with it."""
        return self.errors.get(name)

    def ticked(self, name: str) -> bool:
        """Whether a checkbox is set."""
        return self.values.get(name) == "yes"

    def blamed(self, refusal: Refusal, fields: Sequence[tuple[str, str]]) -> "Form":
        """The same form with a refusal beside the first field whose pattern its sentence holds; else above all."""
        for name, pattern in fields:
            if re.search(pattern, refusal.public):
                said = refusal.public if refusal.hint is None else f"{refusal.public} ({refusal.hint})"
                return Form(self.values, {**self.errors, name: said})
        return Form(self.values, self.errors, refusal.public, refusal.hint)

    def wrong(self, name: str, said: str) -> "Form":
        """The same form with a mistake beside a field."""
        return Form(self.values, {**self.errors, name: said}, self.said, self.hint)


NO_FORM = Form()


async def read_form(request: Request) -> Form:
    """The fields that were posted, blanks around them cut off. Raises Refusal."""
    fields = await form_of(request)
    return Form({name: value.strip() for name, value in fields.items() if name not in _SECRETS})


def end_of_day_ms(text: str) -> int | None:
    """The instant after a key's last day, UTC, all of which counts; None where nothing was typed. Raises Refusal."""
    if not text:
        return None
    try:
        day = dt.date.fromisoformat(text)
    except ValueError as cause:
        raise Refusal(Code.BAD_REQUEST, "When the key will expire is a day, YYYY-MM-DD.") from cause
    return (day.toordinal() + 1 - dt.date(1970, 1, 1).toordinal()) * DAY_MS


def words_of(text: str) -> list[str] | None:
    """What stands in a field for a list, parted by commas or blanks; None where nothing does."""
    return re.split(r"[,\s]+", text.strip(", \t\r\n")) if text.strip(", \t\r\n") else None
