"""The files of one export: each written whole, the manifest last, what an earlier run left over removed."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.exports import store
from airflow_provider_volubile.exports.columns import Row, Table
from airflow_provider_volubile.exports.formats import SUFFIXES, FileFormat, check_format, write_rows

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


def write_table(path: str | ObjectStoragePath, records: Iterable[Any], table: Table) -> int:
    """Write one table to one file, whole or not at all.

    :param path: its suffix names the format: ``.jsonl.gz``, ``.parquet`` or ``.csv``.
    :param records: records of ``table``.
    :return: the number of rows.
    :raises VolubileInputError: as :func:`table_format` does.
    :raises VolubileStoreError: the store refused.
    """
    target = store.open_path(path)
    file_format = table_format(path)
    with tempfile.NamedTemporaryFile(prefix="volubile-export-") as file:
        count = write_rows(file, map(table.row, records), table, file_format)
        file.flush()
        store.publish(Path(file.name), target)
    return count


class Export:
    """Writes one export: data files, then a manifest that lists them.

    Files appear one by one, each complete; a reader who wants them all together reads the manifest, whose
    checksums fit only when they are. The bytes depend on the rows alone: no clock, no host, no order of
    arrival. So a second run over the same data makes the same files and the same manifest.

    :param folder: where the files go.
    :param what: what is exported, such as ``calls``; the manifest is ``_<what>.manifest.json`` in ``folder``, or
        ``_<what>-<key>.manifest.json``.
    :param key: tells the files of this export from those of others in the folder.
    :param selection: what the export is of. Another export of that name in the folder is refused when it
        differs: two exports must not take turns replacing each other.
    :ivar earlier: the manifest of an earlier run of this export; empty if there was none.
    :ivar missing: the reason of each call that is not in the export, by its id.
    :raises VolubileInputError: the folder holds that other export.
    :raises VolubileStoreError: the folder cannot be read.
    """

    def __init__(
        self, folder: ObjectStoragePath, what: str, selection: Mapping[str, Any], *, key: str | None = None
    ) -> None:
        self.folder = folder
        self._key = f"-{key}" if key else ""
        self.manifest = folder / f"_{what}{self._key}.manifest.json"
        self.missing: dict[str, str] = {}
        self._selection = dict(selection)
        self._tables: dict[str, Table] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self.read_earlier()

    def read_earlier(self) -> None:
        """Read the manifest, once more if another run may have written it meanwhile."""
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

    @property
    def files(self) -> list[str]:
        """Paths of the files written so far."""
        return [str(self.folder / path) for path in sorted(self._files)]

    def write_rows(self, stem: str, rows: Iterable[Row], table: Table, file_format: FileFormat) -> None:
        """Write one file of a table.

        :param stem: the file's path within the folder, without the key and the suffix of its format.
        """
        with tempfile.NamedTemporaryFile(prefix="volubile-export-") as file:
            count = write_rows(file, rows, table, file_format)
            file.flush()
            self.add_file(stem + self._key + SUFFIXES[file_format], Path(file.name), rows=count)
        self._tables[table.name] = table

    def add_file(self, path: str, local: Path, **facts: Any) -> None:
        """Copy a complete local file into the export.

        :param path: its path within the folder.
        :param facts: what else the manifest says of it.
        """
        with local.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        store.publish(local, self.folder / path)
        self._files[path] = {"path": path, "bytes": local.stat().st_size, "sha256": digest, **facts}

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

    def finish(self, counts: Mapping[str, int], **facts: Any) -> str:
        """Remove what an earlier run of this export left over, and write the manifest.

        :param facts: what else the manifest says.
        :return: the manifest's path.
        """
        left_over = self._earlier_files.keys() - self._files.keys()
        if left_over:  # but for the files of other exports in the folder
            for found in store.find(self.folder, "_*.manifest.json"):
                if found.name != self.manifest.name and isinstance(other := store.read_json(found), Mapping):
                    left_over -= {entry.get("path") for entry in other.get("files", ()) if isinstance(entry, Mapping)}
        for path in left_over:
            log.info("Removing %s: no longer part of this export", self.folder / path)
            store.remove(self.folder / path)
        manifest = {
            "manifest_version": MANIFEST_VERSION,
            "selection": self._selection,
            **facts,
            "schemas": [table.describe() for _, table in sorted(self._tables.items())],
            "counts": dict(counts),
            "files": [entry for _, entry in sorted(self._files.items())],
            "missing": [{"call_id": call_id, "reason": reason} for call_id, reason in sorted(self.missing.items())],
        }
        store.write_json(manifest, self.manifest)
        return str(self.manifest)
