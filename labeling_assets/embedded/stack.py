"""Start, stop and look at the laptop stack that the settings describe, for the CLI, runs, tests and notebooks.

Every function may be called from many processes at once. A service whose address the settings give is never started.
What belongs here: what a caller of the stack needs. How the supervisor is started and found is in `daemon.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from labeling_assets.embedded import external, postgres
from labeling_assets.embedded.daemon import ensure_running, find_supervisor, is_answering, stop_running
from labeling_assets.embedded.home import Home, Ports, ServiceKey
from labeling_assets.embedded.ports import LOOPBACK
from labeling_assets.errors import ConfigurationError
from labeling_assets.services.postgres import normalised_url
from labeling_assets.settings import PREFIX, Settings


@dataclass(frozen=True)
class ServiceStatus:
    """How one service is.

    Attributes:
        key: `postgres`, `milvus` or `image_host`.
        is_external: Whether the settings give it, so that it is not ours to start.
        address: Where it answers, for people; never holds a password.
        connection: What a program needs to connect, but for secrets: for PostgreSQL `host`, `port`, `user`, `database`,
            and the same of Dagster's storage under `dagster`; for Milvus `uri` and `collection`; for the image host
            `url`.
        is_healthy: Whether it answers now.
        pid: Process id of a service of our own; None while it does not run.
        problem: Why it last failed; empty where nothing is known.
        data_folder: Where a service of our own keeps its data.
        log_file: Its log.
    """

    key: ServiceKey
    is_external: bool
    address: str
    connection: dict[str, object]
    is_healthy: bool
    pid: int | None = None
    problem: str = ""
    data_folder: Path | None = None
    log_file: Path | None = None


@dataclass(frozen=True)
class StackStatus:
    """How the stack is.

    Attributes:
        is_running: Whether the supervisor lives; where every service is external, whether all of them answer.
        home: `LABELING_HOME`.
        supervisor_pid: Process id of the supervisor.
        services: PostgreSQL, Milvus, and the demo's image host where there is a demo.
        dagster_home: Folder that `DAGSTER_HOME` names.
        log_folder: Folder of the logs.
    """

    is_running: bool
    home: Path
    supervisor_pid: int | None
    services: tuple[ServiceStatus, ...]
    dagster_home: Path
    log_folder: Path


def start(settings: Settings) -> Settings:
    """Start the services that the settings do not give, or attach to those that run, and wait until they answer.

    The stack outlives the caller; `stop` ends it. The demo's image host runs while `<home>/demo/images` exists, so call
    this again after making the demo.

    Returns:
        The settings with `postgres_url`, `dagster_postgres_url` and `milvus_uri` filled in, PostgreSQL URLs with driver
        psycopg2, and the demo's image host among `allow_private_image_hosts` where there is a demo.

    Raises:
        ConfigurationError: A setting, the home or an installed package must be mended first.
        ServiceUnavailableError: A service does not start or does not answer.
    """
    return start_or_attach(settings)[0]


def start_or_attach(settings: Settings) -> tuple[Settings, bool]:
    """Like `start`; the second value tells whether this call started the stack."""
    home = Home(settings.home)
    keys = _own_services(settings)
    has_started = False
    if keys or home.has_demo:
        if os.name != "posix":
            raise ConfigurationError(
                "The embedded services run on Linux and macOS only.",
                "Set LABELING_POSTGRES_URL and LABELING_MILVUS_URI to servers of your own.",
            )
        has_started = ensure_running(home, keys)
    if settings.postgres_url is not None and settings.dagster_postgres_url is None:
        external.ensure_dagster_database(settings.postgres_url.get_secret_value())
    return addresses(settings), has_started


def stop(settings: Settings) -> bool:
    """Stop the stack and wait until nothing of it is left, also what a killed supervisor left behind.

    Returns:
        Whether a stack was running.

    Raises:
        ServiceUnavailableError: It does not stop.
    """
    return stop_running(Home(settings.home))


def addresses(settings: Settings) -> Settings:
    """The settings with all addresses filled in as `start` does; nothing is started, asked or made.

    Raises:
        ConfigurationError: The stack of this home was never started, or a PostgreSQL URL cannot be read.
    """
    home = Home(settings.home)
    update: dict[str, object] = {}
    if settings.postgres_url is None:
        folder, port = home.service_folder("postgres"), _known_ports(home).postgres
        main, beside = (postgres.database_url(folder, port, name) for name in ("labeling", "dagster"))
    else:
        url = normalised_url(settings.postgres_url.get_secret_value())
        main, beside = external.rendered(url), external.rendered(url.set(database="dagster"))
    if settings.dagster_postgres_url is not None:
        beside = external.rendered(normalised_url(settings.dagster_postgres_url.get_secret_value()))
    update |= {"postgres_url": SecretStr(main), "dagster_postgres_url": SecretStr(beside)}
    if settings.milvus_uri is None:
        update["milvus_uri"] = f"http://{LOOPBACK}:{_known_ports(home).milvus}"
    if home.has_demo:
        host = image_host_url(settings).removeprefix("http://")
        update["allow_private_image_hosts"] = tuple(dict.fromkeys((*settings.allow_private_image_hosts, host)))
    return settings.model_copy(update=update)


def image_host_url(settings: Settings) -> str:
    """Address of the demo's image host, without a slash at the end; the home keeps the port for good."""
    return f"http://{LOOPBACK}:{Home(settings.home).ports().image_host}"


