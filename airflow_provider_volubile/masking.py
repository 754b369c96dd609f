"""What people may see of telephone numbers and secrets in logs, errors, rendered fields and XCom."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import NoReturn
from urllib.parse import quote

__all__ = [
    "Secret",
    "Unstorable",
    "is_file",
    "looks_like_phone",
    "mask_digits",
    "mask_personal",
    "mask_phone",
    "mask_phones",
    "mask_secrets",
    "spellings",
]

HIDDEN = "***"

# ITU-T E.164 country codes of one and two digits; all others have three.
_SHORT_COUNTRY_CODE = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]",
)
_SEPARATORS = re.compile(r"[\s.\-()/_\u2010-\u2015\u2212]+|(?<=\d),(?=\d)")

# Spaces (also the unbreakable ones), dots, dashes, underscores and brackets that people put between digits, or a comma.
_GAP = r"(?:[ \u00a0\u202f.\-()/_\u2010-\u2015\u2212]{0,2}|,)"
# A plus, also as URLs, JSON and HTML write it.
_A_PLUS = r"(?:\+|%(?:25){0,4}2B|\\{1,16}u002B|&\#(?:43|x2B);|&plus;)"

_KEEP = r"""
    (?P<keep>
        # UUID, and other hexadecimal ids
        \b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b
      | \b(?=[0-9]*[a-f])[0-9a-f]{12,}\b
        # ISO moment
      | \b(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?!\d)
        (?:[T_ ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:[+-]\d\d:?\d\d(?!\d))?
        # day first
      | \b\d\d[-/.]\d\d[-/.]\d{4}\b
        # fraction
      | \b0\.\d+
    )
"""
_KEEP_OR_PHONE = re.compile(
    rf"""
    {_KEEP}
    | (?P<phone>
        {_A_PLUS}[ ]?\(?[1-9](?:\d{{6,14}}|(?:{_GAP}\d){{6,14}})(?!\d)   # E.164, its + also as in URLs
      | (?<!\d)
        (?: 00[ ]?[1-9](?:\d{{6,14}}|(?:{_GAP}\d){{6,14}})          # international prefix
          | 0[1-9](?:{_GAP}\d\d){{4}}\d?                           # French national, and longer ones
          | 33[1-9]\d{{8}}                                         # French without its +
        )(?!\d)
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_KEEP_OR_DIGITS = re.compile(
    rf"{_KEEP} | (?P<phone> (?<![0-9A-Za-z]) \(?\d (?:{_GAP}\d){{7,14}} (?![0-9A-Za-z]) )", re.VERBOSE | re.IGNORECASE
)
_PLUS = re.compile(rf"^\s*{_A_PLUS}", re.IGNORECASE)
# What people are read from; without blanks, so that no sentence that ends in one passes for it.
_FILE = re.compile(r"[^\s,;\[{]+\.(?:csv|jsonl|ndjson|json|parquet)(?:\.gz)?", re.IGNORECASE)


def mask_phone(phone: str) -> str:
    """Hide a telephone number except its country code, at most one more digit, and the last two.

    :param phone: A number, E.164 or as people write it: ``+33639980142``, ``0033 6 39 98 01 42``, ``06.39.98.01.42``.
    :returns: ``+33 6 ** ** ** 42``; what is no number, or too short to hide anything, becomes ``***``.
    """
    digits = _SEPARATORS.sub("", _PLUS.sub("+", phone))
    if digits.startswith("00"):
        digits = "+" + digits[2:]
    international = digits.startswith("+")
    digits = digits.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()) or len(digits) < 7:
        return HIDDEN
    if international:
        short = _SHORT_COUNTRY_CODE.match(digits)
        country = digits[: short.end() if short else 3]
        shown, rest = f"+{country}", digits[len(country) :]
        first = 1
    else:
        shown, rest = "", digits
        first = 2 if digits.startswith("0") else 1
    if len(rest) < first + 5:  # too little left to hide: show no more than the country
        return f"{shown} {HIDDEN}".strip()
    stars = "*" * (len(rest) - first - 2)
    groups = [stars[at : at + 2] for at in range(0, len(stars), 2)]
    return " ".join(filter(None, (shown, rest[:first], *groups, rest[-2:])))


def mask_phones(text: str) -> str:
    """Mask everything in a text that looks like a telephone number; leave ids, moments and counts alone.

    Recognised are E.164 (also with ``%2B`` for the ``+``), the prefix ``00``, and French national numbers, each with
    or without the separators people use, and French numbers that lost their ``+``.
    """
    return _KEEP_OR_PHONE.sub(_mask, text)


def mask_digits(text: str) -> str:
    """Mask what :func:`mask_phones` does, and all else that may be a number of any country: 8 to 15 digits in a row.

    For what others write: they may repeat a number without its ``+``, or as their country writes it.
    """
    return _KEEP_OR_DIGITS.sub(_mask, mask_phones(text))


def looks_like_phone(name: str) -> bool:
    """Whether something that should be a name is a telephone number; eight digits may be a date."""
    return sum(map(str.isdigit, name)) > 8 and mask_digits(name) != name


def mask_personal(text: str) -> str:
    """What may be shown of a text that names people: a number masked, the path or URL of a file, and nothing else.

    A number need not have its country code: where a region is set, any digits may be one.
    """
    masked = mask_phone(text)
    return mask_phones(text) if masked == HIDDEN and is_file(text) else masked


def is_file(text: str) -> bool:
    """Whether a text is the path or URL of a file that people can be read from."""
    return _FILE.fullmatch(text) is not None


def spellings(secret: str) -> set[str]:
    """How a service may write a secret that it echoes: plain, percent-encoded, as HTML or JSON, in UTF-16."""
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        html.escape(secret),
        html.escape(secret, quote=False),
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        "\0".join(secret),
    }


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Take known secrets out of a text, such as what a server says about a request that held them."""
    for secret in secrets:
        for spelling in spellings(secret):
            text = text.replace(spelling, HIDDEN)
    return text


class Unstorable:
    """What holds a secret: no pickle, copy, ``asdict`` or XCom takes it."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret: it is not to be stored, copied or pushed to XCom.")

    def serialize(self) -> NoReturn:
        """Refuse, where Airflow asks for a value to store.

        :raises TypeError: always.
        """
        self.__reduce_ex__(0)


class Secret(Unstorable):
    """A key or token. It shows itself as ``***``; only :meth:`reveal` returns it."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """The text itself. Do not keep it in a variable: error trackers store the variables of a failing call."""
        return self.__text

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.__text == self.__text

    def __hash__(self) -> int:
        return hash(self.__text)


def _mask(match: re.Match[str]) -> str:
    phone = match["phone"]
    if phone is None:
        return match["keep"]
    if phone.startswith("33"):
        phone = "+" + phone
    return mask_phone(phone)
