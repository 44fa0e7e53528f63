-- Hosts: who they are, what they can give, and how far their plan has come.

CREATE TABLE hosts (
    id              uuid PRIMARY KEY,
    name            text NOT NULL CONSTRAINT hosts_name_key UNIQUE,
    address         inet NOT NULL,
    agent_port      integer NOT NULL CHECK (agent_port BETWEEN 1 AND 65535),
    nano_cpus       bigint NOT NULL,
    memory_bytes    bigint NOT NULL,
    max_containers  integer NOT NULL,
    state           text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'paused')),
    -- Counts changes to what is wanted of this host. A container's host_generation is the value its
    -- last change reached; a host that has generation g needs exactly the rows above g.
    generation      bigint NOT NULL DEFAULT 0,
    -- What its containers hold, kept by the trigger on containers: placing must not add up the fleet.
    placed                  integer NOT NULL DEFAULT 0,
    reserved_nano_cpus      bigint NOT NULL DEFAULT 0,
    reserved_memory_bytes   bigint NOT NULL DEFAULT 0,
    joined_at       timestamptz NOT NULL DEFAULT now(),
    last_seen_at    timestamptz
);

CREATE TABLE join_tokens (
    secret_sha256   bytea PRIMARY KEY,
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz NOT NULL,
    -- A host that joins again with its own token (its disk was lost between) gets the same row.
    host_id         uuid REFERENCES hosts
);

-- Plans are applied by compare-and-swap on this row: of two schedulers that planned on the same
-- epoch one wins, the other reads again. No leader election.
CREATE TABLE plan_epoch (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    n           bigint NOT NULL DEFAULT 0
);
INSERT INTO plan_epoch DEFAULT VALUES;

GRANT SELECT ON hosts TO wharfage_gateway;
GRANT UPDATE (state) ON hosts TO wharfage_gateway;
GRANT SELECT, INSERT, UPDATE ON hosts TO wharfage_scheduler;
GRANT SELECT, INSERT, DELETE ON join_tokens TO wharfage_gateway;
GRANT SELECT, UPDATE ON join_tokens TO wharfage_scheduler;
GRANT SELECT, UPDATE ON plan_epoch TO wharfage_scheduler;
