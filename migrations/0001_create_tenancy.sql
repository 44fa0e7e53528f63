-- Tenants, projects, credentials. Roles: one per service, so that "only writer" is enforced here.
--
-- Every tenant table carries project_id and row-level security. A transaction of the gateway or of
-- image-svc names its project in `wharfage.project`; without it, it sees nothing. Operators' work
-- sets `wharfage.operator` = 'on'. The scheduler plans for everybody and has policies of its own.

CREATE FUNCTION scope_project() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT nullif(current_setting('wharfage.project', true), '')::uuid $$;
CREATE FUNCTION scope_operator() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT coalesce(current_setting('wharfage.operator', true), '') = 'on' $$;

DO $$
DECLARE role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['wharfage_gateway', 'wharfage_scheduler', 'wharfage_image'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS', role_name);
        END IF;
    END LOOP;
END $$;

CREATE TABLE tenants (
    id          uuid PRIMARY KEY,
    name        text NOT NULL CONSTRAINT tenants_name_key UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE projects (
    id              uuid PRIMARY KEY,
    tenant_id       uuid NOT NULL REFERENCES tenants,
    name            text NOT NULL,
    -- Last event sequence given out; bumped in the transaction that writes the event, so the
    -- project's history has no holes.
    event_sequence  bigint NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT projects_tenant_name_key UNIQUE (tenant_id, name)
);

CREATE TABLE tokens (
    id              uuid PRIMARY KEY,
    -- NULL: an operator's.
    project_id      uuid REFERENCES projects ON DELETE CASCADE,
    label           text NOT NULL DEFAULT '',
    -- 'bearer': SHA-256 of the secret. 'certificate': SHA-256 of the client certificate's DER.
    kind            text NOT NULL CHECK (kind IN ('bearer', 'certificate')),
    secret_sha256   bytea NOT NULL CONSTRAINT tokens_secret_key UNIQUE CHECK (length(secret_sha256) = 32),
    created_at      timestamptz NOT NULL DEFAULT now(),
    expires_at      timestamptz,
    revoked_at      timestamptz
);
CREATE INDEX tokens_project_idx ON tokens (project_id);

-- The one query that runs before a project is known: which credential is this? Everything it
-- tells is about the holder of the secret.
CREATE FUNCTION authenticate(credential_kind text, sha256 bytea)
    RETURNS TABLE (token_id uuid, project_id uuid, tenant_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT t.id, t.project_id, p.tenant_id
    FROM tokens t LEFT JOIN projects p ON p.id = t.project_id
    WHERE t.kind = credential_kind AND t.secret_sha256 = sha256
      AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())
$$;

ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE tokens ENABLE ROW LEVEL SECURITY;
CREATE POLICY project_scope ON projects TO wharfage_gateway, wharfage_image
    USING (id = scope_project() OR scope_operator());
CREATE POLICY planner ON projects TO wharfage_scheduler USING (true);
CREATE POLICY token_scope ON tokens TO wharfage_gateway
    USING (project_id = scope_project() OR scope_operator());

GRANT SELECT, INSERT, UPDATE, DELETE ON tenants, projects, tokens TO wharfage_gateway;
GRANT SELECT ON tenants, projects TO wharfage_scheduler, wharfage_image;
GRANT UPDATE (event_sequence) ON projects TO wharfage_scheduler, wharfage_image;
