"""Alembic's entry: runs the migrations in the connection that `relay.store.engine.migrate` opened."""

from alembic import context
from sqlalchemy import text

from relay.store.schema import metadata

# Any number; it only has to be the same for all who migrate one PostgreSQL database.
LOCK = 724_031

connection = context.config.attributes["connection"]
with connection.begin():
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
    context.run_migrations()
