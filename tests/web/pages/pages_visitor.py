"""An operator at the dashboard, without a browser: asks for pages, posts forms, reads the words."""

import re
from dataclasses import dataclass
from html import unescape
from urllib.parse import urlencode

from fakes.callers import Headers
from fakes.raw import Answer, ask, request
from fakes.stand import Stand


@dataclass(frozen=True)
class Visitor:
    """One session of one operator."""

    stand: Stand
    cookie: Headers

    def get(self, path: str) -> Answer:
        """A page."""
        return ask(self.stand.url, request(None, b"", method="GET", path=path, headers=dict(self.cookie)), "GET")

    def post(self, path: str, **fields: str) -> Answer:
        """A form."""
        headers = {**self.cookie, "Content-Type": "application/x-www-form-urlencoded"}
        return ask(self.stand.url, request(None, urlencode(fields).encode(), path=path, headers=headers))

    def read(self, path: str, status: int = 200) -> str:
        """The HTML of a page."""
        answer = self.get(path)
        assert answer.status == status, answer
        return answer.body.decode()

    def done(self, path: str, **fields: str) -> str:
        """Where a form leads that was taken."""
        answer = self.post(path, **fields)
        assert answer.status == 303, answer
        found = answer.header("location")
        assert found is not None
        return found

    def refused(self, path: str, status: int, **fields: str) -> str:
        """The page of a form that was not."""
        answer = self.post(path, **fields)
        assert answer.status == status, answer
        return answer.body.decode()


def words(html: str) -> str:
    """What a person reads."""
    text = re.sub(r"<(script|svg)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text)))
