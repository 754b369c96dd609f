"""Numbers are hidden wherever they stand; ids, moments and counts are not touched."""

from __future__ import annotations

import html
import json
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from airflow.sdk import Context
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_volubile.masking import looks_like_phone, mask_digits, mask_phone, mask_phones, mask_secrets
from airflow_provider_volubile.operators.calls import VolubileBulkCallsOperator, VolubileCreateCallOperator
from airflow_provider_volubile.tasks import Personal


@pytest.mark.parametrize(
    ("phone", "masked"),
    [
        ("+33639980142", "+33 6 ** ** ** 42"),
        ("+33199001277", "+33 1 ** ** ** 77"),
        ("0033639980142", "+33 6 ** ** ** 42"),
        ("%2B33639980142", "+33 6 ** ** ** 42"),
        ("+33 6 39 98 01 42", "+33 6 ** ** ** 42"),
        ("06 39 98 01 42", "06 ** ** ** 42"),
        ("06.39.98.01.42", "06 ** ** ** 42"),
        ("+12025550142", "+1 2 ** ** ** * 42"),
        ("+442079460142", "+44 2 ** ** ** * 42"),
        ("+35312345678", "+353 1 ** ** * 78"),
        ("+79991234567", "+7 9 ** ** ** * 67"),
        ("+2903123", "+290 ***"),
        ("+3361234", "+33 ***"),
        ("+336399", "***"),
        ("12345", "***"),
        ("", "***"),
        ("anonymous", "***"),
        ("+3363998014x", "***"),
    ],
)
def test_a_number_is_masked(phone: str, masked: str) -> None:
    assert mask_phone(phone) == masked


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True))
def test_a_mask_shows_country_one_digit_and_the_last_two(phone: str) -> None:
    masked = mask_phone(phone)
    country = len(re.match(r"\+(\d+)", masked)[1])  # type: ignore[index]
    assert 1 <= country <= 3
    assert len(re.findall(r"\d", masked)) <= country + 3
    assert phone not in masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("call +33639980142 failed", "call +33 6 ** ** ** 42 failed"),
        ("GET /v1/calls?phone=%2B33639980142&page=1", "GET /v1/calls?phone=+33 6 ** ** ** 42&page=1"),
        ("a%3D%2B33639980142", "a%3D+33 6 ** ** ** 42"),
        ("%252B33639980142", "+33 6 ** ** ** 42"),
        ("tel:+33639980142;x", "tel:+33 6 ** ** ** 42;x"),
        ("tel+33639980142z", "tel+33 6 ** ** ** 42z"),
        ("{'phone': '+33639980142', 'n': 3}", "{'phone': '+33 6 ** ** ** 42', 'n': 3}"),
        ("+33639980142,+33639980143", "+33 6 ** ** ** 42,+33 6 ** ** ** 43"),
        ("+33639980142 3 attempts", "+33 6 ** ** ** 42 3 attempts"),
        ("0033639980142 12 x", "+33 6 ** ** ** 42 12 x"),
        ("00 33 6 39 98 01 42", "+33 6 ** ** ** 42"),
        ("06 39 98 01 42 or 06.39.98.01.42 or 0639980142.", "06 ** ** ** 42 or 06 ** ** ** 42 or 06 ** ** ** 42."),
        ("line 12:0639980142", "line 12:06 ** ** ** 42"),
        ("call_0639980142.wav", "call_06 ** ** ** 42.wav"),
        ("+33\u00a06\u202f39 98 01 42", "+33 6 ** ** ** 42"),
        ("+33 (0)6 39 98 01 42", "+33 0 ** ** ** * 42"),
        ("phone 33639980142", "phone +33 6 ** ** ** 42"),
        ("2025-11-12 0639980142", "2025-11-12 06 ** ** ** 42"),
        ("2025-11-12T10:02:11+33639980142", "2025-11-12T10:02:11+33 6 ** ** ** 42"),
        ("already +33 6 ** ** ** 42", "already +33 6 ** ** ** 42"),
        (r'"{\"phone\": \"\u002B33639980142\"}"', r'"{\"phone\": \"+33 6 ** ** ** 42\"}"'),
        (r"\\u002b33639980142", "+33 6 ** ** ** 42"),
        ("&#43;33639980142 or &#x2B;33639980142", "+33 6 ** ** ** 42 or +33 6 ** ** ** 42"),
        ("06\u201339\u201398\u201301\u201342", "06 ** ** ** 42"),
        ("+33\u20116\u201139\u201198\u201101\u201142", "+33 6 ** ** ** 42"),
        ("06,39,98,01,42", "06 ** ** ** 42"),
        ("06_39_98_01_42", "06 ** ** ** 42"),
        ("0639-98-0142", "06 ** ** ** 42"),
        ("tel0639980142x", "tel06 ** ** ** 42x"),
        ("x33639980142y", "x+33 6 ** ** ** 42y"),
        ("at 2025-11-12T10:02:11.123456Z, of 100, 200, 300", "at 2025-11-12T10:02:11.123456Z, of 100, 200, 300"),
    ],
)
def test_numbers_in_a_text_are_masked(text: str, masked: str) -> None:
    assert mask_phones(text) == masked
    assert mask_phones(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "7a15c9d4-e3b0-4d68-8f27-b94e60a2c3f1",
        "00112233-4455-6677-8899-001122334455",
        "manual__2025-11-12T10:02:11.000123+00:00",
        "2025-11-12T10:02:11Z 2025-11-12T10:02:11+0200 2025-11-12 10:02:11,123",
        "20251112T100211",
        "01-02-2025 10:30:00",
        "127.0.0.1:8765",
        "10000 recipients, 2500 settled, 97 left, 12 ms",
        "epoch 1731400000000",
        "0.0639980142",
        "id=0612345678ab",
        "sha 0123456789abcdef0123456789",
        "port 8765, pid 20231",
        "airflow 3.3.2, 0.1.0",
        "+2025, +0200",
    ],
)
def test_text_without_numbers_stays(text: str) -> None:
    assert mask_phones(text) == text


