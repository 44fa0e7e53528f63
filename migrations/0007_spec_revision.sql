-- Counts changes of a container's spec, so that a reader may keep a spec it has read once: the same
-- (id, spec_revision) is the same spec. No writer can forget it.

ALTER TABLE containers ADD COLUMN spec_revision integer NOT NULL DEFAULT 0;

CREATE FUNCTION containers_count_spec() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.spec_revision := OLD.spec_revision + 1;
    RETURN NEW;
END $$;
CREATE TRIGGER containers_count_spec BEFORE UPDATE OF spec ON containers
    FOR EACH ROW EXECUTE FUNCTION containers_count_spec();
