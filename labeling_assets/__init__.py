"""Product images labeled, embedded and indexed, a day at a time.

The data's way: `products.queries` says what is read from Postgres; `products.raw` and `products.dedupe` make records of
it; `services.images` fetches each image once; `services.vision` labels it; `services.embedding` turns image and
description into vectors; `services.milvus` keeps the collection in step. `defs.products.assets` tells this story as
Dagster assets.

- `settings`, `errors`: every environment variable; every error and whether a retry helps.
- `products`: the domain, pure Python.
- `services`: one outside system a file; `services.connect` builds them once a process.
- `resources`, `definitions`, `defs`, `failures`, `metadata`: Dagster.
- `instance`, `runs`, `cli`: the Dagster instance of a home, runs from outside the UI, and `labeling …`.
- `embedded`: PostgreSQL, Milvus Lite and the demo catalogue on one machine.
"""
