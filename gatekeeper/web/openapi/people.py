"""The operations on who may come in: signing in, one's own keys, operators, the people of customers, the audit log."""

from gatekeeper.ports.people import Role
from gatekeeper.web.openapi.operation import Operation, Query, Who
from gatekeeper.web.openapi.parameters import AFTER, LIMIT
from gatekeeper.web.openapi.schemas import (
    FLAG,
    KEY,
    SECRET_KEY,
    SUBJECT,
    TEXT,
    TIME,
    asked,
    many,
    maybe,
    obj,
    one_of,
    page_of,
    ref,
)

EMAIL = {"type": "string", "pattern": "^[^@\\s]{1,64}@[^@\\s]{1,255}$"}
PASSWORD = {"type": "string", "minLength": 12, "maxLength": 1024}
ROLE = one_of(Role)
_LOGIN = {"id": TEXT, "email": TEXT, "created_ms": TIME, "disabled": FLAG, "last_ms": maybe(TIME), "password": FLAG}
OPERATOR = obj({**_LOGIN, "role": ROLE})
PERSON = obj({**_LOGIN, "customer_id": TEXT})
LINK = obj({"link": {**TEXT, "description": "Works once, for an hour."}, "expires_ms": TIME})
DEED = obj(
    {
        "id": TEXT,
        "at_ms": TIME,
        "actor": TEXT,
        "action": TEXT,
        "subject": TEXT,
        "state": one_of(("begun", "done", "refused")),
        "detail": {"type": "object"},
    }
)

AUTH = (
    Operation(
        "POST",
        "/auth/login",
        "sign_in",
        "A token for an email and a password",
        obj({"token": TEXT, "expires_ms": TIME, "role": maybe(ROLE), "customer_id": maybe(TEXT)}),
        tag="auth",
        who=Who.ANYBODY,
        body=asked({"email": TEXT, "password": TEXT}, needed=("email", "password")),
        errors=(401, 429),
    ),
    Operation(
        "POST",
        "/auth/logout",
        "sign_out",
        "End the token or the session",
        obj({"signed_out": FLAG}),
        tag="auth",
        who=Who.PERSON,
    ),
    Operation(
        "POST",
        "/auth/password",
        "change_password",
        "Choose another password: all tokens and sessions end",
        obj({"changed": FLAG}),
        tag="auth",
        who=Who.PERSON,
        body=asked({"old": TEXT, "new": PASSWORD}, needed=("old", "new")),
        errors=(401, 429),
    ),
    Operation(
        "POST",
        "/auth/keys",
        "create_own_key",
        "Make a key: for one's own customer, or as an operator for any",
        obj({**KEY, "key": SECRET_KEY}),
        201,
        tag="auth",
        who=Who.PERSON,
        body=asked(
            {
                "customer_id": maybe(TEXT),
                "name": maybe({"type": "string", "maxLength": 200}),
                "expires_ms": maybe(TIME),
                "routes": maybe(many(TEXT)),
                "models": maybe(many(TEXT)),
                "user_id": maybe(SUBJECT),
                "agent_id": maybe(SUBJECT),
                "may_assert": maybe(FLAG),
            }
        ),
        errors=(403, 404),
        once=True,
    ),
    Operation(
        "DELETE",
        "/auth/keys/{key_id}",
        "revoke_own_key",
        "Revoke a key; twice is the same as once",
        ref("Key"),
        tag="auth",
        who=Who.PERSON,
        errors=(403, 404),
    ),
)

OPERATORS = (
    Operation(
        "GET",
        "/admin/operators",
        "list_operators",
        "Operators in the order of their ids",
        page_of("operators", OPERATOR),
        tag="operators",
        least=Role.OWNER,
        query=(AFTER, LIMIT),
    ),
    Operation(
        "POST",
        "/admin/operators",
        "create_operator",
        "Make an operator; the link in the answer lets him choose a password",
        obj({**_LOGIN, "role": ROLE, "link": TEXT, "link_expires_ms": TIME}),
        201,
        tag="operators",
        least=Role.OWNER,
        body=asked({"email": EMAIL, "role": ROLE}, needed=("email", "role")),
        errors=(409,),
        once=True,
    ),
    Operation(
        "GET",
        "/admin/operators/{operator_id}",
        "get_operator",
        "One operator",
        OPERATOR,
        tag="operators",
        least=Role.OWNER,
        errors=(404,),
        tagged=True,
    ),
    Operation(
        "PATCH",
        "/admin/operators/{operator_id}",
        "change_operator",
        "Another email or role, or disabled; there is always an owner",
        OPERATOR,
        tag="operators",
        least=Role.OWNER,
        body=asked({"email": maybe(EMAIL), "role": maybe(ROLE), "disabled": maybe(FLAG)}),
        errors=(404, 409),
        tagged=True,
    ),
    Operation(
        "DELETE",
        "/admin/operators/{operator_id}",
        "remove_operator",
        "Signed out everywhere, and disabled: the audit log goes on naming him",
        OPERATOR,
        tag="operators",
        least=Role.OWNER,
        errors=(404, 409),
        tagged=True,
    ),
    Operation(
        "POST",
        "/admin/operators/{operator_id}/link",
        "link_operator",
        "A link by which he signs in once and chooses a password",
        LINK,
        201,
        tag="operators",
        least=Role.OWNER,
        errors=(404, 409),
        once=True,
    ),
    Operation(
        "GET",
        "/admin/customers/{customer_id}/people",
        "list_people",
        "Who signs in for a customer",
        page_of("people", PERSON),
        tag="customers",
        query=(AFTER, LIMIT),
        errors=(404,),
    ),
    Operation(
        "POST",
        "/admin/customers/{customer_id}/people",
        "create_person",
        "Let somebody sign in for a customer",
        PERSON,
        201,
        tag="customers",
        body=asked({"email": EMAIL}, needed=("email",)),
        errors=(404, 409),
        once=True,
    ),
    Operation(
        "DELETE",
        "/admin/people/{person_id}",
        "remove_person",
        "Signed out everywhere, and disabled",
        PERSON,
        tag="customers",
        errors=(404,),
    ),
    Operation(
        "GET",
        "/admin/audit",
        "list_deeds",
        "What was changed, by whom; the latest first",
        page_of("deeds", DEED),
        tag="operators",
        query=(
            Query("actor", "An email, `admin key`, or `cli`.", TEXT),
            Query("subject", "What it was about: an id.", TEXT),
            AFTER,
            LIMIT,
        ),
    ),
)
