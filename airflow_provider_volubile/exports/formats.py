"""Rows as bytes: JSON lines, Parquet, CSV. The same rows always make the same bytes."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from typing import IO, Literal, get_args

from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.exports.columns import Kind, Row, Table, to_json

FileFormat = Literal["jsonl", "parquet", "csv"]

SUFFIXES: dict[FileFormat, str] = {"jsonl": ".jsonl.gz", "parquet": ".parquet", "csv": ".csv"}

ROW_GROUP_SIZE = 2_000
# A row group also ends at so many characters: a few very long transcripts must not fill the memory.
ROW_GROUP_LENGTH = 8 * 2**20


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


def write_rows(file: IO[bytes], rows: Iterable[Row], table: Table, file_format: FileFormat) -> int:
    """Write rows, one batch in memory at a time.

    :param file: written from its current position, and left open.
    :return: how many rows were written.
    """
    write = {"jsonl": _write_jsonl, "csv": _write_csv, "parquet": _write_parquet}[file_format]
    return write(file, rows, table)


def _write_jsonl(file: IO[bytes], rows: Iterable[Row], table: Table) -> int:
    count = 0
    # Cells of the kind json are JSON already.
    members = [(f"{to_json(column.name)}:", column.kind == "json") for column in table.columns]
    # Neither a name nor a time in the header: they would make every run's bytes differ.
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as zipped:
        for row in rows:
            cells = (
                name + (str(cell) if is_json and cell is not None else to_json(cell))
                for (name, is_json), cell in zip(members, row, strict=True)
            )
            zipped.write(f"{{{','.join(cells)}}}\n".encode())
            count += 1
    return count


def _write_csv(file: IO[bytes], rows: Iterable[Row], table: Table) -> int:
    count = 0
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)  # RFC 4180: lines end in CRLF
    writer.writerow(column.name for column in table.columns)
    for row in rows:
        writer.writerow(to_json(cell) if isinstance(cell, bool) else cell for cell in row)
        count += 1
    text.detach()
    return count


def _write_parquet(file: IO[bytes], rows: Iterable[Row], table: Table) -> int:
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    cells: dict[Kind, pyarrow.DataType] = {"integer": pyarrow.int64(), "boolean": pyarrow.bool_()}
    types = cells | {"timestamp": pyarrow.timestamp("us", tz="UTC")}
    kinds = [column.kind for column in table.columns]
    schema = pyarrow.schema([(column.name, types.get(column.kind, text)) for column in table.columns])

    count = 0
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for group in _row_groups(rows):
            columns = [
                pyarrow.array(column, cells.get(kind, text)).cast(types.get(kind, text))
                for kind, column in zip(kinds, zip(*group, strict=True), strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            count += len(group)
    return count


def _row_groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    length = 0
    for row in rows:
        group.append(row)
        length += sum(len(cell) for cell in row if isinstance(cell, str))
        if len(group) == ROW_GROUP_SIZE or length >= ROW_GROUP_LENGTH:
            yield group
            group, length = [], 0
    if group:
        yield group
