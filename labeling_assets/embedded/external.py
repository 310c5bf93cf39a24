"""Services that the settings give: their address without secrets, whether they answer, and Dagster's database there."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import sqlalchemy as sa

from labeling_assets.errors import ConfigurationError, ServiceUnavailableError
from labeling_assets.services.postgres import create_engine, normalised_url

DAGSTER_DATABASE = "dagster"
PROBE_SECONDS = 5.0
POSTGRES_PORT = 5432
MILVUS_PORTS = {"http": 19530, "https": 443, "tcp": 19530}


def rendered(url: sa.URL) -> str:
    """The URL as text, with its password."""
    return url.render_as_string(hide_password=False)


def postgres_place(url: str) -> dict[str, object]:
    """Where a PostgreSQL URL leads, without the password: `host`, `port`, `user`, `database`."""
    parsed = normalised_url(url)
    host = parsed.host or parsed.query.get("host", "localhost")
    return {
        "host": host if isinstance(host, str) else ",".join(host),
        "port": parsed.port or POSTGRES_PORT,
        "user": parsed.username,
        "database": parsed.database,
    }


def milvus_place(uri: str) -> str:
    """A Milvus URI without user and password."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def answers_postgres_url(url: str) -> bool:
    """Whether the server accepts the login of the URL."""
    engine = create_engine(url)
    try:
        engine.connect().close()
    except sa.exc.OperationalError:
        return False
    finally:
        engine.dispose()
    return True


def answers_milvus_uri(uri: str, token: str) -> bool:
    """Whether a Milvus server accepts the token at the address."""
    from pymilvus import MilvusClient, MilvusException

    parts = urlsplit(uri)
    if parts.scheme not in MILVUS_PORTS or not parts.hostname:
        return False
    try:
        port = parts.port or MILVUS_PORTS[parts.scheme]
        socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()
        client = MilvusClient(uri=uri, token=token, timeout=PROBE_SECONDS)
        try:
            client.get_server_version(timeout=PROBE_SECONDS)
        finally:
            client.close()
    except (OSError, MilvusException):
        return False
    return True


def ensure_dagster_database(url: str) -> None:
    """Make the database `dagster` on the server of `url` if it is missing.

    Raises:
        ConfigurationError: It may not be made, or the server refuses the login.
        ServiceUnavailableError: The server does not answer.
    """
    engine = create_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            query = sa.text("select exists (select from pg_database where datname = :name)")
            if not connection.execute(query, {"name": DAGSTER_DATABASE}).scalar_one():
                _create_database(connection)
    except sa.exc.OperationalError as error:
        # The driver's message names host, port, user and database, never the password.
        reason = str(error.orig).strip()
        if "authentication failed" in reason or "does not exist" in reason:
            raise ConfigurationError(f"PostgreSQL refuses us: {reason}.", "Check LABELING_POSTGRES_URL.") from None
        raise ServiceUnavailableError(
            f"PostgreSQL does not answer: {reason}.", "Check LABELING_POSTGRES_URL."
        ) from None
    finally:
        engine.dispose()


def _create_database(connection: sa.Connection) -> None:
    try:
        connection.execute(sa.text(f'create database "{DAGSTER_DATABASE}"'))
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "pgcode", None) in {"42P04", "23505"}:  # another process was first
            return
        raise ConfigurationError(
            f"There is no database {DAGSTER_DATABASE!r} on {connection.engine.url.host}, and making it failed: "
            f"{str(error.orig).strip()}.",
            "Create it there, or set LABELING_DAGSTER_POSTGRES_URL.",
        ) from None
