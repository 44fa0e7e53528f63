-- Networks that tenants make, several of them for one container, and the names on them.

ALTER TABLE networks
    -- What the client calls it; the same thing is behind each: `bridge` or `overlay`.
    ADD COLUMN driver       text NOT NULL DEFAULT 'bridge',
    ADD COLUMN internal     boolean NOT NULL DEFAULT false,
    ADD COLUMN attachable   boolean NOT NULL DEFAULT false,
    ADD COLUMN labels       jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN options      jsonb NOT NULL DEFAULT '{}',
    -- What the client asked of IPAM, for inspect alone; null: nothing.
    ADD COLUMN ipam         jsonb,
    -- The client chose the subnet, so it may choose addresses too.
    ADD COLUMN chosen       boolean NOT NULL DEFAULT false,
    ADD COLUMN gateway      inet,
    -- Addresses nobody gets: the gateway and whatever the client set aside.
    ADD COLUMN reserved     inet[] NOT NULL DEFAULT '{}',
    -- Addresses are given from here to there, as offsets into the subnet.
    ADD COLUMN first_offset integer NOT NULL DEFAULT 2,
    ADD COLUMN last_offset  integer,
    -- Whether names are served on it. Not on a project's own bridge, as with Docker.
    ADD COLUMN named        boolean GENERATED ALWAYS AS (name <> 'bridge') STORED;
UPDATE networks SET gateway = host(network(subnet))::inet + 1, last_offset = (1 << (32 - masklen(subnet))) - 2;
UPDATE networks SET reserved = ARRAY[gateway];
ALTER TABLE networks
    ALTER COLUMN gateway SET NOT NULL,
    ALTER COLUMN last_offset SET NOT NULL,
    ADD CONSTRAINT networks_offsets_check CHECK (first_offset <= last_offset),
    -- Subnets are routed on every host: no two may overlap, whoever has them.
    DROP CONSTRAINT networks_subnet_key,
    ADD CONSTRAINT networks_subnet_excl EXCLUDE USING gist (subnet inet_ops WITH &&);
-- A project's own subnet and others of the pool are made with defaults; whoever chooses says all of it.
CREATE FUNCTION networks_defaults() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.gateway := coalesce(NEW.gateway, host(network(NEW.subnet))::inet + 1);
    NEW.last_offset := coalesce(NEW.last_offset, (1 << (32 - masklen(NEW.subnet))) - 2);
    NEW.reserved := NEW.reserved || NEW.gateway;
    RETURN NEW;
END $$;
CREATE TRIGGER networks_defaults BEFORE INSERT ON networks FOR EACH ROW EXECUTE FUNCTION networks_defaults();

-- Where tenants may choose subnets. An operator takes out what the hosts need to reach.
ALTER TABLE network_pool ADD COLUMN choosable cidr[] NOT NULL DEFAULT '{10.0.0.0/9,172.16.0.0/12,192.168.0.0/16}';

-- The lowest number of the pool that is free, with its subnet; nothing if there is none. Tenants see
-- their own networks only, so this looks for them.
CREATE FUNCTION free_network_slot() RETURNS TABLE (vni integer, subnet cidr)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT slot, net.subnet FROM network_pool p,
        LATERAL generate_series(1, (1 << (p.prefix - masklen(p.base)))) AS slot,
        LATERAL (SELECT set_masklen(host(p.base)::inet + ((slot - 1)::bigint << (32 - p.prefix)), p.prefix)::cidr AS subnet) net
    WHERE NOT EXISTS (SELECT FROM networks n WHERE n.vni = slot OR n.subnet && net.subnet)
    ORDER BY slot LIMIT 1
