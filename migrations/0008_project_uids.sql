-- A range of 65536 user and group ids per project, the same on every host: inside the project's user
-- namespaces it is 0 to 65535. Nobody else's processes have these ids, so that nothing the kernel
-- counts or permits by user is shared between projects.
--
-- The pool is 1048576 (above what /etc/subuid usually gives to people) to 4294901759. A range is
-- given out again as late as possible: a host that was cut off may still run what a deleted project left.

CREATE SEQUENCE project_uid_slots MINVALUE 16 MAXVALUE 65534 CYCLE;

CREATE FUNCTION free_uid_base() RETURNS bigint LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public
AS $$
DECLARE base bigint;
BEGIN
    FOR attempt IN 16..65534 LOOP
        base := nextval('project_uid_slots') * 65536;
        IF NOT EXISTS (SELECT FROM projects WHERE uid_base = base) THEN
            RETURN base;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'the pool of user ids is used up' USING ERRCODE = 'program_limit_exceeded';
END $$;

ALTER TABLE projects ADD COLUMN uid_base bigint
    CONSTRAINT projects_uid_base_key UNIQUE
    CHECK (uid_base % 65536 = 0 AND uid_base BETWEEN 1048576 AND 4294836224);
UPDATE projects SET uid_base = free_uid_base();
ALTER TABLE projects ALTER COLUMN uid_base SET DEFAULT free_uid_base(), ALTER COLUMN uid_base SET NOT NULL;

REVOKE ALL ON FUNCTION free_uid_base() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION free_uid_base() TO wharfage_gateway;
