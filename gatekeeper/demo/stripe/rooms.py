"""All parts of the fake, joined. The rule: plain constructors, in the order in which the parts need each other."""

from gatekeeper.demo.stripe.account import Account
from gatekeeper.demo.stripe.catalogue import Catalogue
from gatekeeper.demo.stripe.checkout import Checkout, Portal
from gatekeeper.demo.stripe.customers import Customers
from gatekeeper.demo.stripe.happenings import Happenings
from gatekeeper.demo.stripe.invoice_items import InvoiceItems
from gatekeeper.demo.stripe.invoices import Invoices
from gatekeeper.demo.stripe.meters import Meters
from gatekeeper.demo.stripe.schedules import Schedules
from gatekeeper.demo.stripe.subscriptions import Subscriptions
from gatekeeper.demo.stripe.turning import Turning
from gatekeeper.demo.stripe.usage import Usage
from gatekeeper.demo.stripe.webhooks import Webhooks


class Rooms:
    """What an account consists of."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.webhooks = Webhooks(account)
        self.happenings = Happenings(account, self.webhooks.publish)
        self.customers = Customers(account)
        self.catalogue = Catalogue(account)
        self.meters = Meters(account)
        self.usage = Usage(account, self.happenings, self.customers, self.meters)
        self.invoice_items = InvoiceItems(account)
        self.invoices = Invoices(account, self.usage, self.invoice_items)
        self.subscriptions = Subscriptions(account, self.invoices)
        self.turning = Turning(account, self.subscriptions, self.invoices)
        self.schedules = Schedules(account, self.subscriptions, self.turning)
        self.checkout = Checkout(account, self.customers, self.subscriptions)
        self.portal = Portal(account)
