-- How much a project may keep in its repositories: logical bytes, each link counted, whoever else stores
-- the same content.
--
-- What is used is the sum of a list of changes that triggers write beside the links themselves, so that it
-- cannot say anything else than the links do, and so that pushes of one project do not wait for each other
-- at a counter. What uploads under way have reserved is in their rows and goes with them, however they end.

ALTER TABLE projects ADD COLUMN registry_bytes_max bigint
    CONSTRAINT projects_registry_bytes_max_check CHECK (registry_bytes_max >= 0);
ALTER TABLE repository_uploads ADD COLUMN reserved_bytes bigint NOT NULL DEFAULT 0;

-- Without a foreign key: the links of a project that is removed are written off after it. image-svc adds
-- rows up now and then, and lets go of those without a project.
CREATE TABLE registry_usage (
    project_id  uuid NOT NULL,
    bytes       bigint NOT NULL
);
CREATE INDEX registry_usage_project_idx ON registry_usage (project_id) INCLUDE (bytes);
INSERT INTO registry_usage SELECT project_id, sum(size_bytes) FROM repository_blobs GROUP BY project_id;

CREATE FUNCTION note_registry_usage() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO registry_usage SELECT project_id, sum(size_bytes) FROM changed GROUP BY project_id;
    ELSE
        INSERT INTO registry_usage SELECT project_id, -sum(size_bytes) FROM changed GROUP BY project_id;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER repository_blobs_linked AFTER INSERT ON repository_blobs
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_registry_usage();
CREATE TRIGGER repository_blobs_unlinked AFTER DELETE ON repository_blobs
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION note_registry_usage();

CREATE FUNCTION registry_quota(of_project uuid)
    RETURNS TABLE (bytes_max bigint, used_bytes bigint, reserved_bytes bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT p.registry_bytes_max,
           (SELECT coalesce(sum(u.bytes), 0)::bigint FROM registry_usage u WHERE u.project_id = p.id),
           (SELECT coalesce(sum(r.reserved_bytes), 0)::bigint FROM repository_uploads r WHERE r.project_id = p.id)
    FROM projects p WHERE p.id = of_project
$$;

-- Adds up what changes have accumulated.
CREATE FUNCTION add_up_registry_usage(rows_kept integer) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public
AS $$
    WITH many AS (
        SELECT u.project_id FROM registry_usage u GROUP BY u.project_id
        HAVING count(*) > rows_kept OR NOT EXISTS (SELECT FROM projects p WHERE p.id = u.project_id)),
    gone AS (
        DELETE FROM registry_usage WHERE project_id IN (SELECT project_id FROM many) RETURNING project_id, bytes)
    INSERT INTO registry_usage
    SELECT gone.project_id, sum(gone.bytes) FROM gone JOIN projects p ON p.id = gone.project_id GROUP BY gone.project_id
$$;

ALTER TABLE registry_usage ENABLE ROW LEVEL SECURITY;
CREATE POLICY project_scope ON registry_usage TO wharfage_gateway, wharfage_image USING (project_id = scope_project());

REVOKE EXECUTE ON FUNCTION note_registry_usage, registry_quota, add_up_registry_usage FROM PUBLIC;
GRANT EXECUTE ON FUNCTION registry_quota TO wharfage_gateway, wharfage_image;
GRANT EXECUTE ON FUNCTION add_up_registry_usage TO wharfage_image;
