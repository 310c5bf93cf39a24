"""One outside system a file, as plain classes for assets, CLI, web and notebooks. Nothing here knows Dagster."""
