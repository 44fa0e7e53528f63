-- Images: content once for the fleet, references per project.

-- Content that is stored and verified. Whether a project may see it is decided by image_layers.
CREATE TABLE blobs (
    digest      text PRIMARY KEY,
    size_bytes  bigint NOT NULL,
    stored_at   timestamptz NOT NULL DEFAULT now()
);

-- Which upstreams (scheme://host:port) a blob was downloaded from and verified. Whoever may read it
-- there by that upstream's own word need not download it again; for anybody else it does not exist.
CREATE TABLE blob_origins (
    digest      text NOT NULL REFERENCES blobs ON DELETE CASCADE,
    origin      text NOT NULL,
    PRIMARY KEY (digest, origin)
);

CREATE TABLE images (
    project_id      uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    -- Digest of the image config.
    id              text NOT NULL,
    manifest_digest text NOT NULL,
    manifest        bytea NOT NULL,
    -- The config document as it is, bytes and all.
    config          bytea NOT NULL,
    -- [model::LayerDescriptor], lowest first.
    layers          jsonb NOT NULL,
    architecture    text NOT NULL,
    os              text NOT NULL,
    -- Sum of the unpacked layers, where known; of the blobs otherwise.
    size_bytes      bigint NOT NULL,
    built_at        timestamptz,
    stored_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, id)
);

CREATE TABLE image_tags (
    project_id  uuid NOT NULL,
    -- registry/repository, normalised: docker.io/library/busybox
    repository  text NOT NULL,
    tag         text NOT NULL,
    image_id    text NOT NULL,
    tagged_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, repository, tag),
    FOREIGN KEY (project_id, image_id) REFERENCES images ON DELETE CASCADE
);
CREATE INDEX image_tags_image_idx ON image_tags (project_id, image_id);

-- The digests an image was pulled by (RepoDigests): of its manifest or of the index that named it.
CREATE TABLE image_digests (
    project_id  uuid NOT NULL,
    repository  text NOT NULL,
    digest      text NOT NULL,
    image_id    text NOT NULL,
    PRIMARY KEY (project_id, repository, digest),
    FOREIGN KEY (project_id, image_id) REFERENCES images ON DELETE CASCADE
);
CREATE INDEX image_digests_image_idx ON image_digests (project_id, image_id);

CREATE TABLE image_layers (
    project_id  uuid NOT NULL,
    image_id    text NOT NULL,
    position    integer NOT NULL,
    digest      text NOT NULL REFERENCES blobs,
    PRIMARY KEY (project_id, image_id, position),
    FOREIGN KEY (project_id, image_id) REFERENCES images ON DELETE CASCADE
);
CREATE INDEX image_layers_digest_idx ON image_layers (digest);

ALTER TABLE images ENABLE ROW LEVEL SECURITY;
ALTER TABLE image_tags ENABLE ROW LEVEL SECURITY;
ALTER TABLE image_digests ENABLE ROW LEVEL SECURITY;
ALTER TABLE image_layers ENABLE ROW LEVEL SECURITY;
CREATE POLICY project_scope ON images TO wharfage_gateway, wharfage_image USING (project_id = scope_project());
CREATE POLICY project_scope ON image_tags TO wharfage_gateway, wharfage_image USING (project_id = scope_project());
CREATE POLICY project_scope ON image_digests TO wharfage_gateway, wharfage_image USING (project_id = scope_project());
CREATE POLICY project_scope ON image_layers TO wharfage_gateway, wharfage_image USING (project_id = scope_project());
CREATE POLICY planner ON images TO wharfage_scheduler USING (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON blobs, blob_origins, images, image_tags, image_digests, image_layers TO wharfage_image;
GRANT SELECT, DELETE ON images, image_digests, image_layers TO wharfage_gateway;
GRANT SELECT, INSERT, UPDATE, DELETE ON image_tags TO wharfage_gateway;
GRANT SELECT ON images TO wharfage_scheduler;
