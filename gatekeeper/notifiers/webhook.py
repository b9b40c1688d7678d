"""Signed web hooks over HTTP. The rule: only a 2xx is taken for a yes, no redirect is followed, and neither URL nor
secret is ever in a message. httpx's types stay in this file."""

import logging
import ssl
from collections.abc import Callable

import httpx

from gatekeeper.config.gateway import WebhookTarget
from gatekeeper.notifiers.cloudevents import CONTENT_TYPE, cloud_event_bytes
from gatekeeper.notifiers.sending import Undelivered
from gatekeeper.notifiers.signing import signed_headers
from gatekeeper.ports import Customer
from gatekeeper.rules.notices import Event

CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
# What an answer says is not read, but reading it to its end keeps the connection; beyond this a new one is cheaper.
ANSWER_BYTES_MAX = 64 * 1024
# "410 Gone": the receiver says that it never wants it.
_NEVER = 410


class WebhookNotifier:
    """See ``sending.Notifier``. ``source`` is who we are in the envelope, ``now_ms`` dates the signatures. Raises
    OSError when the file with the authorities cannot be read."""

    def __init__(self, target: WebhookTarget, source: str | None, now_ms: Callable[[], int]) -> None:
        self._target = target
        self._source = source
        self._now_ms = now_ms
        for name in ("httpx", "httpcore"):
            # They would log each URL, which may hold a token.
            logging.getLogger(name).setLevel(logging.WARNING)
        trusted = ssl.create_default_context(cafile=target.ca_file)
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self._client = httpx.AsyncClient(
            timeout=timeout, follow_redirects=False, verify=trusted, headers={"user-agent": "gatekeeper"}
        )

    async def send(self, event: Event, customer: Customer | None) -> None:
        """Post the event. Raises Undelivered. Cancelled: the connection is closed, and the target may have it."""
        body = cloud_event_bytes(event, self._source)
        secrets = [secret.reveal() for secret in self._target.secrets]
        headers = signed_headers(event.id, self._now_ms() // 1000, body, secrets)
        try:
            status = await self._post(body, {**headers, "content-type": CONTENT_TYPE})
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ssl.SSLError, OSError) as cause:
            # Neither its text nor itself: both may hold the URL.
            raise Undelivered(f"the receiver cannot be reached: {type(cause).__name__}") from None
        if not 200 <= status < 300:
            raise Undelivered(f"the receiver answered {status}", final=status == _NEVER)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _post(self, body: bytes, headers: dict[str, str]) -> int:
        read = 0
        async with self._client.stream("POST", self._target.url.reveal(), content=body, headers=headers) as answer:
            # Cookies are for browsers: none goes back to a receiver.
            self._client.cookies.clear()
            async for chunk in answer.aiter_raw():
                read += len(chunk)
                if read > ANSWER_BYTES_MAX:
                    break
            return answer.status_code
