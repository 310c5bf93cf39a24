"""Settings: what they take, what they refuse, and that their documents are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labeling_assets.errors import ConfigurationError
from labeling_assets.settings import PREFIX, Settings

PROJECT = Path(__file__).parents[1]


def documented(file: str, pattern: str) -> set[str]:
    return set(re.findall(pattern, (PROJECT / file).read_text(encoding="utf-8"), re.MULTILINE))


def test_every_setting_is_in_the_example_file_and_nothing_else() -> None:
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    assert documented(".env.example", r"^#?\s?(LABELING_[A-Z0-9_]+)=") == names


def test_every_setting_is_in_the_readme() -> None:
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    assert names <= documented("README.md", r"`(LABELING_[A-Z0-9_]+)`")


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TIMEZONE", "Mars/Olympus"),
        ("FIRST_DAY", "yesterday"),
        ("VISION_BACKEND", "telepathy"),
        ("VISION_SLOTS", "-1"),
        ("VISION_TIMEOUT_SECONDS", "-1"),
        ("SOURCE_TABLE", "a.b; drop table c"),
        ("MILVUS_COLLECTION", "a-b"),
        ("MILVUS_INDEX", "DISKANN"),
        ("DESCRIPTION_LANGUAGE", "fr"),
        ("DEVICE", "quantum"),
        ("OLLAMA_HOSTS", " , "),
        ("OLLAMA_HOSTS", "http://user:secret@host:11434"),
        ("OPENAI_BASE_URL", "http://user:secret@host/v1"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    assert PREFIX + name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_relative_storage_means_the_same_folder_to_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELING_STORAGE", "data")
    assert Settings.load().storage_root == str(Path.cwd() / "data")
    monkeypatch.setenv("LABELING_STORAGE", "s3://bucket/data")
    assert Settings.load().storage_root == "s3://bucket/data"


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELING_OLLAMA_HOSTS", "http://a:11434, http://b:11434 ,")
    assert Settings.load().ollama_hosts == ("http://a:11434", "http://b:11434")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELING_MILVUS_URI", "")
    assert Settings.load().milvus_uri is None


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELING_POSTGRES_URL", "postgresql://user:hunter2@host/db")
    monkeypatch.setenv("LABELING_MILVUS_TOKEN", "root:hunter2")
    assert "hunter2" not in repr(Settings.load())