$$;
-- A number beyond the pool's, for a subnet the tenant chose; nothing if it may not choose that one.
CREATE FUNCTION free_network_number(wanted cidr) RETURNS integer
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT greatest((1 << (p.prefix - masklen(p.base))), (SELECT max(n.vni) FROM networks n)) + 1
    FROM network_pool p
    WHERE EXISTS (SELECT FROM unnest(p.choosable) AS allowed WHERE wanted <<= allowed) AND NOT wanted && p.base
$$;
-- Whether somebody, whoever it is, has a part of this subnet.
CREATE FUNCTION network_subnet_is_taken(wanted cidr) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$ SELECT EXISTS (SELECT FROM networks n WHERE n.subnet && wanted) $$;
REVOKE ALL ON FUNCTION network_subnet_is_taken(cidr) FROM PUBLIC;
REVOKE ALL ON FUNCTION free_network_slot() FROM PUBLIC;
REVOKE ALL ON FUNCTION free_network_number(cidr) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION free_network_slot(), free_network_number(cidr), network_subnet_is_taken(cidr) TO wharfage_gateway;

ALTER TABLE endpoints
    DROP CONSTRAINT endpoints_pkey,
    ADD PRIMARY KEY (container_id, network_id),
    -- eth<n> in the container.
    ADD COLUMN interface    smallint NOT NULL DEFAULT 0 CHECK (interface BETWEEN 0 AND 31),
    ADD COLUMN aliases      text[] NOT NULL DEFAULT '{}',
    -- The client chose the address.
    ADD COLUMN fixed_ip     boolean NOT NULL DEFAULT false,
    ADD COLUMN gw_priority  integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT endpoints_interface_key UNIQUE (container_id, interface);

-- Counts changes of the networks a container is on; each is news for its host.
ALTER TABLE containers ADD COLUMN network_revision integer NOT NULL DEFAULT 0;
CREATE FUNCTION containers_touch_host_networks() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    UPDATE hosts SET generation = generation + 1 WHERE id = NEW.host_id RETURNING generation INTO NEW.host_generation;
    RETURN NEW;
END $$;
CREATE TRIGGER containers_touch_host_networks BEFORE UPDATE OF network_revision ON containers
    FOR EACH ROW WHEN (NEW.network_revision <> OLD.network_revision AND NEW.host_id IS NOT NULL)
    EXECUTE FUNCTION containers_touch_host_networks();

-- A container answers to its names from the moment its start is wanted until its run is over.
CREATE FUNCTION container_is_named(desired text, run integer, observed_run integer, observed_phase smallint)
    RETURNS boolean LANGUAGE sql IMMUTABLE
    RETURN desired IN ('running', 'stopped') AND run > 0 AND (observed_run < run OR observed_phase < 5);

-- Networks of which hosts have to hear something new. Rows are only added and taken away, so that
-- nobody waits for anybody; the scheduler takes them under the plan epoch's lock.
CREATE TABLE network_changes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    network_id  text NOT NULL
);
ALTER TABLE network_changes ENABLE ROW LEVEL SECURITY;
CREATE POLICY planner ON network_changes TO wharfage_scheduler USING (true);
GRANT SELECT, DELETE ON network_changes TO wharfage_scheduler;

CREATE FUNCTION containers_note_names() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    INSERT INTO network_changes (network_id)
    SELECT e.network_id FROM endpoints e JOIN networks n ON n.id = e.network_id
    WHERE e.container_id = NEW.id AND (n.named OR NEW.network_revision <> OLD.network_revision);
    RETURN NULL;
END $$;
CREATE TRIGGER containers_note_names AFTER UPDATE ON containers
    FOR EACH ROW WHEN (
        container_is_named(NEW.desired_state, NEW.run, NEW.observed_run, NEW.observed_phase)
            <> container_is_named(OLD.desired_state, OLD.run, OLD.observed_run, OLD.observed_phase)
        OR NEW.name <> OLD.name OR NEW.network_revision <> OLD.network_revision)
    EXECUTE FUNCTION containers_note_names();
GRANT INSERT ON network_hosts TO wharfage_scheduler;
