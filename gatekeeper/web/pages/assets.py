"""Static files of the pages: read once, named by what is in them, so that a browser keeps each for ever.

The rule: a name holds the hash of the bytes behind it; another hash is another file, and there is no way to a file that
is not in the list."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gatekeeper.errors import Code, Refusal

STATIC = Path(__file__).resolve().parents[1] / "static"
PREFIX = "/dashboard/static/"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_HEADERS = {
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "vary": "accept-encoding",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    name: str
    media_type: str
    body: bytes
    zipped: bytes


class Assets:
    """All files of a folder that a browser may ask for, by the name with the hash."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._urls: dict[str, str] = {}
        self._found: dict[str, Asset] = {}
        for path in sorted(folder.rglob("*")):
            kind = _TYPES.get(path.suffix)
            if kind is None:
                continue
            body = path.read_bytes()
            plain = path.relative_to(folder).as_posix()
            stem, suffix = plain.removesuffix(path.suffix), path.suffix
            name = f"{stem}.{hashlib.sha256(body).hexdigest()[:16]}{suffix}"
            self._urls[plain] = PREFIX + name
            self._found[name] = Asset(name, kind, body, gzip.compress(body, 9, mtime=0))

    def url(self, plain: str) -> str:
        """Where the file with this plain name is. KeyError for one that is not there."""
        return self._urls[plain]

    def routes(self) -> list[BaseRoute]:
        """The table of URLs, for ``web.app``."""
        return [Route(PREFIX + "{name:path}", self.answer, methods=["GET", "HEAD"])]

    async def answer(self, request: Request) -> Response:
        """One file. Raises Refusal."""
        found = self._found.get(request.path_params["name"])
        if found is None:
            raise Refusal(Code.NOT_FOUND)
        headers = {**_HEADERS, "content-type": found.media_type}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(found.zipped, headers={**headers, "content-encoding": "gzip"})
        return Response(found.body, headers=headers)
