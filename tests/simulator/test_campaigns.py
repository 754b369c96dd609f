"""Campaigns obey their windows, batch size, retry policy and status."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from airflow_provider_volubile.simulator import LedgerEntry, Simulator

from .raw_api import RawApi, campaign_body, phones

PARIS = ZoneInfo("Europe/Paris")
DAY = 86400


def local(entry: LedgerEntry, zone: ZoneInfo = PARIS) -> datetime:
    return datetime.fromisoformat(entry["created_simulated"]).astimezone(zone)


def begin(simulator: Simulator, start: str, **config: Any) -> None:
    """Start again at a simulated time that stands still until advanced."""
    simulator.reset(start=datetime.fromisoformat(start))
    simulator.configure(speed=0, limit=100_000, **config)


def test_a_campaign_dials_in_its_windows_and_at_most_a_batch_per_day(simulator: Simulator, api: RawApi) -> None:
    begin(simulator, "2026-06-05T10:00:00+02:00")  # a Friday
    slots = [{"startTime": "09:30", "endTime": "10:30"}, {"startTime": "14:00", "endTime": "14:20"}]
    api.ok("POST", "/v1/campaigns", campaign_body(70, timeSlots=slots, batchSize=25))
    simulator.advance(10 * DAY)
    entries = simulator.ledger()
    assert len(entries) == 70
    assert Counter(f"{local(entry):%a %d}" for entry in entries) == {"Fri 05": 25, "Mon 08": 25, "Tue 09": 20}
    for entry in entries:
        clock = f"{local(entry):%H:%M}"
        assert "09:30" <= clock < "10:30" or "14:00" <= clock < "14:20"


@pytest.mark.parametrize(
    ("start", "days"),
    [
        # The Friday and Saturday before the change of clocks, the Sunday of the change, and the Monday after it.
        ("2026-03-27T00:00:00+01:00", ["2026-03-27", "2026-03-28", "2026-03-29", "2026-03-30"]),
        ("2026-10-23T00:00:00+02:00", ["2026-10-23", "2026-10-24", "2026-10-25", "2026-10-26"]),
    ],
)
def test_a_campaign_keeps_local_time_when_paris_changes_its_clocks(
    simulator: Simulator, api: RawApi, start: str, days: list[str]
) -> None:
    begin(simulator, start)
    every_day = ["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"]
    api.ok("POST", "/v1/campaigns", campaign_body(8, days=every_day, batchSize=2))
    simulator.advance(5 * DAY)
    entries = simulator.ledger()
    assert [f"{local(entry):%Y-%m-%d}" for entry in entries[::2]] == days
    assert {f"{local(entry):%H:%M}" for entry in entries} == {"09:00"}


def test_a_batch_counts_attempts_not_people(simulator: Simulator, api: RawApi) -> None:
    begin(simulator, "2026-06-08T09:00:00+02:00")
    simulator.outcomes({"*": ["NO_ANSWER"]})
    retry = {"max": 2, "delay": 1, "retryOn": ["NO_ANSWER"]}
    api.ok("POST", "/v1/campaigns", campaign_body(4, batchSize=6, retry=retry))
    simulator.advance(3 * DAY)
    entries = simulator.ledger()
    assert Counter(f"{local(entry):%a}" for entry in entries) == {"Mon": 6, "Tue": 6}
    assert Counter(entry["phone"] for entry in entries) == dict.fromkeys(phones(4), 3)


def test_a_campaign_starts_on_its_start_date_in_its_own_zone(simulator: Simulator, api: RawApi) -> None:
    begin(simulator, "2026-06-08T00:00:00+00:00")
    body = campaign_body(1, startDate="2026-06-10", timezone="America/New_York")
    assert api.ok("POST", "/v1/campaigns", body)["timezone"] == "America/New_York"
    simulator.advance(5 * DAY)
    [entry] = simulator.ledger()
    assert local(entry, ZoneInfo("America/New_York")).isoformat() == "2026-06-10T09:00:00-04:00"


def test_a_campaign_dials_at_once_with_ignore_windows(simulator: Simulator, api: RawApi) -> None:
    begin(simulator, "2026-06-06T23:00:00+02:00", ignore_windows=True)  # a Saturday night
    api.ok("POST", "/v1/campaigns", campaign_body(30, batchSize=1, startDate="2027-01-01"))
    simulator.advance(DAY)
    entries = simulator.ledger()
    assert len(entries) == 30
    assert local(entries[-1]) - local(entries[0]) < timedelta(minutes=10)


def test_a_campaign_redials_after_the_delay_on_the_named_statuses_only(simulator: Simulator, api: RawApi) -> None:
    begin(simulator, "2026-06-08T09:00:00+02:00")
    never, late, refused, other = phones(4)
    simulator.outcomes(
        {
            never: ["NO_ANSWER"],
            late: ["NO_ANSWER", "VOICE_BOX", "COMPLETED"],
            refused: ["NO_ANSWER", "REJECTED", "COMPLETED"],
            other: ["FAILED", "COMPLETED"],
        }
    )
    retry = {"max": 3, "delay": 20, "retryOn": ["NO_ANSWER", "VOICE_BOX"]}
    api.ok("POST", "/v1/campaigns", campaign_body(4, retry=retry))
    simulator.advance(DAY)
    tries = {phone: simulator.ledger(phone=phone) for phone in phones(4)}
    assert [entry["status"] for entry in tries[never]] == ["NO_ANSWER"] * 4
    assert [entry["status"] for entry in tries[late]] == ["NO_ANSWER", "VOICE_BOX", "COMPLETED"]
    assert [entry["status"] for entry in tries[refused]] == ["NO_ANSWER", "REJECTED"]
    assert [entry["status"] for entry in tries[other]] == ["FAILED"]
    assert [entry["attempt"] for entry in tries[never]] == [1, 2, 3, 4]
    for earlier, later in pairwise(tries[never]):
        ended = datetime.fromisoformat(earlier["ended_simulated"] or "")
        assert timedelta(minutes=20) <= local(later) - ended < timedelta(minutes=21)


def test_a_redial_waits_for_the_next_window(simulator: Simulator, api: RawApi) -> None:
    begin(simulator, "2026-06-08T11:50:00+02:00")
    simulator.outcomes({"*": ["NO_ANSWER", "COMPLETED"]})
    retry = {"max": 1, "delay": 30, "retryOn": ["NO_ANSWER"]}
    api.ok("POST", "/v1/campaigns", campaign_body(1, retry=retry))
    simulator.advance(DAY)
    assert [f"{local(entry):%a %H:%M}" for entry in simulator.ledger()] == ["Mon 11:50", "Tue 09:00"]


def test_a_very_long_delay_does_not_affect_other_recipients(simulator: Simulator, api: RawApi) -> None:
    begin(simulator, "2026-06-08T09:00:00+02:00")
    simulator.outcomes({"*": ["NO_ANSWER"]})
    retry = {"max": 1, "delay": 10**30, "retryOn": ["NO_ANSWER"]}
    api.ok("POST", "/v1/campaigns", campaign_body(1, retry=retry))
    simulator.advance(DAY)
    api.ok("POST", "/v1/campaigns", campaign_body(1))
    simulator.advance(DAY)
    assert [entry["submission"] for entry in simulator.ledger()] == [1, 2]


def test_a_campaign_has_at_most_as_many_calls_in_progress_as_lines(simulator: Simulator, api: RawApi) -> None:
    begin(simulator, "2026-06-08T09:00:00+02:00", lines=3)
    api.ok("POST", "/v1/campaigns", campaign_body(40))
    simulator.advance(DAY)
    changes: list[tuple[str, int]] = []
    for entry in simulator.ledger():
        changes += [(entry["created_simulated"], 1), (entry["ended_simulated"] or "", -1)]
    level, peak = 0, 0
    for _, change in sorted(changes):
        level += change
        peak = max(peak, level)
    assert peak == 3


def test_a_campaign_can_be_paused_resumed_and_cancelled(simulator: Simulator, api: RawApi) -> None:
    begin(simulator, "2026-06-08T09:00:00+02:00", lines=1)
    campaign = api.ok("POST", "/v1/campaigns", campaign_body(20))
    assert campaign["status"] == "ACTIVE"

    def set_status(status: str) -> int:
        return api("POST", f"/v1/campaigns/{campaign['id']}/status", status).status_code

    def dialled_within(seconds: float) -> int:
        before = len(simulator.ledger())
        simulator.advance(seconds)
        return len(simulator.ledger()) - before

    assert dialled_within(300) > 0
    assert set_status("PAUSED") == 200
    assert dialled_within(3600) == 0
    assert {entry["status"] for entry in simulator.ledger()} - {"IN_PROGRESS"}, "calls in progress go on"
    assert set_status("PAUSED") == 200
    assert set_status("ACTIVE") == 200
    assert dialled_within(300) > 0
    assert set_status("CANCELLED") == 200
    assert dialled_within(DAY) == 0
    assert set_status("CANCELLED") == 200
    for status in ("ACTIVE", "PAUSED"):
        assert set_status(status) == 400
    assert api.ok("GET", f"/v1/campaigns/{campaign['id']}")["status"] == "CANCELLED"


def test_cancelling_a_campaign_drops_its_redials(simulator: Simulator, api: RawApi) -> None:
    begin(simulator, "2026-06-08T09:00:00+02:00")
    simulator.outcomes({"*": ["NO_ANSWER"]})
    retry = {"max": 5, "delay": 10, "retryOn": ["NO_ANSWER"]}
    campaign = api.ok("POST", "/v1/campaigns", campaign_body(3, retry=retry))
    simulator.advance(1)  # still ringing
    api.ok("POST", f"/v1/campaigns/{campaign['id']}/status", "CANCELLED")
    simulator.advance(DAY)
    assert [entry["attempt"] for entry in simulator.ledger()] == [1, 1]


def test_a_campaign_of_fifty_people_completes_within_seconds_at_high_speed(simulator: Simulator, api: RawApi) -> None:
    retry = {"max": 1, "delay": 5, "retryOn": ["NO_ANSWER", "VOICE_BOX"]}
    api.ok("POST", "/v1/campaigns", campaign_body(50, retry=retry))
    simulator.wait_until_quiet()
    summary = simulator.summary()
    assert summary["people"] == 50
    assert summary["max_attempts"] == 2
    assert summary["statuses"].get("IN_PROGRESS", 0) == 0
