"""Where an error of ours becomes a reading instead of ending a stream (Law 3).

The rule: it is never silent. It goes to the log with its traceback, and its name stands in the reading's note.
"""

import logging

log = logging.getLogger("gatekeeper.meters")


def noted(problem: Exception, where: str) -> str:
    """Logs what should never have happened; gives the name that the note shows."""
    log.error("metering failed in %s: %s", where, type(problem).__name__, exc_info=problem)
    return type(problem).__name__
