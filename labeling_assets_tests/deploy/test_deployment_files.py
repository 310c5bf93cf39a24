"""The files under `deploy/` agree with the package, with each other and with what they promise.

No Docker engine is needed: the files are read as Compose, Docker and Helm read them.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from labeling_assets.cli import cli
from labeling_assets.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}
ONE_SHOT = {"init", "ollama-model", "cli"}
SECRETS = {"POSTGRES_PASSWORD": "p", "MINIO_ROOT_PASSWORD": "m", "MILVUS_ROOT_PASSWORD": "v"}
FIXED_BY_THE_IMAGE = {"LABELING_HOME"}
FOR_LABELING_DEV_ALONE = {"LABELING_METRICS_PORT"}
GUIDES = [DEPLOY / "README.md", DEPLOY / "kubernetes/README.md", PROJECT / "docs/operations.md"]
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}


def env_file() -> dict[str, str]:
    lines = (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def variables(text: str) -> set[str]:
    return set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text))


def interpolated(text: str, values: dict[str, str]) -> str:
    """The text as Compose fills it in: `${X:-default}` and `${X:?message}`, also one in the other."""
    innermost = re.compile(r"(?<!\$)\$\{([A-Z_]+)(?::([-?])([^{}]*))?\}")
    while match := innermost.search(text):
        name, kind, rest = match.groups()
        value = values.get(name, "")
        if not value and kind == "?":
            raise KeyError(name)
        text = text[: match.start()] + (value or (rest if kind == "-" else "")) + text[match.end() :]
    return text


def environment(service: str, values: dict[str, str]) -> dict[str, str]:
    return {name: interpolated(str(value), values) for name, value in SERVICES[service]["environment"].items()}


def test_every_variable_of_the_compose_file_stands_in_the_example_and_the_other_way_round():
    assert variables((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8")) | {"COMPOSE_PROFILES"} == set(
        env_file()
    )


def test_the_example_holds_no_secret():
    assert all(
        not value for name, value in env_file().items() if re.search("PASSWORD|KEY|TOKEN|WEBHOOK|POSTGRES_URL", name)
    )


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_secret_comes_from_the_env_file(service: str):
    for name, value in SERVICES[service].get("environment", {}).items():
        if re.search("PASSWORD|SECRET|TOKEN|API_KEY|WEBHOOK|POSTGRES_URL", name):
            assert variables(str(value)), f"{name} of {service} is written in the file"


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_compose_refuses_to_start_without_a_password(missing: str):
    values = {name: value for name, value in SECRETS.items() if name != missing}
    with pytest.raises(KeyError, match=missing):
        interpolated((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"), values)


def test_every_setting_reaches_the_code_location_and_no_other_name_does():
    given = {name for name in SERVICES["code"]["environment"] if name.startswith(PREFIX)}
    assert given | FIXED_BY_THE_IMAGE | FOR_LABELING_DEV_ALONE == SETTINGS


def test_the_settings_of_the_example_are_accepted(monkeypatch: pytest.MonkeyPatch):
    for name, value in environment("code", env_file() | SECRETS).items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert settings.vision_backend == "ollama"
    assert settings.ollama_hosts == ("http://ollama:11434",)
    assert settings.milvus_token is not None
    assert settings.milvus_token.get_secret_value() == "root:v"
    assert settings.timezone == Settings.model_fields["timezone"].default


def test_dagsters_processes_and_our_code_use_one_storage_with_the_driver_that_dagster_needs():
    urls = {environment(name, SECRETS)["LABELING_DAGSTER_POSTGRES_URL"] for name in OURS}
    assert urls == {"postgresql+psycopg2://labeling:p@postgres:5432/dagster"}
    assert "create database dagster;" in (DEPLOY / "postgres/dagster.sql").read_text(encoding="utf-8")


def test_ollama_serves_as_many_requests_at_once_as_the_platform_sends():
    values = {**SECRETS, "LABELING_VISION_SLOTS": "7"}
    assert environment("ollama", values)["OLLAMA_NUM_PARALLEL"] == "7"
    assert environment("code", values)["LABELING_VISION_SLOTS"] == "7"
    assert (
        environment("ollama", SECRETS)["OLLAMA_NUM_PARALLEL"] == environment("code", SECRETS)["LABELING_VISION_SLOTS"]
    )


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_image_is_pinned(service: str):
    name, _, tag = SERVICES[service]["image"].rpartition(":")
    assert name
    assert re.search(r"\d", tag)
    assert "latest" not in tag


def test_our_image_has_the_version_of_the_package():
    assert {SERVICES[name]["image"] for name in OURS} == {f"labeling-assets:{VERSION}"}
    assert f"--tag labeling-assets:{VERSION}" in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def test_nothing_is_published_but_the_ui_on_this_machine():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"webserver"}
    assert [interpolated(port, {}) for port in published["webserver"]] == ["127.0.0.1:3000:3000"]


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_service_has_a_health_check_or_ends_by_itself(service: str):
    assert ("healthcheck" in SERVICES[service]) == (service not in ONE_SHOT)


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_services_wait_for_what_can_be_waited_for(service: str):
    for name, dependency in SERVICES[service].get("depends_on", {}).items():
        expected = "service_completed_successfully" if name in ONE_SHOT else "service_healthy"
        assert dependency["condition"] == expected
        # A dependency of a profile that is off would keep the service from starting.
        assert set(SERVICES[name].get("profiles", [])) <= set(SERVICES[service].get("profiles", []))


@pytest.mark.parametrize("service", sorted(OURS))
def test_our_containers_can_do_no_more_than_they_need(service: str):
    assert SERVICES[service]["read_only"] is True
    assert SERVICES[service]["cap_drop"] == ["ALL"]
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]
    assert SERVICES[service]["pull_policy"] == "never"  # nobody else's image of that name
    assert "user" not in SERVICES[service]


def test_networks_and_volumes_are_declared_and_used():
    volumes = {each.split(":")[0] for service in SERVICES.values() for each in service.get("volumes", [])}
    assert {name for name in volumes if not name.startswith(".")} == set(COMPOSE["volumes"])
    assert all((DEPLOY / name).exists() for name in volumes if name.startswith("."))
    networks = {each for service in SERVICES.values() for each in service.get("networks", ["default"])}
    assert networks == set(COMPOSE["networks"])


def test_servers_without_need_of_the_internet_are_on_networks_that_have_none():
    for name in ("postgres", "etcd", "minio", "milvus"):
        assert all(COMPOSE["networks"][network]["internal"] for network in SERVICES[name]["networks"])
    assert {name for name, service in SERVICES.items() if "milvus" in service.get("networks", [])} == {
        "etcd",
        "minio",
        "milvus",
    }


def test_the_workspace_leads_to_the_code_location():
    (location,) = yaml.safe_load((DEPLOY / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    server = location["grpc_server"]
    (ours,) = yaml.safe_load((PROJECT / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    assert server["location_name"] == ours["python_module"]["location_name"]
    assert server["host"] == SERVICES["code"]["hostname"] == "code"
    assert str(server["port"]) in SERVICES["code"]["command"]
    assert str(server["port"]) in SERVICES["code"]["healthcheck"]["test"]
    for name in ("daemon", "webserver"):
        assert "/opt/labeling/deploy/workspace.yaml" in SERVICES[name]["command"]


@pytest.mark.parametrize("service", sorted(OURS))
def test_every_command_of_a_container_exists(service: str):
    commands = [SERVICES[service]["command"], SERVICES[service].get("healthcheck", {}).get("test", [])[1:]]
    for program, *rest in filter(None, commands):
        arguments = [argument.replace("/opt/labeling", str(PROJECT)) for argument in rest]
        if [program, *arguments[:2]] == ["python", "-m", "labeling_assets.daemon"]:
            program, arguments = "dagster-daemon", arguments[2:]
        if program in ("labeling", "dagster", "dagster-daemon", "dagster-webserver") and arguments != ["--help"]:
            resolve(entry_point(program), arguments)


def entry_point(program: str) -> click.Command:
    from dagster._cli import create_dagster_cli
    from dagster._daemon.cli import create_dagster_daemon_cli
    from dagster_webserver.cli import dagster_webserver

    if program == "labeling":
        return cli
    return {
        "dagster": create_dagster_cli(),
        "dagster-daemon": create_dagster_daemon_cli(),
        "dagster-webserver": dagster_webserver,
    }[program]


def resolve(command: click.Command, arguments: list[str]) -> None:
    """Parse the arguments as the program would; nothing is run."""
    context = command.make_context(command.name, list(arguments), resilient_parsing=False)
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
        name, child, rest = command.resolve_command(context, rest)
        assert child is not None, f"there is no command {name}"
        resolve(child, rest)


def dockerfile_steps() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines()]
    return [tuple(line.split(None, 1)) for line in lines if line and not line.startswith("#")]  # type: ignore[misc]


def dockerignore() -> list[str]:
    lines = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_the_dockerfile_copies_what_exists_and_what_the_builder_gets():
    patterns = [
        line
        for line in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    allowed = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    assert patterns[0] == "*"
    copied = set()
    for instruction, rest in dockerfile_steps():
        if instruction == "COPY" and "--from" not in rest:
            copied |= set(rest.split()[:-1])
    assert copied == allowed
    assert all((PROJECT / path).exists() for path in copied)


def test_the_builder_gets_no_secret_and_no_rubbish():
    allowed = [pattern[1:] for pattern in dockerignore() if pattern.startswith("!")]
    for path in (".env", "deploy/.env", ".git/config", ".venv/bin/python", "labeling_assets_tests/conftest.py"):
        assert not any(fnmatch.fnmatch(path, name) or path.startswith(f"{name}/") for name in allowed)


def test_the_image_runs_as_a_user_with_a_fixed_number():
    steps = dockerfile_steps()
    assert [rest for instruction, rest in steps if instruction == "USER"][-1] == "10001:10001"
    settings = " ".join(rest for instruction, rest in steps if instruction == "ENV")
    assert "LABELING_HOME=/var/lib/labeling" in settings
    assert SERVICES["code"]["volumes"] == ["home:/var/lib/labeling"]
    assert all("--constraint requirements.lock" in rest for _, rest in steps if "pip install" in rest)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name + path.parent.name)
def test_guides_name_settings_and_commands_that_exist(guide: Path):
    text = guide.read_text(encoding="utf-8")
    assert set(re.findall(r"LABELING_[A-Z_]*[A-Z]", text)) <= SETTINGS
    spoken = re.findall(r"(?:`|^|code |cli |\[)labeling,? ([a-z][a-z-]*)", text, re.MULTILINE)
    assert spoken
    assert set(spoken) <= set(cli.commands)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name + path.parent.name)
def test_links_of_the_guides_lead_to_files(guide: Path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", guide.read_text(encoding="utf-8")):
        assert (guide.parent / target).exists(), target
