"""Where the files of a model are: a folder of the user's, or a download from the Hugging Face Hub, and their digest.

The size of a download is said beforehand. It goes on where the connection breaks off; a process that is killed loses
the file at work, not the finished ones. What is already here is used without asking the network. Nothing of a model is
executed: only weights, tokenizers and settings are fetched.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labeling_assets.errors import ConfigurationError
from labeling_assets.services.embedding.batches import first_line

_DIGEST_FILE = ".labeling-digest.json"
_MODEL_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHUNK_BYTES = 1 << 20
_DATA = "_data"
"""What the name of a file with the weights of an ONNX graph ends in."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model on this machine.

    Attributes:
        folder: Where they are.
        commit: Commit of the Hub that they are of; empty for a folder of the user's.
    """

    folder: Path
    commit: str

    def revision(self, patterns: Sequence[str]) -> str:
        """What tells these files from any others: the commit, where known, and the digest of those that count."""
        digest = files_digest(self.folder, patterns)[:16]
        return f"{self.commit[:12]}+{digest}" if self.commit else digest


def model_files(model: str, revision: str, patterns: Sequence[str]) -> ModelFiles:
    """The files of a model, downloaded if they are not here.

    Args:
        model: A folder, or `owner/name` on the Hub.
        revision: Commit, tag or branch; empty: the main branch as it was when first downloaded.
        patterns: Which files are needed, such as `*.safetensors`.

    Raises:
        ConfigurationError: There is neither such a folder nor such a model, or it is not here and cannot be downloaded.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return ModelFiles(folder, "")
    if not _MODEL_ID.fullmatch(model):
        raise ConfigurationError(
            f"LABELING_EMBEDDER is {model!r}, which is no embedder of this platform, no folder and no model id.",
            "Set it to embedded, jina-clip-v2, siglip2-large, a folder, or owner/name of the Hugging Face Hub.",
        )
    try:
        import huggingface_hub  # noqa: F401 - asked for here, where its absence can be explained
    except ImportError as error:
        raise ConfigurationError(
            "Models are downloaded with the package huggingface-hub, which is missing.",
            "Install it: pip install 'labeling-assets[jina]'",
        ) from error
    snapshot = _present(model, revision, patterns) or _downloaded(model, revision, patterns)
    return ModelFiles(snapshot, snapshot.name if _COMMIT.fullmatch(snapshot.name) else "")


def _present(model: str, revision: str, patterns: Sequence[str]) -> Path | None:
    """The folder of an earlier download, if it is whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            model, revision=revision or None, allow_patterns=list(patterns), local_files_only=True
        )
    except LocalEntryNotFoundError:  # nothing, or a part
        return None
    except HFValidationError as error:
        raise ConfigurationError(
            f"LABELING_EMBEDDER is no model id: {first_line(error)}", "Correct it: owner/name, or a folder."
        ) from error
    return Path(folder) if _is_whole(Path(folder), patterns) else None


def _is_whole(folder: Path, patterns: Sequence[str]) -> bool:
    """Whether a folder of the cache has what no model can do without.

    The library knows what belongs to a download of its own, but not to what other programs have left there.
    """
    for pattern in patterns:
        if pattern.endswith(_DATA):
            graph = folder / pattern.removesuffix(_DATA)
            if not (folder / pattern).is_file() and _names(graph, Path(pattern).name):
                return False
        elif ("*" not in pattern or pattern == "*.safetensors") and not _matching(folder, [pattern]):
            return False
    return True


def _names(graph: Path, file: str) -> bool:
    """Whether an ONNX graph has its weights in another file, which it names."""
    if not graph.stat().st_size:
        return False
    with graph.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return mapped.find(file.encode()) >= 0


def _downloaded(model: str, revision: str, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    wanted = list(patterns)
    try:
        files = snapshot_download(model, revision=revision or None, allow_patterns=wanted, dry_run=True)
        size = sum(file.file_size or 0 for file in files if file.will_download)
        _log.info("Downloading %s of %s from the Hugging Face Hub, once.", _readable(size), model)
        return Path(snapshot_download(model, revision=revision or None, allow_patterns=wanted))
    except Exception as error:  # several libraries are at work below, each with errors of its own
        raise _explained(error, model, revision) from error


def _explained(error: Exception, model: str, revision: str) -> ConfigurationError:
    from huggingface_hub.errors import DryRunError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    # The library tells of a dry run that it failed, and has the reason behind.
    reason = error.__cause__ if isinstance(error, DryRunError) and error.__cause__ else error
    if isinstance(reason, GatedRepoError):
        return ConfigurationError(
            f"{model} is only given to those who accepted its terms.",
            "Accept them on its page at huggingface.co, and set HF_TOKEN.",
        )
    if isinstance(reason, RepositoryNotFoundError | RevisionNotFoundError):
        at = f" at revision {revision}" if revision else ""
        return ConfigurationError(
            f"The Hugging Face Hub has no model {model}{at}.",
            "Correct LABELING_EMBEDDER; a private one needs HF_TOKEN.",
        )
    return ConfigurationError(
        f"{model} is not on this machine and cannot be downloaded: {first_line(reason)}",
        "Go online once, or copy the model here and set LABELING_EMBEDDER to its folder.",
    )


def files_digest(folder: Path, patterns: Sequence[str]) -> str:
    """sha256, hex, over the names and contents of the files that the patterns name.

    Kept beside the files, and computed anew when the size or the time of one has changed.

    Raises:
        ConfigurationError: There is no such file.
    """
    files = _matching(folder, patterns)
    if not files:
        raise ConfigurationError(
            f"{folder} holds none of {', '.join(patterns)}.", "Set LABELING_EMBEDDER to the folder of a whole model."
        )
    state = {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in files.items()}
    kept = _kept_digests(folder)
    key = hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
    if key not in kept:
        digest = hashlib.sha256()
        for name, path in files.items():
            digest.update(f"{name}\0{_file_digest(path)}\n".encode())
        kept[key] = digest.hexdigest()
        try:
            (folder / _DIGEST_FILE).write_text(json.dumps(kept), encoding="utf-8")
        except OSError as error:  # a shared folder of models is often mounted to be read only
            _log.info("The digest of %s is computed at every start, since it cannot be kept there: %s", folder, error)
    return kept[key]


def _matching(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    """The files that the patterns name, by their path in the folder, in order."""
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return {path.relative_to(folder).as_posix(): path for path in sorted(found) if path.name != _DIGEST_FILE}


def _kept_digests(folder: Path) -> dict[str, str]:
    try:
        kept = json.loads((folder / _DIGEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or half written: it is written anew
        return {}
    return kept if isinstance(kept, dict) else {}


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _readable(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
