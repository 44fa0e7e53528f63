-- Garbage collection of blobs: how it is decided that nothing refers to one, and who looks.
--
-- A row of blobs says: the file is there. Whoever refers to a blob does it by a foreign key to that row,
-- so a row goes only when nothing refers to it, whatever tables a later migration adds. Foreign keys are
-- checked past row-level security; what is read here about all projects is counts and digests only.

-- Since when a round has found nothing that refers to it; none while something does. Bytes go after a
-- grace from here, so that what was let go of by mistake a moment ago is found again.
ALTER TABLE blobs ADD COLUMN unused_since timestamptz;
CREATE INDEX blobs_unused_idx ON blobs (digest) WHERE unused_since IS NOT NULL;

-- Of several image-svc over one database, one at a time goes through the rows. It only spares work: two
-- at once would do no harm.
CREATE TABLE upkeep_leases (
    work    text PRIMARY KEY,
    holder  uuid NOT NULL,
    until   timestamptz NOT NULL
);

-- Marks what nothing refers to, and takes the mark from what something refers to again. Rows that
-- somebody is just now touching wait for the next round: a round holds many, and must wait for nobody.
CREATE FUNCTION mark_unused_blobs() RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = public
AS $$
    WITH changed AS (
        UPDATE blobs SET unused_since = CASE WHEN unused_since IS NULL THEN now() END
        WHERE digest IN (
            SELECT b.digest FROM blobs b
            WHERE (EXISTS (SELECT FROM repository_blobs r WHERE r.digest = b.digest)
                   OR EXISTS (SELECT FROM image_layers l WHERE l.digest = b.digest)) = (b.unused_since IS NOT NULL)
            FOR NO KEY UPDATE SKIP LOCKED)
        RETURNING 1)
    SELECT count(*) FROM changed
$$;

-- Takes away links that no manifest of their repository needs and that nobody has asked for in so long:
-- what is left of a push that never came to its manifest, or of a manifest that was deleted.
--
-- The rows are locked first and looked at again by a second statement, which sees what was committed up
-- to then; a manifest that needs one must lock it too, and finds it gone or is seen.
CREATE FUNCTION drop_unneeded_links(kept_seconds double precision, most integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public
AS $$
DECLARE
    found_repositories uuid[];
    found_digests text[];
    dropped bigint;
BEGIN
    SELECT array_agg(repository_id), array_agg(digest) INTO found_repositories, found_digests
    FROM (SELECT b.repository_id, b.digest FROM repository_blobs b
          WHERE b.linked_at < now() - make_interval(secs => kept_seconds)
            AND NOT EXISTS (SELECT FROM repository_manifest_blobs m
                            WHERE m.repository_id = b.repository_id AND m.digest = b.digest)
          LIMIT most FOR UPDATE SKIP LOCKED) AS found;
    DELETE FROM repository_blobs b
    USING unnest(found_repositories, found_digests) AS found (repository_id, digest)
    WHERE b.repository_id = found.repository_id AND b.digest = found.digest
      AND NOT EXISTS (SELECT FROM repository_manifest_blobs m
                      WHERE m.repository_id = b.repository_id AND m.digest = b.digest);
    GET DIAGNOSTICS dropped = ROW_COUNT;
    RETURN dropped;
END
$$;

GRANT SELECT, INSERT, UPDATE, DELETE ON upkeep_leases TO wharfage_image;
REVOKE EXECUTE ON FUNCTION mark_unused_blobs, drop_unneeded_links FROM PUBLIC;
GRANT EXECUTE ON FUNCTION mark_unused_blobs, drop_unneeded_links TO wharfage_image;
