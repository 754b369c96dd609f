"""Rows of a file people hand in: CSV, JSON lines, JSON or Parquet, anywhere ObjectStoragePath reaches."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from airflow_provider_volubile.exceptions import VolubileInputError, VolubileUnavailable
from airflow_provider_volubile.masking import looks_like_phone

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

FORMATS = ".csv, .jsonl, .ndjson, .json (each also with .gz) or .parquet"


def check_names(table: str, names: Iterable[str]) -> None:
    """Refuse a number in place of a column's name: a file without a header line, whose first line is a person.

    :param table: what to call it in the message, which shows none of the names.
    :raises VolubileInputError: there is one.
    """
    if any(looks_like_phone(name) for name in names):
        raise VolubileInputError(
            f"{table}: a telephone number stands where the names of columns are expected; begin with a line that names "
            "them, such as 'phone', or make each row an object with such names"
        )


class Row(NamedTuple):
    """One row.

    :param line: where it stands, from 1: the line of a text file, the position in a list, the row of a
        Parquet file.
    :param values: its cells by column.
    :param fault: why the cells cannot be trusted, if they cannot.
    """

    line: int
    values: Mapping[str, Any]
    fault: str | None = None


@dataclass
class Table:
    """Rows, read as they are asked for.

    :param name: what to call it in a message.
    :param columns: its columns in order of appearance; complete once all rows are read.
    """

    name: str
    rows: Iterator[Row]
    columns: Collection[str]


def from_items(items: Iterable[Any], name: str, text_column: str) -> Table:
    """Make a table of a list of mappings; a plain string becomes the ``text_column`` of its row."""
    return _objects(enumerate(items, start=1), name, "row", text_column)


def _objects(items: Iterable[tuple[int, Any]], name: str, unit: str, text_column: str) -> Table:
    columns: dict[str, None] = {}

    def rows() -> Iterator[Row]:
        for number, item in items:
            if isinstance(item, str):
                item = {text_column: item}
            if not isinstance(item, Mapping):
                kind = type(item).__name__
                raise VolubileInputError(f"{name}, {unit} {number}: expected an object or a string, found {kind}")
            row = {str(key): value for key, value in item.items()}
            columns.update(dict.fromkeys(row))
            yield Row(number, row)

    return Table(name, rows(), columns)


def from_path(path: str | PathLike[str] | ObjectStoragePath, text_column: str) -> Table:
    """Open a file as a table; its format and compression follow from its name.

    :raises VolubileInputError: there is no such file, or it is not what its name says. Names file and line.
    :raises VolubileUnavailable: the store did not give the file, which may pass.
    """
    from airflow.sdk import ObjectStoragePath

    name = str(path)
    stem = name.lower().removesuffix(".gz")
    kind = stem.rpartition(".")[2]
    zipped = len(stem) < len(name)
    if kind not in ("csv", "json", "jsonl", "ndjson", "parquet") or (zipped and kind == "parquet"):
        raise VolubileInputError(f"{name}: its format is not known by its name; expected {FORMATS}")
    try:
        data = (path if isinstance(path, ObjectStoragePath) else ObjectStoragePath(path)).read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ImportError, TypeError, ValueError) as error:
        raise VolubileInputError(f"{name}: cannot be read ({type(error).__name__}: {error})") from error
    except Exception as error:  # every store has its own exceptions
        raise VolubileUnavailable(
            f"{name}: cannot be read now ({type(error).__name__}: {error}). Another try reads it again."
        ) from error
    if kind == "parquet":
        return _parquet(name, data)
    if zipped:
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise VolubileInputError(f"{name}: is not a whole gzip file ({error})") from error
    text = _decode(name, data)
    if kind == "csv":
        return _csv(name, text)
    if kind == "json":
        items = _load_json(name, text, first_line=1)
        if not isinstance(items, list):
            raise VolubileInputError(f"{name}: expected a JSON list, found {type(items).__name__}")
        return from_items(items, name, text_column)
    return _json_lines(name, text, text_column)


def _decode(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise VolubileInputError(
            f"{name}, line {line}: is not UTF-8; in Excel, save it as 'CSV UTF-8 (comma delimited)'"
        ) from error


def _csv(name: str, text: str) -> Table:
    """Read CSV. Its separator is a comma, a semicolon or a tab: what divides the header into most columns."""

    def reader(separator: str) -> Iterator[tuple[int, list[str]]]:
        # strict: a quote that is never closed would otherwise swallow every row after it, without a word.
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        while True:
            start = lines.line_num + 1
            try:
                cells = next(lines)
            except StopIteration:
                return
            except csv.Error as error:
                raise VolubileInputError(f"{name}, line {start}: is not valid CSV ({error})") from error
            if any(cells):
                yield start, cells

    separator = max(",;\t", key=lambda candidate: len(next(reader(candidate), (0, []))[1]))
    records = reader(separator)
    line, header = next(records, (1, []))
    header = [cell.strip() for cell in header]
    named = [cell for cell in header if cell]
    if not named:
        raise VolubileInputError(f"{name}: has no header line")
    check_names(name, named)
    if len(set(named)) < len(named):
        twice = sorted({cell for cell in named if named.count(cell) > 1})
        raise VolubileInputError(f"{name}, line {line}: has columns of the same name: {', '.join(twice)}")

    def rows() -> Iterator[Row]:
        for start, cells in records:
            fault = None
            if any(cells[len(header) :]):
                fault = f"has {len(cells)} cells where the header has {len(header)}"
            cells += [""] * (len(header) - len(cells))
            yield Row(start, {key: cell for key, cell in zip(header, cells, strict=False) if key}, fault)

    return Table(name, rows(), named)


def _json_lines(name: str, text: str, text_column: str) -> Table:
    # Not splitlines(): it also splits at U+2028, which JSON allows within a string.
    lines = ((number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())
    items = ((number, _load_json(name, line, first_line=number)) for number, line in lines)
    return _objects(items, name, "line", text_column)


def _load_json(name: str, text: str, first_line: int) -> Any:
    def no_constant(constant: str) -> NoReturn:
        raise VolubileInputError(f"{name}, line {first_line}: {constant} is not valid JSON")

    try:
        return json.loads(text, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise VolubileInputError(
            f"{name}, line {line}: is not valid JSON ({error.msg}, column {error.colno})"
        ) from error
    except RecursionError as error:
        raise VolubileInputError(f"{name}, line {first_line}: is nested too deeply") from error


def _parquet(name: str, data: bytes) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise VolubileInputError(
            f"{name}: Parquet needs pyarrow; pip install 'airflow-provider-volubile[parquet]'"
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        columns = list(file.schema_arrow.names)
    except (pyarrow.ArrowException, OSError) as error:
        raise VolubileInputError(f"{name}: is not a valid Parquet file ({error})") from error

    def rows() -> Iterator[Row]:
        number = 0
        try:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield Row(number, row)
        except (pyarrow.ArrowException, OSError) as error:
            raise VolubileInputError(f"{name}, after row {number}: cannot be read ({error})") from error

    return Table(name, rows(), columns)
