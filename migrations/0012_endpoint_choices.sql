-- What a container chose for itself on a network.
ALTER TABLE endpoints
    -- The address of its link; without, one that follows from `ip`.
    ADD COLUMN mac      macaddr,
    -- `other:alias`: names that this container alone sees there.
    ADD COLUMN links    text[] NOT NULL DEFAULT '{}';
