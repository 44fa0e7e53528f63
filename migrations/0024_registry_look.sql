-- What one request for something in a repository has to know, in one look: whether the credential that its
-- token was made from is good, whose the name is and what the asker may know of it, and what is there.
--
-- plpgsql, because it keeps the plans of its statements for as long as a connection lives; a function in
-- SQL that is not inlined is planned again on every call.
--
-- No row: the credential opens no project (any more). A row without an owner: there is no such name, or it
-- is not the asker's to know. A row without a digest: there is no such thing in the repository.
CREATE FUNCTION registry_look(made_from uuid, tenant_name text, project_name text, repository_name text,
                              kind text, reference text)
    RETURNS TABLE (asker uuid, asker_tenant uuid, owner uuid, repository uuid, owned boolean,
                   digest text, media_type text, size_bytes bigint, needed boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public
AS $$
#variable_conflict use_column
BEGIN
    IF made_from IS NOT NULL THEN
        SELECT p.id, p.tenant_id INTO asker, asker_tenant
        FROM tokens t JOIN projects p ON p.id = t.project_id
        WHERE t.id = made_from AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now());
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    -- As registry_repository().
    SELECT p.id, r.id, p.id IS NOT DISTINCT FROM asker INTO owner, repository, owned
    FROM tenants t JOIN projects p ON p.tenant_id = t.id
         LEFT JOIN repositories r ON r.project_id = p.id AND r.name = repository_name
    WHERE t.name = tenant_name AND p.name = project_name AND (p.id = asker OR r.public);
    IF kind = 'tag' THEN
        SELECT m.digest, m.media_type, octet_length(m.content), true INTO digest, media_type, size_bytes, needed
        FROM repository_tags t
             JOIN repository_manifests m ON m.repository_id = t.repository_id AND m.digest = t.digest
        WHERE t.repository_id = repository AND t.name = reference;
    ELSIF kind = 'manifest' THEN
        SELECT m.digest, m.media_type, octet_length(m.content), true INTO digest, media_type, size_bytes, needed
        FROM repository_manifests m WHERE m.repository_id = repository AND m.digest = reference;
    ELSIF kind = 'blob' THEN
        -- What a manifest needs stays linked as long as that stands: nothing has to be renewed.
        SELECT b.digest, b.size_bytes,
               EXISTS (SELECT FROM repository_manifest_blobs n
                       WHERE n.repository_id = b.repository_id AND n.digest = b.digest)
        INTO digest, size_bytes, needed
        FROM repository_blobs b WHERE b.repository_id = repository AND b.digest = reference;
    END IF;
    RETURN NEXT;
END
$$;
REVOKE EXECUTE ON FUNCTION registry_look FROM PUBLIC;
GRANT EXECUTE ON FUNCTION registry_look TO wharfage_gateway;
