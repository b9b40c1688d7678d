-- What the operator changes and what he is told; replays; the attempts of a call that failed over.

-- Responses that were billed, by the provider's id: whoever fetches one again is not billed twice.
CREATE TABLE billed_response (
    customer_id TEXT NOT NULL,
    upstream TEXT NOT NULL,
    response_id TEXT NOT NULL,
    call_id TEXT NOT NULL,
    started_ms BIGINT NOT NULL,
    PRIMARY KEY (customer_id, upstream, response_id)
);
CREATE INDEX billed_response_by_start ON billed_response (started_ms);

-- Limits as an operator set them: each beats what is declared for the same scope, subject, dimension and span. cap NULL is
-- unlimited; span is a window ('day') or, for rates, the milliseconds ('60000'). version counts the changes of a row.
CREATE TABLE limit_overlay (
    id TEXT PRIMARY KEY,
    family TEXT NOT NULL CHECK (family IN ('stock', 'rate')),
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    subject TEXT NOT NULL,
    dimension TEXT NOT NULL,
    span TEXT NOT NULL,
    cap BIGINT CHECK (cap >= 0),
    mode TEXT NOT NULL,
    zone TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    updated_ms BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1,
    UNIQUE (family, scope, subject, dimension, span)
);

-- From reset_ms on a limit counts on a row of its own; what was used before stays on record.
CREATE TABLE limit_reset (
    scope TEXT NOT NULL,
    subject TEXT NOT NULL,
    dimension TEXT NOT NULL,
    span TEXT NOT NULL,
    reset_ms BIGINT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (scope, subject, dimension, span, reset_ms)
);

-- How often anything of the two tables above was changed: one row, so that every process sees cheaply that it must read
-- them again.
CREATE TABLE limit_revision (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    number BIGINT NOT NULL
);

-- What somebody is to be told. The id is made of what happened, so that it is told once. content is JSON. fanned_ms is
-- when it was given to those who asked for it.
CREATE TABLE event (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    customer_id TEXT,
    created_ms BIGINT NOT NULL,
    content TEXT NOT NULL,
    fanned_ms BIGINT
);
CREATE INDEX event_unfanned ON event (created_ms, id) WHERE fanned_ms IS NULL;
CREATE INDEX event_fanned ON event (fanned_ms, id) WHERE fanned_ms IS NOT NULL;

-- One event on its way to one target, sent again until it was taken or given up.
CREATE TABLE delivery (
    event_id TEXT NOT NULL,
    target TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts BIGINT NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    next_ms BIGINT NOT NULL,
    sent_ms BIGINT,
    error TEXT,
    PRIMARY KEY (event_id, target)
);
CREATE INDEX delivery_waiting ON delivery (next_ms, event_id) WHERE state = 'waiting';
CREATE INDEX delivery_of_target ON delivery (target, next_ms, event_id) WHERE state = 'waiting';
CREATE INDEX delivery_ended ON delivery (state, next_ms) WHERE state <> 'waiting';

-- The tries of a call that did not serve it: the customer pays the one that did.
CREATE TABLE attempt (
    call_id TEXT NOT NULL,
    number BIGINT NOT NULL,
    upstream TEXT NOT NULL,
    model TEXT,
    started_ms BIGINT NOT NULL,
    ended_ms BIGINT NOT NULL,
    status BIGINT,
    fault TEXT,
    PRIMARY KEY (call_id, number)
);
CREATE INDEX attempt_by_start ON attempt (started_ms);

-- The model that the caller asked for, where another one served.
ALTER TABLE usage_record ADD COLUMN model_requested TEXT;

-- Holds all that sums are made of: a report over a million records reads this and none of them.
DROP INDEX usage_by_start;
CREATE INDEX usage_by_start ON usage_record (started_ms, customer_id, user_id, agent_id, key_id, plan_id, route, model, day,
    units_micro, charge_nano, cost_nano, corrects);

-- Who used most of a limit in its present window.
CREATE INDEX counter_by_start ON counter (scope, dimension, span, start_ms);
