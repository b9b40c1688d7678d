-- What the biller is told: usage frozen into batches, sent until it is known to have arrived.

-- Where the period of a row ends; NULL on rows from before this was noted.
ALTER TABLE owed ADD COLUMN period_end_ms BIGINT;

-- Who owes, for whoever freezes; and the rows of a batch.
DROP INDEX owed_unbatched;
CREATE INDEX owed_unbatched ON owed (customer_id, settled_ms) WHERE batch_id IS NULL;
CREATE INDEX owed_by_batch ON owed (batch_id) WHERE batch_id IS NOT NULL;

-- A customer on a meter: what is less than a unit and goes into the next batch, and the lease under which one batch at a
-- time is sent.
CREATE TABLE meter_account (
    customer_id TEXT NOT NULL,
    meter TEXT NOT NULL,
    residue_micro BIGINT NOT NULL DEFAULT 0,
    lease_ms BIGINT NOT NULL DEFAULT 0,
    leased_for TEXT,
    PRIMARY KEY (customer_id, meter)
);

-- Usage as it is reported. Value, period, ts_ms and the rows in it are fixed when it is made; carried_micro + its rows =
-- value in millionths + left_micro. first_sent_ms is when it was first sent without a clear no since. identifier only
-- changes when the biller has said that it did not count what it had accepted.
CREATE TABLE meter_batch (
    id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL,
    meter TEXT NOT NULL,
    period_start_ms BIGINT NOT NULL,
    period_end_ms BIGINT NOT NULL,
    value BIGINT NOT NULL CHECK (value >= 0),
    ts_ms BIGINT NOT NULL,
    identifier TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'dead', 'empty')),
    late BIGINT NOT NULL CHECK (late IN (0, 1)),
    carried_micro BIGINT NOT NULL,
    left_micro BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    next_ms BIGINT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    reopened BIGINT NOT NULL DEFAULT 0,
    first_sent_ms BIGINT,
    sent_ms BIGINT,
    error TEXT
);
CREATE INDEX meter_batch_waiting ON meter_batch (next_ms) WHERE state = 'waiting';
CREATE INDEX meter_batch_due ON meter_batch (customer_id, meter, next_ms) WHERE state = 'waiting';
CREATE INDEX meter_batch_of_account ON meter_batch (customer_id, meter, ts_ms);
CREATE INDEX meter_batch_by_time ON meter_batch (created_ms, id);
CREATE INDEX meter_batch_dead ON meter_batch (created_ms) WHERE state = 'dead';

-- Which process does what only one has to do.
CREATE TABLE elected (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    lease_ms BIGINT NOT NULL
);
