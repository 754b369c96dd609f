"""Rows as bytes: JSON lines, Parquet, CSV. The same rows always make the same bytes."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import IO, Any, Literal, get_args

from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.exports.schemas import Schema

FileFormat = Literal["jsonl", "parquet", "csv"]

SUFFIXES: dict[FileFormat, str] = {"jsonl": ".jsonl.gz", "parquet": ".parquet", "csv": ".csv"}

ROW_GROUP_SIZE = 2_000
# A row group also ends at so many bytes of JSON: a few very long transcripts must not fill the memory.
ROW_GROUP_BYTES = 8 * 2**20

_QUOTED = re.compile('[",\\r\\n]')


def check_format(file_format: str) -> None:
    """Refuse a format that cannot be written, before anything is fetched.

    :raises VolubileInputError: it is unknown, or its library is not installed.
    """
    if file_format not in SUFFIXES:
        known = ", ".join(f"'{name}'" for name in get_args(FileFormat))
        raise VolubileInputError(f"file_format is '{file_format}'; expected one of {known}")
    if file_format == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise VolubileInputError(
                "file_format 'parquet' needs pyarrow; pip install 'airflow-provider-volubile[parquet]'"
            ) from error


def write_rows(file: IO[bytes], lines: Iterable[bytes], schema: Schema, file_format: FileFormat) -> int:
    """Write rows, one batch in memory at a time.

    :param file: written from its current position, and left open.
    :param lines: rows as :meth:`~airflow_provider_volubile.exports.schemas.Schema.encode` made them.
    :return: how many rows were written.
    """
    write = {"jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet}[file_format]
    return write(file, lines, schema)


def _write_jsonl(file: IO[bytes], lines: Iterable[bytes], schema: Schema) -> int:
    rows = 0
    # Neither a name nor a time in the header: they would make every run's bytes differ.
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as zipped:
        for line in lines:
            zipped.write(line + b"\n")
            rows += 1
    return rows


def _write_csv(file: IO[bytes], lines: Iterable[bytes], schema: Schema) -> int:
    rows = 0
    names = [column.name for column in schema.columns]
    file.write(_csv_line(names))
    for line in lines:
        values = json.loads(line)
        file.write(_csv_line(values[name] for name in names))
        rows += 1
    return rows


def _csv_line(values: Iterable[Any]) -> bytes:
    return (",".join(map(_csv_cell, values)) + "\n").encode()


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else _json_text(value)
    # By hand: the csv module of Python 3.11 does not quote a lone carriage return, which ends a line to readers.
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write_parquet(file: IO[bytes], lines: Iterable[bytes], schema: Schema) -> int:
    import pyarrow
    import pyarrow.parquet

    types = {
        "string": pyarrow.string(),
        "integer": pyarrow.int64(),
        "boolean": pyarrow.bool_(),
        "timestamp": pyarrow.timestamp("us", tz="UTC"),
        "json": pyarrow.string(),
    }
    arrow = pyarrow.schema([(column.name, types[column.kind]) for column in schema.columns])
    rows = 0
    with pyarrow.parquet.ParquetWriter(file, arrow) as writer:
        for batch in _batches(lines):
            table = [_parquet_row(json.loads(line), schema) for line in batch]
            writer.write_batch(pyarrow.RecordBatch.from_pylist(table, schema=arrow))
            rows += len(batch)
    return rows


def _batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(lines)
    while batch := list(_row_group(remaining)):
        yield batch


def _row_group(lines: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for line in islice(lines, ROW_GROUP_SIZE):
        yield line
        size += len(line)
        if size >= ROW_GROUP_BYTES:
            return


def _parquet_row(row: dict[str, Any], schema: Schema) -> dict[str, Any]:
    for column in schema.columns:
        value = row[column.name]
        if value is None:
            continue
        if column.kind == "timestamp":
            row[column.name] = datetime.fromisoformat(value)
        elif column.kind == "json":
            row[column.name] = _json_text(value)
    return row
