"""gatekeeper: a streaming proxy that meters, limits and bills LLM APIs."""

from typing import TYPE_CHECKING, Any

from gatekeeper.version import __version__ as __version__

if TYPE_CHECKING:
    from gatekeeper.firewall import AsyncFirewall as AsyncFirewall
    from gatekeeper.firewall import Firewall as Firewall


def __getattr__(name: str) -> Any:
    """``Firewall`` and ``AsyncFirewall``, loaded when they are asked for: they bring the whole house with them."""
    if name in ("AsyncFirewall", "Firewall"):
        from gatekeeper import firewall

        return getattr(firewall, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
