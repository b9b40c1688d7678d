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

    def prices(self, call: Call) -> UpstreamPrices:
        """The prices of the call's upstream."""
        gateway = call.gateway
        if gateway is not self._gateway:
            self._book = PriceBook(gateway.prices, self._public, gateway.costs.ceiling)
            self._gateway = gateway
        upstream = gateway.upstreams[call.route.upstream]
        return self._book.at(upstream.name, upstream.url)

    def price(self, call: Call, model: str | None) -> TokenPrice | None:
        """The price at the call's admission; None is unknown."""
        return self.prices(call).price(model, call.started_ms)
