"""No secret and no number leaks: run everything at DEBUG level, then search all that Airflow stores and shows."""

from __future__ import annotations

import base64
import gzip
import re
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest

from airflow_provider_volubile.api.auth import ApiKeyPair, BearerTokens
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.rate_window import RateWindow
from tests.leaks import places, planted
from tests.leaks.drive import FAILING, FAULTY, NOTIFIED, WORKING, Found, drive_and_search
from tests.leaks.search import Search
from tests.leaks.servers import AN_ID, Echo

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(900), pytest.mark.xdist_group("leaks")]

KEY = planted.PRIMARY
# The client removes only the verbatim spelling from successful answers: no JSON library escapes this key.
PLAIN_KEY = "vk-1Q25f9Kd0ZsA7uXw2Lb"
NUMBER = planted.IN_FILE[0]
BRITISH = planted.BRITISH[0]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return drive_and_search(tmp_path_factory.mktemp("leaks"))


def test_airflow_stores_no_secret_and_no_whole_number(found: Found) -> None:
    print(found.report())
    assert found.count["lines at DEBUG"] > 1000
    print(*found.leaks, sep="\n")
    assert not found.leaks


@pytest.mark.parametrize("what", ["secret", "number"])
@pytest.mark.parametrize("canary", planted.CANARIES.values(), ids=planted.CANARIES)
def test_the_search_finds_a_leak_in_each_kind_of_place(canary: planted.Canary, what: str, found: Found) -> None:
    places = found.places_of(canary, what)
    for expected in canary.found_in:
        assert any(re.match(expected, place) for place in places), f"{expected}: only in {sorted(places)}"


def test_the_search_finds_the_keys_in_stored_connections(found: Found) -> None:
    kept = {(hit.what, hit.place) for hit in found.hits if hit.place.startswith("db connection.")}
    assert {
        ("primary key", "db connection.password keys"),
        ("secondary key", "db connection.extra keys"),
        ("refused primary key", "db connection.password refused"),
        ("refused secondary key", "db connection.extra refused"),
    } <= kept


def test_the_search_finds_numbers_in_exported_files(found: Found) -> None:
    assert {"number of a file", "number from a template"} <= {
        hit.what for hit in found.hits if hit.place.startswith("export ")
    }


def test_all_tasks_succeed_in_both_auth_modes(found: Found) -> None:
    for dag in WORKING:
        states = {task: state for (of, task), state in found.states.items() if of == dag}
        assert len(states) == 15
        assert set(states.values()) == {"success"}, states
    assert {"WaitTrigger", "VolubileFinishedCallTrigger"} <= found.triggers


def test_ended_calls_start_dags_in_both_auth_modes(found: Found) -> None:
    assert {("starts_with_keys", "heard"), ("starts_with_tokens", "heard")} <= found.states.keys()


def test_watchers_log_faults_and_go_on(found: Found) -> None:
    assert found.watchers == set(planted.WATCHED)


def test_all_tasks_fail_on_services_that_repeat_all_they_receive(found: Found) -> None:
    failed = {(dag, task) for (dag, task), state in found.states.items() if state == "failed"}
    for dag in FAILING:
        tasks = planted.FAILING[dag.removeprefix("fails_with_")]
        assert {(dag, task) for task in tasks} - failed <= {(dag, "transcript"), (dag, "export_transcripts")}
    assert len([task for dag, task in failed if dag == "fails_with_echo_400"]) == 13
    assert len([task for dag, task in failed if dag == FAULTY]) == 7
    said = "\n".join(found.told)
    assert all(text in said for text in (planted.PRIMARY, planted.SECONDARY, *planted.ON_A_FAILING_SERVICE))
    assert found.echoed_tokens


def test_connection_tests_answer_without_keys(found: Found) -> None:
    assert {name: answer["status"] for name, answer in found.tested.items()} == {
        "keys": True,
        "tokens": False,  # its first key is refused
        "lost": True,
        "refused": False,
        "unreachable": False,
        "echo_400": False,
        "echo_401": False,
        "echo_503": False,
        "echo_200": True,
        "keys, in a worker": True,
        "tokens, in a worker": False,
    }
    assert "***" in found.tested["echo_400"]["message"], "it quotes the service"


