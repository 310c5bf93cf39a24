"""Milvus: the collection of products, its synchronisation day by day, and search.

store.py        `MilvusStore`, what everybody else uses
collection.py   the collection is created, mended, loaded, checked and described
day_sync.py     one day in Milvus is made equal to the day's records
rows.py         rows are read and written by key and by day
filters.py      filter expressions, and the only way in for outside values
schema.py       fields, indexes and properties
connection.py   deadlines, retries and errors of one connection
"""

from labeling_assets.services.milvus.collection import CollectionState
from labeling_assets.services.milvus.day_sync import SyncResult
from labeling_assets.services.milvus.rows import StoredProduct
from labeling_assets.services.milvus.store import MilvusStore, ProductHit

__all__ = ["CollectionState", "MilvusStore", "ProductHit", "StoredProduct", "SyncResult"]
