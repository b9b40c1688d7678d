"""Which characters of a configuration text must never be shown. Error messages quote lines: this blanks the secrets.

The rule: masking keeps every offset, so a place found in the real text is right in the masked one.
"""

import re
from collections.abc import Iterable

from gatekeeper.config.locate import KeyPath, Places
from gatekeeper.diagnostics import Span

_SECRET_KEY = re.compile(r"(?i)(^|[^a-z])(key|secrets?|token|password|authorization|auth|admin)$")
# Of a URL only what stands between `//` and the last `@` is secret, and a password in its query.
_CREDENTIALS = re.compile(r"//(\S*)@|password=([^&\s]*)")
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(?=\}|:-)|\}|:-")
# A line of a text that cannot be parsed: whatever follows a key that sounds secret, and all that looks like a key.
_SECRET_LINE = re.compile(r"(?i)(?:key|secrets?|token|password|authorization|auth|admin)[\"']?[ \t]*=[ \t]*([^\n]*)")
_LOOKS_SECRET = re.compile(r"(?:sk|pk|rk|gk|whsec)[-_][A-Za-z0-9_-]{6,}|AIza[A-Za-z0-9_-]{10,}|//\S+@|password=\S+")


def masked(text: str, places: Places) -> str:
    """The text with the letters of every literal secret as asterisks; ``${NAME}`` stays readable."""
    return _blanked(text, (span for path, whole in places.strings() for span in _secret_spans(text, path, whole)))


def masked_unparsed(text: str) -> str:
    """The same for a text that is not TOML: by what the lines look like."""
    spans = [Span(*found.span(1)) for found in _SECRET_LINE.finditer(text)]
    spans += [Span(*found.span()) for found in _LOOKS_SECRET.finditer(text)]
    return _blanked(text, (part for span in spans for part in _unreferenced(text, span)))


def _secret_spans(text: str, path: KeyPath, whole: Span) -> Iterable[Span]:
    inner = Span(whole.start + 1, whole.end - 1)
    if _is_secret(path):
        return _unreferenced(text, inner)
    written = text[inner.start : inner.end]
    found = [match.span(match.lastindex or 0) for match in _CREDENTIALS.finditer(written)]
    return [part for start, end in found for part in _unreferenced(text, Span(inner.start + start, inner.start + end))]


def _is_secret(path: KeyPath) -> bool:
    if path[0] == "upstreams" and "headers" in path[2:]:
        return True
    last = next((part for part in reversed(path) if isinstance(part, str)), "")
    if path[0] == "notifications" and last == "url":
        # Whoever knows the URL of a web hook may post to it.
        return True
    return _SECRET_KEY.search(last) is not None


def _unreferenced(text: str, span: Span) -> Iterable[Span]:
    """What of a span is not the spelling of a ``${NAME}``. A default inside the braces is a value: blanked."""
    at = span.start
    for found in _REFERENCE.finditer(text, span.start, span.end):
        yield Span(at, found.start())
        at = found.end()
    yield Span(at, span.end)


def _blanked(text: str, spans: Iterable[Span]) -> str:
    letters = list(text)
    for span in spans:
        for at in range(span.start, span.end):
            if letters[at] not in "\n\"'":
                letters[at] = "*"
    return "".join(letters)
