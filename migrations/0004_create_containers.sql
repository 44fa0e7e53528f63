-- Containers and what they hold: addresses, ports, execs. Constraints are the allocators.

CREATE TABLE network_pool (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    -- Away from every route of the hosts; the launcher checks before it sets another.
    base        cidr NOT NULL DEFAULT '10.128.0.0/10',
    -- Prefix length of one network.
    prefix      integer NOT NULL DEFAULT 20 CHECK (prefix BETWEEN 16 AND 28)
);
INSERT INTO network_pool DEFAULT VALUES;

CREATE TABLE networks (
    id          text PRIMARY KEY,
    project_id  uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    name        text NOT NULL,
    -- Segment number: slot in the pool, bridge name and VXLAN VNI.
    vni         integer NOT NULL CONSTRAINT networks_vni_key UNIQUE CHECK (vni BETWEEN 1 AND 16777215),
    subnet      cidr NOT NULL CONSTRAINT networks_subnet_key UNIQUE,
    -- Where the search for a free address goes on: an address rests as long as possible before it
    -- is given to somebody else.
    next_offset integer NOT NULL DEFAULT 2,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT networks_project_name_key UNIQUE (project_id, name)
);

CREATE TABLE containers (
    id              text PRIMARY KEY,
    project_id      uuid NOT NULL REFERENCES projects,
    name            text NOT NULL,
    image_id        text NOT NULL,
    spec            jsonb NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),

    -- What is wanted: written by the gateway (and, for `removed` of --rm, by the host's report).
    desired_state   text NOT NULL DEFAULT 'created'
                    CHECK (desired_state IN ('created', 'running', 'stopped', 'removed')),
    run             integer NOT NULL DEFAULT 0,
    stop_signal     text NOT NULL DEFAULT '',
    stop_timeout_s  bigint NOT NULL DEFAULT 10,

    -- Where: written by the scheduler, once.
    host_id         uuid REFERENCES hosts,
    host_generation bigint NOT NULL DEFAULT 0,

    -- How far: what the host reported. (run, restart, phase) only grows.
    observed_run        integer NOT NULL DEFAULT 0,
    observed_restart    integer NOT NULL DEFAULT 0,
    observed_phase      smallint NOT NULL DEFAULT 0,
    pid                 integer,
    started_at          timestamptz,
    exit_code           integer,
    oom_killed          boolean NOT NULL DEFAULT false,
    exit_error          text NOT NULL DEFAULT '',
    finished_at         timestamptz,
    prepare_error       text,

    -- Set when nothing is left on the host. The row stays a while so that `wait` gets its answer.
    removed_at      timestamptz
);
CREATE UNIQUE INDEX containers_project_name_key ON containers (project_id, name) WHERE desired_state <> 'removed';
CREATE INDEX containers_project_created_idx ON containers (project_id, created_at DESC, id) WHERE desired_state <> 'removed';
CREATE INDEX containers_project_id_prefix_idx ON containers (project_id, id text_pattern_ops);
CREATE INDEX containers_host_generation_idx ON containers (host_id, host_generation);
CREATE INDEX containers_unplaced_idx ON containers (created_at) WHERE host_id IS NULL AND desired_state <> 'removed';
CREATE INDEX containers_removed_idx ON containers (removed_at) WHERE removed_at IS NOT NULL;
-- Which hosts most likely have an image unpacked.
CREATE INDEX containers_image_host_idx ON containers (image_id, host_id) WHERE host_id IS NOT NULL;

-- Whoever changes what a host has to do moves that host's generation, in the same transaction:
-- no writer can forget it, and commits on one host are ordered by the row lock.
CREATE FUNCTION containers_touch_host() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF NEW.host_id IS NOT NULL AND (
        TG_OP = 'INSERT' OR NEW.host_id IS DISTINCT FROM OLD.host_id OR NEW.desired_state <> OLD.desired_state
        OR NEW.run <> OLD.run OR NEW.name <> OLD.name OR NEW.stop_timeout_s <> OLD.stop_timeout_s
        OR NEW.stop_signal <> OLD.stop_signal
    ) THEN
        UPDATE hosts SET generation = generation + 1 WHERE id = NEW.host_id RETURNING generation INTO NEW.host_generation;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER containers_touch_host BEFORE INSERT OR UPDATE ON containers
    FOR EACH ROW EXECUTE FUNCTION containers_touch_host();

-- A container holds its share of its host from placement until nothing of it is left there.
CREATE FUNCTION containers_reserve() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    held boolean := TG_OP <> 'INSERT' AND OLD.host_id IS NOT NULL AND OLD.removed_at IS NULL;
    holds boolean := TG_OP <> 'DELETE' AND NEW.host_id IS NOT NULL AND NEW.removed_at IS NULL;
BEGIN
    IF held AND NOT holds THEN
        UPDATE hosts SET placed = placed - 1,
            reserved_nano_cpus = reserved_nano_cpus - coalesce((OLD.spec->'resources'->>'nano_cpus')::bigint, 0),
            reserved_memory_bytes = reserved_memory_bytes - coalesce((OLD.spec->'resources'->>'memory_bytes')::bigint, 0)
        WHERE id = OLD.host_id;
    ELSIF holds AND NOT held THEN
        UPDATE hosts SET placed = placed + 1,
            reserved_nano_cpus = reserved_nano_cpus + coalesce((NEW.spec->'resources'->>'nano_cpus')::bigint, 0),
            reserved_memory_bytes = reserved_memory_bytes + coalesce((NEW.spec->'resources'->>'memory_bytes')::bigint, 0)
        WHERE id = NEW.host_id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER containers_reserve AFTER INSERT OR DELETE OR UPDATE OF host_id, removed_at ON containers
    FOR EACH ROW EXECUTE FUNCTION containers_reserve();

