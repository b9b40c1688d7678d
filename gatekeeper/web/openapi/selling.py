"""The operations on what is sold."""

from gatekeeper.web.openapi.operation import Operation
from gatekeeper.web.openapi.schemas import page_of, ref

SELLING = (
    Operation(
        "GET",
        "/admin/plans",
        "list_plans",
        "The plans as declared, on one page",
        page_of("plans", ref("Plan")),
        tag="selling",
    ),
    Operation(
        "GET",
        "/admin/plans/{plan_id}",
        "get_plan",
        "One plan, with its limits and its examples, and how many customers are on it",
        ref("WholePlan"),
        tag="selling",
    ),
    Operation(
        "GET",
        "/admin/routes",
        "list_routes",
        "The routes with their checked expressions, on one page",
        page_of("routes", ref("Route")),
        tag="selling",
    ),
    Operation("GET", "/admin/routes/{name}", "get_route", "One route", ref("Route"), tag="selling"),
)
