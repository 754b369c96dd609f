"""The one way in which operators dial: write down, send, write down, wait. Shared by campaigns, bulk and single calls.

Every Dag that dials imports this module whenever it is parsed, so what a task needs when it runs is imported then.

What may be sent again is decided here and in :mod:`airflow_provider_volubile.calling.journal`; docs/reliability.rst
tells the promises and how each is tested.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import Context, conf
from airflow.sdk.exceptions import TaskAwaitingInput

from airflow_provider_volubile._airflow import PermanentStateStore
from airflow_provider_volubile.calling.handles import SubmissionHandle, SubmissionKind
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileInputError,
    VolubileInputsChanged,
    VolubileOutcomeGap,
    VolubileUnknownSubmission,
    VolubileWaitFailed,
    VolubileWaitTimeout,
)
from airflow_provider_volubile.operators.base import VolubileOperator
from airflow_provider_volubile.tasks import WAIT_FOR, check_choice, check_number, fail_without_retry, unwrap

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.calling.journal import PartRecord, SubmissionJournal
    from airflow_provider_volubile.calling.recipients import Recipient, Recipients
    from airflow_provider_volubile.calling.schedule import Schedule
    from airflow_provider_volubile.calling.sending_parts import Dialler
    from airflow_provider_volubile.triggers.wait_trigger import WaitTrigger
    from airflow_provider_volubile.waiting.ending import WaitEvent
    from airflow_provider_volubile.waiting.watches import Watch

OnUnknown = Literal["fail", "resend", "ask"]
ON_UNKNOWN: tuple[OnUnknown, ...] = ("fail", "resend", "ask")


class SubmissionOperator(VolubileOperator):
    """Base of the operators that have people called. Subclasses say what a part is, and how it is sent and found.

    :param agent_id: an active outbound agent.
    :param recipients: rows ``{"phone", "context"}`` or flat rows, numbers, an XCom of them, or the path of a CSV,
        JSON lines or Parquet file.
    :param phone_field: the column that holds the number.
    :param context_fields: the columns that become the context of the agent's prompt; all others by default.
    :param default_region: ISO country of national numbers; without it they are rejected, never guessed.
    :param strict_numbers: also reject numbers that are possible but in no known range.
    :param wait_for_completion: wait until everyone has an outcome.
    :param wait_for: ``ended``, or ``transcript`` to wait for the transcripts of answered calls too.
    :param poll_interval: the longest time between two looks, in seconds.
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

    kind: ClassVar[SubmissionKind]

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
        wait_for: Literal["ended", "transcript"] = "ended",
        poll_interval: float = 30,
        timeout: float,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
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

    # What subclasses say ---------------------------------------------------------------------------------------

    def check(self, client: VolubileClient, journal: SubmissionJournal) -> None:
        """Check everything that can be checked before anything is sent.

        :raises VolubileInputError: naming the value and the rule.
        """
        from airflow_provider_volubile.calling.sending_parts import check_agent

        check_agent(client, self.agent_id)

    def source(self) -> Any:
        """What the recipients are read from."""
        return unwrap(self.recipients)

    def parts(self, people: Sequence[Recipient]) -> list[tuple[Recipient, ...]]:
        """Cut the recipients in what one request takes."""
        from airflow_provider_volubile.api import wire
        from airflow_provider_volubile.calling.recipients import split_parts

        return split_parts(people, wire.MAX_RECIPIENTS)

    def dialler(self, client: VolubileClient, journal: SubmissionJournal, submission: str) -> Dialler:
        """What sends the parts.

        :param submission: the submission's reference.
        """
        raise NotImplementedError

    def handle(self, journal: SubmissionJournal) -> SubmissionHandle:
        """What to hand over; subclasses add what their kind has."""
        refused = _refused(journal)
        return SubmissionHandle(
            kind=self.kind,
            agent_id=journal.agent_id,
            submitted_at=journal.submitted_at.isoformat(),
            recipients=journal.recipients - refused,
            rejected=int(journal.noted("rejected") or 0) + refused,
        )

    def watches(self, handle: SubmissionHandle) -> Sequence[Watch]:
        """What to wait for."""
        raise NotImplementedError

    def trigger(self, handle: SubmissionHandle, deadline: datetime) -> WaitTrigger:
        """What waits without a worker."""
        raise NotImplementedError

    def pause(self, moment: datetime) -> BaseTrigger:
        """What pauses, without a worker, until the next look for a part whose answer was lost."""
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        return DateTimeTrigger(moment=moment)

    def calling_hours(self, handle: SubmissionHandle) -> Schedule | None:
        """When calls may be placed, if it is restricted."""
        return None

    def resumed(self, client: VolubileClient, handle: SubmissionHandle) -> None:
        """A new try found what an earlier one had accepted, and goes on from there."""

    def give_up(self, journal: SubmissionJournal) -> None:
        """Somebody answered that the task shall stop."""

    def settings(self) -> dict[str, Any]:
        """What must be the same for all parts, beside the agent; JSON."""
        return {}

    def on_kill(self) -> None:
        """Runs in the worker when the task is stopped: nothing more is sent."""
        self._stopping = True

    # Submitting ------------------------------------------------------------------------------------------------

    @fail_without_retry()
    def execute(self, context: Context) -> SubmissionHandle:
        self._check_parameters()
        return self._submit(context)

    @fail_without_retry()
    def submit_on(self, context: Context, event: Any = None) -> SubmissionHandle:
        """Go on after a pause in looking for a part whose answer was lost."""
        return self._submit(context, goes_on=True)

    def _submit(self, context: Context, *, goes_on: bool = False) -> SubmissionHandle:
        """Submit what is left to submit, and wait.

        :param goes_on: this try has been here before.
        """
        from airflow_provider_volubile.calling.journal import SubmissionJournal
        from airflow_provider_volubile.calling.sending_parts import advance

        ti = context["ti"]
        store = PermanentStateStore(context["task_state_store"])
        try:
            people = self._read_recipients()
            parts = self.parts(people.accepted)
        except VolubileInputError as error:
            if (begun := SubmissionJournal.resume(store)) and begun.has_begun:
                raise VolubileInputsChanged(begun.changed(f"cannot use what it was given: {error}")) from error
            raise
        journal = SubmissionJournal.open(
            store,
            kind=self.kind,
            agent_id=self.agent_id,
            parts=parts,
            now=datetime.now(UTC),
            settings=self.settings(),
            max_tries=ti.max_tries,
            allow_resubmit=self.allow_resubmit,
        )
        self._ti, self._journal = ti, journal
        client = self.hook.client()
        if not journal.is_new:
            self.resumed(client, self._handover(journal))
        if journal.completed is not None:
            handle = self._handover(journal)
            self.log.info(
                "An earlier try of this task called these people and came to its end. Nobody is called again; "
                "its handle is returned. To call them again on purpose, start a new Dag run, or set allow_resubmit "
                "and clear the task."
            )
            return handle
        may_have_sent = journal.was_lost and (goes_on or ti.try_number > 1)
        earlier = self._earlier_salt(context, client, journal) if may_have_sent else None
        if earlier:
            journal.adopt(earlier)
            names = self.dialler(client, journal, _submission(ti, journal)).name
            journal.suspect(context["dag_run"].run_after, [names(number) for number in range(len(parts))])
        # Before anything may fail: from now on, an empty store means that it was emptied.
        journal.note(rejected=len(people.rejected), max_tries=ti.max_tries, reference=_submission(ti, journal))
        if any(record.state == "pending" for record in journal):
            self.check(client, journal)
        dialler = self.dialler(client, journal, _submission(ti, journal))
        try:
            while (unknown := advance(journal, parts, dialler, stopping=lambda: self._stopping)) is not None:
                self._decide(context, journal, unknown)
        finally:
            if self._stopping:
                self.on_kill()  # once more, for what was accepted since
        if self._stopping:
            raise VolubileError("Stopped while it submitted.")
        while self._identify(journal, parts, dialler) and (nameless := journal.nameless()):
            if not self._look_again(journal[nameless[0]]):
                self.log.warning(
                    "Of %d accepted requests not all calls are listed yet; whoever waits for them looks again.",
                    len(nameless),
                )
                break
        handle = self._handover(journal)
        self.log.info(
            "Volubile accepted %d recipients in %d requests; %d rows were rejected.",
            handle["recipients"],
            sum(record.state == "accepted" for record in journal),
            handle["rejected"],
        )
        if not self.wait_for_completion:
            journal.complete({})
            return handle
        # With the journal, and not with the deferral: `airflow dags test` hands over the event alone.
        journal.note(deadline=(datetime.now(UTC) + timedelta(seconds=self.timeout)).isoformat())
        return self._wait(context, client, journal)

    def _earlier_salt(self, context: Context, client: VolubileClient, journal: SubmissionJournal) -> str | None:
        """An earlier try left nothing in the store. It may have been emptied: look whether that try called anybody."""
        from airflow_provider_volubile.calling.journal import salt_of
        from airflow_provider_volubile.calling.sending_parts import traces

        began = context["dag_run"].run_after
        # Whoever the agent is now: it may have been changed since.
        found = next(traces(client, _reference(context["ti"], journal), began), None)
        if found:
            self.log.warning(
                "The task state store lost what an earlier try had sent, but Volubile has calls of it. Every request "
                "counts as one whose answer was lost. See [state_store] clear_on_success and docs/reliability."
            )
        return salt_of(found) if found else None

    def _check_parameters(self) -> None:
        check_choice("on_unknown", self.on_unknown, ON_UNKNOWN)
        check_choice("wait_for", self.wait_for, WAIT_FOR)
        for name in ("poll_interval", "timeout", "confirmation_timeout"):
            check_number(name, getattr(self, name))
        if self.max_missing is not None:
            check_number("max_missing", self.max_missing)
        if self.min_success_ratio is not None:
            check_number("min_success_ratio", self.min_success_ratio, high=1)
        if not self.wait_for_completion:
            asked = [
                name
                for name in ("outcomes_path", "max_missing", "min_success_ratio")
                if getattr(self, name) is not None
            ]
            if asked:
                raise VolubileInputError(
                    f"{', '.join(asked)}: outcomes are only known after waiting; with wait_for_completion=False leave "
                    "this out."
                )
        if self.outcomes_path:
            from airflow_provider_volubile.exports.files import table_format

            table_format(self.outcomes_path)

    def _read_recipients(self) -> Recipients:
        from airflow_provider_volubile.calling.recipients import read_recipients

        people = read_recipients(
            self.source(),
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

    def _identify(self, journal: SubmissionJournal, parts: Sequence[Sequence[Recipient]], dialler: Dialler) -> bool:
        """Look for the ids of calls that the answers did not tell. Returns whether some are still missing."""
        if self.kind == "campaign":  # calls are found by its name
            return False
        if nameless := journal.nameless():
            records = {number: journal[number] for number in nameless}
            journal.accept_all(dialler.identify({number: parts[number] for number in nameless}, records))
            journal.miss(*journal.nameless(), now=datetime.now(UTC))
        return bool(journal.nameless())

    # What nobody knows -----------------------------------------------------------------------------------------

    def _look_again(self, record: PartRecord) -> bool:
        """Pause before another look, unless ``confirmation_timeout`` is over. Deferrable: without a worker."""
        from airflow_provider_volubile.calling.unknown_outcome import next_look

        now = datetime.now(UTC)
        moment = next_look(record, self.confirmation_timeout, now=now)
        if moment is None:
            return False
        if self.deferrable:
            self.defer(trigger=self.pause(moment), method_name="submit_on")
        time.sleep((moment - now).total_seconds())
        return True

    def _decide(self, context: Context, journal: SubmissionJournal, number: int) -> None:
        """Look for a part again, send it again, or leave the decision to a person, who is asked without a worker."""
        from airflow_provider_volubile.calling import unknown_outcome as recovery

        record = journal[number]
        if self._look_again(record):
            return
        what = recovery.describe(journal, number)
        if self.on_unknown == "resend" and not record.resent:
            self.log.warning("Nothing shows that %s was taken; it is sent again, as on_unknown says.", what)
            journal.resend(number)
            return
        asks = self.on_unknown == "ask"
        if asks and recovery.ask(context["ti"].id, what, self.confirmation_timeout):
            raise TaskAwaitingInput(method_name="answered", kwargs={"number": number})
        raise recovery.unknown(record, what, self.confirmation_timeout, could_ask=asks)

    @fail_without_retry()
    def answered(self, context: Context, event: Mapping[str, Any], number: int) -> SubmissionHandle:
        """Go on with what a person answered."""
        from airflow_provider_volubile.calling.unknown_outcome import SEND, STOP, Answer

        journal = self._resume(context)
        answer = Answer.read(event)
        if answer.chosen == STOP:
            self.give_up(journal)
            accepted = sum(record.state == "accepted" for record in journal)
            raise VolubileUnknownSubmission(
                f"Somebody decided to stop. Nothing was sent again. Of {len(journal)} requests {accepted} had been "
                "accepted: nobody in them is forgotten or called again. To go on, clear this task, keeping its state: "
                "it looks once more, and asks again."
            )
        if journal[number].state == "in_flight":
            if answer.chosen == SEND:
                journal.resend(number)
            elif self.kind == "campaign" and answer.campaign_id:
                self._check_campaign(answer.campaign_id, journal[number])
                journal.accept(number, [answer.campaign_id])
            else:
                journal.accept(number)
        return self._submit(context)

    def _check_campaign(self, identifier: str, record: PartRecord) -> None:
        """Check what somebody typed: another campaign would be paused or cancelled with this task."""
        name = self.hook.client().get_campaign(identifier).name
        if name not in (None, record.name):
            raise VolubileInputError(
                f"Campaign {identifier} is called {name!r}, not {record.name!r}. Clear the task, keeping its state: it "
                "asks again."
            )

    # Waiting ---------------------------------------------------------------------------------------------------

    def _wait(self, context: Context, client: VolubileClient, journal: SubmissionJournal) -> SubmissionHandle:
        return self._finish(context, self._event(context, client, journal))

    def _event(self, context: Context, client: VolubileClient, journal: SubmissionJournal) -> WaitEvent:
        """Wait for what is known to be accepted. Deferrable: without a worker; see :meth:`execute_complete`."""
        handle, deadline = self._handover(journal), _deadline(journal)
        if self.deferrable:
            from airflow_provider_volubile.triggers.wait_trigger import DEFERRAL_GRACE

            self.defer(
                trigger=self.trigger(handle, deadline),
                method_name="execute_complete",
                timeout=max(deadline - datetime.now(UTC), timedelta(0)) + DEFERRAL_GRACE,
            )
        return self.wait_here(context, client, handle, deadline)

    def wait_here(
        self, context: Context, client: VolubileClient, handle: SubmissionHandle, deadline: datetime
    ) -> WaitEvent:
        """Wait in the worker."""
        from airflow_provider_volubile.waiting.ending import wait_event
        from airflow_provider_volubile.waiting.outcomes import NOTHING
        from airflow_provider_volubile.waiting.polling import follow

        watches = self.watches(handle)
        hours = self.calling_hours(handle)
        progress = NOTHING
        for progress in follow(
            client,
            watches,
            deadline=deadline,
            poll_interval=self.poll_interval,
            opening=hours.next_opening if hours else None,
        ):
            self.log.info("%s", progress)
        over = all(watch.is_over(datetime.now(UTC)) for watch in watches)
        return wait_event("over" if over else "timeout", progress, watches)

    @fail_without_retry()
    def execute_complete(self, context: Context, event: Any) -> SubmissionHandle:
        """Go on when the trigger has fired."""
        from airflow_provider_volubile.waiting.ending import read_event

        return self._finish(context, read_event(event))

    @fail_without_retry()
    def look_on(self, context: Context, event: Any = None) -> SubmissionHandle:
        """Go on after a pause in looking for calls of people who were accepted."""
        journal = self._resume(context)
        self._found_more(context, journal)  # or it pauses again, or fails
        return self._wait(context, self.hook.client(), journal)

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
        from airflow_provider_volubile.waiting.outcomes import REFUSED, check_gaps, final_counts

        journal = self._resume(context)
        while event["status"] == "over" and self._found_more(context, journal):
            event = self._event(context, self.hook.client(), journal)
        handle = self._handover(journal)
        if event["status"] == "timeout":
            raise VolubileWaitTimeout(
                f"After {self.timeout:g} s: {event['message']}. The calls go on; a retry goes on waiting."
            )
        if event["status"] == "error":
            error = VolubileWaitFailed if event["final"] else VolubileError
            raise error(f"Waiting failed: {event['message']}")
        if event["cancelled"]:
            self.log.warning("Cancelled outside Airflow: %s. What was reached is returned.", event["cancelled"])
        handle["counts"] = final_counts(
            handle["recipients"],
            settled=event["settled"],
            counts=event["counts"],
            cancelled=bool(event["cancelled"]),
        )
        if self.outcomes_path:
            handle["outcomes"] = self._write_outcomes(journal, handle)
        check_gaps(
            handle["counts"] | {REFUSED: _refused(journal)},
            max_missing=self.max_missing,
            min_success_ratio=self.min_success_ratio,
        )
        journal.complete({key: handle[key] for key in ("counts", "outcomes") if key in handle})
        return handle

    def _handover(self, journal: SubmissionJournal) -> SubmissionHandle:
        handle = self.handle(journal)
        handle.update(journal.completed or {})  # type: ignore[typeddict-item]
        return handle

    def _found_more(self, context: Context, journal: SubmissionJournal) -> bool:
        """Look for calls that were not listed when waiting began, until the deadline: nobody may be forgotten.

        :return: whether there are more to wait for.
        :raises VolubileOutcomeGap: people were accepted, and no call of theirs can be found.
        """
        if self.kind == "campaign" or not journal.nameless():
            return False
        from airflow_provider_volubile.calling import unknown_outcome as recovery

        client = self.hook.client()
        parts = self.parts(self._same_recipients(journal).accepted)
        dialler = self.dialler(client, journal, _submission(context["ti"], journal))
        known = sum(len(record.ids) for record in journal)
        while True:
            self._identify(journal, parts, dialler)
            if sum(len(record.ids) for record in journal) > known:
                return True
            nameless = journal.nameless()
            lost = sum(journal.size(number) - len(journal[number].ids) for number in nameless)
            if self.max_missing is not None and lost <= self.max_missing:
                self.log.warning("No call of %d accepted people is listed; max_missing allows that.", lost)
                return False
            now, deadline = datetime.now(UTC), _deadline(journal)
            if now >= deadline:
                break
            self.log.info("No call of %d accepted people is listed yet.", lost)
            moment = min(now + recovery.LOOK_AGAIN, deadline)
            if self.deferrable:
                self.defer(trigger=self.pause(moment), method_name="look_on")
            time.sleep((moment - now).total_seconds())
        raise VolubileOutcomeGap(
            f"{lost} people were accepted in {len(nameless)} requests, but no call of theirs is listed. Whether they "
            "will be called is not known; look in Volubile's dashboard. Nobody is called again when this task is "
            "cleared: it looks once more. To go on without them, set max_missing."
        )

    def _same_recipients(self, journal: SubmissionJournal) -> Recipients:
        """The recipients once more: their numbers are in no handle and in no journal.

        :raises VolubileInputsChanged: the input changed since they were called.
        """
        from airflow_provider_volubile.calling.journal import fingerprint

        people = self._read_recipients()
        parts = self.parts(people.accepted)
        if fingerprint(self.kind, journal.agent_id, parts, journal.settings) != journal.fingerprint:
            raise VolubileInputsChanged(
                "The recipients changed since they were called, so outcomes cannot be told by person. Restore the "
                "earlier input and clear the task: it calls no one again."
            )
        return people

    def _write_outcomes(self, journal: SubmissionJournal, handle: SubmissionHandle) -> str:
        """Write one row per recipient."""
        from airflow_provider_volubile.calling.schedule import Redial
        from airflow_provider_volubile.exports.outcomes_table import write_outcomes

        people = self._same_recipients(journal).accepted
        refused = {
            person.phone: record.reason or ""
            for record, part in zip(journal, self.parts(people), strict=True)
            if record.state == "refused"
            for person in part
        }
        write_outcomes(
            str(self.outcomes_path),
            self.hook.client(),
            self.watches(handle),
            (person.phone for person in people),
            redial=Redial.parse(handle.get("redial")),
            refused=refused,
            counts=handle["counts"],
        )
        return str(self.outcomes_path)


def _deadline(journal: SubmissionJournal) -> datetime:
    """Until when this try waits."""
    return datetime.fromisoformat(journal.noted("deadline"))


def _refused(journal: SubmissionJournal) -> int:
    """How many people the service did not take: only requests for one person are refused and passed over."""
    return sum(record.state == "refused" for record in journal)


def _reference(ti: Any, journal: SubmissionJournal) -> str:
    from airflow_provider_volubile.calling.journal import reference

    map_index = -1 if ti.map_index is None else ti.map_index
    return reference(ti.dag_id, ti.run_id, ti.task_id, map_index, journal.generation)


def _submission(ti: Any, journal: SubmissionJournal) -> str:
    """What the reference of each part begins with."""
    return _reference(ti, journal) + journal.salt
