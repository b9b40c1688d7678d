"""The ledger in process, without HTTP: an agent asks before it spends, and says afterwards what it spent.

The rule: the same limits, holds and records as those of the proxy, in the same database; nothing is decided here.
"""

from gatekeeper.firewall.asking import AsyncFirewall, AsyncVerdict
from gatekeeper.firewall.threads import Firewall, Verdict
from gatekeeper.firewall.verdict import Charged, Limit

__all__ = ["AsyncFirewall", "AsyncVerdict", "Charged", "Firewall", "Limit", "Verdict"]
