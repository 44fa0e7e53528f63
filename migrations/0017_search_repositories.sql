-- What a search may find: repositories that hold something and that `asking` may read, its own project's
-- and public ones. What else there is does not show, not even by a count.
CREATE FUNCTION search_repositories(asking uuid, term text, most integer) RETURNS SETOF text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT t.name || '/' || p.name || '/' || r.name
    FROM repositories r JOIN projects p ON p.id = r.project_id JOIN tenants t ON t.id = p.tenant_id
    WHERE (r.public OR r.project_id = asking)
      AND strpos(t.name || '/' || p.name || '/' || r.name, term) > 0
      AND EXISTS (SELECT FROM repository_manifests m WHERE m.repository_id = r.id)
    ORDER BY 1 LIMIT most
$$;
REVOKE EXECUTE ON FUNCTION search_repositories FROM PUBLIC;
GRANT EXECUTE ON FUNCTION search_repositories TO wharfage_image;
