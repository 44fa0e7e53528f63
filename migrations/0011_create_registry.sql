-- The hosted registry: repositories of projects, what is in them, and uploads under way.
--
-- Content is one file for the fleet (blobs); what a repository links is what may be read through it,
-- and nothing else: knowing a digest opens nothing. Every table names its project, as 0001 says.

-- When somebody last had a reason to keep a blob that nothing may refer to yet: it was stored, found
-- stored, or linked. Bytes are removed only of blobs that nothing refers to and nobody touched for a
-- grace that is longer than any push or pull.
ALTER TABLE blobs ADD COLUMN touched_at timestamptz NOT NULL DEFAULT now();

CREATE TABLE repositories (
    id          uuid PRIMARY KEY,
    project_id  uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    -- What follows tenant/project/ in its name.
    name        text COLLATE "C" NOT NULL,
    -- Anybody may pull.
    public      boolean NOT NULL DEFAULT false,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT repositories_project_name_key UNIQUE (project_id, name),
    -- For foreign keys that hold the project along.
    UNIQUE (id, project_id)
);

-- Made before repository_blobs: when a repository goes, what manifests need of its links goes first.
CREATE TABLE repository_manifests (
    repository_id   uuid NOT NULL,
    project_id      uuid NOT NULL,
    digest          text COLLATE "C" NOT NULL,
    media_type      text NOT NULL,
    -- Bytes as they were pushed.
    content         bytea NOT NULL,
    -- Digest of the manifest that this one is about; it need not exist.
    subject         text,
    -- What a list of referrers says of it.
    artifact_type   text,
    annotations     jsonb,
    pushed_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (repository_id, digest),
    FOREIGN KEY (repository_id, project_id) REFERENCES repositories (id, project_id) ON DELETE CASCADE
);
CREATE INDEX repository_manifests_subject_idx ON repository_manifests (repository_id, subject, digest)
    WHERE subject IS NOT NULL;

CREATE TABLE repository_blobs (
    repository_id   uuid NOT NULL,
    project_id      uuid NOT NULL,
    digest          text NOT NULL CONSTRAINT repository_blobs_digest_fkey REFERENCES blobs,
    size_bytes      bigint NOT NULL,
    linked_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (repository_id, digest),
    FOREIGN KEY (repository_id, project_id) REFERENCES repositories (id, project_id) ON DELETE CASCADE
);
CREATE INDEX repository_blobs_project_digest_idx ON repository_blobs (project_id, digest);
CREATE INDEX repository_blobs_digest_idx ON repository_blobs (digest);

-- The blobs a manifest needs. The constraint keeps their links while it stands.
CREATE TABLE repository_manifest_blobs (
    repository_id   uuid NOT NULL,
    project_id      uuid NOT NULL,
    manifest        text COLLATE "C" NOT NULL,
    digest          text NOT NULL,
    PRIMARY KEY (repository_id, manifest, digest),
    FOREIGN KEY (repository_id, manifest) REFERENCES repository_manifests (repository_id, digest) ON DELETE CASCADE,
    CONSTRAINT repository_manifest_blobs_link_fkey
        FOREIGN KEY (repository_id, digest) REFERENCES repository_blobs (repository_id, digest)
);
CREATE INDEX repository_manifest_blobs_digest_idx ON repository_manifest_blobs (repository_id, digest);

CREATE TABLE repository_tags (
    repository_id   uuid NOT NULL,
    project_id      uuid NOT NULL,
    name            text COLLATE "C" NOT NULL,
    digest          text COLLATE "C" NOT NULL,
    tagged_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (repository_id, name),
    CONSTRAINT repository_tags_manifest_fkey
        FOREIGN KEY (repository_id, digest) REFERENCES repository_manifests (repository_id, digest) ON DELETE CASCADE
);
CREATE INDEX repository_tags_digest_idx ON repository_tags (repository_id, digest);

-- Uploads under way. The bytes are in a file of image-svc; offset_bytes of them are durable, what is
-- behind that is taken away when the upload goes on.
CREATE TABLE repository_uploads (
    id              uuid PRIMARY KEY,
    repository_id   uuid NOT NULL,
    project_id      uuid NOT NULL,
    offset_bytes    bigint NOT NULL DEFAULT 0,
    started_at      timestamptz NOT NULL DEFAULT now(),
    touched_at      timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (repository_id, project_id) REFERENCES repositories (id, project_id) ON DELETE CASCADE
);
CREATE INDEX repository_uploads_project_idx ON repository_uploads (project_id);
CREATE INDEX repository_uploads_touched_idx ON repository_uploads (touched_at);

