"""The life of the product collection: created, mended, loaded, checked and described.

The physical collection has the name of the setting. Readers and writers go through its alias `<name>_live`, so that a
collection built anew beside it takes over by moving one alias. The alias is made last: what it leads to is complete.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from labeling_assets.errors import ConfigurationError, EmbedderMismatchError
from labeling_assets.services.embedding import EmbedderIdentity
from labeling_assets.services.milvus.connection import LOAD_SECONDS, MilvusConnection
from labeling_assets.services.milvus.schema import (
    DIMENSION_PROPERTY,
    EMBEDDER_PROPERTY,
    SCHEMA_PROPERTY,
    VECTOR_FIELDS,
    collection_properties,
    collection_schema,
    index_parameters,
)

logger = logging.getLogger(__name__)
ALIAS_SUFFIX = "_live"
INDEX_TYPES = ("auto", "FLAT", "IVF_FLAT", "HNSW")
REMEDY = (
    "Restore LABELING_EMBEDDER, LABELING_EMBEDDER_DIMENSION and LABELING_DTYPE, or re-index: set "
    "LABELING_MILVUS_COLLECTION to a new name and run the days again; labels are kept."
)
_COMPARED = {EMBEDDER_PROPERTY: "embedder", DIMENSION_PROPERTY: "dimension", SCHEMA_PROPERTY: "schema"}


@dataclass(frozen=True)
class CollectionState:
    """What the collection is like at this moment.

    Attributes:
        rows: Products it holds.
        load_state: Loaded, Loading or NotLoad.
        indexes: Index type by vector field.
        alias: Name that readers and writers use.
        physical_name: Collection that the alias leads to.
        embedder: `EmbedderIdentity.key` of its vectors.
        dimension: Length of its vectors.
        schema_version: Version of its fields.
        server: Version of the server.
    """

    rows: int
    load_state: str
    indexes: dict[str, str]
    alias: str
    physical_name: str
    embedder: str
    dimension: int
    schema_version: str
    server: str


class ProductCollection:
    """The collection behind one alias.

    Args:
        connection: Connection to the server.
        name: Physical name of a collection that is created.
        index: auto, FLAT, IVF_FLAT or HNSW; auto is FLAT on Milvus Lite and IVF_FLAT on a server.
        identity: Embedder whose vectors it holds.
        writer_lock: Lock of all writers of this collection.

    Raises:
        ConfigurationError: The index type is unknown; Milvus Lite would accept it and fail later, in the background.
    """

    def __init__(
        self,
        connection: MilvusConnection,
        name: str,
        index: str,
        identity: EmbedderIdentity,
        writer_lock: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        if index not in INDEX_TYPES:
            raise ConfigurationError(
                f"{index!r} is no index type.", f"LABELING_MILVUS_INDEX takes {', '.join(INDEX_TYPES)}."
            )
        self._connection = connection
        self._name = name
        self._index = index
        self._identity = identity
        self._writer_lock = writer_lock
        self.alias = name + ALIAS_SUFFIX

    def ensure(self) -> None:
        """Create the collection, or what is missing of it after a crash, and load it.

        Raises:
            EmbedderMismatchError: It holds vectors of another embedder, dimension or schema, or of unknown origin.
        """
        if not self._is_complete():
            with self._writer_lock():
                self._complete()
        self._connection.call("load_collection", self.alias, seconds=LOAD_SECONDS)

    def check(self, identity: EmbedderIdentity) -> None:
        """Make sure that the alias leads to vectors of this embedder.

        Raises:
            ConfigurationError: There is no collection yet.
            EmbedderMismatchError: It holds vectors of another embedder, dimension or schema.
        """
        self._check_origin(self._existing_name(), identity)

    def state(self) -> CollectionState:
        """The state of the collection.

        Raises:
            ConfigurationError: There is no collection yet.
        """
        name = self._existing_name()
        properties = self._connection.call("describe_collection", name)["properties"]
        count = self._connection.call(
            "query", self.alias, filter="", output_fields=["count(*)"], consistency_level="Strong"
        )
        return CollectionState(
            rows=int(count[0]["count(*)"]),
            load_state=self._connection.call("get_load_state", name)["state"].name,
            indexes=self.indexes(),
            alias=self.alias,
            physical_name=name,
            embedder=properties.get(EMBEDDER_PROPERTY, ""),
            dimension=int(properties.get(DIMENSION_PROPERTY, 0)),
            schema_version=properties.get(SCHEMA_PROPERTY, ""),
            server=self._connection.server_version(),
        )

    def indexes(self, name: str = "") -> dict[str, str]:
        """Index type by vector field; a field without index is missing."""
        name = name or self.alias
        built = self._connection.call("list_indexes", name)
        return {
            field: str(self._connection.call("describe_index", name, field)["index_type"])
            for field in VECTOR_FIELDS
            if field in built
        }

    def physical_name(self) -> str | None:
        """The collection that the alias leads to, or else the one of the configured name, if there is one."""
        if self._connection.call("has_collection", self.alias):
            return str(self._connection.call("describe_alias", self.alias)["collection_name"])
        return self._name if self._connection.call("has_collection", self._name) else None

    def _existing_name(self) -> str:
        name = self.physical_name()
        if name is None:
            raise ConfigurationError(
                f"Milvus at {self._connection.address} has no collection {self._name}.",
                "Materialize a day first: `labeling run --start … --end …`.",
            )
        return name

    def _is_complete(self) -> bool:
        if not self._connection.call("has_collection", self.alias):
            return False
        name = self._existing_name()
        self._check_origin(name, self._identity)
        built = self.indexes(name)
        if self._index != "auto" and set(built.values()) - {self._index}:
            logger.warning("%s keeps its indexes %s; %s is for a collection built anew.", name, built, self._index)
        return set(built) == set(VECTOR_FIELDS)

    def _complete(self) -> None:
        """Do what is missing, one idempotent step after the other."""
        name = self.physical_name()
        if name is None:
            name = self._name
            self._connection.call(
                "create_collection",
                name,
                schema=collection_schema(self._identity.dimension),
                properties=collection_properties(self._identity),
                consistency_level="Bounded",
            )
        self._check_origin(name, self._identity)
        self._create_missing_indexes(name)
        if not self._connection.call("has_collection", self.alias):
            self._connection.call("create_alias", name, self.alias)

    def _create_missing_indexes(self, name: str) -> None:
        from pymilvus import MilvusClient

        index = self._index_type()
        built = self.indexes(name)
        for field in VECTOR_FIELDS:
            if field not in built:
                parameters = MilvusClient.prepare_index_params()
                # Milvus Lite names an index after its field, whatever it is told.
                parameters.add_index(field, index_name=field, **index_parameters(index, self._identity.dimension))
                # An empty collection has nothing to wait for; the load that follows waits for the rest.
                self._connection.call("create_index", name, parameters, sync=False)

    def _index_type(self) -> str:
        if self._index != "auto":
            return self._index
        return "FLAT" if self._connection.is_lite else "IVF_FLAT"

    def _check_origin(self, name: str, identity: EmbedderIdentity) -> None:
        properties = self._connection.call("describe_collection", name)["properties"]
        if EMBEDDER_PROPERTY not in properties:
            raise EmbedderMismatchError(
                f"Collection {name} at {self._connection.address} does not tell whose vectors it holds.", REMEDY
            )
        wanted = collection_properties(identity)
        for key, what in _COMPARED.items():
            if properties.get(key) != wanted[key]:
                raise EmbedderMismatchError(
                    f"Collection {name} is of {what} {properties.get(key)}, but {wanted[key]} is in use.",
                    REMEDY,
                )