def test_rendered_recipients_show_how_many_and_a_masked_sample(found: Found) -> None:
    for dag in WORKING:
        assert found.rendered[dag, "bulk"]["recipients"] == {
            "count": len(planted.RENDERED) - 1,
            "sample": [f"06 ** ** ** {number[-2:]}" for number in planted.RENDERED[1:4]],
        }
        assert found.rendered[dag, "call"]["phone"] == f"06 ** ** ** {planted.RENDERED[0][-2:]}"
        abroad = found.rendered[dag, "abroad"]
        assert abroad["phone"] == f"07 ** ** ** * {planted.BRITISH[0][-2:]}"
        assert abroad["call_context"] == {"count": 1, "sample": ["***"]}
    assert found.rendered[FAULTY, "no_path"]["recipients"] == f"07 ** ** ** * {planted.BRITISH[0][-2:]}"


def test_notifiers_call_about_success_and_failure(found: Found) -> None:
    assert found.notified == NOTIFIED


@pytest.mark.parametrize("auth", [ApiKeyPair(PLAIN_KEY), BearerTokens(ApiKeyPair(PLAIN_KEY))], ids=list(planted.MODES))
def test_the_client_removes_its_credential_from_answers(auth: ApiKeyPair | BearerTokens) -> None:
    with Echo() as echo, VolubileClient(f"{echo.url}/200", auth, window=RateWindow()) as client:
        read = [client.get_transcript(AN_ID), client.list_calls(), client.get_call(AN_ID), client.get_agent(AN_ID)]
        secrets = [PLAIN_KEY, *echo.tokens]
    for text in map(str, read):
        assert "*** may not do this" in text
        assert not any(secret in text for secret in secrets)


def test_the_client_keeps_answers_when_its_key_is_as_short_as_a_word() -> None:
    with Echo() as echo, VolubileClient(f"{echo.url}/200", ApiKeyPair("may"), window=RateWindow()) as client:
        assert "may may not do this" in str(client.get_transcript(AN_ID))


# --- the search itself ---


@pytest.mark.parametrize(
    "text",
    [
        f"X-Api-Key: {KEY}",
        f"key={quote(KEY, safe='')}&x=1",
        f"…{KEY[10:22]}…",
        base64.b64encode(f'{{"password":"{KEY}"}}'.encode()).decode(),
        base64.urlsafe_b64encode(f"xy{KEY}".encode()).decode(),
        KEY.replace("&", "&amp;"),
        KEY.encode().hex(),
        NUMBER,
        NUMBER[1:],
        f"00{NUMBER[1:]}",
        planted.national(NUMBER),
        planted.national(NUMBER, ""),
        planted.national(NUMBER, "."),
        planted.national(NUMBER, "\u202f"),
        planted.national(NUMBER, "%20"),
        planted.national(NUMBER, r"\u00a0"),
        f"+33 (0){planted.national(NUMBER)[1:]}",
        f"phone=%2B{NUMBER[1:]}&x",
        f"tel:{NUMBER[3:]}",
        base64.b64encode(f"to {NUMBER}".encode()).decode(),
        BRITISH,
        BRITISH[1:],
        planted.national(BRITISH),
        planted.national(BRITISH, ""),
        f"+44 (0){BRITISH[3:7]}-{BRITISH[7:]}",
    ],
)
def test_the_search_recognises_secrets_and_numbers_in_any_spelling(text: str) -> None:
    search = Search({KEY: "key"}, {NUMBER: "number", BRITISH: "number"})
    assert {hit.what for hit in search.look("here", f'before "{text}" after')}
    assert list(search.look("there", f'{text} and "{text}"')), "also when it was seen before"


@pytest.mark.parametrize(
    "text",
    [
        "+33 6 ** ** ** 01",
        "2026-11-24T08:01:54.639982+00:00",
        "0.639982001234",
        f"{KEY[:11]}",
        "+33639982999",
    ],
)
def test_the_search_ignores_masked_numbers_and_other_text(text: str) -> None:
    assert not list(Search({KEY: "key"}, {NUMBER: "number"}).look("here", text))


def test_the_search_reads_binary_and_compressed_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "core").write_bytes(b"\xff\xfe\x00" + KEY.encode() + b"\x00")
    (tmp_path / "b.gz").write_bytes(gzip.compress(NUMBER.encode()))
    count: Counter[str] = Counter()
    search = Search({KEY: "key"}, {NUMBER: "number"})
    found = [hit.place for place, text in places.files(tmp_path, count) for hit in search.look(place, text)]
    assert found == ["file a/core", "file b.gz"]
    assert count["files"] == 2
