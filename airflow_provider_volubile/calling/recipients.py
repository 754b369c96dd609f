"""People to call: read, normalise to E.164, reject with a reason, split in parts."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.calling import tables
from airflow_provider_volubile.exceptions import VolubileInputError
from airflow_provider_volubile.masking import HIDDEN, is_file, mask_phone

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

REJECTIONS_LOGGED = 20

NO_COUNTRY = (
    "does not begin with + and a country code, and no default_region is set (a spreadsheet may have dropped the + or a "
    "leading zero)"
)
TOO_LONG = "is too long for a number of its country (two numbers in one cell?)"

RESERVED = "system"
"""Key of the context that Volubile fills in itself (https://docs.volubile.ai/en/product/prompt/context)."""

# Column names "must avoid spaces and special characters" (https://docs.volubile.ai/en/product/prompt/context).
_PROMPT_NAME = re.compile(r"[A-Za-z0-9_]+")

_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"\+?[\d\s()./\-\u2010-\u2015\u2212]*\d[\d\s()./\-\u2010-\u2015\u2212]*")
# What spreadsheets make of numbers, and why it cannot be used.
_SPOILT = {
    re.compile(r"\+?\d+(?:[.,]\d+)?[eE]\+?\d+"): (
        "a spreadsheet turned the number into scientific notation (as in 3.36E+10), which may have cost digits; format "
        "the column as text there and enter it again"
    ),
    re.compile(r"\+?\d+[.,]0+"): ("the number was stored as a decimal (as in 33600000000.0); store the column as text"),
}


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
    _check_region(default_region)
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
        phone, is_known, reason = _read_number(raw, default_region)
        if fault is None and reason is None and phone in accepted:
            fault = f"same number as line {accepted[phone].line}"
        if fault is None and reason is None and strict_numbers and not is_known:
            fault = "lies in no range known to be in use (strict_numbers)"
        if fault or reason:
            rejected.append(Rejection(line, mask_phone(phone), fault or str(reason)))
            continue
        chosen = {
            name: value
            for name, value in cells.items()
            if name != RESERVED and (context_fields is None or name in context_fields)
        }
        try:
            accepted[phone] = Recipient(phone, wire.context_values(chosen), line)
        except VolubileInputError as error:
            raise VolubileInputError(f"{table.name}, line {line}: {error}") from error
        unknown_range += not is_known

    _check_columns(table, columns, phone_field, context_fields)
    _report_rejections(table.name, rejected, unknown_range)
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
    """Check that named columns exist, and warn of those that a prompt cannot use."""
    there = list(dict.fromkeys([*table.columns, *context]))
    tables.check_names(table.name, there)
    named = [("phone_field", phone_field), *(("context_fields", field) for field in context_fields or ())]
    for option, column in named:
        if there and column not in there:
            raise VolubileInputError(
                f"{table.name}: has no column '{column}' ({option}); its columns: {_listed(there)}"
            )
    used = [name for name in context if context_fields is None or name in context_fields]
    if RESERVED in used:
        log.warning("%s: '%s' is left out: Volubile fills it in itself", table.name, RESERVED)
    if odd := [name for name in used if not _PROMPT_NAME.fullmatch(name)]:
        log.warning(
            "%s: the agent's prompt cannot use columns whose names hold spaces or special characters; rename "
            "them with underscores, or choose others with context_fields: %s",
            table.name,
            _listed(odd),
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _report_rejections(source: str, rejected: Sequence[Rejection], unknown_range: int) -> None:
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


def _check_region(region: str | None) -> None:
    import phonenumbers

    if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
        raise VolubileInputError(
            f"default_region '{region}' is no ISO 3166 country with telephone numbers; "
            "expected two capital letters, such as 'FR'"
        )


def _read_number(cell: Any, region: str | None) -> tuple[str, bool, str | None]:
    """Read a cell as a telephone number.

    :returns: the number in E.164, or the text as it stands; whether it lies in a range known to be in use; and why
        it cannot be called, or None.
    """
    import phonenumbers as lib  # not small: loaded when people are read

    if isinstance(cell, bool) or not isinstance(cell, str | int | float | None):
        return "", False, f"holds {type(cell).__name__} where a number belongs"
    # NFKC makes plain spaces and digits of unbreakable spaces and full-width digits. Invisible direction
    # marks come with numbers copied from an address book; spreadsheets mark text by a leading apostrophe.
    text = unicodedata.normalize("NFKC", "" if cell is None else str(cell))
    text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    text = text.strip().removeprefix("'").removeprefix("tel:").strip()
    if not text:
        return text, False, "has no number"
    for pattern, reason in _SPOILT.items():
        if pattern.fullmatch(text):
            return text, False, reason
    if not _NUMBER.fullmatch(text):
        return text, False, "holds characters that do not belong to a number"
    if region is None and not text.startswith("+"):
        return text, False, NO_COUNTRY
    try:
        number = lib.parse(text, region)
    except lib.NumberParseException as error:
        if error.error_type == error.INVALID_COUNTRY_CODE:
            return text, False, "its country code does not exist"
        return text, False, TOO_LONG if error.error_type == error.TOO_LONG else "is not a telephone number"
    phone = lib.format_number(number, lib.PhoneNumberFormat.E164)
    is_known = lib.is_valid_number(number)
    if not is_known and lib.is_possible_short_number(number):
        return phone, is_known, "is an emergency or short number"
    country = lib.region_code_for_country_code(number.country_code or 0)
    # Most countries write a 0 before a number that is not part of it.
    if number.italian_leading_zero and not is_known and lib.ndd_prefix_for_region(country, True) == "0":
        return phone, is_known, "has a zero too many, or is one digit short"
    length, found = lib.is_possible_number_with_reason(number), lib.ValidationResult
    if length == found.IS_POSSIBLE:
        return phone, is_known, None
    reasons = {
        found.TOO_SHORT: "is too short for a number of its country",
        found.TOO_LONG: TOO_LONG,
        found.IS_POSSIBLE_LOCAL_ONLY: "lacks its area code",
    }
    return phone, is_known, reasons.get(length, "has a length that no number of its country has")
