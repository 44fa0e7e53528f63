-- The limits and the restart policy of a container may change after create (`docker update`): its host
-- is told, and what it holds of its host follows. No change promises more than a host has.

-- As before, and: a changed spec is something to do. `containers_count_spec` comes before this one.
CREATE OR REPLACE FUNCTION containers_touch_host() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.spec_revision <> OLD.spec_revision AND NEW.host_id = OLD.host_id THEN
        -- Placements are ordered by the epoch: whoever plans with what was free before plans again.
        -- It comes before the host's row, as in every plan.
        UPDATE plan_epoch SET n = n + 1;
    END IF;
    IF NEW.host_id IS NOT NULL AND (
        TG_OP = 'INSERT' OR NEW.host_id IS DISTINCT FROM OLD.host_id OR NEW.desired_state <> OLD.desired_state
        OR NEW.run <> OLD.run OR NEW.name <> OLD.name OR NEW.stop_timeout_s <> OLD.stop_timeout_s
        OR NEW.stop_signal <> OLD.stop_signal OR NEW.spec_revision <> OLD.spec_revision
    ) THEN
        UPDATE hosts SET generation = generation + 1 WHERE id = NEW.host_id RETURNING generation INTO NEW.host_generation;
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION containers_reserve() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
DECLARE
    held boolean := TG_OP <> 'INSERT' AND OLD.host_id IS NOT NULL AND OLD.removed_at IS NULL;
    holds boolean := TG_OP <> 'DELETE' AND NEW.host_id IS NOT NULL AND NEW.removed_at IS NULL;
    more_nano_cpus bigint;
    more_memory_bytes bigint;
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
    ELSIF held AND holds AND NEW.spec_revision <> OLD.spec_revision THEN
        more_nano_cpus := coalesce((NEW.spec->'resources'->>'nano_cpus')::bigint, 0)
            - coalesce((OLD.spec->'resources'->>'nano_cpus')::bigint, 0);
        more_memory_bytes := coalesce((NEW.spec->'resources'->>'memory_bytes')::bigint, 0)
            - coalesce((OLD.spec->'resources'->>'memory_bytes')::bigint, 0);
        UPDATE hosts SET reserved_nano_cpus = reserved_nano_cpus + more_nano_cpus,
            reserved_memory_bytes = reserved_memory_bytes + more_memory_bytes
        WHERE id = NEW.host_id
          -- Giving back is always possible, also on a host that has shrunk.
          AND (more_nano_cpus <= 0 OR reserved_nano_cpus + more_nano_cpus <= nano_cpus)
          AND (more_memory_bytes <= 0 OR reserved_memory_bytes + more_memory_bytes <= memory_bytes);
        IF NOT FOUND THEN
            RAISE EXCEPTION 'more than the host has' USING ERRCODE = 'check_violation', CONSTRAINT = 'hosts_capacity';
        END IF;
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER containers_reserve ON containers;
CREATE TRIGGER containers_reserve AFTER INSERT OR DELETE OR UPDATE OF host_id, removed_at, spec ON containers
    FOR EACH ROW EXECUTE FUNCTION containers_reserve();
