"""One outside system a file, as plain classes usable from assets, CLI, web and notebooks. Nothing here knows Dagster."""
