"""The prompt: complete, bounded, and tied to its version."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling_assets.errors import ConfigurationError
from labeling_assets.products.labels import LABEL_SCHEMA
from labeling_assets.products.prompt import (
    MAX_PROMPT_BYTES,
    PROMPT_VERSION,
    Prompt,
    build_prompt,
    build_reask_prompt,
    packaged_prompt,
    prompt_of_file,
    prompt_versions,
)
from labeling_assets.products.records import LABEL_FIELDS
from labeling_assets.services.vision.ollama import MIN_CONTEXT_TOKENS, context_tokens

PROMPTS_SHA256 = {"1": "b09e8ea0e824abe351229d75f0c29c4e364029a52fc7fc46ff67e94e35d5c0f4"}


def test_a_version_never_changes_its_text():
    found = {
        version: hashlib.sha256((build_prompt(version) + build_reask_prompt("fault", version)).encode()).hexdigest()
        for version in prompt_versions()
    }
    assert found == PROMPTS_SHA256, "another text is another folder, and its fingerprint is noted here"


def test_the_version_in_use_is_the_newest():
    assert prompt_versions()[-1] == PROMPT_VERSION


def test_a_version_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigurationError, match=r"no prompt '7'.*Versions: 1"):
        packaged_prompt("7")


def test_the_prompt_is_the_same_text_every_time():
    assert build_prompt() is build_prompt()


@pytest.mark.parametrize("field", LABEL_FIELDS)
def test_every_field_is_explained_before_the_schema(field):
    explanation = build_prompt().partition('{"type"')[0]
    assert f"- {field}: " in explanation


def test_the_allowed_trademark_levels_are_all_named():
    explanation = build_prompt().partition('{"type"')[0]
    assert all(f'"{level}"' in explanation for level in LABEL_SCHEMA["properties"]["trademark_level"]["enum"])


def test_the_prompt_ends_with_the_schema_itself():
    prompt = build_prompt()
    assert json.loads(prompt[prompt.index('{"type"') :]) == LABEL_SCHEMA


def test_the_reasons_for_the_prompt_are_not_sent():
    assert "<!--" not in build_prompt()
    assert "PROMPT_VERSION" not in build_prompt()
    assert "{schema}" not in build_prompt()


def test_a_second_request_names_the_fault_and_repeats_the_task():
    prompt = build_reask_prompt("occasion: Field required")
    assert "occasion: Field required" in prompt
    assert prompt.startswith(build_prompt())


def test_first_and_second_prompt_fit_in_the_default_context_with_image_and_answer():
    longest_fault = "placement_display_context.7: Input should be a valid string"
    assert context_tokens(build_prompt()) == MIN_CONTEXT_TOKENS
    assert context_tokens(build_reask_prompt(longest_fault)) == MIN_CONTEXT_TOKENS


def own_prompt(folder: Path, text: str | bytes) -> Prompt:
    path = folder / "prompt.md"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return prompt_of_file(path)


def test_a_prompt_of_ones_own_holds_the_schema_and_no_comment(tmp_path):
    prompt = own_prompt(tmp_path, "<!-- why -->\nLabel this: {schema}\n")
    assert prompt.text == "Label this: " + build_prompt()[build_prompt().index('{"type"') :]
    assert prompt.again("occasion: Field required").startswith(prompt.text)


def test_its_version_follows_from_what_is_sent(tmp_path):
    first = own_prompt(tmp_path, "Label this: {schema}")
    assert first == own_prompt(tmp_path, "<!-- another reason -->\nLabel this: {schema}\n")
    assert first.version != own_prompt(tmp_path, "Label that: {schema}").version
    assert first.version.startswith("file-")
    assert first.version not in prompt_versions()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Label this.", "does not show the schema"),
        ("", "does not show the schema"),
        (b"\xff\xfe {schema}", "no UTF-8 text"),
        ("{schema}" + "é" * MAX_PROMPT_BYTES, "longer than"),
    ],
)
def test_a_file_that_is_no_prompt_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigurationError, match=message):
        own_prompt(tmp_path, text)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path / "none.md", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            prompt_of_file(path)


@given(st.text())
def test_a_fault_stands_in_the_second_request_as_it_is(fault):
    assert fault in build_reask_prompt(fault)
    assert build_reask_prompt(fault).count(build_prompt()) == 1
