-- Volumes: data of a project that outlives containers. Where one is, is decided once, with the first
-- container that uses it; from then on its containers go there.

CREATE TABLE volumes (
    -- Names its directory on the host. A name is the tenant's and can be used again; an id cannot.
    id              text PRIMARY KEY,
    project_id      uuid NOT NULL CONSTRAINT volumes_project_id_fkey REFERENCES projects,
    name            text NOT NULL,
    -- As the user gave them, to be shown; NULL if none were given.
    labels          jsonb,
    options         jsonb,
    -- [model::VolumeBacking]: what the options mean.
    backing         jsonb NOT NULL,
    -- Nobody named it: it goes with its container where that is asked for.
    anonymous       boolean NOT NULL,
    created_at      timestamptz NOT NULL DEFAULT now(),

    -- Wanted gone. Its name is free and its data is unreachable from here on; the row stays until its
    -- host has deleted the data.
    removing        boolean NOT NULL DEFAULT false,

    -- Where: written by the scheduler, once, with the first container placed.
    host_id         uuid REFERENCES hosts,
    host_generation bigint NOT NULL DEFAULT 0,

    CONSTRAINT volumes_use_key UNIQUE (id, removing),
    CONSTRAINT volumes_place_key UNIQUE (id, host_id)
);
CREATE UNIQUE INDEX volumes_project_name_key ON volumes (project_id, name) WHERE NOT removing;
CREATE INDEX volumes_host_generation_idx ON volumes (host_id, host_generation);

-- Which containers use a volume. "In use" is a constraint: while there is a row, its volume cannot
-- become `removing`; and a container can only be put where its volumes are.
CREATE TABLE container_volumes (
    container_id    text NOT NULL REFERENCES containers ON DELETE CASCADE,
    volume_id       text NOT NULL,
    project_id      uuid NOT NULL,
    removing        boolean NOT NULL DEFAULT false CHECK (NOT removing),
    host_id         uuid,
    PRIMARY KEY (container_id, volume_id),
    CONSTRAINT container_volumes_use_fkey FOREIGN KEY (volume_id, removing) REFERENCES volumes (id, removing),
    CONSTRAINT container_volumes_place_fkey FOREIGN KEY (volume_id, host_id) REFERENCES volumes (id, host_id)
);
CREATE INDEX container_volumes_volume_idx ON container_volumes (volume_id);

-- A host is told of a volume that shall go.
CREATE FUNCTION volumes_touch_host() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    IF NEW.host_id IS NOT NULL AND NEW.removing AND NOT OLD.removing THEN
        UPDATE hosts SET generation = generation + 1 WHERE id = NEW.host_id RETURNING generation INTO NEW.host_generation;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER volumes_touch_host BEFORE UPDATE OF removing ON volumes
    FOR EACH ROW EXECUTE FUNCTION volumes_touch_host();

-- A container that is wanted gone uses nothing any more, whoever wants it and wherever it is: its host
-- deletes a volume only after the containers that have it mounted.
CREATE FUNCTION containers_release_volumes() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
BEGIN
    DELETE FROM container_volumes WHERE container_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER containers_release_volumes AFTER UPDATE OF desired_state ON containers
    FOR EACH ROW WHEN (NEW.desired_state = 'removed' AND OLD.desired_state <> 'removed')
    EXECUTE FUNCTION containers_release_volumes();

ALTER TABLE volumes ENABLE ROW LEVEL SECURITY;
ALTER TABLE container_volumes ENABLE ROW LEVEL SECURITY;
CREATE POLICY planner ON volumes TO wharfage_scheduler USING (true);
CREATE POLICY planner ON container_volumes TO wharfage_scheduler USING (true);
CREATE POLICY project_scope ON volumes TO wharfage_gateway USING (project_id = scope_project());
CREATE POLICY project_scope ON container_volumes TO wharfage_gateway USING (project_id = scope_project());

GRANT SELECT, INSERT, DELETE ON volumes TO wharfage_gateway;
GRANT UPDATE (removing) ON volumes TO wharfage_gateway, wharfage_scheduler;
GRANT UPDATE (host_id) ON volumes TO wharfage_scheduler;
GRANT SELECT, DELETE ON volumes TO wharfage_scheduler;
GRANT SELECT, INSERT, DELETE ON container_volumes TO wharfage_gateway;
GRANT SELECT ON container_volumes TO wharfage_scheduler;
GRANT UPDATE (host_id) ON container_volumes TO wharfage_scheduler;
