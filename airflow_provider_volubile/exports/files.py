"""The files of one export: each written whole, the manifest last, what an earlier run left over removed."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.exports import store
from airflow_provider_volubile.exports.formats import SUFFIXES, FileFormat, check_format, write_rows
from airflow_provider_volubile.exports.schemas import Schema

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

MANIFEST_VERSION = 1


def table_format(path: str | ObjectStoragePath) -> FileFormat:
    """The format of a table's file, by its name.

    :raises VolubileInputError: the suffix names none, or the format's library is not installed.
    """
    name = store.open_path(path).name
    file_format = next((known for known, suffix in SUFFIXES.items() if name.endswith(suffix)), None)
    if file_format is None:
        raise VolubileInputError(f"{path}: its name must end in {', '.join(SUFFIXES.values())}")
    check_format(file_format)
    return file_format


def write_table(path: str | ObjectStoragePath, rows: Iterable[Mapping[str, Any]], schema: Schema) -> int:
    """Write one table to one file, whole or not at all.

    :param path: its suffix names the format: ``.jsonl.gz``, ``.parquet`` or ``.csv``.
    :param rows: rows of ``schema``.
    :return: the number of rows.
    :raises VolubileInputError: as :func:`table_format` does.
    :raises VolubileStoreError: the store refused.
    """
    target = store.open_path(path)
    file_format = table_format(path)
    with tempfile.TemporaryDirectory(prefix="volubile-export-") as folder:
        local = Path(folder) / "rows"
        with local.open("wb") as file:
            count = write_rows(file, map(schema.encode, rows), schema, file_format)
        store.publish(local, target)
    return count


class Export:
    """Writes one export: data files, then a manifest that lists them.

    Files appear one by one, each complete; a reader who wants them all together reads the manifest, whose
    checksums fit only when they are. The bytes depend on the rows alone: no clock, no host, no order of
    arrival. So a second run over the same data makes the same files and the same manifest.

    Use it as a context manager: it keeps files on local disk while they are being made.

    :param folder: where the files go.
    :param name: what is exported, such as ``calls``; the manifest is ``_<name>.manifest.json`` in ``folder``.
    :param selection: what the export is of. Another export of that name in the folder is refused when it
        differs: two exports must not take turns replacing each other.
    :ivar earlier: the manifest of an earlier run of this export; empty if there was none.
    :raises VolubileInputError: the folder holds that other export.
    :raises VolubileStoreError: the folder cannot be read.
    """

    def __init__(self, folder: ObjectStoragePath, name: str, selection: Mapping[str, Any]) -> None:
        self.folder = folder
        self.manifest = folder / f"_{name}.manifest.json"
        self._selection = dict(selection)
        self._schemas: dict[str, Any] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._missing: dict[str, str] = {}
        self.look()
        # Downloads may still write there when an error has ended the export; theirs must not take its place.
        self._workspace = tempfile.TemporaryDirectory(prefix="volubile-export-", ignore_cleanup_errors=True)

    def __enter__(self) -> Export:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def look(self) -> None:
        """Read the manifest again: another run may have written it meanwhile."""
        earlier = store.read_json(self.manifest)
        self.earlier: Mapping[str, Any] = earlier if isinstance(earlier, Mapping) else {}
        if self.earlier and self.earlier.get("selection") != self._selection:
            raise VolubileInputError(
                f"{self.manifest} belongs to another export, of {self.earlier.get('selection')}; this one "
                f"is of {self._selection}. Give each its own output_path, or remove the old one."
            )
        # It comes from the store, where others may write too: it names no files outside the folder.
        self._earlier_files = {
            entry["path"]: entry
            for entry in self.earlier.get("files", ())
            if not entry["path"].startswith("/") and not {"", ".", ".."} & set(entry["path"].split("/"))
        }
        self._earlier_missing = {entry["call_id"] for entry in self.earlier.get("missing", ())}

    def close(self) -> None:
        """Remove what is left of files in the making."""
        self._workspace.cleanup()

    @property
    def workspace(self) -> Path:
        """A local folder for files in the making; it goes when the export is closed."""
        return Path(self._workspace.name)

    @property
    def files(self) -> list[str]:
        """Paths of the files written so far."""
        return [str(self.folder / path) for path in sorted(self._files)]

    @property
    def missing(self) -> Mapping[str, str]:
        """Calls that are not in the export, with the reason."""
        return self._missing

    def write_rows(self, stem: str, rows: Iterable[bytes], schema: Schema, file_format: FileFormat) -> int:
        """Write one table.

        :param stem: the file's path within the folder, without the suffix that its format gives it.
        :param rows: encoded by ``schema``.
        :return: the number of rows.
        """
        local = self.workspace / "rows"
        with local.open("wb") as file:
            count = write_rows(file, rows, schema, file_format)
        self.add_file(stem + SUFFIXES[file_format], local, rows=count)
        self._schemas[schema.name] = schema.describe()
        return count

    def add_file(self, path: str, local: Path, **facts: Any) -> None:
        """Move a complete local file into the export.

        :param path: its path within the folder.
        :param facts: what else the manifest says of it.
        """
        with local.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = local.stat().st_size
        store.publish(local, self.folder / path)
        local.unlink()
        self._files[path] = {"path": path, "bytes": size, "sha256": digest, **facts}

    def had(self, call_id: str) -> bool:
        """Whether an earlier run had this call, as far as its manifest tells: it does not name it as missing."""
        return bool(self._earlier_files) and call_id not in self._earlier_missing

    def keep(self, call_id: str | None = None) -> bool:
        """Keep what an earlier run wrote: the files of a call, or all.

        :return: whether there are any.
        """
        kept = {
            path: entry
            for path, entry in self._earlier_files.items()
            if call_id is None or entry.get("call_id") == call_id
        }
        self._files |= kept
        return bool(kept)

    def miss(self, call_id: str, reason: str) -> None:
        """Report a call that is not in the export."""
        self._missing[call_id] = reason

    def _left_over(self) -> set[str]:
        """Files of an earlier run that are no longer part of this export, nor of any other in the folder."""
        left_over = self._earlier_files.keys() - self._files.keys()
        if left_over:
            for manifest in store.find(self.folder, "_*.manifest.json"):
                if manifest.name != self.manifest.name and isinstance(other := store.read_json(manifest), Mapping):
                    left_over -= {entry.get("path") for entry in other.get("files", ()) if isinstance(entry, Mapping)}
        return left_over

    def finish(self, counts: Mapping[str, int], **facts: Any) -> str:
        """Remove what an earlier run of this export left over, and write the manifest.

        :param facts: what else the manifest says.
        :return: the manifest's path.
        """
        for path in self._left_over():
            log.info("Removing %s: no longer part of this export", self.folder / path)
            store.remove(self.folder / path)
        manifest = {
            "manifest_version": MANIFEST_VERSION,
            "selection": self._selection,
            **facts,
            "schemas": [self._schemas[name] for name in sorted(self._schemas)],
            "counts": dict(counts),
            "files": [self._files[path] for path in sorted(self._files)],
            "missing": [{"call_id": call_id, "reason": reason} for call_id, reason in sorted(self._missing.items())],
        }
        store.write_json(manifest, self.manifest)
        return str(self.manifest)