@given(st.uuids(), st.datetimes(timezones=st.just(UTC)), st.integers(0, 10**7))
def test_ids_times_and_counts_stay(identifier: UUID, moment: datetime, count: int) -> None:
    text = f"{identifier} at {moment.isoformat()}: {count} of {count + 1}, '{identifier}'"
    assert mask_phones(text) == text


def test_no_fictional_number_survives_in_any_notation() -> None:
    chance = random.Random(7)
    for _ in range(2000):
        national = chance.choice(["19900", "63998"]) + f"{chance.randrange(10**4):04}"
        pairs = [national[0], *(national[at : at + 2] for at in range(1, 9, 2))]
        sep = chance.choice(["", " ", ".", "-", "\u00a0", "\u202f"])
        lead = chance.choice(["+33", "%2B33", "0033", "+33 ", "0"])
        before, after = (
            chance.choice(["", " ", "'", "=", ":", "(", "\n", "phone="]),
            chance.choice(["", " ", "'", ",", ".", ")", "&"]),
        )
        text = before + lead + sep.join(pairs) + after
        digits = re.sub(r"\D", "", mask_phones(text))
        assert len(digits) <= 5, text


# --- what Airflow stores and shows of rendered fields ---


@pytest.mark.parametrize(
    ("region", "phone", "shown"),
    [
        (None, "+447700900123", "+44 7 ** ** ** * 23"),
        ("GB", "07700 900123", "07 ** ** ** * 23"),
        ("GB", "(07700) 900-123", "07 ** ** ** * 23"),
        ("ES", "612345678", "6 ** ** ** 78"),
        ("FR", 639980142, "6 ** ** ** 42"),
        ("US", "(202) 555-0142", "2 ** ** ** * 42"),
        ("GB", "07700 900123 or 07700 900124", "***"),
        ("GB", "07700900123@sip.example.com", "***"),
    ],
)
def test_a_rendered_number_of_any_country_is_masked(region: str | None, phone: Any, shown: str) -> None:
    operator = VolubileCreateCallOperator(
        task_id="call", agent_id="a", phone="{{ phone }}", call_context="{{ phone }}", default_region=region
    )
    operator.render_template_fields(Context(phone=phone))  # type: ignore[call-arg]
    for field in (operator.phone, operator.call_context):
        assert isinstance(field, Personal)
        assert field.serialize() == shown
        assert repr(field) == f"Personal({shown!r})"


