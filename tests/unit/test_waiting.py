"""One round of looking: what it costs, what it learns, and whom it disturbs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import pytest

from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.models import Call, Page
from airflow_provider_volubile.exceptions import VolubileProtocolError, VolubileUnavailable
from airflow_provider_volubile.handles import CampaignRef
from airflow_provider_volubile.outcomes import Progress
from airflow_provider_volubile.schedule import Redial
from airflow_provider_volubile.simulator import Simulator
from airflow_provider_volubile.waiting import follow, interval, look
from airflow_provider_volubile.watches import CallsWatch, CampaignWatch

HOUR_AGO = timedelta(hours=1, minutes=1)


def now() -> datetime:
    return datetime.now(UTC)


def requests_since(simulator: Simulator, seq: int) -> dict[str, int]:
    return {operation: sum(statuses.values()) for operation, statuses in simulator.request_summary(since=seq).items()}


def last_request(simulator: Simulator) -> int:
    requests = simulator.requests()
    return int(requests[-1]["seq"]) if requests else 0


def campaign_watch(name: str, recipients: int, *, id: str | None = None) -> CampaignWatch:
    ref = CampaignRef(id=id, name=name, recipients=recipients)
    return CampaignWatch(ref, agent_id=None, since=now() - HOUR_AGO, redial=Redial())


@pytest.mark.parametrize("tasks", [1, 50])
def test_a_round_costs_a_request_for_each_hundred_calls_however_many_wait(
    simulator: Simulator, client: VolubileClient, tasks: int
) -> None:
    ids = simulator.load_calls(1000, status="IN_PROGRESS")
    share = len(ids) // tasks
    since = now() - HOUR_AGO
    watches = [CallsWatch(ids[at : at + share], since=since) for at in range(0, len(ids), share)]
    before = last_request(simulator)
    look(client, watches, now=now())
    assert requests_since(simulator, before) == {"listCalls": 10}
    assert sum(watch.progress().in_flight for watch in watches) == 1000


def test_listing_stops_at_the_oldest_call_that_is_waited_for(simulator: Simulator, client: VolubileClient) -> None:
    simulator.load_calls(5000)
    ids = simulator.load_calls(150, status="IN_PROGRESS", created_from=now() - timedelta(minutes=1))
    watch = CallsWatch(ids, since=now() - timedelta(minutes=1))
    before = last_request(simulator)
    look(client, [watch], now=now())
    assert requests_since(simulator, before)["listCalls"] <= 3


def test_calls_that_shift_to_later_pages_are_not_missed(simulator: Simulator, client: VolubileClient) -> None:
    ids = simulator.load_calls(250, status="IN_PROGRESS")
    listing = client.list_calls

    def with_new_calls(**query: object) -> object:
        page = listing(**query)  # type: ignore[arg-type]
        simulator.load_calls(30, created_from=now() - timedelta(seconds=1))
        return page

    client.list_calls = with_new_calls  # type: ignore[method-assign, assignment]
    watch = CallsWatch(ids, since=now() - HOUR_AGO)
    look(client, [watch], now=now())
    assert watch.progress().in_flight == 250


@pytest.mark.parametrize("setting", [{"sort": "ignored", "default_sort": "created,ASC"}, {"sort": "refused"}])
def test_a_service_that_does_not_sort_is_read_to_the_end(
    simulator: Simulator, client: VolubileClient, setting: dict[str, str]
) -> None:
    simulator.configure(**setting)
    simulator.load_calls(300)
    ids = simulator.load_calls(150, status="IN_PROGRESS", created_from=now() - timedelta(minutes=1))
    watch = CallsWatch(ids, since=now() - timedelta(minutes=1))
    look(client, [watch], now=now())
    assert watch.progress().in_flight == 150


def test_a_campaign_is_listed_once_for_all_who_wait_for_it(simulator: Simulator, client: VolubileClient) -> None:
    simulator.load_calls(250, campaign="Tyres", phones=[f"+3363998{n:04d}" for n in range(250)])
    simulator.load_calls(250, campaign="Other")
    watches = [campaign_watch("Tyres", 300) for _ in range(5)]
    before = last_request(simulator)
    look(client, watches, now=now())
    assert requests_since(simulator, before) == {"listCalls": 3}
    assert {watch.progress().settled for watch in watches} == {250}
    assert watches[0].progress().not_dialed == 50


def test_what_is_settled_is_not_listed_again(simulator: Simulator, client: VolubileClient) -> None:
    simulator.load_calls(
        900,
        campaign="Tyres",
        created_from=now() - timedelta(minutes=55),
        created_to=now() - timedelta(minutes=20),
        phones=[f"+3363998{n:04d}" for n in range(900)],
    )
    watch = campaign_watch("Tyres", 1000)
    look(client, [watch], now=now())
    simulator.load_calls(50, campaign="Tyres", created_from=now(), phones=[f"+3363998{n:04d}" for n in range(900, 950)])
    before = last_request(simulator)
    look(client, [watch], now=now())
    assert requests_since(simulator, before)["listCalls"] <= 2  # of ten pages
    assert watch.progress().settled == 950


def test_a_filter_that_is_not_applied_is_noticed(simulator: Simulator, client: VolubileClient) -> None:
    simulator.load_calls(20, campaign="Tyres", phones=[f"+3363998{n:04d}" for n in range(20)])
    watch = campaign_watch("Tyres", 10)
    look(client, [watch], now=now())
    with pytest.raises(VolubileProtocolError, match="20 people"):
        watch.progress()


def test_one_bad_campaign_disturbs_nobody_else(simulator: Simulator, client: VolubileClient) -> None:
    good = CallsWatch(simulator.load_calls(5, status="IN_PROGRESS"), since=now() - HOUR_AGO)
    bad = campaign_watch("Tyres", 10, id="7a15c9d4-e3b0-4d68-8f27-b94e60a2c3f1")
    look(client, [bad, good], now=now())
    assert "createCampaign" not in str(bad.error)
    assert bad.error is not None
    assert good.error is None
    assert good.progress().in_flight == 5


def test_an_outage_is_everybodys_and_forgets_nothing(simulator: Simulator, client: VolubileClient) -> None:
    watch = CallsWatch(simulator.load_calls(5, status="IN_PROGRESS"), since=now() - HOUR_AGO)
    look(client, [watch], now=now())
    simulator.fault("listCalls", "malformed", times=None)
    with pytest.raises((VolubileProtocolError, VolubileUnavailable)):
        look(client, [watch], now=now())
    assert watch.progress().in_flight == 5
    assert watch.error is None


def test_plain_ids_of_unknown_age_are_read_one_by_one(simulator: Simulator, client: VolubileClient) -> None:
    simulator.load_calls(1000)
    ids = simulator.load_calls(3, status="IN_PROGRESS", created_from=now() - timedelta(minutes=1))
    unknown = "c2a4d9be-1f37-4b52-8c11-0a9be3d75f21"
    watch = CallsWatch([*ids, unknown])
    before = last_request(simulator)
    look(client, [watch], now=now())
    assert requests_since(simulator, before) == {"getCall": 4}
    assert watch.missing == {unknown}
    before = last_request(simulator)
    look(client, [watch], now=now())
    assert requests_since(simulator, before) == {"listCalls": 1}


def test_transcripts_are_waited_for_and_given_up(simulator: Simulator, client: VolubileClient) -> None:
    watch = CallsWatch(simulator.load_calls(3, transcripts=False), since=now() - HOUR_AGO, with_transcripts=True)
    look(client, [watch], now=now())
    assert watch.progress().is_complete
    assert not watch.is_over(now())
    assert watch.is_over(now() + timedelta(hours=1))
    transcribed = CallsWatch(simulator.load_calls(3), since=now() - HOUR_AGO, with_transcripts=True)
    look(client, [transcribed], now=now())
    assert transcribed.is_over(now())


def test_calls_without_created_are_dated_by_their_start(simulator: Simulator, client: VolubileClient) -> None:
    simulator.configure(created="missing")
    watch = CallsWatch(simulator.load_calls(120, status="IN_PROGRESS"), since=now() - HOUR_AGO)
    look(client, [watch], now=now())
    assert watch.progress().in_flight == 120


class Listing:
    """A list of calls as a service might give it that sets times late; one call a page."""

    def __init__(self, *calls: Call) -> None:
        self._calls = calls

    def list_calls(self, *, page: int, **_: object) -> Page[Call]:
        calls = self._calls[page - 1 : page]
        return Page(calls, page=page, total_pages=len(self._calls), received=len(calls))


def test_a_call_without_any_time_does_not_end_the_listing() -> None:
    just_created = Call(id="1", status="IN_PROGRESS")
    older = Call(id="2", status="IN_PROGRESS", created=now() - timedelta(minutes=10))
    watch = CallsWatch(["1", "2"], since=now() - HOUR_AGO)
    look(cast("VolubileClient", Listing(just_created, older)), [watch], now=now())
    assert watch.progress().in_flight == 2


def test_a_call_without_any_time_belongs_to_its_campaign() -> None:
    watch = campaign_watch("Tyres", 1)
    look(cast("VolubileClient", Listing(Call(id="1", phone="+33639980101", status="IN_PROGRESS"))), [watch], now=now())
    assert watch.progress().in_flight == 1
    assert watch.progress().not_dialed == 0


def test_following_ends_with_the_last_call(simulator: Simulator, client: VolubileClient) -> None:
    ids = simulator.load_calls(30, status="IN_PROGRESS", ends_within=600)
    watch = CallsWatch(ids, since=now() - HOUR_AGO)
    told = list(follow(client, [watch], deadline=now() + timedelta(minutes=2), poll_interval=0.2))
    assert told[-1].is_complete
    assert told[-1].counts == {"COMPLETED": 30}


def test_following_ends_at_the_deadline(simulator: Simulator, client: VolubileClient) -> None:
    watch = CallsWatch(simulator.load_calls(1, status="IN_PROGRESS"), since=now() - HOUR_AGO)
    told = list(follow(client, [watch], deadline=now() + timedelta(seconds=1), poll_interval=0.2))
    assert not told[-1].is_complete


IDLE = Progress(10, 5, 0, 5, 0, {})
BUSY = Progress(10, 5, 5, 0, 0, {})
START = datetime(2026, 11, 24, 18, tzinfo=UTC)


def tomorrow(_: datetime) -> datetime:
    return START + timedelta(hours=14)


@pytest.mark.parametrize(
    ("progress", "age", "quiet", "opening", "expected"),
    [
        (BUSY, 0, 0, None, 2),
        (BUSY, 40, 0, None, 10),
        (BUSY, 4000, 0, None, 30),
        (IDLE, 4000, 0, tomorrow, 30),  # the service's clock may differ: hours count only after some quiet
        (IDLE, 4000, 3000, tomorrow, 900),
        (BUSY, 4000, 3000, tomorrow, 30),
        (IDLE, 4000, 3000, lambda moment: moment, 30),
    ],
)
def test_the_interval_adapts(progress: Progress, age: int, quiet: int, opening: object, expected: float) -> None:
    moment = START + timedelta(seconds=age)
    assert expected == interval(
        progress,
        since=START,
        moved=moment - timedelta(seconds=quiet),
        now=moment,
        poll_interval=30,
        opening=opening,  # type: ignore[arg-type]
    )
