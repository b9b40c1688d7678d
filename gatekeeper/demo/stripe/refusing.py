"""Errors in Stripe's shape. The rule: whatever goes wrong in a call is raised as a ``Refused`` and rendered here.

Source: https://docs.stripe.com/api/errors and https://docs.stripe.com/error-codes.
"""

from typing import Any


class Refused(Exception):
    """An error answer. ``saved`` says whether the idempotency layer keeps it: only what happened after the endpoint
    began to run (https://docs.stripe.com/api/idempotent_requests)."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        saved: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.saved = saved

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        error = {"type": self.kind, "message": self.message, "code": self.code, "param": self.param}
        return {"error": {name: value for name, value in error.items() if value is not None}}


def missing(kind: str, identifier: str, param: str = "id") -> Refused:
    """404 for an object that does not exist (https://docs.stripe.com/error-codes#resource-missing)."""
    return Refused(404, f"No such {kind}: '{identifier}'", code="resource_missing", param=param)


def invalid(message: str, param: str | None = None, code: str | None = None) -> Refused:
    """400 for a request that makes no sense in the present state."""
    return Refused(400, message, code=code, param=param)


def invalid_params(message: str, param: str, code: str) -> Refused:
    """400 for parameters that are wrong in themselves; never saved under an idempotency key."""
    return Refused(400, message, code=code, param=param, saved=False)
