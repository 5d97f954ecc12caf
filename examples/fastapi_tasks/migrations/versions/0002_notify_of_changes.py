"""Notify of changes."""

from alembic import op

revision = "0002"
down_revision = "0001"

TABLES = ("project", "task")


def upgrade() -> None:
    op.execute("""
        CREATE FUNCTION notify_of_changes() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('tasks_changed', TG_TABLE_NAME);
            RETURN NULL;
        END $$
    """)
    for table in TABLES:
        op.execute(f"""
            CREATE TRIGGER notify_of_changes
            AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}
            FOR EACH STATEMENT EXECUTE FUNCTION notify_of_changes()
        """)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TRIGGER notify_of_changes ON {table}")
    op.execute("DROP FUNCTION notify_of_changes()")
