-- Wakes publishers in other processes as soon as any writer commits a message. Not created by `Outbox::migrate`:
-- PostgreSQL commits transactions that notify one after the other in the whole server, which a busy one may not want.
CREATE OR REPLACE FUNCTION outbox_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY outbox;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER outbox_notify AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_notify();
