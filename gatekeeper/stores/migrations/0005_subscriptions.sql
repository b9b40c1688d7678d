-- Subscriptions at the biller, what it sends, and its invoices.

-- Whose account at the biller one is. Nobody shares his: link_account sees to that.
CREATE INDEX customer_by_account ON customer (stripe_customer_id) WHERE stripe_customer_id IS NOT NULL;

-- What was decided of a customer's subscription the last time. grace_ms: until when he is served although a payment
-- failed. blocked_ms is the disabled_ms that this set on the customer. items_ms: since when it is sold by these prices.
-- version counts decisions: whoever decides has read the one before.
CREATE TABLE subscription (
    customer_id TEXT PRIMARY KEY,
    subscription_id TEXT NOT NULL,
    status TEXT NOT NULL,
    plan_id TEXT NOT NULL,
    prices TEXT NOT NULL,
    period_start_ms BIGINT NOT NULL,
    period_end_ms BIGINT NOT NULL,
    anchor_ms BIGINT NOT NULL,
    items_ms BIGINT NOT NULL,
    trial_end_ms BIGINT,
    cancel_ms BIGINT,
    grace_ms BIGINT,
    blocked_ms BIGINT,
    version BIGINT NOT NULL CHECK (version > 0)
);
CREATE INDEX subscription_in_grace ON subscription (grace_ms) WHERE grace_ms IS NOT NULL AND blocked_ms IS NULL;

-- What the biller has sent, once for each id, as it came; kept before it is answered, worked on afterwards.
CREATE TABLE biller_event (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'dead')),
    received_ms BIGINT NOT NULL,
    next_ms BIGINT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    error TEXT
);
CREATE INDEX biller_event_waiting ON biller_event (next_ms, id) WHERE state = 'waiting';
CREATE INDEX biller_event_ended ON biller_event (next_ms, id) WHERE state <> 'waiting';

-- Invoices as they were seen last at the biller. Amounts are whole cents.
CREATE TABLE invoice (
    id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL,
    account TEXT NOT NULL,
    number TEXT,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    currency TEXT NOT NULL,
    total_cents BIGINT NOT NULL,
    due_cents BIGINT NOT NULL,
    paid_cents BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    period_start_ms BIGINT NOT NULL,
    period_end_ms BIGINT NOT NULL,
    subscription_id TEXT,
    page TEXT,
    pdf TEXT,
    seen_ms BIGINT NOT NULL
);
CREATE INDEX invoice_by_customer ON invoice (customer_id, created_ms, id);
