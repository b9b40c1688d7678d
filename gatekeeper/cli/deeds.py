"""What the command line changes stands in the audit log too, as done by ``cli``, with the name of the system's user.
The rule: every command that changes who may do what, or what anybody pays, writes its deed first.
"""

import os
import pwd
from contextlib import AbstractAsyncContextManager
from typing import Any

from gatekeeper.clock import SystemClock
from gatekeeper.people.trail import Deeds, Doing
from gatekeeper.ports.people import Trail

ACTOR = "cli"


def deed(trail: Trail, action: str, subject: str = "", **facts: Any) -> AbstractAsyncContextManager[Doing]:
    """Around a change; ``action`` is the command as it is typed. Never put a secret into the facts."""
    return Deeds(trail, SystemClock()).doing(ACTOR, f"gatekeeper {action}", subject, {"user": _user(), **facts})


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
