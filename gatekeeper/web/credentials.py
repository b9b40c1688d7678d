"""Where a request may carry the customer's key, and how the key is taken out. The rule: after this module nobody sees
it again; the query goes on without it, byte for byte."""

from urllib.parse import unquote_to_bytes

from gatekeeper.ports import RawHeaders
from gatekeeper.proxy.call import Credentials

_KEY_HEADERS = (b"x-api-key", b"x-goog-api-key", b"api-key")
_LOOKED_AT = frozenset({*_KEY_HEADERS, b"authorization", b"x-user-id", b"x-agent-id"})


def read_credentials(headers: RawHeaders, query: bytes) -> Credentials:
    """Every distinct key in Authorization (Bearer), X-API-Key, x-goog-api-key, api-key and ``?key=``."""
    found: list[str] = []
    user_id = agent_id = None
    for name, value in headers:
        lower = name.lower()
        if lower not in _LOOKED_AT:
            continue
        if lower == b"authorization":
            scheme, _, rest = value.partition(b" ")
            # Another scheme cannot carry a key of ours: it is kept as it is, and refused for its shape.
            found.append((rest.strip() if scheme.lower() == b"bearer" else value).decode("latin-1"))
        elif lower in _KEY_HEADERS:
            found.append(value.strip().decode("latin-1"))
        elif lower == b"x-user-id":
            user_id = value.decode("latin-1")
        elif lower == b"x-agent-id":
            agent_id = value.decode("latin-1")
    kept: list[bytes] = []
    if b"=" in query:
        for part in query.split(b"&"):
            name, is_pair, value = part.partition(b"=")
            # Compared decoded: the upstream would read `%6bey` as `key` too.
            if is_pair and (name == b"key" or (b"%" in name and unquote_to_bytes(name) == b"key")):
                found.append(unquote_to_bytes(value.replace(b"+", b" ")).decode("latin-1"))
            else:
                kept.append(part)
        query = b"&".join(kept)
    keys = tuple(dict.fromkeys(key for key in found if key))
    return Credentials(keys=keys, query=query, user_id=user_id, agent_id=agent_id)
