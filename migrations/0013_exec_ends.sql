-- How execs end. The host knows; the scheduler writes it down, and tells it, from the host's reports.

ALTER TABLE execs
    ADD COLUMN ended_at timestamptz,
    -- Without one for what ended before this was written down.
    ADD COLUMN exit_code integer;

-- Told already, by whoever waited for them then.
UPDATE execs SET ended_at = now() WHERE started_at IS NOT NULL;

CREATE INDEX execs_open_idx ON execs (container_id) WHERE ended_at IS NULL;

-- Who makes an exec claims its start; who hears of the end writes the end.
REVOKE UPDATE ON execs FROM wharfage_gateway;
GRANT UPDATE (started_at) ON execs TO wharfage_gateway;
GRANT UPDATE (ended_at, exit_code) ON execs TO wharfage_scheduler;

-- With the container go the volumes that were made for it, once its host has cleared up: what it was
-- removed with is part of what is wanted.
ALTER TABLE containers ADD COLUMN drops_volumes boolean NOT NULL DEFAULT false;
