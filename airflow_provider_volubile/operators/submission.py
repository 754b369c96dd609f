"""The one way in which operators dial: read, recover, send, find out, wait. Shared by campaigns, bulk and single calls.

Every Dag that dials imports this module whenever it is parsed, so what a task needs when it runs is imported then.

What may be sent again is decided in :mod:`airflow_provider_volubile.calling.journal`, what differs between the kinds of
submission stands in :mod:`airflow_provider_volubile.calling.kinds`; docs/reliability.rst tells the promises and how
each is tested.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from math import inf
from threading import Thread
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import Context, conf
from airflow.sdk.exceptions import TaskAwaitingInput

from airflow_provider_volubile._airflow import PermanentStateStore
from airflow_provider_volubile.calling.handles import SubmissionHandle, handle_of
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileInputError,
    VolubileInputsChanged,
    VolubileUnknownSubmission,
    without_frames,
)
from airflow_provider_volubile.operators.base import VolubileOperator
from airflow_provider_volubile.tasks import WAIT_FOR, check_choice, check_number, fail_without_retry, unwrap

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.calling.journal import SubmissionJournal
    from airflow_provider_volubile.calling.kinds import Calls
    from airflow_provider_volubile.calling.recipients import Recipient, Recipients
    from airflow_provider_volubile.calling.stopping import KillAction
    from airflow_provider_volubile.waiting.ending import WaitEvent

OnUnknown = Literal["fail", "resend", "ask"]
WaitFor = Literal["ended", "transcript"]
ON_UNKNOWN: tuple[OnUnknown, ...] = ("fail", "resend", "ask")
# Between two checks of the task's own state while single calls are sent, in seconds.
STATE_INTERVAL = 1.0
WEEK = 7 * 24 * 3600.0
DEFERRABLE: bool = conf.getboolean("operators", "default_deferrable", fallback=False)


class SubmissionOperator(VolubileOperator):
    """Base of the operators that have people called. Subclasses make the kind of submission (:meth:`make_kind`).

    :param agent_id: an active outbound agent.
    :param recipients: rows ``{"phone", "context"}`` or flat rows, numbers, an XCom of them, or the path of a CSV,
        JSON lines or Parquet file.
    :param phone_field: the column that holds the number.
    :param context_fields: the columns that become the context of the agent's prompt; all others by default.
    :param default_region: ISO country of national numbers; without it they are rejected, never guessed.
    :param strict_numbers: also reject numbers that are possible but in no known range.
    :param wait_for_completion: wait until everyone has an outcome.
    :param wait_for: ``ended``, or ``transcript`` to wait for the transcripts of answered calls too.
    :param poll_interval: the longest time between two polls, in seconds.
    :param timeout: how long to wait, in seconds.
    :param deferrable: wait in the triggerer and hold no worker.
    :param on_unknown: what to do when it cannot be found out whether a request was taken: ``fail`` without a retry,
        ``resend`` once and risk that people are called twice, or ``ask`` a person in Airflow's UI.
    :param confirmation_timeout: how long to look for the calls of such a request, in seconds.
    :param allow_resubmit: when somebody clears the task after its submission came to its end, call everyone again.
    :param outcomes_path: write one row per recipient there (``.jsonl.gz``, ``.csv`` or ``.parquet``).
    :param max_missing: fail if more recipients than this were never dialled, those included whose number the service
        did not take. Rows that are no recipients (no number, a duplicate) are counted in ``rejected`` instead.
    :param min_success_ratio: fail if a smaller share of the same people was reached (``COMPLETED``, ``TRANSFERRED``).
    """

    template_fields: Sequence[str] = (
        "agent_id",
        "recipients",
        "phone_field",
        "context_fields",
        "default_region",
        "on_unknown",
        "outcomes_path",
        "volubile_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"recipients": "json", "context_fields": "json"}
    personal_fields: Sequence[str] = ("recipients",)

    #: What happens to campaigns when somebody stops the task. Calls cannot be stopped.
    on_kill_action: KillAction = "leave"

    def __init__(
        self,
        *,
        agent_id: str,
        recipients: Any,
        phone_field: str = "phone",
        context_fields: Sequence[str] | None = None,
        default_region: str | None = None,
        strict_numbers: bool = False,
        wait_for_completion: bool = True,
        wait_for: WaitFor = "ended",
        poll_interval: float = 30,
        timeout: float | None,
        deferrable: bool = DEFERRABLE,
        on_unknown: OnUnknown = "fail",
        confirmation_timeout: float = 300,
        allow_resubmit: bool = False,
        outcomes_path: str | None = None,
        max_missing: int | None = None,
        min_success_ratio: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.agent_id = agent_id
        self.recipients = recipients
        self.phone_field = phone_field
        self.context_fields = context_fields
        self.default_region = default_region
        self.strict_numbers = strict_numbers
        self.wait_for_completion = wait_for_completion
        self.wait_for = wait_for
        self.poll_interval = poll_interval
        self.timeout = timeout
        self.deferrable = deferrable
        self.on_unknown = on_unknown
        self.confirmation_timeout = confirmation_timeout
        self.allow_resubmit = allow_resubmit
        self.outcomes_path = outcomes_path
        self.max_missing = max_missing
        self.min_success_ratio = min_success_ratio
        self._ti: Any = None
        self._journal: SubmissionJournal | None = None
        self._stopping = False
        self._state_asked_at = -inf

    def make_kind(self) -> Calls:
        """What is submitted, from this operator's parameters.

        :raises VolubileInputError: one of them cannot be.
        """
        raise NotImplementedError

    def rows(self) -> Any:
        """What the recipients are read from."""
        return unwrap(self.recipients)

    # What Airflow calls ----------------------------------------------------------------------------------------

    @fail_without_retry()
    def execute(self, context: Context) -> SubmissionHandle:
        from airflow_provider_volubile.calling.journal import note_begin

        was_begun = note_begin(PermanentStateStore(context["task_state_store"]), datetime.now(UTC))
        self._check_parameters()
        return self._submit(context, may_be_lost=not was_begun and context["ti"].try_number > 1)

    @fail_without_retry()
    def resume_submission(self, context: Context, event: Any = None) -> SubmissionHandle:
        """Go on after a pause between two searches for requests whose answers were lost."""
        return self._submit(context, may_be_lost=True)

    # Tasks that the version before deferred resume by these names.
    submit_on = look_on = resume_submission

    @fail_without_retry()
    def answered(
        self, context: Context, event: Mapping[str, Any], numbers: Sequence[int] = (), number: int | None = None
    ) -> SubmissionHandle:
        """Go on with what a person answered.

        :param numbers: the parts the question was about.
        :param number: the same, as the version before gave it.
        """
        from airflow_provider_volubile.calling.stopping import stop_campaigns
        from airflow_provider_volubile.calling.unknown_outcome import SEND, STOP, Answer, match_campaigns

        journal = self._resume(context)
        answer = Answer.read(event)
        if answer.chosen == STOP:
            not_stopped = ""
            try:
                if self.on_kill_action != "leave":
                    stop_campaigns(self.hook, handle_of(journal).get("campaigns", ()), self.on_kill_action)
            except VolubileError as error:  # a retry would let go on what was stopped
                not_stopped = f" Not everything could be stopped, look in Volubile's dashboard: {error}"
            raise VolubileUnknownSubmission(
                f"Somebody decided to stop. Nothing was sent again. Of {len(journal)} requests "
                f"{len(journal.numbers('accepted'))} had been accepted: nobody in them is forgotten or called again. "
                f"To go on, clear this task, keeping its state: it looks once more, and asks again.{not_stopped}"
            )
        asked = numbers if number is None else [number]
        unknown = [each for each in asked if journal[each].state == "in_flight"]
        is_campaign = journal.head.kind == "campaign"
        created: dict[int, Sequence[str]] = {}
        if is_campaign and unknown and answer.campaign_ids:
            created |= match_campaigns(self.hook.client(), journal, unknown, answer.campaign_ids)
        others = [each for each in unknown if each not in created]
        if answer.chosen == SEND:
            journal.resend(*others)
        else:
            created |= dict.fromkeys(others, ())
        journal.accept_all(created)
        return self._submit(context)

    @fail_without_retry()
    def execute_complete(self, context: Context, event: Any) -> SubmissionHandle:
        """Go on when the trigger has fired."""
        from airflow_provider_volubile.waiting.ending import read_event

        return self._finish(context, read_event(event))

    def on_kill(self) -> None:
        """Runs in the worker when the task is stopped: nothing more is sent, and its campaigns are stopped."""
        self._stopping = True
        campaigns = handle_of(self._journal).get("campaigns") if self._journal is not None else None
        if campaigns:
            # This runs in a signal handler: the main thread may just hold the channel to the supervisor.
            Thread(target=self._stop, args=(campaigns,), name="volubile-on-kill").start()

    def _stop(self, campaigns: Any) -> None:
        from airflow_provider_volubile.calling.stopping import stop_if_killed

        stop_if_killed(self.hook, self._ti, campaigns, self.on_kill_action)

    # Submitting ------------------------------------------------------------------------------------------------

    @without_frames
    def _submit(self, context: Context, *, may_be_lost: bool = False) -> SubmissionHandle:
        """Submit what is left to submit, and wait.

        :param may_be_lost: if there is no journal, the store was emptied.
        """
        from airflow_provider_volubile.calling.installation import installation_id
        from airflow_provider_volubile.calling.journal import SubmissionJournal, prefixes
        from airflow_provider_volubile.calling.stopping import resume_campaigns

        ti, run, kind = context["ti"], context["dag_run"], self.make_kind()
        is_cleared = bool(getattr(run, "clear_number", 0))
        is_mapped = ti.map_index is not None and ti.map_index >= 0
        may_move = is_mapped and is_cleared
        task_prefixes = cache(lambda: prefixes(ti.dag_id, ti.run_id, ti.task_id, installation_id()))
        store = PermanentStateStore(context["task_state_store"])
        people, parts = self._read_parts(kind, store)
        journal = SubmissionJournal.open(
            store,
            prefixes=task_prefixes,
            kind=kind.kind,
            agent_id=self.agent_id,
            parts=parts,
            now=datetime.now(UTC),
            settings=kind.settings,
            max_tries=ti.max_tries,
            allow_resubmit=self.allow_resubmit,
            may_move=may_move,
        )
        self._ti, self._journal = ti, journal
        client = self.hook.client()
        resume_campaigns(client, handle_of(journal).get("campaigns", ()))
        if journal.head.completed is not None:
            self.log.info(
                "An earlier try of this task called these people and came to its end. Nobody is called again; "
                "its handle is returned. To call them again on purpose, start a new Dag run, or set allow_resubmit "
                "and clear the task."
            )
            return handle_of(journal)
        if journal.is_new and not journal.calls_again and (may_move or may_be_lost):
            # A run that was not cleared has no calls from before it started; an older run of its name may have.
            since = run.run_after if is_cleared else getattr(run, "start_date", None) or run.run_after
            phones = [person.phone for person in people.accepted] if is_mapped else []
            self._recover(client, journal, kind, task_prefixes(), phones, since=since, may_move=may_move)
        # Before anything may fail: from now on, an empty store means that it was emptied.
        journal.update(rejected=len(people.rejected), max_tries=ti.max_tries)
        self._send(context, client, journal, parts, kind)
        handle = handle_of(journal)
        self.log.info(
            "Volubile accepted %d recipients in %d requests; %d rows were rejected.",
            handle["recipients"],
            len(journal.numbers("accepted")),
            handle["rejected"],
        )
        if not self.wait_for_completion:
            journal.complete({})
            return handle
        return self._wait(context, client, handle)

    def _check_parameters(self) -> None:
        from airflow_provider_volubile.calling.stopping import KILL_ACTIONS

        check_choice("on_unknown", self.on_unknown, ON_UNKNOWN)
        check_choice("wait_for", self.wait_for, WAIT_FOR)
        check_choice("on_kill_action", self.on_kill_action, KILL_ACTIONS)
        for name in ("poll_interval", "confirmation_timeout"):
            check_number(name, getattr(self, name))
        for name in ("timeout", "max_missing"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name))
        if self.min_success_ratio is not None:
            check_number("min_success_ratio", self.min_success_ratio, high=1)
        if not self.wait_for_completion:
            about_outcomes = ("outcomes_path", "max_missing", "min_success_ratio")
            if given := [name for name in about_outcomes if getattr(self, name) is not None]:
                raise VolubileInputError(
                    f"{', '.join(given)}: outcomes are only known after waiting; with wait_for_completion=False leave "
                    "this out."
                )
        if self.outcomes_path:
            from airflow_provider_volubile.exports.files import table_format

            table_format(self.outcomes_path)

    def _read_recipients(self) -> Recipients:
        from airflow_provider_volubile.calling.recipients import read_recipients

        people = read_recipients(
            self.rows(),
            phone_field=self.phone_field,
            context_fields=self.context_fields,
            default_region=self.default_region,
            strict_numbers=self.strict_numbers,
        )
        if not people.accepted:
            reasons = "; ".join(f"line {row.line}: {row.reason}" for row in people.rejected[:5])
            raise VolubileInputError(
                f"There is nobody to call: {len(people.rejected)} rows were read and none was accepted"
                + (f" ({reasons})." if reasons else ".")
            )
        return people

    def _read_parts(self, kind: Calls, store: PermanentStateStore) -> tuple[Recipients, list[tuple[Recipient, ...]]]:
        """The recipients, and the parts they are sent in.

        :raises VolubileInputsChanged: they cannot be read any more, and an earlier try had some of them called.
        """
        from airflow_provider_volubile.calling.journal import SubmissionJournal

        try:
            people = self._read_recipients()
            return people, kind.cut(people.accepted)
        except VolubileInputError as error:
            if (begun := SubmissionJournal.resume(store)) and begun.has_begun:
                raise VolubileInputsChanged(begun.changed(f"cannot use what it was given: {error}")) from error
            raise

    def _recover(
        self,
        client: VolubileClient,
        journal: SubmissionJournal,
        kind: Calls,
        prefixes: tuple[str, ...],
        phones: Sequence[str],
        *,
        since: datetime,
        may_move: bool,
    ) -> None:
        """The store has no journal of these people: look whether an earlier try called them all the same.

        :param phones: the people, if the task is mapped: its indexes share their prefixes.
        :param may_move: the run was cleared, and may map these people to another index than before.
        """
        from airflow_provider_volubile.waiting.find_calls import find_people, find_reference

        if phones:
            people = find_people(client, prefixes, phones, since=since)
            submissions = {reference.rpartition("-")[0] for reference in people.values()}
            if len(submissions) > 1 or (may_move and 0 < len(people) < len(phones)):
                raise VolubileInputsChanged(
                    f"{len(people)} of these {len(phones)} people were called by this task before its Dag run was "
                    "cleared, in lists of other people. Nothing was sent. Restore the earlier lists and clear the "
                    "task, or call the others in a new Dag run."
                )
            found = next(iter(people.values()), None)
            if found is None and may_move and kind.kind == "campaign" and self.on_unknown != "resend":
                raise VolubileUnknownSubmission(
                    "The Dag run was cleared, and this mapped task has no record of these people. An earlier campaign "
                    "that has not dialled yet cannot be found. Nothing was sent. Look in Volubile's dashboard whether "
                    "there is one; if there is none, set on_unknown='resend' and clear the task."
                )
        else:
            found = find_reference(client, prefixes, since=since)  # by any agent: it may have been changed since
        if found is None:
            return
        self.log.warning(
            "The task state store does not have what an earlier try sent, but Volubile has calls of it. Every request "
            "counts as one whose answer was lost. See [state_store] clear_on_success and docs/reliability."
        )
        generation = next(number for number, prefix in enumerate(prefixes) if found.startswith(prefix))
        journal.recover(found, since, kind.name, generation)

    def _send(
        self,
        context: Context,
        client: VolubileClient,
        journal: SubmissionJournal,
        parts: Sequence[Sequence[Recipient]],
        kind: Calls,
    ) -> None:
        """Send what was not sent, and find out about what may have been, until every part is accepted or refused."""
        from airflow_provider_volubile.calling.kinds import check_agent
        from airflow_provider_volubile.calling.sending_parts import (
            check_refusals,
            find_missing_ids,
            find_unknown,
            send_pending,
        )

        if journal.numbers("pending", "to_resend"):
            journal.update(schedule=kind.check(journal))
            check_agent(client, self.agent_id)
        try:
            while journal.numbers("pending", "to_resend", "in_flight"):
                # Asking takes about as long as one call; at most one more second of single calls is sent.
                check_stop = partial(self._check_stop, STATE_INTERVAL if kind.one_person else 0)
                send_pending(client, journal, parts, kind, check_stop=check_stop)
                if unknown := find_unknown(client, journal, parts, kind):
                    self._settle_unknown(context, journal, unknown)
            check_refusals(journal)
        finally:
            if self._stopping:
                self.on_kill()  # once more, for what was accepted since
        self._check_stop()
        find_missing_ids(client, journal, parts, kind)
        if not self.wait_for_completion:
            self._wait_for_ids(journal, partial(find_missing_ids, client, journal, parts, kind))

    def _wait_for_ids(self, journal: SubmissionJournal, find: Callable[[], None]) -> None:
        """Look for ids that the answers did not give: without a wait, nothing finds them later."""
        from airflow_provider_volubile.calling.unknown_outcome import next_search

        while missing := journal.missing_ids():
            now = datetime.now(UTC)
            journal.miss(*missing, now=now)
            if (moment := next_search(journal, missing, self.confirmation_timeout, now=now)) is None:
                self.log.warning("Not all calls of %d accepted requests are listed yet.", len(missing))
                return
            self._pause(journal, moment, (moment - now).total_seconds())
            find()

    def _check_stop(self, interval: float = 0) -> None:
        """Check that nobody has stopped the task. A stop reaches the worker late: its state is asked for.

        :param interval: ask again after so many seconds.
        :raises VolubileError: somebody has.
        """
        from airflow_provider_volubile.calling.stopping import is_stopped

        is_real = hasattr(self._ti, "get_task_states")  # and no test that runs an operator by hand
        if is_real and not self._stopping and time.monotonic() - self._state_asked_at >= interval:
            self._stopping = is_stopped(self._ti)
            self._state_asked_at = time.monotonic()
        if self._stopping:
            raise VolubileError("Stopped while it submitted. What was accepted goes on; another try sends the rest.")

    def _settle_unknown(self, context: Context, journal: SubmissionJournal, unknown: Sequence[int]) -> None:
        """Pause before another search, mark to be sent again, or leave the decision to a person.

        :raises VolubileUnknownSubmission: it is not to be sent again.
        """
        from airflow_provider_volubile.calling import unknown_outcome

        now = datetime.now(UTC)
        if moment := unknown_outcome.next_search(journal, unknown, self.confirmation_timeout, now=now):
            self._pause(journal, moment, (moment - now).total_seconds())
            return
        what = unknown_outcome.describe(journal, unknown)
        if self.on_unknown == "resend" and (again := [each for each in unknown if not journal[each].resent]):
            self.log.warning("Nothing shows that %s was taken; it is sent again, as on_unknown says.", what)
            journal.resend(*again)
            return
        asks = self.on_unknown == "ask"
        if asks and unknown_outcome.ask(context["ti"].id, what, self.confirmation_timeout):
            raise TaskAwaitingInput(method_name="answered", kwargs={"numbers": list(unknown)})
        raise unknown_outcome.unknown_submission(journal, unknown, self.confirmation_timeout, question_not_shown=asks)

    def _pause(self, journal: SubmissionJournal, moment: datetime, seconds: float) -> None:
        """Wait until ``moment``, ``seconds`` from now. Deferrable: without a worker."""
        if self.deferrable:
            from airflow_provider_volubile.triggers.recovery import LookAgainTrigger

            trigger = LookAgainTrigger(
                moment=moment,
                volubile_conn_id=self.volubile_conn_id,
                campaigns=handle_of(journal).get("campaigns", ()),
                on_kill_action=self.on_kill_action,
            )
            self.defer(trigger=trigger, method_name="resume_submission")
        time.sleep(seconds)

    # Waiting ---------------------------------------------------------------------------------------------------

    def _wait(self, context: Context, client: VolubileClient, handle: SubmissionHandle) -> SubmissionHandle:
        """Wait until everyone has an outcome. Deferrable: without a worker; see :meth:`execute_complete`."""
        from airflow_provider_volubile.waiting.polling import wait

        how: dict[str, Any] = {
            "wait_for": self.wait_for,
            "deadline": datetime.now(UTC) + timedelta(seconds=self._seconds_to_wait(handle)),
            "poll_interval": self.poll_interval,
        }
        if self.deferrable:
            from airflow_provider_volubile.triggers.wait_trigger import defer_wait

            defer_wait(self, handle, volubile_conn_id=self.volubile_conn_id, on_kill_action=self.on_kill_action, **how)
        event = wait(client, handle, report=lambda progress: self.log.info("%s", progress), **how)
        return self._finish(context, event)

    def _seconds_to_wait(self, handle: SubmissionHandle) -> float:
        """``timeout``; by default a week after the schedule has everyone called once."""
        from airflow_provider_volubile.calling.schedule import Schedule

        if not (hours := handle.get("schedule")):
            return WEEK if self.timeout is None else self.timeout
        people = max((campaign["recipients"] for campaign in handle["campaigns"]), default=0)
        submitted_at = datetime.fromisoformat(handle["submitted_at"])
        end = Schedule.load(hours).end_of_calls(people, submitted_at)
        needed = (end - submitted_at).total_seconds()
        if self.timeout is None:
            return WEEK + needed
        if self.timeout < needed:
            self.log.warning(
                "The schedule has %d people called by %s, and no earlier. timeout ends the wait %g s before that: "
                "raise timeout, batch_size or the hours.",
                people,
                f"{end:%Y-%m-%d %H:%M %Z}",
                needed - self.timeout,
            )
        return self.timeout

    def _resume(self, context: Context) -> SubmissionJournal:
        from airflow_provider_volubile.calling.journal import SubmissionJournal

        journal = SubmissionJournal.resume(PermanentStateStore(context["task_state_store"]))
        if journal is None:
            raise VolubileError(
                "The task state store lost this task's submission; a retry looks for what was sent. See "
                "docs/reliability."
            )
        return journal

    def _finish(self, context: Context, event: WaitEvent) -> SubmissionHandle:
        from airflow_provider_volubile.waiting.ending import finish_wait
        from airflow_provider_volubile.waiting.outcomes import REFUSED, check_gaps

        journal = self._resume(context)
        # The wait recognised these calls by their reference, which counts parts from 1.
        parts = {str(number + 1): number for number in range(len(journal))}
        journal.accept_all({parts[part]: ids for part, ids in event["found"].items() if part in parts})
        handle = handle_of(journal)
        if event["status"] == "over" and event["recipients"] < handle["recipients"]:
            # The version before did not tell its trigger how many people were accepted.
            return self._wait(context, self.hook.client(), handle)
        timeout = self._seconds_to_wait(handle)
        handle = finish_wait(handle, event, timeout=timeout, max_missing=self.max_missing)
        if self.outcomes_path:
            self._write_outcomes(journal, handle)
            handle["outcomes"] = str(self.outcomes_path)
        check_gaps(
            handle["counts"] | {REFUSED: len(journal.numbers("refused"))},
            max_missing=self.max_missing,
            min_success_ratio=self.min_success_ratio,
        )
        journal.complete({key: handle[key] for key in ("counts", "outcomes") if key in handle})
        return handle

    def _write_outcomes(self, journal: SubmissionJournal, handle: SubmissionHandle) -> None:
        """Write one row per recipient. Numbers are in no handle and in no journal: they are read once more.

        :raises VolubileInputsChanged: the recipients changed since they were called.
        """
        from airflow_provider_volubile.calling.journal import fingerprint
        from airflow_provider_volubile.calling.schedule import Redial
        from airflow_provider_volubile.exports.outcomes_table import write_outcomes
        from airflow_provider_volubile.waiting.watches import watches_for

        kind, people = self.make_kind(), self._read_recipients().accepted
        parts = kind.cut(people)
        head = journal.head
        if fingerprint(head.kind, head.agent_id, parts, head.settings) != head.fingerprint:
            raise VolubileInputsChanged(
                "The recipients changed since they were called, so outcomes cannot be told by person. Restore the "
                "earlier input and clear the task: it calls no one again."
            )
        write_outcomes(
            str(self.outcomes_path),
            self.hook.client(),
            watches_for(handle),
            (person.phone for person in people),
            redial=Redial.parse(handle.get("redial")),
            refused={
                person.phone: journal[number].reason or ""
                for number in journal.numbers("refused")
                for person in parts[number]
            },
            counts=handle["counts"],
        )
