"""One round of polling: what it costs, what it learns, and whom a fault concerns."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from airflow_provider_volubile.api import wire
from airflow_provider_volubile.api.client import VolubileClient
from airflow_provider_volubile.api.models import Call, Campaign, Page
from airflow_provider_volubile.calling.handles import CampaignRef, SubmissionHandle
from airflow_provider_volubile.calling.schedule import Redial
from airflow_provider_volubile.exceptions import (
    VolubileAuthError,
    VolubileError,
    VolubileNotFound,
    VolubileProtocolError,
    VolubileRateLimitError,
    VolubileRequestRefused,
    VolubileUnavailable,
)
from airflow_provider_volubile.simulator import Simulator
from airflow_provider_volubile.waiting import fault_policy
from airflow_provider_volubile.waiting.outcomes import Progress
from airflow_provider_volubile.waiting.poll_round import PollResult, poll_once
from airflow_provider_volubile.waiting.polling import interval, wait
from airflow_provider_volubile.waiting.watches import CallsWatch, CampaignWatch, Watch

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
    poll_once(client, watches, now=now())
    assert requests_since(simulator, before) == {"listCalls": 10}
    assert sum(watch.progress().in_flight for watch in watches) == 1000


def test_listing_stops_at_the_oldest_call_that_is_waited_for(simulator: Simulator, client: VolubileClient) -> None:
    simulator.load_calls(5000)
    ids = simulator.load_calls(150, status="IN_PROGRESS", created_from=now() - timedelta(minutes=1))
    watch = CallsWatch(ids, since=now() - timedelta(minutes=1))
    before = last_request(simulator)
    poll_once(client, [watch], now=now())
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
    poll_once(client, [watch], now=now())
    assert watch.progress().in_flight == 250


@pytest.mark.parametrize("setting", [{"sort": "ignored", "default_sort": "created,ASC"}, {"sort": "refused"}])
def test_a_service_that_does_not_sort_is_read_to_the_end(
    simulator: Simulator, client: VolubileClient, setting: dict[str, str]
) -> None:
    simulator.configure(**setting)
    simulator.load_calls(300)
    ids = simulator.load_calls(150, status="IN_PROGRESS", created_from=now() - timedelta(minutes=1))
    watch = CallsWatch(ids, since=now() - timedelta(minutes=1))
    poll_once(client, [watch], now=now())
    assert watch.progress().in_flight == 150


def test_a_campaign_is_listed_once_for_all_who_wait_for_it(simulator: Simulator, client: VolubileClient) -> None:
    simulator.load_calls(250, campaign="Tyres", phones=[f"+3363998{n:04d}" for n in range(250)])
    simulator.load_calls(250, campaign="Other")
    watches = [campaign_watch("Tyres", 300) for _ in range(5)]
    before = last_request(simulator)
    poll_once(client, watches, now=now())
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
    poll_once(client, [watch], now=now())
    simulator.load_calls(50, campaign="Tyres", created_from=now(), phones=[f"+3363998{n:04d}" for n in range(900, 950)])
    before = last_request(simulator)
    poll_once(client, [watch], now=now())
    assert requests_since(simulator, before)["listCalls"] <= 2  # of ten pages
    assert watch.progress().settled == 950


def test_a_filter_that_is_not_applied_is_noticed(simulator: Simulator, client: VolubileClient) -> None:
    simulator.load_calls(20, campaign="Tyres", phones=[f"+3363998{n:04d}" for n in range(20)])
    watch = campaign_watch("Tyres", 10)
    poll_once(client, [watch], now=now())
    with pytest.raises(VolubileProtocolError, match="20 people"):
        watch.progress()


def test_an_outage_concerns_everyone_and_progress_is_kept(simulator: Simulator, client: VolubileClient) -> None:
    watch = CallsWatch(simulator.load_calls(5, status="IN_PROGRESS"), since=now() - HOUR_AGO)
    poll_once(client, [watch], now=now())
    simulator.fault("listCalls", "malformed", times=None)
    result = poll_once(client, [watch], now=now())
    assert not result.is_answered
    assert isinstance(result.fault, VolubileProtocolError | VolubileUnavailable)
    assert watch.progress().in_flight == 5
    assert watch.error is None


def test_plain_ids_of_unknown_age_are_read_one_by_one(simulator: Simulator, client: VolubileClient) -> None:
    simulator.load_calls(1000)
    ids = simulator.load_calls(3, status="IN_PROGRESS", created_from=now() - timedelta(minutes=1))
    unknown = "c2a4d9be-1f37-4b52-8c11-0a9be3d75f21"
    watch = CallsWatch([*ids, unknown])
    before = last_request(simulator)
    poll_once(client, [watch], now=now())
    assert requests_since(simulator, before) == {"getCall": 4}
    assert set(watch.missing) == {unknown}
    before = last_request(simulator)
    poll_once(client, [watch], now=now())
    assert requests_since(simulator, before) == {"listCalls": 1}


def test_transcripts_are_waited_for_and_given_up(simulator: Simulator, client: VolubileClient) -> None:
    watch = CallsWatch(simulator.load_calls(3, transcripts=False), since=now() - HOUR_AGO, with_transcripts=True)
    poll_once(client, [watch], now=now())
    assert watch.progress().is_complete
    assert not watch.is_over()
    poll_once(client, [watch], now=now() + timedelta(minutes=16))
    assert watch.is_over()
    assert list(watch.transcripts.values()) == ["given_up"] * 3
    transcribed = CallsWatch(simulator.load_calls(3), since=now() - HOUR_AGO, with_transcripts=True)
    poll_once(client, [transcribed], now=now())
    assert transcribed.is_over()
    assert list(transcribed.transcripts.values()) == ["there"] * 3


def test_calls_without_created_are_dated_by_their_start(simulator: Simulator, client: VolubileClient) -> None:
    simulator.configure(created="missing")
    watch = CallsWatch(simulator.load_calls(120, status="IN_PROGRESS"), since=now() - HOUR_AGO)
    poll_once(client, [watch], now=now())
    assert watch.progress().in_flight == 120


class Listing:
    """A list of calls as a service might give it that sets times late; one call a page."""

    def __init__(self, *calls: Call) -> None:
        self._calls = calls

    def list_calls(self, *, page: int, **_: object) -> Page[Call]:
        calls = self._calls[page - 1 : page]
        return Page(calls, page=page, total_pages=len(self._calls), received=len(calls))


@pytest.mark.parametrize(("apart", "sort"), [(timedelta(0), wire.NEWEST_FIRST), (timedelta(seconds=1), None)])
def test_a_list_that_shows_no_order_is_read_to_the_end(apart: timedelta, sort: str | None) -> None:
    """Sorted otherwise than asked, with older calls on the first page: that tells nothing of the second."""
    long_ago = now() - HOUR_AGO * 2
    older = [Call(id=f"o{n}", status="COMPLETED", created=long_ago - n * apart) for n in range(3)]
    awaited = Call(id="a", status="IN_PROGRESS", created=now())

    class Unsorted:
        def list_calls(self, *, page: int, **_: object) -> Page[Call]:
            content = tuple(older) if page == 1 else (awaited,)
            return Page(content, page=page, total_pages=2, received=len(content), sort=sort)

    watch = campaign_watch("Tyres", 1)
    poll_once(cast("VolubileClient", Unsorted()), [watch], now=now())
    assert watch.progress().in_flight == 1


@pytest.mark.parametrize("first", [0, 1])
def test_pages_are_read_to_the_last_wherever_they_are_counted_from(first: int) -> None:
    class Counting(Listing):
        def list_calls(self, *, page: int, **_: object) -> Page[Call]:
            return replace(super().list_calls(page=page), page=page - 1 + first)

    calls = [Call(id=str(n), status="IN_PROGRESS", created=now() - timedelta(minutes=n)) for n in range(4)]
    watch = CallsWatch([call.id for call in calls], since=now() - HOUR_AGO)
    poll_once(cast("VolubileClient", Counting(*calls)), [watch], now=now())
    assert watch.progress().in_flight == 4


def test_a_listing_that_breaks_off_is_an_error() -> None:
    class Broken(Listing):
        def list_calls(self, *, page: int, **_: object) -> Page[Call]:
            whole = super().list_calls(page=page)
            return whole if page == 1 else replace(whole, content=(), received=0)

    calls = [Call(id=str(n), status="IN_PROGRESS", created=now() - timedelta(minutes=n)) for n in range(4)]
    watch = CallsWatch([call.id for call in calls], since=now() - HOUR_AGO)
    result = poll_once(cast("VolubileClient", Broken(*calls)), [watch], now=now())
    assert "page 2 brings nothing new although there is more" in str(result.fault)


def test_a_call_without_any_time_does_not_end_the_listing() -> None:
    just_created = Call(id="1", status="IN_PROGRESS")
    older = Call(id="2", status="IN_PROGRESS", created=now() - timedelta(minutes=10))
    watch = CallsWatch(["1", "2"], since=now() - HOUR_AGO)
    poll_once(cast("VolubileClient", Listing(just_created, older)), [watch], now=now())
    assert watch.progress().in_flight == 2


def test_a_call_without_any_time_belongs_to_its_campaign() -> None:
    watch = campaign_watch("Tyres", 1)
    poll_once(
        cast("VolubileClient", Listing(Call(id="1", phone="+33639980101", status="IN_PROGRESS"))), [watch], now=now()
    )
    assert watch.progress().in_flight == 1
    assert watch.progress().not_dialed == 0


def test_a_wait_ends_with_the_last_call(simulator: Simulator, client: VolubileClient) -> None:
    ids = simulator.load_calls(30, status="IN_PROGRESS", ends_within=600)
    handle = SubmissionHandle(call_ids=ids, submitted_at=(now() - HOUR_AGO).isoformat())
    reports: list[Progress] = []
    deadline = now() + timedelta(minutes=2)
    event = wait(client, handle, deadline=deadline, poll_interval=0.2, report=reports.append)
    assert event["status"] == "over"
    assert event["counts"] == {"COMPLETED": 30}
    assert reports[-1].is_complete


def test_a_wait_ends_at_its_deadline(simulator: Simulator, client: VolubileClient) -> None:
    handle = SubmissionHandle(call_ids=simulator.load_calls(1, status="IN_PROGRESS"))
    event = wait(client, handle, deadline=now() + timedelta(seconds=1), poll_interval=0.2)
    assert (event["status"], event["settled"], event["in_flight"]) == ("timeout", 0, 1)


IDLE = Progress(10, 5, 0, 5, 0, {})
SETTLED = Progress(10, 10, 0, 0, 0, {})
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
        (SETTLED, 4000, 3000, tomorrow, 30),  # transcripts keep no calling hours
    ],
)
def test_the_interval_adapts(progress: Progress, age: int, quiet: int, opening: object, expected: float) -> None:
    moment = START + timedelta(seconds=age)
    assert expected == interval(
        progress,
        age=age,
        quiet=quiet,
        now=moment,
        poll_interval=30,
        opening=opening,  # type: ignore[arg-type]
    )


class Service:
    """A list of calls, newest first, that can be made to fail in places; counts what it is asked.

    :param calls: ids by campaign; statuses are in ``status``, and all are in progress at first.
    """

    def __init__(self, calls: dict[str | None, list[str]]) -> None:
        self.calls = [(name, call_id) for name, ids in calls.items() for call_id in ids]
        self.status: dict[str, str] = {}
        self.campaign_status = "ACTIVE"
        self.broken: dict[str, VolubileError] = {}
        self.asked: Counter[str] = Counter()

    def _ask(self, operation: str, what: str) -> None:
        self.asked[operation] += 1
        self.asked[f"{operation} {what}"] += 1
        for name in (operation, f"{operation} {what}"):
            if name in self.broken:
                raise self.broken[name]

    def _call(self, call_id: str) -> Call:
        number = next(number for number, (_, known) in enumerate(self.calls) if known == call_id)
        return self._made(number, call_id)

    def _made(self, number: int, call_id: str) -> Call:
        return Call(
            id=call_id,
            agent_id="agent",
            phone=f"+336399{hash(call_id) % 10**5:05d}{number}",
            status=self.status.get(call_id, "IN_PROGRESS"),
            created=now() - timedelta(minutes=1, milliseconds=100 * number),
        )

    def list_calls(self, *, page: int, size: int, campaign: str | None = None, **_: object) -> Page[Call]:
        self._ask("list", str(campaign))
        chosen = [(n, call_id) for n, (name, call_id) in enumerate(self.calls) if campaign in (None, name)]
        content = tuple(self._made(n, call_id) for n, call_id in chosen[(page - 1) * size : page * size])
        total = -(-len(chosen) // size)
        return Page(content, page=page, total_pages=total, received=len(content), sort=wire.NEWEST_FIRST)

    def get_call(self, call_id: str) -> Call:
        self._ask("call", call_id)
        if call_id not in {known for _, known in self.calls}:
            raise VolubileNotFound("404")
        return self._call(call_id)

    def get_campaign(self, campaign_id: str) -> Campaign:
        self._ask("campaign", campaign_id)
        return Campaign(id=campaign_id, status=self.campaign_status)

    def poll(self, watches: Sequence[Watch]) -> PollResult:
        self.asked.clear()
        return poll_once(cast("VolubileClient", self), watches, now=now())

    def rounds(self, watches: Sequence[Watch], count: int = 3) -> list[int]:
        """What so many rounds cost."""
        costs = []
        for _ in range(count):
            result = self.poll(watches)
            assert result.requests == sum(self.asked[name] for name in ("list", "call", "campaign"))
            costs.append(result.requests)
        return costs


def tasks(service: Service, campaigns: int, people: int) -> list[CampaignWatch]:
    """So many campaigns of so many people each, all of them on the telephone."""
    names = [f"Campaign {number}" for number in range(campaigns)]
    service.calls += [(name, f"{name}/{number}") for number in range(people) for name in names]
    return [campaign_watch(name, people, id=f"id of {name}") for name in names]


def calls_watch(*ids: str) -> CallsWatch:
    return CallsWatch(ids, since=now() - HOUR_AGO)


def test_one_old_call_below_many_newer_ones_is_read_by_itself() -> None:
    ended = [f"ended {number}" for number in range(3499)]
    service = Service({None: [*ended, "old"]})
    service.status = dict.fromkeys(ended, "COMPLETED")
    watch = calls_watch("old")
    assert service.rounds([watch]) == [2, 2, 2], "one page in vain, and the call itself"
    assert watch.progress().in_flight == 1
    crowd = [f"busy {number}" for number in range(300)]
    service.calls[:0] = [(None, call_id) for call_id in crowd]
    watches = [watch, *map(calls_watch, crowd)]
    assert service.rounds(watches) == [5, 5, 5], "three pages, one in vain, and the old one"
    service.status["old"] = "COMPLETED"
    service.rounds(watches)
    assert watch.is_over()


def test_a_call_of_known_age_is_not_lost_while_the_service_is_behind() -> None:
    service = Service({None: [f"other {number}" for number in range(1000)]})
    watch = calls_watch("late")
    assert service.rounds([watch]) == [2, 2, 2]
    assert not watch.missing
    service.calls.append((None, "late"))
    service.poll([watch])
    assert watch.progress().in_flight == 1


@pytest.mark.parametrize(("campaigns", "people", "bound"), [(50, 20, 10), (10, 1000, 100), (1, 1000, 10), (500, 2, 10)])
def test_campaigns_whose_calls_are_all_known_are_listed_together(campaigns: int, people: int, bound: int) -> None:
    service = Service({})
    watches = tasks(service, campaigns, people)
    first, *later = service.rounds(watches)
    assert first == campaigns * -(-people // 100)
    assert later == [bound, bound]
    service.status = {call_id: "COMPLETED" for _, call_id in service.calls}
    service.poll(watches)
    assert all(watch.is_over() for watch in watches)


def test_campaigns_with_many_calls_in_progress_are_listed_apart() -> None:
    service = Service({})
    watches = tasks(service, 2, 150)
    others = [f"other {number}" for number in range(1000)]
    service.calls[100:100] = [(None, call_id) for call_id in others]
    assert service.rounds(watches) == [4, 4, 4]


@pytest.mark.parametrize("campaigns", [12, 500])
def test_every_stalled_campaign_is_asked_for_its_status_in_two_rounds(campaigns: int) -> None:
    service = Service({})
    watches = tasks(service, campaigns, 1)
    for watch in watches:
        watch.campaign["recipients"] = 2
    service.poll(watches)
    assert not service.asked["campaign"], "a call of each is in progress"
    service.status = {call_id: "COMPLETED" for _, call_id in service.calls}
    asked: set[str] = set()
    for _ in range(2):
        service.poll(watches)
        assert service.asked["campaign"] == campaigns // 2
        asked |= {what for what in service.asked if what.startswith("campaign ")}
    assert len(asked) == campaigns


REFUSALS = [
    VolubileAuthError("403", status=403),
    VolubileNotFound("404", status=404),
    VolubileRequestRefused("400", status=400),
]
OUTAGES = [VolubileUnavailable("500"), VolubileProtocolError("HTML"), KeyError("x")]


@pytest.mark.parametrize("error", [*REFUSALS, *OUTAGES])
@pytest.mark.parametrize("place", ["list Campaign 0", "campaign id of Campaign 0"])
def test_a_fault_of_one_campaign_disturbs_no_one_else_and_ends_its_wait_only_when_it_lasts(
    error: Exception, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service({None: ["plain"]})
    bad, good = tasks(service, 2, 1)
    bad.campaign["recipients"] = good.campaign["recipients"] = 2
    plain = calls_watch("plain")
    service.status = {call_id: "COMPLETED" for _, call_id in service.calls}
    service.broken[place] = error  # type: ignore[assignment]
    for _ in range(3):
        assert service.poll([bad, good, plain]).is_answered
    assert good.progress().settled == plain.progress().settled == 1
    assert good.status == "ACTIVE"
    assert bad.error is good.error is plain.error is None
    assert bad.faults
    limit = "REFUSAL_LIMIT" if error in REFUSALS else "OUTAGE_LIMIT"
    monkeypatch.setattr(fault_policy, limit, timedelta(0))
    service.poll([bad, good, plain])
    assert str(error) in str(bad.error)
    assert good.error is plain.error is None


def test_a_fault_that_passes_is_forgotten() -> None:
    service = Service({})
    watches = tasks(service, 2, 1)
    service.broken["list Campaign 0"] = VolubileUnavailable("500")
    service.poll(watches)
    assert watches[0].faults
    service.broken.clear()
    service.poll(watches)
    assert not watches[0].faults


def test_a_status_that_failed_before_a_campaign_went_on_does_not_count_any_more() -> None:
    service = Service({"Tyres": ["1"]})
    watch = campaign_watch("Tyres", 2, id="id")
    service.status["1"] = "COMPLETED"
    service.broken["campaign"] = VolubileUnavailable("500")
    service.poll([watch])
    assert watch.faults
    service.calls.insert(0, ("Tyres", "2"))
    service.poll([watch])
    assert not watch.faults


def test_an_outage_is_cheap_and_healthy_campaigns_come_first() -> None:
    service = Service({})
    watches = tasks(service, 50, 1)
    service.broken["list"] = VolubileUnavailable("503")
    assert not service.poll(watches).is_answered
    assert service.asked["list"] == 3
    assert all(watch.faults for watch in watches)
    service = Service({})
    watches = tasks(service, 50, 1)
    service.broken = {f"list Campaign {number}": VolubileUnavailable("500") for number in range(4)}
    for watch in watches[:4]:
        watch.note_fault(f"the calls of campaign {watch.listing.campaign!r}", VolubileUnavailable("500"))
    service.poll(watches)
    assert sum(watch.progress().in_flight for watch in watches) == 46


def test_a_full_window_ends_the_round() -> None:
    service = Service({})
    watches = tasks(service, 5, 1)
    service.broken["list"] = VolubileRateLimitError("429")
    assert isinstance(service.poll(watches).fault, VolubileRateLimitError)
    assert service.asked["list"] == 1
    assert all(watch.faults and not watch.error for watch in watches)


@pytest.mark.parametrize("method", ["observe", "pending", "not_before", "listed"])
def test_a_watch_that_breaks_breaks_alone(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(CampaignWatch):
        def __getattribute__(self, name: str) -> Any:
            if name == method:
                raise ValueError("+33639980101 is broken")
            return super().__getattribute__(name)

    service = Service({"Tyres": ["1"]})
    good, plain = campaign_watch("Tyres", 1 if method == "not_before" else 2), calls_watch("1")
    bad = Broken(good.campaign, agent_id=None, since=now() - HOUR_AGO, redial=Redial())
    for _ in range(2):
        service.poll([bad, good, plain])
    assert good.progress().in_flight == plain.progress().in_flight == 1
    assert good.error is None
    assert plain.error is None
    assert "ValueError: +33 6 ** ** ** 01 is broken" in str(bad.error)


def test_a_call_placed_just_before_its_campaign_was_cancelled_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LIST_LAG", 0.05)
    service = Service({"Tyres": []})
    watch = campaign_watch("Tyres", 3, id="id")
    service.campaign_status = "CANCELLED"
    service.poll([watch])
    assert watch.is_cancelled
    assert not watch.is_over(), "it was listed before"
    service.poll([watch])
    service.poll([watch])
    assert not watch.is_over(), "the list may lag"
    assert watch.recheck_after == 0.05
    service.calls.append(("Tyres", "late"))
    time.sleep(0.06)
    service.poll([watch])
    service.status["late"] = "COMPLETED"
    service.poll([watch])
    assert not watch.is_over(), "there was news"
    time.sleep(0.06)
    service.poll([watch])
    assert watch.is_over()
    assert watch.progress().settled == 1
