"""Environment variables: ``${NAME}`` inside TOML strings, and those that override the TOML.

The rule: a message names the variable and never its value. ``${NAME:-default}`` has a default, ``$$`` is one dollar
sign. As in a shell, a variable that is empty counts as not set.

Overriding now: PORT, DATABASE_URL, ADMIN_API_KEY, GLOBAL_BUDGET_CENTS, DEFAULT_USER_BUDGET_CENTS,
DEFAULT_AGENT_BUDGET_CENTS, DEFAULT_DAILY_BUDGET, STRIPE_SECRET_KEY, STRIPE_WEBHOOK_SECRET, STRIPE_METERING_ENABLED,
JWT_SECRET.
"""

import hashlib
import re
from collections.abc import Mapping

from gatekeeper.config.kinds import text
from gatekeeper.config.reading import Cell, Reported, Wrong
from gatekeeper.diagnostics import Mistake, Source, Span, suggest

_REFERENCE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\{[^}]*\}?))")


class Variables:
    """The environment under reading; it remembers what was asked for."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._asked: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        """The value, or None where it is not set or empty."""
        value = self._env.get(name) or None
        self._asked[name] = value or ""
        return value

    def text(self, cell: Cell) -> str:
        """A kind: a string that may hold references; not empty after they were put in."""
        value = self.maybe(cell)
        if not value:
            raise Wrong("this string is empty once its variables are put in")
        return value

    def maybe(self, cell: Cell) -> str:
        """The same, and may be empty (``${NAME:-}``). A missing variable is a mistake each."""
        written = text(cell)
        missing = False

        def put(found: re.Match[str]) -> str:
            nonlocal missing
            if found[0] == "$$":
                return "$"
            if found[3] is not None:
                hint = "write ${NAME} or ${NAME:-default}; a dollar sign before a brace is written $$"
                cell.note("this is no reference to a variable", hint, found.start(), found.end())
                missing = True
                return ""
            value = self.get(found[1])
            if value is not None:
                return value
            if found[2] is not None:
                return found[2]
            near = suggest(found[1], (name for name, value in self._env.items() if value))
            do = f"set it (export {found[1]}=..., or a line in .env), or write ${{{found[1]}:-default}}"
            hint = f"{near} Or {do}" if near else do
            cell.note(f"the environment variable {found[1]} is not set", hint, found.start(), found.end())
            missing = True
            return ""

        value = _REFERENCE.sub(put, written)
        if missing:
            raise Reported
        return value

    def override(self, name: str) -> tuple[str, Source] | None:
        """The value of an overriding variable, and a source to complain in that does not show it."""
        value = self.get(name)
        return None if value is None else (value, Source(f"{name}=***", "<environment>"))

    def digest(self) -> bytes:
        """Changes when a variable that was read changes."""
        digest = hashlib.sha256()
        for name, value in sorted(self._asked.items()):
            digest.update(f"{name}\0{value}\0".encode("utf-8", "surrogateescape"))
        return digest.digest()


def in_environment(source: Source, message: str, hint: str | None = None) -> Mistake:
    """A mistake in the value of an overriding variable."""
    return Mistake(message, source, Span(source.text.index("=") + 1, len(source.text)), hint)
