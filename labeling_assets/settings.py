"""Every environment variable of the platform: its name, default and meaning.

Read once with `Settings.load()`. A wrong value raises `ConfigurationError` with one line that names the variable. Unset
service addresses mean the embedded stack under `LABELING_HOME`, whose addresses `embedded.stack` fills in. Each field
is listed in `.env.example`; a test compares the two. Nothing else in the package reads settings of the platform from
the environment.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from labeling_assets.errors import ConfigurationError
from labeling_assets.products.cost import Prices

PREFIX = "LABELING_"
TIME_OF_DAY = r"^([01]\d|2[0-3]):[0-5]\d$"
CommaSeparated = Annotated[tuple[str, ...], NoDecode]


def default_home() -> Path:
    """Folder of all local state: per user, or `/var/lib` for root.

    PostgreSQL refuses to run as root, so root's server runs as `nobody`, who may not enter root's home.
    """
    if os.name == "posix" and os.geteuid() == 0:
        return Path("/var/lib/labeling-assets")
    return Path(platformdirs.user_data_dir("labeling-assets", appauthor=False))


class Settings(BaseSettings):
    """Settings of the platform, one field for each `LABELING_…` variable."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)

    home: Path = Field(default_factory=default_home, description="Folder of all local state.")

    postgres_url: SecretStr | None = Field(
        None, description="Database with the source table and our schema `labeling`; unset: the embedded server."
    )
    dagster_postgres_url: SecretStr | None = Field(
        None, description="Database of Dagster's storage; unset: database `dagster` on the same server."
    )
    source_table: str = Field(
        "ai_craw.product_marketing_summary",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*$",
        description="Source table as schema.table; it is only read.",
    )
    milvus_uri: str | None = Field(None, description="Milvus address, `http://host:19530`; unset: the embedded server.")
    milvus_token: SecretStr | None = Field(None, description="Milvus token, `user:password` or an API key.")
    milvus_collection: str = Field(
        "product_collection_v4",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,200}$",
        description="Name of the collection; readers use its alias `<name>_live`.",
    )
    milvus_index: Literal["auto", "FLAT", "IVF_FLAT", "HNSW"] = Field(
        "auto", description="Index of both vector fields; auto: FLAT on Milvus Lite, IVF_FLAT on a server."
    )
    storage: str | None = Field(
        None, description="Root of Parquet files and images: a folder, `s3://…` or `gs://…`; unset: inside the home."
    )

    vision_backend: Literal["embedded", "ollama", "openai"] = Field(
        "embedded", description="Who labels images: embedded (no download), ollama, or openai (any compatible server)."
    )
    vision_model: str = Field("qwen2.5vl:latest", description="Model name on the vision server.")
    ollama_hosts: CommaSeparated = Field(("http://127.0.0.1:11434",), description="Ollama endpoints, comma-separated.")
    openai_base_url: CommaSeparated = Field((), description="OpenAI-compatible endpoints, comma-separated, with /v1.")
    openai_api_key: SecretStr | None = Field(None, description="API key of the OpenAI-compatible endpoints.")
    vision_slots: int = Field(
        1,
        ge=0,
        le=1024,
        description="Requests that one endpoint serves at once (OLLAMA_NUM_PARALLEL); 0: found while it is asked.",
    )
    vision_timeout_seconds: float = Field(300.0, gt=0, description="Deadline of one request to the vision model.")
    vision_context_tokens: int = Field(
        0, ge=0, description="Context size asked of Ollama; 0: the smallest multiple of 1024 in which everything fits."
    )

    vision_requests_per_minute: int = Field(0, ge=0, description="Requests a minute to all endpoints; 0: no limit.")
    vision_tokens_per_minute: int = Field(0, ge=0, description="Tokens a minute to all endpoints; 0: no limit.")
    price_prompt_tokens: float = Field(0.0, ge=0, description="Price of a million tokens read by the vision model.")
    price_output_tokens: float = Field(0.0, ge=0, description="Price of a million tokens written by the vision model.")
    price_gpu_hour: float = Field(0.0, ge=0, description="Price of an hour of the GPU that serves the vision model.")
    near_duplicate_bits: int = Field(
        6, ge=0, le=7, description="Bits of 64 in which the perceptual hashes of near duplicates differ at most."
    )
    share_labels: Literal["never", "near_duplicates"] = Field(
        "never", description="Whether near duplicates take the label of their group's representative."
    )

    embedder: str = Field("embedded", description="embedded, jina-clip-v2, siglip2-large, or a model id or folder.")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="Device of the embedder: auto, cpu, cuda[:n], mps."
    )
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field("auto", description="Number type of the embedder.")
    embedder_dimension: int = Field(
        0, ge=0, description="Numbers of a vector, for embedders that may be cut short (jina-clip-v2); 0: all."
    )
    embedder_batch: int = Field(0, ge=0, description="Images embedded at once; 0: 16 on a CPU, 64 on a GPU.")
    gpu_memory_share: float = Field(1.0, gt=0, le=1, description="Share of a GPU's memory that a process may take.")
    engine: Literal["local", "ray"] = Field("local", description="Where models compute: in the run, or on Ray.")
    ray_address: str | None = Field(
        None, description="Address of the Ray cluster, `ray://host:10001` or `auto`; unset: a cluster on this machine."
    )
    ray_cpus_per_worker: float = Field(1.0, gt=0, description="CPUs of a Ray worker where it has no GPU.")

    timezone: str = Field("Asia/Ho_Chi_Minh", description="Time zone of the business day.")
    first_day: dt.date = Field(dt.date(2025, 1, 1), description="First partition, YYYY-MM-DD.")
    allow_private_image_hosts: CommaSeparated = Field(
        (), description="host:port, comma-separated, that may be fetched although the address is private."
    )
    description_language: Literal["vi", "en"] = Field("vi", description="Language of the product description.")

    look_back_days: int = Field(
        35, ge=1, le=3650, description="Days before today in which changed, missing and failed days are looked for."
    )
    sensor_interval_seconds: int = Field(
        30,
        ge=5,
        description="Seconds between two looks at the source table; more for millions of rows.",
    )
    daily_at: str = Field(
        "00:30", pattern=TIME_OF_DAY, description="When yesterday is run, HH:MM in the business time zone."
    )
    nightly_at: str = Field(
        "02:00",
        pattern=TIME_OF_DAY,
        description="When missing and failed days are run, HH:MM, same time zone.",
    )
    nightly_days: int = Field(14, ge=1, description="Missing and failed days that one night runs at most.")
    max_quarantined_share: float = Field(
        0.8, gt=0, le=1, description="A day of which a larger share of images or labels is in quarantine fails."
    )
    alert_webhook_url: SecretStr | None = Field(
        None, description="Where failed runs and failed checks are posted; unset: nowhere."
    )
    alert_format: Literal["slack", "json"] = Field("slack", description="Body of an alert: a Slack message or JSON.")
    alert_interval_seconds: int = Field(
        300, ge=1, description="Alerts of one cause are sent once in so many seconds; the others are counted."
    )
    ui_url: str = Field("http://127.0.0.1:3000", description="Address of the Dagster UI, for links in alerts.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port of the Prometheus metrics that `labeling dev` serves; 0: none."
    )
    log_format: Literal["text", "json"] = Field("text", description="Log lines for people, or one JSON object a line.")

    @field_validator("ollama_hosts", "openai_base_url", "allow_private_image_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("storage")
    @classmethod
    def _absolute_folder(cls, value: str | None) -> str | None:
        """A folder means the same to every process, whatever its working folder is."""
        return value if value is None or "://" in value else str(Path(value).expanduser().absolute())

    @field_validator("ollama_hosts", "openai_base_url")
    @classmethod
    def _without_credentials(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any("@" in host for host in value):
            msg = "an address with user or password would be shown in the UI"
            raise ValueError(msg)
        return value

    @field_validator("ollama_hosts")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            msg = "at least one endpoint is needed"
            raise ValueError(msg)
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            msg = f"{value!r} is no time zone of the IANA database, such as Asia/Ho_Chi_Minh"
            raise ValueError(msg) from error
        return value

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @classmethod
    def load(cls) -> Settings:
        """The settings of this process's environment.

        Raises:
            ConfigurationError: A variable has a wrong value; the message names it and what is allowed.
        """
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = PREFIX + str(first["loc"][0]).upper()
            reason = first["msg"].removeprefix("Value error, ")
            raise ConfigurationError(f"{name} is wrong: {reason}.", "See .env.example for what it takes.") from None

    @property
    def storage_root(self) -> str:
        """Root of Parquet files and images, as a path or URL."""
        return self.storage or str(self.home / "storage")

    @property
    def vision_hosts(self) -> tuple[str, ...]:
        """Endpoints of the vision backend in use."""
        return {"ollama": self.ollama_hosts, "openai": self.openai_base_url}.get(self.vision_backend, ())

    @property
    def prices(self) -> Prices:
        """Prices of the vision model; an hour of one slot is its share of the GPU's hour."""
        slot_hour = self.price_gpu_hour / max(self.vision_slots, 1)
        return Prices(self.price_prompt_tokens, self.price_output_tokens, slot_hour)

    @property
    def zone(self) -> ZoneInfo:
        """The business time zone."""
        return ZoneInfo(self.timezone)
