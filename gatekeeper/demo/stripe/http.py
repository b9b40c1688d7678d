"""The way of a call: log, fault, key, idempotency, types, answer. The rule: in this order, for every URL.

Sources: https://docs.stripe.com/api/authentication, .../errors, .../idempotent_requests, .../versioning; the header
``Stripe-Should-Retry`` is read by the SDK (``stripe._http_client``).
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gatekeeper.demo.stripe.account import Account
from gatekeeper.demo.stripe.endpoints import METER_EVENTS, Asked, Endpoint
from gatekeeper.demo.stripe.faults import Fault, Faults, Kind
from gatekeeper.demo.stripe.forms import BadForm, parse_form
from gatekeeper.demo.stripe.happenings import THIN
from gatekeeper.demo.stripe.idempotency import Answer, IdempotencyKeys
from gatekeeper.demo.stripe.listing import rendered
from gatekeeper.demo.stripe.params import typed
from gatekeeper.demo.stripe.refusing import Refused
from gatekeeper.demo.stripe.requests import Request, RequestLog
from gatekeeper.demo.stripe.shapes import shaped
from gatekeeper.demo.stripe.usage import Usage


class Lost(Exception):
    """There will be no answer: ``hang`` or break the connection."""

    def __init__(self, *, hang: bool) -> None:
        super().__init__()
        self.hang = hang


class Door:
    """The ASGI application of the fake. ``latency_s`` is real time, so that calls can overlap."""

    def __init__(
        self, account: Account, table: list[Endpoint], usage: Usage, secret_key: str, after: Callable[[], Any]
    ) -> None:
        self._account = account
        self._table = [(endpoint, endpoint.path.strip("/").split("/")) for endpoint in table]
        self._usage = usage
        self._secret_key = secret_key
        self._after = after
        self.log = RequestLog()
        self.faults = Faults()
        self.keys = IdempotencyKeys()
        self.latency_s = 0.0
        # Our own mistakes: whoever serves the fake raises the first of them.
        self.crashes: list[Exception] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call. When the caller goes away while it hangs, it ends."""
        assert scope["type"] == "http", scope["type"]
        request = HttpRequest(scope, receive)
        logged = await self._logged(request)
        self.log.in_flight += 1
        self.log.max_in_flight = max(self.log.max_in_flight, self.log.in_flight)
        try:
            answer = await self._answer(logged)
            logged.status = answer.status
        except Lost as lost:
            await (_until_gone(receive) if lost.hang else _break(send))
            return
        except Exception as crash:
            self.crashes.append(crash)
            raise
        finally:
            self.log.in_flight -= 1
        headers = {"request-id": f"req_{len(self.log):08d}", **answer.headers}
        await JSONResponse(dict(answer.body), answer.status, headers)(scope, receive, send)
        await self._after()

    async def _logged(self, request: HttpRequest) -> Request:
        text = request.url.query if request.method in ("GET", "DELETE") else (await request.body()).decode()
        params: Mapping[str, Any]
        try:
            is_json = request.url.path.startswith("/v2/") and request.method == "POST"
            params = json.loads(text or "{}") if is_json else parse_form(text)
        except (BadForm, ValueError) as bad:
            params = {"unreadable": str(bad)}
        logged = Request(
            request.method, request.url.path, params, dict(request.headers), self._account.now_ms,
            self.log.in_flight + 1,
        )  # fmt: skip
        self.log.all.append(logged)
        return logged

    async def _answer(self, logged: Request) -> Answer:
        held, counted = None, False
        try:
            fault = self.faults.next(logged.method, logged.path)
            if fault is not None and not fault.applied and fault.kind is not Kind.SLOW:
                return self._failed(fault, logged)
            self._authenticate(logged)
            if (logged.method, logged.path) == ("POST", METER_EVENTS):
                self._count_meter_call(logged, 1)
                counted = True
                held = self._usage.lock(logged.params)
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            if fault is not None and fault.gate is not None:
                await fault.gate.wait()
            if self._account.clock is not None:
                self._account.run_due(self._account.now_ms)
            answer = self._kept_or_run(logged)
            return answer if fault is None or fault.kind is Kind.SLOW else self._failed(fault, logged)
        except Refused as refused:
            return self._refused(logged, refused)
        finally:
            if held is not None:
                self._usage.unlock(held)
            if counted:
                self._count_meter_call(logged, -1)

    def _failed(self, fault: Fault, logged: Request) -> Answer:
        """The answer of a fault. Raises Lost."""
        if fault.kind is not Kind.STATUS:
            raise Lost(hang=fault.kind is Kind.TIMEOUT)
        kind, code = ("invalid_request_error", "rate_limit") if fault.status == 429 else ("api_error", None)
        headers = {} if fault.retry_after_s is None else {"retry-after": str(fault.retry_after_s)}
        if fault.sticks:
            headers["stripe-should-retry"] = "false"
        answer = Answer(
            fault.status, Refused(fault.status, "The fake was asked to fail.", code=code, kind=kind).body(), headers
        )
        key = logged.idempotency_key
        if fault.sticks and key:
            if not fault.applied:
                self.keys.forget(key)
                self.keys.begin(key, logged.method, logged.path, logged.params, self._account.now_s)
            self.keys.keep(key, answer)
        return answer

    def _kept_or_run(self, logged: Request) -> Answer:
        """The kept answer of an idempotency key, or the endpoint's. Raises Refused."""
        key = logged.idempotency_key if logged.method == "POST" else None
        if key is None:
            return self._run(logged)
        kept = self.keys.begin(key, logged.method, logged.path, logged.params, self._account.now_s)
        if kept is not None:
            logged.replayed = True
            return Answer(kept.status, kept.body, {**kept.headers, "idempotent-replayed": "true"})
        try:
            answer = self._run(logged)
        except Refused as refused:
            if refused.saved:
                self.keys.keep(key, self._refused(logged, refused))
            else:
                self.keys.forget(key)
            raise
        except BaseException:
            self.keys.forget(key)
            raise
        self.keys.keep(key, answer)
        return answer

    def _run(self, logged: Request) -> Answer:
        endpoint, ids = self._found(logged)
        try:
            params = typed(logged.params, endpoint.params_type())
        except Refused as refused:
            logged.refusal = refused.message
            self.log.invalid.append(logged)
            raise
        version = logged.headers.get("stripe-version", self._account.api_version)
        made = endpoint.answer(Asked(ids, params, version, logged.idempotency_key or ""))
        if made.get("object") in ("event", THIN):
            # An event keeps the version in which it was made.
            version = self._account.api_version
        outside = shaped(rendered(self._account, made, params.get("expand", ())), version)
        return Answer(200, outside, {"stripe-version": version})

    def _found(self, logged: Request) -> tuple[Endpoint, tuple[str, ...]]:
        asked = logged.path.strip("/").split("/")
        for endpoint, path in self._table:
            if endpoint.method == logged.method and len(path) == len(asked):
                pairs = list(zip(path, asked, strict=True))
                if all(wanted == got or wanted == "{id}" for wanted, got in pairs):
                    return endpoint, tuple(got for wanted, got in pairs if wanted == "{id}")
        self.log.invalid.append(logged)
        raise Refused(404, f"Unrecognized request URL ({logged.method}: {logged.path}).", saved=False)

    def _authenticate(self, logged: Request) -> None:
        """A key of the other mode knows nothing of this account."""
        scheme, _, key = logged.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not key:
            raise Refused(401, "You did not provide an API key.", saved=False)
        if key != self._secret_key:
            shown = f"{key[:8]}{'*' * 8}"
            raise Refused(401, f"Invalid API Key provided: {shown}", saved=False)

    def _refused(self, logged: Request, refused: Refused) -> Answer:
        logged.refusal = refused.message
        headers = {} if refused.status in (409, 429) else {"stripe-should-retry": "false"}
        return Answer(refused.status, refused.body(), headers)

    def _count_meter_call(self, logged: Request, step: int) -> None:
        payload = logged.params.get("payload")
        customer = payload.get("stripe_customer_id", "") if isinstance(payload, Mapping) else ""
        held = (str(customer), str(logged.params.get("event_name", "")))
        now = self.log.in_flight_by_meter.get(held, 0) + step
        self.log.in_flight_by_meter[held] = now
        self.log.max_in_flight_by_meter = max(self.log.max_in_flight_by_meter, now)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _break(send: Send) -> None:
    """A promise of a body that never comes: the server closes the connection."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
