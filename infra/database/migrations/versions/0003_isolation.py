"""Isolation modes, roles of keys, the audit, secrets of tenants, erasures."""

from alembic import op

revision = "0003"
down_revision = "0002"

CHANGES = """
ALTER TABLE tenants
    ADD isolation text NOT NULL DEFAULT 'pool' CHECK (isolation IN ('pool', 'bridge', 'silo')),
    ADD state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'moving', 'leaving'));
-- A silo's uploads are in its own database, and its jobs are not.
ALTER TABLE jobs DROP CONSTRAINT jobs_tenant_upload_id_fkey;
ALTER TABLE jobs ADD upload_bytes bigint NOT NULL DEFAULT 0, ADD pool text;
-- Keys could do all there was, which was to upload and to look.
ALTER TABLE api_keys
    ADD role text NOT NULL DEFAULT 'uploader' CHECK (role IN ('reader', 'uploader', 'admin')),
    ADD expires_at timestamptz;
ALTER TABLE api_keys ALTER role DROP DEFAULT;
CREATE TABLE operator_keys (
    key_id text PRIMARY KEY,
    name text NOT NULL,
    digest text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE TABLE audit (
    entry bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    subject text,
    action text NOT NULL,
    outcome text NOT NULL,
    details_mac text NOT NULL,
    mac text NOT NULL
);
CREATE INDEX audit_of_subject ON audit (subject, entry);
CREATE TABLE audit_details (
    entry bigint PRIMARY KEY REFERENCES audit ON DELETE CASCADE,
    tenant text,
    actor text NOT NULL,
    origin text NOT NULL,
    details jsonb NOT NULL,
    token text NOT NULL UNIQUE
);
CREATE INDEX audit_details_of_tenant ON audit_details (tenant, entry);
CREATE TABLE tenant_secrets (
    tenant text PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    personal_key text NOT NULL
);
INSERT INTO tenant_secrets
SELECT tenant, encode(sha256((gen_random_uuid()::text || gen_random_uuid()::text)::bytea), 'hex') FROM tenants;
CREATE TABLE erasures (
    erasure_id text PRIMARY KEY,
    tenant text,
    subject text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    steps jsonb NOT NULL,
    certificate jsonb
);

-- Entries are only ever added. Details may go, when their tenant is erased; the chain of entries stays whole.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries of the audit are never changed' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON audit_details
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

TABLES = ("operator_keys", "audit", "audit_details", "tenant_secrets", "erasures")


def upgrade() -> None:
    op.execute(CHANGES)
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY operator ON {table} TO CURRENT_USER USING (true)")
    op.execute("GRANT INSERT (upload_bytes) ON jobs TO orchard_tenants")


def downgrade() -> None:
    raise NotImplementedError("keys and the audit would be lost; restore a backup from before instead")