CREATE TABLE endpoints (
    container_id    text PRIMARY KEY REFERENCES containers ON DELETE CASCADE,
    project_id      uuid NOT NULL,
    network_id      text NOT NULL REFERENCES networks,
    ip              inet NOT NULL,
    CONSTRAINT endpoints_network_ip_key UNIQUE (network_id, ip)
);

CREATE TABLE published_ports (
    host_id         uuid NOT NULL REFERENCES hosts,
    protocol        text NOT NULL CHECK (protocol IN ('tcp', 'udp')),
    host_port       integer NOT NULL CHECK (host_port BETWEEN 1 AND 65535),
    -- NULL: every address of the host.
    host_ip         inet,
    container_id    text NOT NULL REFERENCES containers ON DELETE CASCADE,
    project_id      uuid NOT NULL,
    container_port  integer NOT NULL CHECK (container_port BETWEEN 1 AND 65535),
    -- The run it was reserved for; freed when that run is reported over.
    run             integer NOT NULL,
    CONSTRAINT published_ports_pkey PRIMARY KEY (host_id, protocol, host_port)
);
CREATE INDEX published_ports_container_idx ON published_ports (container_id);

-- Which hosts a network reaches over: each of them needs the addresses of the others. Written by the
-- scheduler alone, under the plan epoch's lock. `generation` is the host's, when its peers changed.
CREATE TABLE network_hosts (
    network_id  text NOT NULL REFERENCES networks ON DELETE CASCADE,
    host_id     uuid NOT NULL REFERENCES hosts,
    generation  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (network_id, host_id)
);
CREATE INDEX network_hosts_host_idx ON network_hosts (host_id, generation);

CREATE TABLE execs (
    id              text PRIMARY KEY,
    project_id      uuid NOT NULL,
    container_id    text NOT NULL REFERENCES containers ON DELETE CASCADE,
    -- contract::agent::ExecStart without streams decided.
    spec            jsonb NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),
    -- Claimed by the first start; a second one is refused.
    started_at      timestamptz
);
CREATE INDEX execs_container_idx ON execs (container_id);

CREATE TABLE events (
    project_id  uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    sequence    bigint NOT NULL,
    kind        text NOT NULL,
    action      text NOT NULL,
    actor_id    text NOT NULL,
    attributes  jsonb NOT NULL,
    at          timestamptz NOT NULL,
    PRIMARY KEY (project_id, sequence)
);
CREATE INDEX events_at_idx ON events (project_id, at);

DO $$
DECLARE table_name text;
BEGIN
    FOREACH table_name IN ARRAY ARRAY['networks', 'containers', 'endpoints', 'published_ports', 'execs', 'events'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', table_name);
        EXECUTE format('CREATE POLICY planner ON %I TO wharfage_scheduler USING (true)', table_name);
        EXECUTE format('CREATE POLICY project_scope ON %I TO wharfage_gateway, wharfage_image USING (project_id = scope_project())', table_name);
    END LOOP;
END $$;
-- A project's first network is made with it, by an operator.
CREATE POLICY operator ON networks TO wharfage_gateway USING (scope_operator());

GRANT SELECT ON network_pool TO wharfage_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON networks, containers, endpoints, published_ports, execs, events TO wharfage_gateway;
GRANT SELECT ON networks, execs TO wharfage_scheduler;
GRANT SELECT, UPDATE, DELETE ON containers, endpoints, published_ports TO wharfage_scheduler;
GRANT SELECT, INSERT, UPDATE, DELETE ON network_hosts TO wharfage_scheduler;
GRANT SELECT, INSERT, DELETE ON events TO wharfage_scheduler;
GRANT SELECT, INSERT ON events TO wharfage_image;
GRANT SELECT (id, project_id, image_id, desired_state) ON containers TO wharfage_image;

-- May this host read this layer? Only if a container placed on it needs it.
CREATE FUNCTION host_needs_layer(host uuid, layer text) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT EXISTS (
        SELECT 1 FROM image_layers l
        JOIN containers c ON c.project_id = l.project_id AND c.image_id = l.image_id
        WHERE l.digest = layer AND c.host_id = host AND c.removed_at IS NULL)
$$;

-- Containers per host for the operator, without opening tenants' rows.
CREATE FUNCTION host_usage() RETURNS TABLE (
    host_id uuid, running bigint, placed bigint, reserved_nano_cpus bigint, reserved_memory_bytes bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT h.id,
           (SELECT count(*) FROM containers c WHERE c.host_id = h.id AND c.observed_phase = 4 AND c.removed_at IS NULL),
           h.placed::bigint, h.reserved_nano_cpus, h.reserved_memory_bytes
    FROM hosts h
$$;
REVOKE ALL ON FUNCTION host_usage() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION host_usage() TO wharfage_gateway, wharfage_scheduler;
REVOKE ALL ON FUNCTION host_needs_layer(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION host_needs_layer(uuid, text) TO wharfage_image;
REVOKE ALL ON FUNCTION authenticate(text, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION authenticate(text, bytea) TO wharfage_gateway;
