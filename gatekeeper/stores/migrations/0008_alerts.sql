-- What customers want to be told of: their own thresholds, which limit nothing.

CREATE TABLE alert (
    id TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL,
    measure TEXT NOT NULL CHECK (measure IN ('units', 'charge')),
    span TEXT NOT NULL,
    threshold BIGINT NOT NULL CHECK (threshold > 0),
    created_ms BIGINT NOT NULL,
    told_ms BIGINT,
    UNIQUE (customer_id, measure, span, threshold)
);
