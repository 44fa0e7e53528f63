-- What a host says of a container that is no step forward: frozen, healthy, hit by the OOM killer.
-- `observed_revision` orders such observations at the same (run, restart, phase).

ALTER TABLE containers
    ADD COLUMN observed_revision bigint NOT NULL DEFAULT 0,
    ADD COLUMN paused boolean NOT NULL DEFAULT false,
    ADD COLUMN oom_kills integer NOT NULL DEFAULT 0,
    -- [model::Health]
    ADD COLUMN health jsonb;
