-- Execs are looked up by a beginning of their id, as ranges of bytes whatever the collation is.
CREATE INDEX execs_project_id_prefix_idx ON execs (project_id, id text_pattern_ops);
