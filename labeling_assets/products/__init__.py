"""The product domain in pure Python: records, queries, deduplication, prompt, labels, description, vectors.

No network, no Dagster and no model library is imported here.
"""
