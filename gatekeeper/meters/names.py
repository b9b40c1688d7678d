"""The names that the language gives, and the places in which an expression may stand.

The rule: a context lists what it may read and what it must give; one checker serves them all.
"""

from dataclasses import dataclass
from enum import StrEnum

from gatekeeper.meters.kinds import ANY, BODY, EVENT, MAP, NUMBER, TEXT, Kind, Phase, Shape, Type, stream


class Context(StrEnum):
    """Where an expression stands. TRIAL may read everything and give anything: the REPL, the playground, examples."""

    METER = "meter"
    ESTIMATE = "estimate"
    LIVE = "live"
    COST = "cost"
    WHEN = "when"
    VALUE = "value"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a context may read and must give. ``why`` explains a refused name. ``by_event``: it has a value after each
    event, so of the stream only whole events can be read; where a line or a read ends says nothing."""

    phases: Phase
    streams: bool
    gives: frozenset[Kind]
    why: str
    by_event: bool = False

    def allows(self, kind: Kind) -> bool:
        """Whether a result of this static type may be the answer."""
        return kind in (Kind.ANY, Kind.NULL) or kind in self.gives


_NUMERIC = frozenset({Kind.NUMBER, Kind.USAGE})
_REQUEST = "it runs before the call, so only the request is known"
_EVERYTHING = Phase.REQUEST | Phase.FINISH

CONTEXTS: dict[Context, Rules] = {
    Context.METER: Rules(_EVERYTHING, True, _NUMERIC, ""),
    Context.COST: Rules(_EVERYTHING, True, frozenset({Kind.NUMBER}), ""),
    Context.ESTIMATE: Rules(Phase.REQUEST, False, frozenset({Kind.NUMBER}), _REQUEST),
    Context.WHEN: Rules(Phase.REQUEST, False, frozenset({Kind.BOOL}), _REQUEST),
    Context.VALUE: Rules(Phase.REQUEST, False, frozenset(set(Kind) - {Kind.EVENT, Kind.STREAM, Kind.BODY}), _REQUEST),
    Context.LIVE: Rules(
        Phase.REQUEST, True, _NUMERIC, "it runs while the answer streams, before the end is known", by_event=True
    ),
    Context.TRIAL: Rules(_EVERYTHING, True, frozenset(Kind), ""),
}


@dataclass(frozen=True, slots=True)
class Given:
    """A name that the language gives."""

    type: Type
    phase: Phase
    sentence: str


_R, _F = Phase.REQUEST, Phase.FINISH

NAMES: dict[str, Given] = {
    "request": Given(ANY, _R, "the request's JSON body, or null"),
    "requestBody": Given(TEXT, _R, "the request's body as text"),
    "requestBytes": Given(NUMBER, _R, "how many bytes the request's body has"),
    "method": Given(TEXT, _R, "the request's method"),
    "path": Given(TEXT, _R, "the request's path"),
    "query": Given(TEXT, _R, "the request's query"),
    "headers": Given(MAP, _R, "the request's headers, names in lower case, without any that carries a key"),
    "model": Given(TEXT, _R, "the model that was asked for"),
    "customerID": Given(TEXT, _R, "who pays"),
    "userID": Given(TEXT, _R, "the customer's user"),
    "agentID": Given(TEXT, _R, "the customer's agent"),
    "planID": Given(TEXT, _R, "the customer's plan"),
    "keyID": Given(TEXT, _R, "the key's id (not the key)"),
    "startedAt": Given(NUMBER, _R, "when the call began, in ms since 1970"),
    "status": Given(NUMBER, _F, "the answer's status"),
    "contentType": Given(TEXT, _F, "the answer's content type"),
    "respHeaders": Given(MAP, _F, "the answer's headers, names in lower case"),
    "responseBytes": Given(NUMBER, _F, "how many bytes the answer has, decoded"),
    "response": Given(ANY, _F, "the JSON body of an answer that is no stream"),
    "respBody": Given(ANY, _F, "the same as response"),
    "outcome": Given(TEXT, _F, "how the call ended: complete, client_closed, upstream_error, ..."),
    "durationMs": Given(NUMBER, _F, "how long the call took"),
    "firstByteMs": Given(NUMBER, _F, "when the first byte of the answer came"),
    "events": Given(stream(EVENT, Shape.EVENT), Phase.ALWAYS, "the answer's events, whatever its framing"),
    "allData": Given(BODY, Phase.ALWAYS, "the answer's whole body; only as the argument of functions that stream"),
}

RESPONSE_NAMES = frozenset({"response", "respBody"})
# Evidence is stored, so no expression may read what carries a key or a session.
SECRET_HEADERS = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key", "x-goog-api-key",
        "x-admin-key", "x-auth-token", "x-amz-security-token", "stripe-signature",
    }
)  # fmt: skip

# For "did you mean": what other tools call these things.
KNOWN_ELSEWHERE = {
    "data": "allData", "body": "response", "resp": "response", "req": "request", "reqBody": "requestBody",
    "customer": "customerID", "user": "userID", "agent": "agentID", "plan": "planID", "key": "keyID",
    "respBytes": "responseBytes", "event": "events", "statusCode": "status", "duration": "durationMs",
    "undefined": "null", "None": "null", "True": "true", "False": "false",
}  # fmt: skip
