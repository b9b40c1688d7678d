"""A mail server on a real socket: enough SMTP to take a mail, with TLS and a password where a test asks for them."""

import asyncio
import base64
import contextlib
import email
import email.policy
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage


@dataclass
class Posted:
    """One mail as it was handed over."""

    sender: str
    to: list[str]
    raw: bytes
    user: str | None = None
    password: str | None = None
    encrypted: bool = False

    @property
    def message(self) -> EmailMessage:
        """The mail, parsed."""
        parsed = email.message_from_bytes(self.raw, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class Postbox:
    """The server. ``answers`` replaces what it says to a command (``{"RCPT": "550 no"}``); ``trusted`` makes it offer
    STARTTLS, or with ``implicit`` speak TLS from the first byte."""

    answers: dict[str, str] = field(default_factory=dict)
    trusted: ssl.SSLContext | None = None
    implicit: bool = False
    mails: list[Posted] = field(default_factory=list)
    port: int = 0
    _server: asyncio.Server | None = None
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def start(self) -> None:
        """Listen on a free port."""
        tls = self.trusted if self.implicit else None
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mail = Posted("", [], b"", encrypted=self.implicit)

        async def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")
            await writer.drain()

        await say("220 postbox")
        while line := (await reader.readline()).decode().rstrip("\r\n"):
            verb = line.split(" ")[0].upper()
            if verb in self.answers:
                await say(self.answers[verb])
            elif verb in ("EHLO", "HELO"):
                extensions = ["250-AUTH PLAIN"]
                if self.trusted is not None and not mail.encrypted:
                    extensions.append("250-STARTTLS")
                await say("\r\n".join(["250-postbox", *extensions, "250 8BITMIME"]))
            elif verb == "STARTTLS":
                assert self.trusted is not None
                await say("220 go on")
                await writer.start_tls(self.trusted)
                mail.encrypted = True
            elif verb == "AUTH":
                _, mail.user, mail.password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
                await say("235 welcome")
            elif verb == "MAIL":
                mail.sender = line.partition("<")[2].partition(">")[0]
                await say("250 yes")
            elif verb == "RCPT":
                mail.to.append(line.partition("<")[2].partition(">")[0])
                await say("250 yes")
            elif verb == "DATA":
                await say("354 go on")
                raw = await reader.readuntil(b"\r\n.\r\n")
                mail.raw = raw[:-3].replace(b"\r\n..", b"\r\n.")
                self.mails.append(mail)
                await say("250 taken")
            elif verb == "QUIT":
                await say("221 bye")
                return
            else:
                await say("250 yes")
