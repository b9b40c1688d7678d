-- Who signs in, what they changed, and answers to repeat.

-- Operators have a role, the people of a customer his id. password is an Argon2 hash; NULL: sign in by a link.
CREATE TABLE login (
    id TEXT PRIMARY KEY,
    email TEXT NOT NULL UNIQUE,
    created_ms BIGINT NOT NULL,
    role TEXT CHECK (role IN ('viewer', 'admin', 'owner')),
    customer_id TEXT REFERENCES customer (id),
    password TEXT,
    disabled_ms BIGINT,
    last_ms BIGINT,
    CHECK ((role IS NULL) <> (customer_id IS NULL))
);
CREATE INDEX login_by_customer ON login (customer_id, id) WHERE customer_id IS NOT NULL;

-- A browser that is signed in: the SHA-256 of its cookie, never the cookie.
CREATE TABLE session (
    digest TEXT PRIMARY KEY,
    login_id TEXT NOT NULL REFERENCES login (id),
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX session_by_login ON session (login_id);
CREATE INDEX session_by_end ON session (expires_ms);

-- Links that sign in, once: the SHA-256 of what is in the link.
CREATE TABLE link (
    digest TEXT PRIMARY KEY,
    login_id TEXT NOT NULL REFERENCES login (id),
    expires_ms BIGINT NOT NULL
);
CREATE INDEX link_by_login ON link (login_id);
CREATE INDEX link_by_end ON link (expires_ms);

-- Tokens that were signed out before they expire, by the SHA-256 of their id.
CREATE TABLE ended_token (
    digest TEXT PRIMARY KEY,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX ended_token_by_end ON ended_token (expires_ms);

-- How often somebody tried to sign in in vain: a digest of an address. count is of the window that began at since_ms.
CREATE TABLE failure (
    name TEXT PRIMARY KEY,
    count BIGINT NOT NULL CHECK (count >= 0),
    since_ms BIGINT NOT NULL,
    closed_ms BIGINT NOT NULL
);
CREATE INDEX failure_by_start ON failure (since_ms);

-- The audit log. ids are in the order of time; detail is JSON and holds no secret.
CREATE TABLE deed (
    id TEXT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'done', 'refused')),
    detail TEXT NOT NULL
);
CREATE INDEX deed_by_actor ON deed (actor, id);
CREATE INDEX deed_by_subject ON deed (subject, id);

-- The answers to requests with an Idempotency-Key, without secrets. status 0: not answered yet.
CREATE TABLE repeat (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    status BIGINT NOT NULL,
    answer TEXT NOT NULL,
    at_ms BIGINT NOT NULL
);
CREATE INDEX repeat_by_time ON repeat (at_ms);
