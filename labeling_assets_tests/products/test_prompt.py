"""The prompt: complete, bounded, and tied to its version."""

from __future__ import annotations

import hashlib
import json

import pytest

from labeling_assets.products.labels import LABEL_SCHEMA
from labeling_assets.products.prompt import PROMPT_VERSION, build_prompt, build_reask_prompt
from labeling_assets.products.records import LABEL_FIELDS
from labeling_assets.services.vision.ollama import MIN_CONTEXT_TOKENS, context_tokens

PROMPTS_SHA256 = "b09e8ea0e824abe351229d75f0c29c4e364029a52fc7fc46ff67e94e35d5c0f4"


def test_the_prompt_changes_only_with_its_version():
    fingerprint = hashlib.sha256((build_prompt() + build_reask_prompt("fault")).encode()).hexdigest()
    assert (PROMPT_VERSION, fingerprint) == ("1", PROMPTS_SHA256), "raise PROMPT_VERSION, then note the new fingerprint"


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
