-- Runtime classes: which OCI runtimes a project's containers may name, and which each host has.

ALTER TABLE projects ADD COLUMN runtimes text[] NOT NULL DEFAULT '{runc}'
    CONSTRAINT projects_runtimes_check CHECK (runtimes <@ '{runc,crun,youki,runsc}' AND 'runc' = ANY (runtimes));

-- As the host said last: {"name": …, "missing": why it is not offered, absent if it is}. A host whose agent is
-- older than this says nothing, and has runc.
ALTER TABLE hosts ADD COLUMN runtimes jsonb NOT NULL DEFAULT '[{"name": "runc"}]';
