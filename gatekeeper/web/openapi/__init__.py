"""What the API offers, as data: each operation once, from which both its URL and its place in the document are made."""

from gatekeeper.web.openapi.operation import Endpoint, Guard, Operation, Query, Who, routes_of

__all__ = ["Endpoint", "Guard", "Operation", "Query", "Who", "routes_of"]
