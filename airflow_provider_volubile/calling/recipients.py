"""People to call: read, normalise to E.164, reject with a reason, split in parts."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.calling import tables
from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.masking import HIDDEN, is_file, mask_phone

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

REJECTIONS_LOGGED = 20

TOO_LONG = "is too long for a number of its country (two numbers in one cell?)"

RESERVED = "system"
"""Key of the context that Volubile fills in itself (https://docs.volubile.ai/en/product/prompt/context)."""

# Column names "must avoid spaces and special characters" (https://docs.volubile.ai/en/product/prompt/context).
_PROMPT_NAME = re.compile(r"[A-Za-z0-9_]+")

_DIGIT = re.compile(r"\d")
_SPREADSHEET_FLOAT = re.compile(r"\+?\d+(?:[.,]\d+)?[eE]\+?\d+")
_DECIMAL = re.compile(r"\+?\d+[.,]0+")
_NUMBER = re.compile(r"\+?[\d\s()./\-\u2010-\u2015\u2212]*\d[\d\s()./\-\u2010-\u2015\u2212]*")


@dataclass(frozen=True, slots=True)
class Recipient:
    """A person to call.

    :param phone: the number in E.164.
    :param context: values for the placeholders of the agent's prompt, as they are sent
        (:func:`airflow_provider_volubile.api.wire.context_values`).
    :param line: where the source names them, from 1 (see :class:`~airflow_provider_volubile.calling.tables.Row`).
    """

    phone: str
    context: Mapping[str, Any]
    line: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """A row nobody is called for.

    :param line: where it stands in the source, from 1.
    :param phone: its number, masked.
    :param reason: why, for a person to read; never holds the number.
    """

    line: int
    phone: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recipients:
    """What a source holds.

    :param accepted: people to call, each number once, in the order of the source.
    :param rejected: rows nobody is called for, in the order of the source.
    :param unknown_range: how many accepted numbers have a possible length but lie in no range known to be
        in use.
    """

    accepted: tuple[Recipient, ...]
    rejected: tuple[Rejection, ...]
    unknown_range: int


def read_recipients(
    source: str | PathLike[str] | ObjectStoragePath | Iterable[Mapping[str, Any] | str],
    *,
    phone_field: str = "phone",
    context_fields: Collection[str] | str | None = None,
    default_region: str | None = None,
    strict_numbers: bool = False,
) -> Recipients:
    """Read people to call. A row that cannot be used is rejected with a reason and never stops the others.

    :param source: a list of numbers, of flat rows, or of ``{"phone": ..., "context": {...}}`` (the keys of an
        object named ``context`` count as columns of their own); or the path of a CSV (comma, semicolon or
        tab), JSON lines, JSON or Parquet file in any store Airflow knows.
    :param phone_field: the column that holds the number.
    :param context_fields: the columns that become the recipient's context, in a list or, as templates render it, in
        one text with commas; by default all but the number.
    :param default_region: ISO 3166 country whose national numbers are understood, such as ``FR``. Without it
        a number must begin with ``+`` and its country code; it is never guessed.
    :param strict_numbers: also reject numbers of a possible length that lie in no range known to be in use.
        Numbering plans change, and the ranges reserved for fiction count as unknown.
    :raises VolubileInputError: the source cannot be read, lacks a column, or holds a context value that is
        not JSON. Names the file, the line and the column, and never a value.
    """
    if isinstance(context_fields, str):
        context_fields = [name.strip() for name in context_fields.split(",") if name.strip()]
    parse = _NumberReader(default_region, strict_numbers)
    table = _open(source, phone_field)
    accepted: dict[str, Recipient] = {}
    rejected: list[Rejection] = []
    columns: dict[str, None] = {}
    unknown_range = 0

    for line, values, fault in table.rows:
        cells = dict(values)
        raw = cells.pop(phone_field, None)
        if isinstance(cells.get("context", ""), Mapping | None):
            cells |= {str(key): value for key, value in (cells.pop("context") or {}).items()}
        columns.update(dict.fromkeys(cells))
        number = parse(raw)
        if fault is None and number.reason is None and number.phone in accepted:
            fault = f"same number as line {accepted[number.phone].line}"
        reason = fault or number.reason
        if reason is not None:
            rejected.append(Rejection(line, mask_phone(number.phone), reason))
            continue
        context = _context(cells, context_fields, f"{table.name}, line {line}")
        accepted[number.phone] = Recipient(number.phone, context, line)
        unknown_range += not number.known_range

    _check_columns(table, columns, phone_field, context_fields)
    _warn_of_columns(table.name, [name for name in columns if context_fields is None or name in context_fields])
    _warn_of_rows(table.name, rejected, unknown_range)
    return Recipients(tuple(accepted.values()), tuple(rejected), unknown_range)


def split_parts(recipients: Sequence[Recipient], size: int = 1000) -> list[tuple[Recipient, ...]]:
    """Cut recipients into parts that fit one request each, in order.

    :param size: most people in a part. 1,000 is the documented limit of a campaign
        (https://docs.volubile.ai/api-reference/campaigns/create).
    """
    return [tuple(recipients[start : start + size]) for start in range(0, len(recipients), size)]


def _open(source: Any, phone_field: str) -> tables.Table:
    if isinstance(source, str) and source.lstrip()[:1] in ("[", "{"):
        raise VolubileInputError(
            "recipients: got the text of a list where a list or a path is expected; hand over the task's "
            "output itself (recipients=task.output), or set render_template_as_native_obj=True on the Dag"
        )
    if isinstance(source, str | int) and len(_DIGIT.findall(text := str(source))) >= 7 and not is_file(text):
        masked = mask_phone(text)
        got = f"{_DIGIT.sub('*', text)}, a text" if masked == HIDDEN else f"{masked}, a number"
        raise VolubileInputError(
            f"recipients: got {got} where a list or a path is expected: a list, if only of one number, or the path of "
            f"a file; expected {tables.FORMATS}"
        )
    if isinstance(source, Mapping):
        raise VolubileInputError("recipients: got one object where a list of them, or a path, is expected")
    if isinstance(source, str | PathLike) or not isinstance(source, Iterable):
        return tables.from_path(source, phone_field)
    return tables.from_items(source, "recipients", phone_field)


def _check_columns(
    table: tables.Table, context: Collection[str], phone_field: str, context_fields: Collection[str] | None
) -> None:
    there = list(dict.fromkeys([*table.columns, *context]))
    tables.check_names(table.name, there)
    for option, column in [
        ("phone_field", phone_field),
        *(("context_fields", field) for field in context_fields or ()),
    ]:
        if there and column not in there:
            raise VolubileInputError(
                f"{table.name}: has no column '{column}' ({option}); its columns: {_listed(there)}"
            )


def _context(cells: Mapping[str, Any], fields: Collection[str] | None, where: str) -> dict[str, Any]:
    chosen = {name: value for name, value in cells.items() if fields is None or name in fields}
    chosen.pop(RESERVED, None)
    try:
        return wire.context_values(chosen)
    except VolubileInputError as error:
        raise VolubileInputError(f"{where}: {error}") from error


def _warn_of_columns(source: str, names: Collection[str]) -> None:
    if RESERVED in names:
        log.warning("%s: '%s' is left out: Volubile fills it in itself", source, RESERVED)
    odd = [name for name in names if not _PROMPT_NAME.fullmatch(name)]
    if odd:
        log.warning(
            "%s: the agent's prompt cannot use columns whose names hold spaces or special characters; rename "
            "them with underscores, or choose others with context_fields: %s",
            source,
            _listed(odd),
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _warn_of_rows(source: str, rejected: Sequence[Rejection], unknown_range: int) -> None:
    for rejection in rejected[:REJECTIONS_LOGGED]:
        log.warning("%s, line %d (%s): not called: %s", source, rejection.line, rejection.phone, rejection.reason)
    if len(rejected) > REJECTIONS_LOGGED:
        log.warning("%s: %d more rows are not called", source, len(rejected) - REJECTIONS_LOGGED)
    if unknown_range:
        log.warning(
            "%s: %d numbers have a possible length but lie in no range known to be in use; they are called "
            "all the same (strict_numbers=True rejects them)",
            source,
            unknown_range,
        )


class _Number(NamedTuple):
    """A cell read as a telephone number: in E.164 if it is one, else as it stands, with the reason."""

    phone: str
    reason: str | None = None
    known_range: bool = True


class _NumberReader:
    """Reads cells as telephone numbers. Loads ``phonenumbers``, which is not small, when made."""

    def __init__(self, default_region: str | None, strict: bool) -> None:
        import phonenumbers

        if default_region is not None and default_region not in phonenumbers.SUPPORTED_REGIONS:
            raise VolubileInputError(
                f"default_region '{default_region}' is no ISO 3166 country with telephone numbers; "
                "expected two capital letters, such as 'FR'"
            )
        self._lib = phonenumbers
        self._region = default_region
        self._strict = strict

    def __call__(self, cell: Any) -> _Number:
        if isinstance(cell, bool) or not isinstance(cell, str | int | float | None):
            return _Number("", f"holds {type(cell).__name__} where a number belongs")
        # NFKC makes plain spaces and digits of unbreakable spaces and full-width digits. Invisible direction
        # marks come with numbers copied from an address book; spreadsheets mark text by a leading apostrophe.
        text = unicodedata.normalize("NFKC", "" if cell is None else str(cell))
        text = "".join(char for char in text if unicodedata.category(char) != "Cf")
        text = text.strip().removeprefix("'").removeprefix("tel:").strip()
        reason = self._unreadable(text)
        return _Number(text, reason) if reason else self._parse(text)

    @staticmethod
    def _unreadable(text: str) -> str | None:
        if not text:
            return "has no number"
        if _SPREADSHEET_FLOAT.fullmatch(text):
            return (
                "a spreadsheet turned the number into scientific notation (as in 3.36E+10), which may have "
                "cost digits; format the column as text there and enter it again"
            )
        if _DECIMAL.fullmatch(text):
            return "the number was stored as a decimal (as in 33600000000.0); store the column as text"
        if not _NUMBER.fullmatch(text):
            return "holds characters that do not belong to a number"
        return None

    def _parse(self, text: str) -> _Number:
        lib = self._lib
        if self._region is None and not text.startswith("+"):
            return _Number(
                text,
                "does not begin with + and a country code, and no default_region is set (a spreadsheet may "
                "have dropped the + or a leading zero)",
            )
        try:
            number = lib.parse(text, self._region)
        except lib.NumberParseException as error:
            return _Number(text, self._no_number(error.error_type))
        phone = lib.format_number(number, lib.PhoneNumberFormat.E164)
        known = lib.is_valid_number(number)
        if not known and lib.is_possible_short_number(number):
            return _Number(phone, "is an emergency or short number")
        if number.italian_leading_zero and not known and self._drops_zero(number):
            return _Number(phone, "has a zero too many, or is one digit short")
        length = lib.is_possible_number_with_reason(number)
        if length != lib.ValidationResult.IS_POSSIBLE:
            return _Number(phone, self._bad_length(length))
        if self._strict and not known:
            return _Number(phone, "lies in no range known to be in use (strict_numbers)")
        return _Number(phone, known_range=known)

    def _no_number(self, error: int) -> str:
        known = self._lib.NumberParseException
        if error == known.INVALID_COUNTRY_CODE:
            return "its country code does not exist"
        return TOO_LONG if error == known.TOO_LONG else "is not a telephone number"

    def _drops_zero(self, number: Any) -> bool:
        """Whether the number's country writes a 0 before its numbers that is not part of them."""
        region = self._lib.region_code_for_country_code(number.country_code)
        return bool(self._lib.ndd_prefix_for_region(region, True) == "0")

    def _bad_length(self, length: int) -> str:
        result = self._lib.ValidationResult
        if length == result.TOO_SHORT:
            return "is too short for a number of its country"
        if length == result.TOO_LONG:
            return TOO_LONG
        if length == result.IS_POSSIBLE_LOCAL_ONLY:
            return "lacks its area code"
        return "has a length that no number of its country has"