def is_running(settings: Settings) -> bool:
    """Whether the supervisor of this home lives."""
    return find_supervisor(Home(settings.home)) is not None


def was_killed(settings: Settings) -> bool:
    """Whether the supervisor of this home ended without being told to: its state is there, but it is not."""
    home = Home(settings.home)
    return home.state_file.exists() and find_supervisor(home) is None


def status(settings: Settings) -> StackStatus:
    """How the stack and the services that the settings give are; nothing is started or made.

    Raises:
        ConfigurationError: A file of the home is damaged, or a PostgreSQL URL cannot be read.
    """
    home = Home(settings.home)
    supervisor = find_supervisor(home)
    keys: list[ServiceKey] = ["postgres", "milvus", *(("image_host",) if home.has_demo else ())]
    own = _own_services(settings) | {"image_host"}
    services = [_own_status(home, settings, key) if key in own else _external_status(settings, key) for key in keys]
    is_all_external = all(service.is_external for service in services)
    return StackStatus(
        is_running=all(each.is_healthy for each in services) if is_all_external else supervisor is not None,
        home=settings.home,
        supervisor_pid=supervisor.pid if supervisor else None,
        services=tuple(services),
        dagster_home=home.dagster_folder,
        log_folder=home.log_folder,
    )


def connection_environment(settings: Settings) -> dict[str, str]:
    """The variables with which another program reaches the same services; they hold passwords.

    Empty before the first start.

    Raises:
        ConfigurationError: The password file cannot be read.
    """
    if _own_services(settings) and Home(settings.home).known_ports() is None:
        return {}
    addressed = addresses(settings)
    values: dict[str, str | SecretStr | None] = {
        "POSTGRES_URL": addressed.postgres_url,
        "DAGSTER_POSTGRES_URL": addressed.dagster_postgres_url,
        "MILVUS_URI": addressed.milvus_uri,
        "MILVUS_TOKEN": addressed.milvus_token,
    }
    plain = {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values.items()
    }
    return {PREFIX + name: value for name, value in plain.items() if value}


def _own_services(settings: Settings) -> frozenset[ServiceKey]:
    """Services whose address the settings do not give."""
    keys: set[ServiceKey] = set()
    if settings.postgres_url is None:
        keys.add("postgres")
    if settings.milvus_uri is None:
        keys.add("milvus")
    return frozenset(keys)


def _known_ports(home: Home) -> Ports:
    if (ports := home.known_ports()) is None:
        raise ConfigurationError(f"The stack of {home.folder} was never started.", "Run `labeling up`.")
    return ports


def _own_status(home: Home, settings: Settings, key: ServiceKey) -> ServiceStatus:
    """How a service of our own is, by what the supervisor says and by asking it."""
    state = home.read_state() if find_supervisor(home) else None
    service = state.services.get(key) if state else None
    ports = home.known_ports()
    port: int | None = service.port if service else getattr(ports, key, None)
    problem = service.problem if service else ""
    is_healthy = False
    if service is not None and service.phase == "running":
        try:
            is_healthy = is_answering(home, key, service.port)
        except ConfigurationError as error:
            problem = str(error)
    return ServiceStatus(
        key=key,
        is_external=False,
        address=_own_address(key, port),
        connection=_own_connection(settings, key, port),
        is_healthy=is_healthy,
        pid=service.pid if service else None,
        problem=problem,
        data_folder=home.demo_folder if key == "image_host" else home.service_folder(key) / "data",
        log_file=home.log_file(key),
    )


def _own_address(key: ServiceKey, port: int | None) -> str:
    if port is None:
        return "no port chosen yet"
    return f"{LOOPBACK}:{port}" if key == "postgres" else f"http://{LOOPBACK}:{port}"


def _own_connection(settings: Settings, key: ServiceKey, port: int | None) -> dict[str, object]:
    if port is None:
        return {}
    if key == "postgres":
        place = {"host": LOOPBACK, "port": port, "user": postgres.USER}
        return {**place, "database": "labeling", "dagster": {**place, "database": "dagster"}} | _dagster_place(settings)
    url = _own_address(key, port)
    return {"uri": url, "collection": settings.milvus_collection} if key == "milvus" else {"url": url}


def _dagster_place(settings: Settings) -> dict[str, object]:
    url = settings.dagster_postgres_url
    return {} if url is None else {"dagster": external.postgres_place(url.get_secret_value())}


def _external_status(settings: Settings, key: ServiceKey) -> ServiceStatus:
    """How a service that the settings give is, by asking it."""
    if key == "postgres" and settings.postgres_url is not None:
        url = settings.postgres_url.get_secret_value()
        place = external.postgres_place(url)
        connection = {**place, "dagster": {**place, "database": "dagster"}} | _dagster_place(settings)
        address, is_healthy = "{host}:{port}".format_map(place), external.answers_postgres_url(url)
    else:
        token = settings.milvus_token.get_secret_value() if settings.milvus_token else ""
        address = external.milvus_place(settings.milvus_uri or "")
        connection = {"uri": address, "collection": settings.milvus_collection}
        is_healthy = external.answers_milvus_uri(settings.milvus_uri or "", token)
    return ServiceStatus(key, is_external=True, address=address, connection=connection, is_healthy=is_healthy)