@pytest.mark.parametrize(
    ("recipients", "shown"),
    [
        ("/data/people_2025-11-12.csv", "/data/people_2025-11-12.csv"),
        ("s3://bucket/people.parquet", "s3://bucket/people.parquet"),
        ("07700900123.csv", "07 ** ** ** * 23.csv"),
        ('[{"phone": "07700900123"}]', "***"),
        ('[{"phone": "07700 900123"}].csv', "***"),
        ("Lucie Martin, 07700 900123, a.csv", "***"),
        (["07700 900123"], {"count": 1, "sample": ["07 ** ** ** * 23"]}),
        ([{"name": "Lucie", "tel": "07700 900123"}], {"count": 1, "sample": ["07 ** ** ** * 23"]}),
    ],
)
def test_rendered_recipients_show_a_path_or_a_sample(recipients: Any, shown: Any) -> None:
    operator = VolubileBulkCallsOperator(task_id="call", agent_id="a", recipients=recipients, default_region="GB")
    operator.render_template_fields(Context())
    assert operator.recipients.serialize() == shown


# --- secrets ---


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Recipient 447700900123 is not callable", "Recipient 4 ** ** ** ** * 23 is not callable"),
        ("07700 900123 or (202) 555-0143", "07 ** ** ** * 23 or 2 ** ** ** * 43"),
        ("+33639980142 at 2025-11-12T10:02:11Z", "+33 6 ** ** ** 42 at 2025-11-12T10:02:11Z"),
        ("call 7a15c9d4-e3b0-4d68-8f27-b94e60a2c3f1", "call 7a15c9d4-e3b0-4d68-8f27-b94e60a2c3f1"),
        ("1234567 of 1000 recipients, in 2025", "1234567 of 1000 recipients, in 2025"),
    ],
)
def test_text_from_others_shows_no_number_of_any_country(text: str, masked: str) -> None:
    assert mask_digits(text) == masked
    assert mask_digits(masked) == masked


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("+33639980142", True), ("06 39 98 01 42", True), ("447700900123", True), ("20251112", False), ("phone_2", False)],
)
def test_a_number_in_place_of_a_name_is_masked(name: str, is_one: bool) -> None:
    assert looks_like_phone(name) is is_one


def test_secrets_are_masked() -> None:
    assert mask_secrets("key abc and def", ["abc", "def"]) == "key *** and ***"


@pytest.mark.parametrize(
    "spell",
    [
        str,
        quote,
        lambda key: quote(key, safe=""),
        html.escape,
        lambda key: json.dumps(key)[1:-1],
        lambda key: json.dumps(key)[1:-1].replace("/", r"\/"),
        lambda key: key.encode("utf-16-le").decode("latin-1"),
        lambda key: key.encode("utf-16-be").decode("latin-1"),
    ],
)
def test_a_secret_is_found_in_every_spelling_that_services_use(spell: Callable[[str], str]) -> None:
    secret = 'vk/1+Q=%"9f3K&x'
    masked = mask_secrets(f"key {spell(secret)}, and", [secret])
    assert masked.replace("\0", "") == "key ***, and"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("run", ["\\", "%25", "0", "0 ", "a", "+", "1-", "&#43;", "39,"])
def test_a_long_run_takes_no_time_by_its_square(run: str) -> None:
    """It holds the interpreter's lock: a triggerer would stand still for as long."""
    mask_digits(run * 200_000 + "x")
