"""Whole files in any store Airflow knows."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_volubile.exceptions import VolubileInputError, VolubileStoreError

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

# Stores in which an object appears only when its upload is complete, and which know no folders or renames.
_ATOMIC_PUT = frozenset(["s3", "s3a", "gs", "gcs", "abfs", "abfss", "adl", "az", "wasb", "oss", "obs", "oci", "memory"])
# s3fs would hold ten parts of 50 MB in memory at once.
_UPLOAD_OPTIONS: dict[str, dict[str, Any]] = {
    protocol: {"chunksize": 8 * 2**20, "max_concurrency": 1} for protocol in ("s3", "s3a")
}


def open_path(path: str | ObjectStoragePath) -> ObjectStoragePath:
    """A path as users type it: local, or ``scheme://connection_id@bucket/key``.

    :raises VolubileInputError: it is empty.
    """
    from airflow.sdk import ObjectStoragePath

    if not str(path or "").strip():
        raise VolubileInputError("output_path is empty; expected a folder, local or in a store.")
    return path if isinstance(path, ObjectStoragePath) else ObjectStoragePath(path)


@contextmanager
def _refusals(action: str, path: ObjectStoragePath) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # every store has its own exceptions
        raise VolubileStoreError(
            f"Could not {action} {path}: {type(error).__name__}: {error}. Check that the place exists, "
            "that its connection may write there, and that there is room. Nothing half written is left there."
        ) from error


def publish(local: Path, target: ObjectStoragePath) -> None:
    """Put a complete local file in its place. A reader sees the old file or the new one.

    :raises VolubileStoreError: the store refused. What was at ``target`` before is still there.
    """
    with _refusals("write", target):
        store = target.fs
        if target.protocol in _ATOMIC_PUT:
            store.put_file(str(local), target.path, **_UPLOAD_OPTIONS.get(target.protocol, {}))
            return
        temporary = target.with_name(f".{target.name}.{uuid4().hex[:12]}.tmp").path
        store.makedirs(target.parent.path, exist_ok=True)
        try:
            store.put_file(str(local), temporary)
            store.mv(temporary, target.path)
        except BaseException:
            with suppress(Exception):
                store.rm_file(temporary)
            raise


def remove(target: ObjectStoragePath) -> None:
    """Remove a file, if it is there.

    :raises VolubileStoreError: the store refused.
    """
    with _refusals("remove", target), suppress(FileNotFoundError):
        target.fs.rm_file(target.path)


def find(folder: ObjectStoragePath, pattern: str) -> list[ObjectStoragePath]:
    """Files of a folder whose names fit a pattern.

    :raises VolubileStoreError: the store refused.
    """
    with _refusals("list", folder):
        return [path for path in folder.iterdir() if path.match(pattern)]


def read_json(target: ObjectStoragePath) -> Any:
    """Read a JSON file; None if there is none, or if it cannot be understood.

    :raises VolubileStoreError: the store refused.
    """
    with _refusals("read", target):
        try:
            data: bytes = target.fs.cat_file(target.path)
        except FileNotFoundError:
            return None
    with suppress(ValueError):
        return json.loads(data)
    return None


def write_json(value: Any, target: ObjectStoragePath) -> None:
    """Write a JSON file, whole.

    :raises VolubileStoreError: the store refused.
    """
    with tempfile.NamedTemporaryFile("w", prefix="volubile-export-", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=2) + "\n")
        file.flush()
        publish(Path(file.name), target)
