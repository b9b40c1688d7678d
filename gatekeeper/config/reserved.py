"""The paths that gatekeeper answers itself. A route that could only match these would never be reached."""

from gatekeeper.rules.routing import Pattern, PatternKind

# Answered themselves, whatever stands below them is free for routes.
OWN_PATHS = frozenset({"/v1/models", "/healthz", "/readyz", "/metrics"})
# Answered with everything below them.
OWN_TREES = (
    "/admin",
    "/auth",
    "/portal",
    "/dashboard",
    "/playground",
    "/webhooks",
    "/webhook",
    "/api/webhooks",
    "/v1/webhooks",
    "/v1/usage",
    "/v1/requests",
    "/v1/budget",
)


def own_path(path: str) -> str | None:
    """The entry of ours that answers this path before any route; None where routes decide."""
    if path in OWN_PATHS:
        return path
    return next((tree for tree in OWN_TREES if path == tree or path.startswith(tree + "/")), None)


def shadowed(pattern: Pattern) -> str | None:
    """The entry of ours that answers everything which this pattern matches; None for a pattern that can be reached."""
    if pattern.kind is PatternKind.EXACT:
        return own_path(pattern.text)
    fixed = pattern.text.split("{")[0].removesuffix("*")
    return next((tree for tree in OWN_TREES if fixed.startswith(tree + "/")), None)
