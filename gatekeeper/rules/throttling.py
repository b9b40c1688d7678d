"""How often somebody may try to sign in. The rule: some tries are free, and from then on each one in vain closes the
door for twice as long as the one before; a try is counted before its password is looked at, so that a thousand at once
are a thousand tries.
"""

from dataclasses import dataclass

# A person who has forgotten which password it was.
FREE_OF_EMAIL = 5
# A company behind one address.
FREE_OF_ADDRESS = 30
WINDOW_MS = 3_600_000
FIRST_CLOSED_MS = 2_000
# Who is kept out by somebody else's tries is not kept out for longer; a link lets him in meanwhile.
LONGEST_CLOSED_MS = 15 * 60_000


@dataclass(frozen=True, slots=True)
class Door:
    """How somebody stands: tries in the window that began at ``since_ms``, and until when he is not listened to."""

    count: int = 0
    since_ms: int = 0
    closed_ms: int = 0

    def opens_ms(self, now_ms: int) -> int:
        """Until when the door is closed; 0: it is open."""
        return self.closed_ms if self.closed_ms > now_ms else 0

    def tried(self, free: int, now_ms: int) -> "Door":
        """After one more try, of which ``free`` cost nothing within a window."""
        fresh = now_ms >= max(self.since_ms + WINDOW_MS, self.closed_ms + WINDOW_MS)
        count = 1 if fresh else self.count + 1
        since_ms = now_ms if fresh else self.since_ms
        over = count - free
        # 2 ** 20 is far beyond the longest.
        wait_ms = 0 if over < 0 else min(LONGEST_CLOSED_MS, FIRST_CLOSED_MS << min(over, 20))
        return Door(count, since_ms, now_ms + wait_ms if wait_ms else 0)
