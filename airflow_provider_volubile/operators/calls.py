"""Calls as tasks: one, or up to ten thousand; and the transcript of one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, cast

from airflow.sdk import Context, conf
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_volubile.calling.handles import SubmissionHandle, SubmissionKind
from airflow_provider_volubile.exceptions import (
    VolubileError,
    VolubileInputError,
    VolubileNotFound,
    VolubileWaitFailed,
    VolubileWaitTimeout,
)
from airflow_provider_volubile.operators.base import VolubileOperator
from airflow_provider_volubile.operators.submission import SubmissionOperator
from airflow_provider_volubile.tasks import check_choice, fail_without_retry, unwrap

if TYPE_CHECKING:
    from airflow_provider_volubile.api.client import VolubileClient
    from airflow_provider_volubile.calling.journal import SubmissionJournal
    from airflow_provider_volubile.calling.recipients import Recipient
    from airflow_provider_volubile.calling.sending_parts import Dialler, SingleDialler
    from airflow_provider_volubile.triggers.calls import VolubileCallsTrigger
    from airflow_provider_volubile.waiting.ending import WaitEvent
    from airflow_provider_volubile.waiting.watches import Watch

HOUR = 3600.0
MAX_RECIPIENTS = 10_000
# XCom is stored in the metadata database and read whole by everyone who looks at the task.
MAX_XCOM_BYTES = 256 * 1024


class CallOperator(SubmissionOperator):
    """What bulk and single calls have in common: they are waited for by their ids."""

    def handle(self, journal: SubmissionJournal) -> SubmissionHandle:
        handle = super().handle(journal)
        handle["call_ids"] = [call_id for record in journal for call_id in record.ids]
        if reference := journal.noted("reference"):
            handle["reference"] = reference
        return handle

    def watches(self, handle: SubmissionHandle) -> Sequence[Watch]:
        from airflow_provider_volubile.waiting.find_calls import begin_of
        from airflow_provider_volubile.waiting.watches import CallsWatch

        return [
            CallsWatch(
                handle["call_ids"],
                agent_id=handle["agent_id"],
                since=begin_of(handle),
                with_transcripts=self.wait_for == "transcript",
            )
        ]

    def trigger(self, handle: SubmissionHandle, deadline: datetime) -> VolubileCallsTrigger:
        from airflow_provider_volubile.triggers.calls import VolubileCallsTrigger

        return VolubileCallsTrigger(
            volubile_conn_id=self.volubile_conn_id,
            call_ids=handle["call_ids"],
            agent_id=handle["agent_id"],
            since=handle["submitted_at"],
            deadline=deadline.isoformat(),
            poll_interval=self.poll_interval,
            wait_for=self.wait_for,
        )


class VolubileBulkCallsOperator(CallOperator):
    """Have an agent call up to 10,000 people at once, and wait until each call has ended.

    For more people, map the operator over lists of them. Nobody is called twice by a retry: see :doc:`/reliability`.
    Returns a :class:`~airflow_provider_volubile.calling.handles.SubmissionHandle`. People whose number the service
    refuses are counted as rejected when calls are sent one by one; a refused bulk request fails the task.

    :param submit_as: ``bulk`` sends up to 1,000 people in one request, to a route of which only the address is
        documented; ``single`` sends one documented request per person
        (`Create call <https://docs.volubile.ai/api-reference/calls/create>`__), at most 100 in 15 s.

    See :class:`~airflow_provider_volubile.operators.submission.SubmissionOperator` for the other parameters.
    """

    template_fields: Sequence[str] = ("submit_as", *SubmissionOperator.template_fields)
    kind: ClassVar[SubmissionKind] = "bulk"

    def __init__(
        self, *, submit_as: Literal["bulk", "single"] = "bulk", timeout: float = 6 * HOUR, **kwargs: Any
    ) -> None:
        super().__init__(timeout=timeout, **kwargs)
        self.submit_as = submit_as

    def parts(self, people: Sequence[Recipient]) -> list[tuple[Recipient, ...]]:
        from airflow_provider_volubile.calling.recipients import split_parts

        check_choice("submit_as", self.submit_as, ("bulk", "single"))
        if len(people) > MAX_RECIPIENTS:
            raise VolubileInputError(
                f"{len(people)} recipients in one task; it takes at most {MAX_RECIPIENTS}. Map the operator over "
                "lists of people: VolubileBulkCallsOperator.partial(…).expand(recipients=…)."
            )
        return split_parts(people, 1) if self.submit_as == "single" else super().parts(people)

    def dialler(self, client: VolubileClient, journal: SubmissionJournal, submission: str) -> Dialler:
        from airflow_provider_volubile.calling.sending_parts import BulkDialler, SingleDialler

        make = SingleDialler if self.submit_as == "single" else BulkDialler
        return make(client, agent_id=self.agent_id, submission=submission)


class VolubileCreateCallOperator(CallOperator):
    """Have an agent call one person, and wait until the call has ended.

    Nobody is called twice by a retry: see :doc:`/reliability`. Returns a
    :class:`~airflow_provider_volubile.calling.handles.SubmissionHandle`.

    API facts: `Create call <https://docs.volubile.ai/api-reference/calls/create>`__.

    :param phone: the number, in E.164 or, with ``default_region``, as people of that country write it.
    :param call_context: values for the placeholders of the agent's prompt.

    See :class:`~airflow_provider_volubile.operators.submission.SubmissionOperator` for the other parameters.
    """

    template_fields: Sequence[str] = (
        "agent_id",
        "phone",
        "call_context",
        "default_region",
        "on_unknown",
        "outcomes_path",
        "volubile_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"call_context": "json"}
    personal_fields: Sequence[str] = ("phone", "call_context")
    kind: ClassVar[SubmissionKind] = "call"

    def __init__(
        self,
        *,
        phone: str,
        call_context: Mapping[str, Any] | None = None,
        timeout: float = HOUR,
        **kwargs: Any,
    ) -> None:
        super().__init__(recipients=None, timeout=timeout, **kwargs)
        self.phone = phone
        self.call_context = call_context

    def source(self) -> list[dict[str, Any]]:
        context = unwrap(self.call_context)
        if not isinstance(context, Mapping | None):
            raise VolubileInputError(
                f"call_context: got a {type(context).__name__} where an object is expected, such as "
                "{'firstName': 'Lucie'}; hand over the task's output itself (call_context=task.output), or set "
                "render_template_as_native_obj=True on the Dag."
            )
        return [{"phone": unwrap(self.phone), "context": context or {}}]

    def parts(self, people: Sequence[Recipient]) -> list[tuple[Recipient, ...]]:
        from airflow_provider_volubile.calling.recipients import split_parts

        return split_parts(people, 1)

    def dialler(self, client: VolubileClient, journal: SubmissionJournal, submission: str) -> SingleDialler:
        from airflow_provider_volubile.calling.sending_parts import SingleDialler

        return SingleDialler(client, agent_id=self.agent_id, submission=submission)


class TranscriptEntry(TypedDict):
    """One event of what :class:`VolubileGetTranscriptOperator` returns, as the API names things.

    :ivar action: such as ``RING``, ``ANSWER``, ``HUMAN_SPEAK``, ``AGENT_SPEAK``, ``HANG_UP``.
    :ivar time: ISO 8601 in UTC.
    :ivar actor: ``HUMAN``, ``AGENT``, ``ANSWERING_MACHINE`` or ``UNKNOWN``.
    :ivar message: what was said, where somebody spoke.
    """

    action: str
    time: str | None
    actor: str | None
    message: str | None


class VolubileGetTranscriptOperator(VolubileOperator):
    """Return the transcript of one call through XCom; it is waited for if it is not there yet.

    A call in which nobody was heard (``NO_ANSWER``, ``REJECTED``…) has none: the task is then skipped. Returns a list
    of :class:`TranscriptEntry`.

    For more than a few calls there is
    :class:`~airflow_provider_volubile.operators.exports.VolubileExportTranscriptsOperator`: XCom is stored in the
    metadata database, and what people said is readable there.

    API facts: `Get transcript <https://docs.volubile.ai/api-reference/calls/get-transcript>`__.

    :param call_id: the call.
    :param timeout: how long to wait for the call to end and its transcript to appear, in seconds.
    :param poll_interval: the longest time between two looks, in seconds.
    :param deferrable: wait in the triggerer and hold no worker.
    """

    template_fields: Sequence[str] = ("call_id", "volubile_conn_id")

    def __init__(
        self,
        *,
        call_id: str,
        timeout: float = HOUR,
        poll_interval: float = 30,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.call_id = call_id
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable

    @fail_without_retry()
    def execute(self, context: Context) -> list[TranscriptEntry]:
        from airflow_provider_volubile.api import wire
        from airflow_provider_volubile.triggers.calls import VolubileCallsTrigger
        from airflow_provider_volubile.triggers.wait_trigger import DEFERRAL_GRACE
        from airflow_provider_volubile.waiting.ending import wait_event
        from airflow_provider_volubile.waiting.outcomes import NOTHING
        from airflow_provider_volubile.waiting.polling import follow
        from airflow_provider_volubile.waiting.watches import CallsWatch

        client = self.hook.client()
        with suppress(VolubileNotFound):
            transcript = self._fetch(client)
            if wire.is_whole_transcript(entry["action"] for entry in transcript):
                return transcript
        self.log.info("Call %s has no whole transcript yet.", self.call_id)
        deadline = datetime.now(UTC) + timedelta(seconds=self.timeout)
        if self.deferrable:
            self.defer(
                trigger=VolubileCallsTrigger(
                    volubile_conn_id=self.volubile_conn_id,
                    call_ids=[self.call_id],
                    since=None,
                    deadline=deadline.isoformat(),
                    poll_interval=self.poll_interval,
                    wait_for="transcript",
                ),
                method_name="execute_complete",
                timeout=timedelta(seconds=self.timeout) + DEFERRAL_GRACE,
            )
        watch = CallsWatch([self.call_id], with_transcripts=True)
        progress = NOTHING
        for progress in follow(client, [watch], deadline=deadline, poll_interval=self.poll_interval):
            self.log.info("%s", progress)
        over = watch.is_over(datetime.now(UTC))
        return self._finish(wait_event("over" if over else "timeout", progress, [watch]))

    @fail_without_retry()
    def execute_complete(self, context: Context, event: Any) -> list[TranscriptEntry]:
        """Go on when the trigger has fired."""
        from airflow_provider_volubile.waiting.ending import read_event

        return self._finish(read_event(event))

    def _finish(self, event: WaitEvent) -> list[TranscriptEntry]:
        from airflow_provider_volubile.api import wire

        if event["status"] == "timeout":
            raise VolubileWaitTimeout(
                f"Call {self.call_id} has no transcript after {self.timeout:g} s ({event['message']}). A retry goes on "
                "waiting."
            )
        if event["status"] == "error":
            error = VolubileWaitFailed if event["final"] else VolubileError
            raise error(f"Waiting failed: {event['message']}")
        if event["missing"]:
            raise VolubileInputError(f"call_id {self.call_id!r}: this account has no such call.")
        with suppress(VolubileNotFound):
            if transcript := self._fetch(self.hook.client()):
                return transcript
        status = next(iter(event["counts"]), "unknown")
        if status not in wire.TRANSCRIBED_CALL_STATUSES:
            raise AirflowSkipException(
                f"Call {self.call_id} ended as {status}: nobody was heard, there is no transcript."
            )
        raise VolubileNotFound(f"Call {self.call_id} ended as {status}, but its transcript did not appear in time.")

    def _fetch(self, client: VolubileClient) -> list[TranscriptEntry]:
        events = [event.model_dump(mode="json", by_alias=True) for event in client.get_transcript(self.call_id)]
        size = len(json.dumps(events))
        if size > MAX_XCOM_BYTES:
            raise VolubileInputError(
                f"The transcript of call {self.call_id} has {size} bytes; XCom takes at most {MAX_XCOM_BYTES} here. "
                "Write it to a file with VolubileExportTranscriptsOperator."
            )
        return cast("list[TranscriptEntry]", events)
