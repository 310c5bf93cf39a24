"""Backup and restore of all that the platform keeps.

platform.py     `back_up` and `restore`, what everybody else uses
folder.py       the folder of a backup, and the manifest that makes it a whole one
databases.py    tables of PostgreSQL: ours, `data_label`, and Dagster's storage; copying.py: one table by COPY
collection.py   the Milvus collection
files.py        the storage root: Parquet files and images

The source table is not ours and is not part of a backup.
"""

from labeling_assets.services.backup.databases import Database, dagster_database, product_database
from labeling_assets.services.backup.folder import Manifest, read_manifest, verify_files
from labeling_assets.services.backup.platform import Platform, back_up, restore

__all__ = [
    "Database",
    "Manifest",
    "Platform",
    "back_up",
    "dagster_database",
    "product_database",
    "read_manifest",
    "restore",
    "verify_files",
]
