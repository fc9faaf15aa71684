-- The time at which the database received a run, a prediction or a verdict, by its own clock. No client can reach this
-- table: MLflow knows nothing of it. Run this once on MLflow's database; running it again changes nothing.
CREATE TABLE IF NOT EXISTS cnnlab_received (
    run_uuid VARCHAR(32) NOT NULL,
    what TEXT NOT NULL,  -- "run", or the name of the param that seals a verdict
    received TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_uuid, what)
);

CREATE OR REPLACE FUNCTION cnnlab_receive() RETURNS trigger AS $$
BEGIN
    INSERT INTO cnnlab_received (run_uuid, what)
    VALUES (NEW.run_uuid, CASE TG_TABLE_NAME WHEN 'runs' THEN 'run' ELSE to_jsonb(NEW) ->> 'key' END)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$ LANGUAGE plpgsql;

CREATE OR REPLACE TRIGGER cnnlab_receive AFTER INSERT ON runs
    FOR EACH ROW EXECUTE FUNCTION cnnlab_receive();

CREATE OR REPLACE TRIGGER cnnlab_receive AFTER INSERT ON params
    FOR EACH ROW WHEN (NEW.key LIKE 'verdict\_%\_sha256') EXECUTE FUNCTION cnnlab_receive();
