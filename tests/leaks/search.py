"""Find planted secrets and numbers in a text, in any spelling."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote

#: A leak is at least this many consecutive characters of a secret.
FRAGMENT = 12
_WORD = re.compile(rf"""[^\s"'<>{{}}()\[\],;\\]{{{FRAGMENT},}}""")

# Separators that people and programs put between the digits of a number.
_GAP = r"(?:[ .\-()/+\u00a0\u202f]|%20|&nbsp;|\\+u00a0|\\+u202f){0,2}"
_NATIONAL = re.compile(rf"(?:{_GAP.join('63998')}(?:{_GAP}\d){{4}}|{_GAP.join('7700900')}(?:{_GAP}\d){{3}})(?!\d)")
# A number may follow its prefixes or other text, but not other digits.
_BEFORE = re.compile(r"(?:^|[^\d.]|0|(?:33|44)\D{0,3}(?:0\D?)?)$")
_DIGITS = re.compile(r"(?:%20|&nbsp;|u00a0|u202f|\D)+")


@dataclass(frozen=True)
class Hit:
    """A planted secret or number that the search found.

    :param place: its place, such as ``db xcom.value works_with_keys call return_value``.
    :param what: the name of the secret or number.
    :param text: some of the surrounding text.
    """

    place: str
    what: str
    text: str


class Search:
    """Search for planted secrets and numbers.

    :param secrets: names by secret.
    :param numbers: names by number in E.164, French ones that begin with ``+3363998`` and British ones with
        ``+447700900``.
    """

    def __init__(self, secrets: Mapping[str, str], numbers: Mapping[str, str]) -> None:
        self._numbers = {number[3:]: name for number, name in numbers.items()}
        self._fragments = {
            form[at : at + FRAGMENT]: name
            for planted, name in [*secrets.items(), *numbers.items()]
            for form in (*(_plainly(planted) if planted in secrets else ()), *_in_base64(planted.encode()))
            for at in range(len(form) - FRAGMENT + 1)
        }
        self._clean: set[str] = set()

    def look(self, place: str, text: str) -> Iterator[Hit]:
        """Search a text."""
        for match in _NATIONAL.finditer(text):
            name = self._numbers.get(_DIGITS.sub("", match[0]))
            if name and _BEFORE.search(text[max(0, match.start() - 8) : match.start()]):
                yield Hit(place, name, _around(text, match.start()))
        for word in _WORD.findall(text):
            if word in self._clean:
                continue
            found = {
                name: at
                for at in range(len(word) - FRAGMENT + 1)
                if (name := self._fragments.get(word[at : at + FRAGMENT]))
            }
            if not found:
                self._clean.add(word)
            for name, at in found.items():
                yield Hit(place, name, _around(text, text.find(word) + at))


def token_secrets(token: str) -> str:
    """Return the secret part of a token: all but its header, which is the same in all tokens."""
    return token.partition(".")[2]


def _plainly(secret: str) -> set[str]:
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        html.escape(secret),
        json.dumps(secret),
        secret.encode().hex(),
    }


def _in_base64(data: bytes) -> Iterator[str]:
    """Yield the base64 spellings of some bytes, for each offset at which they may begin."""
    for offset, unsure in enumerate((0, 2, 3)):
        sure = slice(unsure, (offset + len(data)) * 8 // 6)
        yield base64.b64encode(bytes(offset) + data).decode()[sure]
        yield base64.urlsafe_b64encode(bytes(offset) + data).decode()[sure]


def _around(text: str, at: int) -> str:
    return text[max(0, at - 80) : at + 80].replace("\n", " ")
