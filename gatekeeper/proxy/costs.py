"""What calls cost at their providers: the price book of the present configuration.

The rule: a call is held, settled and explained at one price, that of its admission.
"""

from gatekeeper.config.gateway import Gateway
from gatekeeper.proxy.call import Call
from gatekeeper.rules.prices import PriceBook, PriceList, TokenPrice, UpstreamPrices


class Costs:
    """One for the process; makes one book for each Gateway, which a reload replaces."""

    def __init__(self, public: PriceList | None) -> None:
        self._public = public
        self._gateway: Gateway | None = None
        self._book = PriceBook()
        self._at: dict[str, UpstreamPrices] = {}

    def prices(self, call: Call, upstream: str | None = None) -> UpstreamPrices:
        """The prices of an upstream, of the call's first one where none is named."""
        gateway = call.gateway
        if gateway is not self._gateway:
            self._book = PriceBook(gateway.prices, self._public, gateway.costs.ceiling)
            self._gateway = gateway
            self._at = {}
        name = upstream or call.route.upstream
        found = self._at.get(name)
        if found is None:
            config = gateway.upstreams[name]
            found = self._at[name] = self._book.at(config.name, config.url)
        return found

    def price(self, call: Call, model: str | None, upstream: str | None = None) -> TokenPrice | None:
        """The price at the call's admission; None is unknown."""
        return self.prices(call, upstream).price(model, call.started_ms)
