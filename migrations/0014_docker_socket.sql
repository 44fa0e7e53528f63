-- `/var/run/docker.sock` inside a container: whether a project's containers may have it, and who one
-- of them is. There is no secret: a host shows its certificate and names one of its containers and the
-- run it asks for, and this function decides, on every request, from rows alone.

ALTER TABLE projects ADD COLUMN docker_socket boolean NOT NULL DEFAULT false;

-- The project of a container that runs on that host, in that run, with the socket mounted. No row:
-- it is nobody. A run that is over by what the host has reported itself opens nothing, nor does an older
-- one; a host that is ahead of its reports is believed, since only it can know.
CREATE FUNCTION authenticate_container(of_host uuid, of_container text, of_run integer, of_restart integer)
    RETURNS TABLE (project_id uuid, tenant_id uuid, is_allowed boolean)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public
AS $$
    SELECT c.project_id, p.tenant_id, p.docker_socket
    FROM containers c JOIN projects p ON p.id = c.project_id
    WHERE c.id = of_container AND c.host_id = of_host AND c.removed_at IS NULL
      AND c.desired_state IN ('running', 'stopped') AND c.run = of_run
      -- 4 is `running`.
      AND (of_run, of_restart, 4) >= (c.observed_run, c.observed_restart, c.observed_phase)
      AND jsonb_array_length(coalesce(c.spec->'docker_sockets', '[]')) > 0
$$;
REVOKE ALL ON FUNCTION authenticate_container(uuid, text, integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION authenticate_container(uuid, text, integer, integer) TO wharfage_gateway;
