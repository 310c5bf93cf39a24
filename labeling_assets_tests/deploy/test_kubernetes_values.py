"""The values of the Helm charts agree with the package, its instance file and the Compose deployment."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
GUIDE = (DEPLOY / "kubernetes/README.md").read_text(encoding="utf-8")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


DAGSTER_VALUES = read(DEPLOY / "kubernetes/dagster-values.yaml")
MILVUS_VALUES = read(DEPLOY / "kubernetes/milvus-values.yaml")


def test_every_pod_has_our_image_of_this_version():
    images = [DAGSTER_VALUES["dagsterWebserver"]["image"], DAGSTER_VALUES["dagsterDaemon"]["image"]]
    images += [each["image"] for each in DAGSTER_VALUES["dagster-user-deployments"]["deployments"]]
    assert {image["tag"] for image in images} == {f"{VERSION}-kubernetes"}
    assert set(re.findall(r"labeling-assets:(\S+)", GUIDE)) == {f"{VERSION}-kubernetes"}


def test_kubernetes_limits_runs_as_the_instance_file_does():
    instance = read(PROJECT / "dagster.yaml")
    daemon = DAGSTER_VALUES["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queue["maxConcurrentRuns"] == instance["concurrency"]["runs"]["max_concurrent_runs"]
    assert queue["tagConcurrencyLimits"] == instance["concurrency"]["runs"]["tag_concurrency_limits"]
    assert daemon["runRetries"]["maxRetries"] == instance["run_retries"]["max_retries"]
    assert daemon["runRetries"]["retryOnAssetOrOpFailure"] == instance["run_retries"]["retry_on_asset_or_op_failure"]
    assert daemon["runMonitoring"]["enabled"] is instance["run_monitoring"]["enabled"] is True
    purge, ours = DAGSTER_VALUES["retention"], instance["retention"]
    assert purge["schedule"]["purgeAfterDays"] == ours["schedule"]["purge_after_days"]
    assert purge["sensor"]["purgeAfterDays"] == ours["sensor"]["purge_after_days"]


def test_kubernetes_runs_our_code_location_and_each_run_in_a_job():
    assert DAGSTER_VALUES["runLauncher"]["type"] == "K8sRunLauncher"
    (deployment,) = DAGSTER_VALUES["dagster-user-deployments"]["deployments"]
    assert deployment["dagsterApiGrpcArgs"] == ["--python-module", "labeling_assets.definitions"]
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    assert DAGSTER_VALUES["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"
    assert DAGSTER_VALUES["generatePostgresqlPasswordSecret"] is False


def test_no_values_file_holds_a_secret():
    for path in (DEPLOY / "kubernetes").glob("*.yaml"):
        keys = re.findall(r"^\s*([A-Za-z_]+): *[^\s#]", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert not [key for key in keys if re.search("password$|secretkey|accesskey|token", key.lower())]


def test_one_milvus_and_one_dagster_version_are_named():
    compose = read(DEPLOY / "docker-compose.yml")
    assert compose["services"]["milvus"]["image"].endswith(f":{MILVUS_VALUES['image']['all']['tag']}")
    lines = (PROJECT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split(" ;")[0].split("==") for line in lines if "==" in line)
    assert f"--version {locked['dagster']} " in GUIDE
    assert f"dagster-k8s=={locked['dagster-postgres']} " in GUIDE
    assert f"version {locked['dagster']}." in (DEPLOY / "kubernetes/dagster-values.yaml").read_text(encoding="utf-8")
