"""``gatekeeper init``: the files that a new gateway starts from."""

import argparse
import os
import secrets
import shlex
from pathlib import Path

from gatekeeper.cli.output import add_command, complain

_SHIPPED = Path(__file__).resolve().parent / "shipped"
_CHECKOUT = Path(__file__).resolve().parents[2]


def shipped(name: str) -> Path:
    """A file or folder that comes with the product: beside the code when installed, at the top of a checkout."""
    place = _SHIPPED / name
    return place if place.exists() else _CHECKOUT / name


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "init", "write gateway.toml, plans/ and .env to start from")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("."), help="where (default: here)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes what is not there yet; a file that exists is left as it is."""
    folder: Path = arguments.folder
    texts = {Path("gateway.toml"): shipped("gateway.toml.example").read_text("utf-8")}
    for plan in sorted(shipped("plans").glob("*.toml")):
        texts[Path("plans") / plan.name] = plan.read_text("utf-8")
    texts[Path(".env")] = (
        "# Read by gatekeeper beside gateway.toml; the real environment wins. Keep it out of version control.\n"
        f"ADMIN_API_KEY={secrets.token_urlsafe(32)}\n"
        "# OPENAI_API_KEY=\n# ANTHROPIC_API_KEY=\n# GEMINI_API_KEY=\n# MISTRAL_API_KEY=\n"
    )
    for name, text in texts.items():
        _write(folder / name, text)
    where = "" if folder == Path(".") else f"cd {shlex.quote(str(folder))}, "
    print(f"Next: {where}put your providers' keys into .env, then 'gatekeeper check' and 'gatekeeper serve'.")
    return 0


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # .env holds secrets, so it is made with mode 0600 rather than changed to it afterwards.
    mode = 0o600 if path.name == ".env" else 0o644
    try:
        with open(path, "x", encoding="utf-8", opener=lambda name, flags: _open(name, flags, mode)) as file:
            file.write(text)
    except FileExistsError:
        complain(f"kept {path}, which is there already")
        return
    print(f"wrote {path}")


def _open(name: str, flags: int, mode: int) -> int:
    return os.open(name, flags, mode)
