"""The evaluation domain: what the labels are worth, compared between models and prompts."""
