"""gateway.toml and plans/*.toml -> one Gateway. The only place of this room that opens files.

The rule: everything that is wrong in all of the files is said at once, in the order of the files and their lines.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from gatekeeper.config.budgets import with_budgets
from gatekeeper.config.dotenv import read_dotenv
from gatekeeper.config.gateway import Gateway
from gatekeeper.config.kinds import text as text_kind
from gatekeeper.config.limits import Names, check_meter, check_routes, read_limits
from gatekeeper.config.mail import read_mail, with_alerts
from gatekeeper.config.notifications import read_notifications
from gatekeeper.config.plans import check_on_cancel, read_plan, warn_of_dear_overage
from gatekeeper.config.prices import read_costs, read_prices
from gatekeeper.config.reading import Table, TomlFile
from gatekeeper.config.routes import Around, read_routes
from gatekeeper.config.settings import read_admin, read_database, read_jwt_secret, read_keys, read_ledger, read_server
from gatekeeper.config.stripe import read_stripe
from gatekeeper.config.upstreams import read_upstreams
from gatekeeper.config.variables import Variables
from gatekeeper.diagnostics import Mistake, Mistakes, Severity, Source, Span
from gatekeeper.rules.declared import EACH, DeclaredLimit, DeclaredRate, of_plan, rates_of_plan
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.routing import Router
from gatekeeper.wire.shapes import SHAPES, Shape, shape_of

# Written by people; more is a wrong file (a database, a log) and would be slow to complain about.
FILE_BYTES_MAX = 4 * 1024 * 1024
DEFAULT_PLANS = "plans"


def load_gateway(
    path: Path, env: Mapping[str, str], *, text: str | None = None, plans: Mapping[str, str] | None = None
) -> Gateway:
    """The gateway of ``path`` with the plans beside it and, if present, the ``.env`` file beside it. ``text`` and
    ``plans`` (file name -> text) stand in the place of what is on the disk; a text that somebody sent does not say
    which other files are read.

    ``env`` is the process's environment and beats ``.env``. Raises Mistakes with everything that is wrong.
    """
    mistakes: list[Mistake] = []
    sent = text is not None
    if text is None:
        text = _file_text(path, "gatekeeper init writes a first one, with plans", mistakes)
    if text is None:
        raise Mistakes(mistakes)
    dotenv = path.with_name(".env")
    if dotenv.is_file():
        written = _file_text(dotenv, "", mistakes)
        more, wrong = read_dotenv(written or "", str(dotenv))
        mistakes += wrong
        env = {**more, **env}
    file = TomlFile(text, str(path))
    if plans is None:
        of_disk = TomlFile(_file_text(path, "", []) or "", str(path)) if sent else file
        plans = _plan_texts(file, of_disk.values.get("plans", DEFAULT_PLANS), path.parent, mistakes)
    return _gateway(file, text, plans, env, path.parent, mistakes)


def parse_gateway(
    text: str, name: str, plans: Mapping[str, str], env: Mapping[str, str], *, directory: Path | None = None
) -> Gateway:
    """The same from texts, without opening a file. ``plans``: file name -> text; a plan's id is its file's stem.

    ``directory`` is where relative paths in the text start. Raises Mistakes.
    """
    return _gateway(TomlFile(text, name), text, plans, env, directory or Path(), [])


def _gateway(
    file: TomlFile,
    text: str,
    plan_texts: Mapping[str, str],
    env: Mapping[str, str],
    directory: Path,
    before: list[Mistake],
) -> Gateway:
    variables = Variables(env)
    outside = list(before)
    read = {PurePath(name).stem: read_plan(plan_text, name) for name, plan_text in sorted(plan_texts.items())}
    plans = {plan_id: plan for plan_id, (plan, _) in read.items() if plan is not None}
    plan_files = {plan_id: plan_file for plan_id, (_, plan_file) in read.items()}
    warn_of_dear_overage(plans, plan_files)
    top = file.top()
    if file.broken:
        raise Mistakes(_in_order(outside, file, plan_files))
    top.take("plans", text_kind, DEFAULT_PLANS)
    server = read_server(top.table("server"), variables, outside)
    database = read_database(top.table("database"), variables, directory, outside)
    admin_key = read_admin(top.table("admin"), variables)
    jwt_secret = read_jwt_secret(variables, outside)
    ledger = read_ledger(top.table("ledger"), directory)
    # A plan whose file is wrong exists all the same.
    keys = read_keys(top.table("keys"), server, frozenset(read))
    upstreams = read_upstreams(top, variables, directory)
    routes = read_routes(top, Around(upstreams, variables, directory))
    meters = frozenset(name for route in routes for name in route.meters)
    names = Names({route.name for route in routes}, plans=frozenset(read), meters=meters)
    limits, rates = read_limits(top, names)
    limits = with_budgets(limits, variables, outside)
    _check_plan_limits(plans, plan_files, names)
    prices, costs = read_prices(top, upstreams), read_costs(top.table("costs"))
    notifications = read_notifications(top, variables, directory)
    mail = read_mail(top.table("mail"), variables, directory)
    stripe = read_stripe(top.table("stripe"), variables, directory, outside)
    check_on_cancel(plans, plan_files)
    usage_shapes = _usage_shapes(top)
    top.finish()
    mistakes = _in_order(outside, file, plan_files)
    if any(mistake.severity is Severity.ERROR for mistake in mistakes):
        raise Mistakes(mistakes)
    return Gateway(
        server=server,
        database_url=database,
        upstreams={name: upstream for name, upstream in upstreams.items() if upstream is not None},
        router=Router(routes),
        plans=plans,
        keys=keys,
        ledger=ledger,
        admin_key=admin_key,
        jwt_secret=jwt_secret,
        limits=limits,
        rates=rates,
        prices=prices,
        costs=costs,
        notifications=with_alerts(notifications, mail),
        mail=mail,
        stripe=stripe,
        usage_shapes=usage_shapes,
        warnings=mistakes,
        generation=_generation(text, plan_texts, variables),
    )


def _check_plan_limits(plans: Mapping[str, Plan], files: Mapping[str, TomlFile], names: Names) -> None:
    """What limits of plans name has to be in gateway.toml."""
    for plan_id, plan in plans.items():
        declared: tuple[tuple[str, Sequence[DeclaredLimit | DeclaredRate]], ...] = (
            ("limits", of_plan(plan)),
            ("rates", rates_of_plan(plan)),
        )
        for key, entries in declared:
            for number, each in enumerate(entries):
                table = Table(files[plan_id], (key, number), {})
                check_meter(table, each.limit.dimension, names.meters)
                if each.subject != EACH:
                    check_routes(table, each.limit.scope, each.subject, names.routes)


def _usage_shapes(top: Table) -> tuple[Shape, ...]:
    """``[[usage_shapes]]``: providers that ``usage()`` does not know by itself, tried before those that it knows."""
    shapes: list[Shape] = []
    for table in top.tables("usage_shapes"):
        try:
            shapes.append(shape_of(table.values))
        except ValueError as wrong:
            table.file.complain(table.path, str(wrong), "docs/expressions.md shows one", at_key=True)
    return (*shapes, *SHAPES) if shapes else ()


def _in_order(outside: list[Mistake], file: TomlFile, plans: Mapping[str, TomlFile]) -> tuple[Mistake, ...]:
    found = list(outside)
    for each in (file, *plans.values()):
        found += sorted(each.mistakes, key=lambda mistake: mistake.span.start)
    return tuple(found)


def _generation(text: str, plans: Mapping[str, str], variables: Variables) -> str:
    digest = hashlib.sha256()
    for name, each in (("", text), *sorted(plans.items())):
        digest.update(f"{len(name)} {len(each)} {name}{each}".encode("utf-8", "surrogatepass"))
    digest.update(variables.digest())
    return digest.hexdigest()[:16]


def _plan_texts(file: TomlFile, allowed: Any, directory: Path, mistakes: list[Mistake]) -> dict[str, str]:
    """The texts of all plans/*.toml. A missing directory is a mistake in gateway.toml; so is another one than
    ``allowed``: what is found there would be shown in mistakes, to somebody who need not have a right to see it."""
    written = file.values.get("plans", DEFAULT_PLANS)
    if file.broken or not isinstance(written, str):
        return {}
    if written != allowed:
        hint = "send the plans along, or change the file"
        file.complain(("plans",), "a text that is sent can name no other directory than the file does", hint)
        return {}
    folder = directory / written
    if not folder.is_dir():
        hint = 'gatekeeper init writes one; plans = "..." names another'
        file.complain(("plans",), f"there is no directory {str(folder)!r} with the plans", hint)
        return {}
    texts: dict[str, str] = {}
    for path in sorted(folder.glob("*.toml")):
        text = _file_text(path, "", mistakes)
        if text is not None:
            texts[str(path)] = text
    return texts


def _file_text(path: Path, hint: str, mistakes: list[Mistake]) -> str | None:
    """The text of a file, or None after a mistake."""
    try:
        raw = path.read_bytes()
        if len(raw) <= FILE_BYTES_MAX:
            return raw.decode("utf-8")
        message = f"this file has {len(raw)} bytes; at most {FILE_BYTES_MAX} are read"
    except FileNotFoundError:
        message = "there is no such file"
    except UnicodeDecodeError as error:
        message = f"this file is not UTF-8 text (byte {error.start + 1})"
    except OSError as error:
        message = f"this file cannot be read: {error.strerror}"
    mistakes.append(Mistake(message, Source("", str(path)), Span(0, 0), hint or None))
    return None
