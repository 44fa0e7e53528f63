-- A container takes its image in the transaction that writes it, and an image is claimed before anybody
-- asks who uses it: of a create and a removal at once, one sees what the other has done.
--
-- No foreign key: an image may go under a container whose host has it unpacked.

CREATE FUNCTION containers_take_image() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public
AS $$
BEGIN
    PERFORM FROM images WHERE project_id = NEW.project_id AND id = NEW.image_id FOR KEY SHARE;
    IF NOT FOUND THEN
        RAISE foreign_key_violation USING MESSAGE = 'image ' || NEW.image_id || ' is gone', CONSTRAINT = 'containers_image';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER containers_take_image BEFORE INSERT ON containers
    FOR EACH ROW EXECUTE FUNCTION containers_take_image();

-- Holds an image of the project in scope until the end of the transaction, against creates, names and
-- pulls of it: false if it is gone, or, for somebody who does not wait, if anybody holds it.
CREATE FUNCTION claim_image(image text, waits boolean) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public
AS $$
BEGIN
    IF waits THEN
        PERFORM FROM images WHERE project_id = scope_project() AND id = image FOR UPDATE;
    ELSE
        PERFORM FROM images WHERE project_id = scope_project() AND id = image FOR UPDATE SKIP LOCKED;
    END IF;
    RETURN FOUND;
END $$;
REVOKE EXECUTE ON FUNCTION claim_image(text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION claim_image(text, boolean) TO wharfage_gateway;

-- Images are looked up by a beginning of their id, as ranges of bytes whatever the collation is.
CREATE INDEX images_project_id_prefix_idx ON images (project_id, id text_pattern_ops);
