"""The demo keeps away from what others have indexed."""

from __future__ import annotations

import contextlib

import pytest
from pydantic import SecretStr

from labeling_assets.embedded.demo import install
from labeling_assets.errors import ConfigurationError
from labeling_assets.settings import Settings


def test_a_collection_with_products_of_others_is_refused(milvus_uri: str) -> None:
    from pymilvus import DataType, MilvusClient

    settings = Settings(milvus_uri=milvus_uri, milvus_collection="others", milvus_token=SecretStr(""))
    with contextlib.closing(MilvusClient(milvus_uri)) as client:
        install._refuse_foreign_products(settings)
        schema = MilvusClient.create_schema()
        schema.add_field("id_sanpham", DataType.VARCHAR, is_primary=True, max_length=64)
        schema.add_field("link_redirect", DataType.VARCHAR, max_length=512)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=2)
        index = MilvusClient.prepare_index_params()
        index.add_index("vector", index_type="FLAT", metric_type="COSINE")
        client.create_collection("others", schema=schema, index_params=index)
        row = {"id_sanpham": "demo", "link_redirect": f"{install.LINK_PREFIX}x", "vector": [0.0, 1.0]}
        client.insert("others", [row])
        install._refuse_foreign_products(settings)
        client.insert("others", [row | {"id_sanpham": "real", "link_redirect": "https://shop.vn/x"}])
        with pytest.raises(ConfigurationError, match="not of the demo"):
            install._refuse_foreign_products(settings)
        client.drop_collection("others")