-- Keys that sign the registry's short-lived tokens; gateways share them. The youngest signs; older ones
-- still verify what they signed. Deleting a row ends its tokens within a minute.
CREATE TABLE registry_keys (
    id      uuid PRIMARY KEY,
    secret  bytea NOT NULL CHECK (length(secret) = 32),
    made_at timestamptz NOT NULL DEFAULT now()
);

-- What `asking` (a project, or nobody) may know of a name: its own project's, there yet or not, and
-- public repositories. For everything else there is no row, as for what never was.
CREATE FUNCTION registry_repository(tenant_name text, project_name text, repository_name text, asking uuid)
    RETURNS TABLE (project_id uuid, repository_id uuid, owned boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT p.id, r.id, p.id IS NOT DISTINCT FROM asking
    FROM tenants t JOIN projects p ON p.tenant_id = t.id
         LEFT JOIN repositories r ON r.project_id = p.id AND r.name = repository_name
    WHERE t.name = tenant_name AND p.name = project_name AND (p.id = asking OR r.public)
$$;

-- A project's part of its repositories' names.
CREATE FUNCTION registry_namespace(asking uuid) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT t.name || '/' || p.name FROM projects p JOIN tenants t ON t.id = p.tenant_id WHERE p.id = asking
$$;

-- The credential that a registry token was made from, as long as it opens something: what authenticate()
-- is for the secret itself.
CREATE FUNCTION authenticate_again(made_from uuid)
    RETURNS TABLE (token_id uuid, project_id uuid, tenant_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT t.id, t.project_id, p.tenant_id
    FROM tokens t LEFT JOIN projects p ON p.id = t.project_id
    WHERE t.id = made_from AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
$$;

-- Upkeep of image-svc, over all projects: ends uploads that nobody went on with, and says which of
-- these still are.
CREATE FUNCTION end_idle_uploads(idle_seconds double precision, most integer) RETURNS SETOF uuid
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public
AS $$
    DELETE FROM repository_uploads WHERE id IN (
        SELECT id FROM repository_uploads WHERE touched_at < now() - make_interval(secs => idle_seconds)
        ORDER BY touched_at LIMIT most FOR UPDATE SKIP LOCKED)
    RETURNING id
$$;
CREATE FUNCTION uploads_alive(asked uuid[]) RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT id FROM repository_uploads WHERE id = ANY (asked)
$$;

ALTER TABLE repositories ENABLE ROW LEVEL SECURITY;
ALTER TABLE repository_blobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE repository_manifests ENABLE ROW LEVEL SECURITY;
ALTER TABLE repository_manifest_blobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE repository_tags ENABLE ROW LEVEL SECURITY;
ALTER TABLE repository_uploads ENABLE ROW LEVEL SECURITY;
CREATE POLICY project_scope ON repositories TO wharfage_gateway, wharfage_image USING (project_id = scope_project());
CREATE POLICY project_scope ON repository_blobs TO wharfage_gateway, wharfage_image USING (project_id = scope_project());
CREATE POLICY project_scope ON repository_manifests TO wharfage_gateway, wharfage_image USING (project_id = scope_project());
CREATE POLICY project_scope ON repository_manifest_blobs TO wharfage_image USING (project_id = scope_project());
CREATE POLICY project_scope ON repository_tags TO wharfage_gateway, wharfage_image USING (project_id = scope_project());
CREATE POLICY project_scope ON repository_uploads TO wharfage_image USING (project_id = scope_project());

-- What is in a repository has one writer, image-svc; who else may read it, and whether it stays, is the
-- gateway's to say.
GRANT SELECT, INSERT ON repositories TO wharfage_image;
GRANT SELECT, INSERT, UPDATE, DELETE ON repository_blobs, repository_manifests, repository_manifest_blobs,
    repository_tags, repository_uploads TO wharfage_image;
GRANT SELECT, DELETE ON repositories TO wharfage_gateway;
GRANT UPDATE (public) ON repositories TO wharfage_gateway;
GRANT SELECT ON repository_blobs, repository_manifests, repository_tags TO wharfage_gateway;
GRANT SELECT, INSERT, DELETE ON registry_keys TO wharfage_gateway;
REVOKE EXECUTE ON FUNCTION registry_repository, registry_namespace, authenticate_again, end_idle_uploads, uploads_alive FROM PUBLIC;
GRANT EXECUTE ON FUNCTION registry_repository, authenticate_again TO wharfage_gateway;
GRANT EXECUTE ON FUNCTION registry_repository, registry_namespace, end_idle_uploads, uploads_alive TO wharfage_image;
GRANT EXECUTE ON FUNCTION registry_namespace TO wharfage_gateway;
