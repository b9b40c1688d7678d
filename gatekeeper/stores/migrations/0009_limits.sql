-- When a limit that was hit opens again: when its window turns, or with the customer's billing period.
ALTER TABLE limit_overlay ADD COLUMN release TEXT NOT NULL DEFAULT 'window';
