"""What was sent, what was accepted, what is in flight: the memory that keeps anyone from being called twice.

A repeated request is a second telephone call to a real person, and the service knows no idempotency key. So every
request that dials is written down before it is sent ("in flight") and again when its answer is there ("accepted"), in
a store that outlives retries, deferrals and dead workers: Airflow's task state store. A new try reads it first.

The order is the whole protection: write "in flight", send, write "accepted". If the process dies in between, the part
stays in flight, and a part in flight is never simply sent again. Airflow gives every try another id and refuses the
store to the earlier one, when its API server checks the id: a write that was checked before the new try began may
still arrive after it. So a process also sends nothing two minutes after it began to write (``SEND_WITHIN``).

Versions: this module writes :data:`VERSION` and reads all of :data:`READABLE`, since a campaign may wait for a week
across an upgrade. What it cannot read stops the task before anything is sent. Raise ``VERSION`` when an older provider
would misread what is written; translate what older ones wrote in ``Head.load`` and ``PartRecord.load``. Version 2 had
no state ``to_resend``: it wrote ``pending`` with ``resent``.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from airflow_provider_volubile.calling.handles import SubmissionKind
from airflow_provider_volubile.calling.recipients import Recipient
from airflow_provider_volubile.exceptions import VolubileInputsChanged, VolubileUnknownSubmission

Part = Sequence[Recipient]
State = Literal["pending", "in_flight", "to_resend", "accepted", "refused"]

VERSION = 3
READABLE = (2, 3)
HEAD_KEY = "volubile_submission"
PARTS_KEY = "volubile_parts_{generation}_{block}"
# A change of one part writes its whole block: small blocks write little, few blocks are read soon. The store warns
# above 64 KB a value; an id takes 40 bytes, a part that is one call about 100, and a request takes up to 1,000 people.
IDS_PER_BLOCK = 100
# A reason is for a person to read; with 100 of them a block stays well below the limit.
MAX_REASON = 200
BEGUN_KEY = "volubile_begun"
REFERENCE_LENGTH = 10
SALT_LENGTH = 10
# So often a task can be told to call everyone again on purpose, and still find its calls in an emptied store.
MAX_GENERATIONS = 20


class Store(Protocol):
    """The part of Airflow's task state store that the journal uses."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def set(self, key: str, value: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What is known of one part.

    :param state: ``pending`` was never sent, or certainly not taken; ``in_flight`` may or may not have been taken;
        ``to_resend`` is the same, but somebody decided to send it again (it is looked for once more before);
        ``accepted`` was taken and ``refused`` was answered with a definite no: neither is ever sent again.
    :param sent_at: when it was first sent, aware, to the second.
    :param missed_at: when a search first found nothing of it; likewise.
    :param resent: it is being, or was, sent again although it was not known whether it had been taken.
    :param name: the campaign's name as it was sent.
    :param ids: the campaign's id, or the ids of the calls, as far as they are known.
    :param reason: why it was refused.
    """

    state: State = "pending"
    sent_at: datetime | None = None
    missed_at: datetime | None = None
    resent: bool = False
    name: str | None = None
    ids: tuple[str, ...] = ()
    reason: str | None = None

    def dump(self) -> dict[str, Any]:
        value = {
            "state": self.state,
            "sent": int(self.sent_at.timestamp()) if self.sent_at else None,
            "missed": int(self.missed_at.timestamp()) if self.missed_at else None,
            "resent": self.resent,
            "name": self.name,
            "ids": list(self.ids),
            "reason": self.reason,
        }
        return {key: entry for key, entry in value.items() if entry}

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> PartRecord:
        sent, missed = (
            datetime.fromtimestamp(value[key], UTC) if value.get(key) else None for key in ("sent", "missed")
        )
        state, resent = value["state"], bool(value.get("resent"))
        if state == "pending" and resent:  # as version 2 wrote it
            state, resent = "to_resend", False
        return cls(state, sent, missed, resent, value.get("name"), tuple(value.get("ids", ())), value.get("reason"))


PENDING = PartRecord()


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is known of a submission as a whole; JSON.

    :param agent_id: the agent who calls, whatever the task's inputs say by now.
    :param settings: what must be the same for all parts, beside the agent.
    :param fingerprint: see :func:`fingerprint`.
    :param recipients: people in all parts.
    :param parts: number of parts.
    :param part_size: people in a part; the last may have fewer.
    :param block: parts whose records share a key of the store.
    :param submitted_at: no part was sent before; ISO 8601.
    :param max_tries: as Airflow counts them: it raises the number whenever somebody clears the task.
    :param salt: tells submissions of the same name apart: a Dag run made anew with its old id, or two Airflows.
    :param generation: how often the task was told to call everyone again on purpose.
    :param begun: the last block of which a part was sent; -1 before.
    :param reference: what the reference of each part begins with.
    :param rejected: rows of the input that nobody is called for.
    :param schedule: the calling hours of a campaign.
    :param completed: what a later try returns instead of dialling, once everything is done.
    """

    kind: SubmissionKind
    agent_id: str
    settings: Mapping[str, Any]
    fingerprint: str
    recipients: int
    parts: int
    part_size: int
    block: int
    submitted_at: str
    max_tries: int
    salt: str
    generation: int = 0
    begun: int = -1
    reference: str = ""
    rejected: int = 0
    schedule: Mapping[str, Any] | None = None
    completed: Mapping[str, Any] | None = None

    @classmethod
    def load(cls, store: Store) -> Head | None:
        value = store.get(HEAD_KEY)
        if value is None:
            return None
        if value.get("version") not in READABLE:
            raise VolubileUnknownSubmission(
                "Another version of this provider wrote what this task has sent. Nothing was sent now. Let that "
                "version go on with this task, or call the people in a new Dag run."
            )
        return cls(**{field.name: value[field.name] for field in fields(cls) if field.name in value})


def fingerprint(
    kind: SubmissionKind, agent_id: str, parts: Sequence[Part], settings: Mapping[str, Any] | None = None
) -> str:
    """A digest of who is called by whom, in which order and parts. It tells changed inputs and reveals no one.

    :param settings: JSON that must be the same for all parts.
    """
    digest = hashlib.sha256(f"{kind}\n{agent_id}\n{json.dumps(settings or {}, sort_keys=True)}\n".encode())
    for part in parts:
        people = [[person.phone, dict(person.context)] for person in part]
        digest.update(json.dumps(people, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def reference(dag_id: str, run_id: str, task_id: str, map_index: int | None, generation: int = 0) -> str:
    """A short name for one task's submission: the same on every try, another in every run.

    :param map_index: None and -1 are the same: the task is not mapped.
    :param generation: how often the task was told to call everyone again on purpose.
    """
    identity = json.dumps([dag_id, run_id, task_id, -1 if map_index is None else map_index, generation])
    return hashlib.sha256(identity.encode()).hexdigest()[:REFERENCE_LENGTH]


def prefixes(dag_id: str, run_id: str, task_id: str, installation: str) -> tuple[str, ...]:
    """What the references of a task's submissions begin with, one for each generation.

    The same for all map indexes: when a cleared run maps over a changed list, people move to another index.
    """
    return tuple(
        hashlib.sha256(json.dumps([installation, dag_id, run_id, task_id, generation]).encode()).hexdigest()[
            :REFERENCE_LENGTH
        ]
        for generation in range(MAX_GENERATIONS)
    )


def note_begin(store: Store, now: datetime) -> bool:
    """Write down that a try begins, before it does anything else.

    :returns: whether an earlier try wrote that, or more: a store without a journal then means that nothing was sent.
    """
    was_begun = store.get(BEGUN_KEY) is not None or store.get(HEAD_KEY) is not None
    if not was_begun:
        store.set(BEGUN_KEY, now.isoformat())
    return was_begun


class SubmissionJournal:
    """The journal of one task's submission, kept in a store.

    Get it with :meth:`open`; it then holds a record for each part. Every change is written before the method returns.

    :param is_new: nothing of this submission is in the store.
    :param calls_again: the task was cleared so that everyone is called again on purpose.
    """

    def __init__(self, store: Store, head: Head, *, is_new: bool = False, calls_again: bool = False) -> None:
        self.head = head
        self.is_new = is_new
        self.calls_again = calls_again
        self._store = store
        self._records = {} if is_new else _load_records(store, head)

    @classmethod
    def open(
        cls,
        store: Store,
        *,
        prefixes: Callable[[], Sequence[str]],
        kind: SubmissionKind,
        agent_id: str,
        parts: Sequence[Part],
        now: datetime,
        settings: Mapping[str, Any] | None = None,
        max_tries: int = 0,
        allow_resubmit: bool = False,
        may_move: bool = False,
    ) -> SubmissionJournal:
        """Read what earlier tries left, or begin. Nothing is written yet.

        :param store: survives everything but the Dag run itself.
        :param prefixes: what references begin with, see :func:`prefixes`; asked for when a submission is new.
        :param parts: the recipients of this try, cut in parts.
        :param now: the present, aware; becomes ``submitted_at`` of a new journal.
        :param allow_resubmit: when the task was cleared after its submission had come to its end, call everyone
            again. A mere retry never does: a worker may die between the end and its report.
        :param may_move: a cleared run mapped over a changed list: other people are no error, but a new submission.
        :raises VolubileInputsChanged: an earlier try sent other people, another order, another agent or other
            settings, and something of that was, or may have been, accepted.
        """
        part_size = max(map(len, parts), default=1)
        head = Head(
            kind=kind,
            agent_id=agent_id,
            settings=dict(settings or {}),
            fingerprint=fingerprint(kind, agent_id, parts, settings),
            recipients=sum(map(len, parts)),
            parts=len(parts),
            part_size=part_size,
            block=max(1, IDS_PER_BLOCK // part_size),
            submitted_at=now.isoformat(),
            max_tries=max_tries,
            salt=secrets.token_hex(SALT_LENGTH // 2),
        )
        earlier = Head.load(store)

        def new(generation: int, *, calls_again: bool = False) -> SubmissionJournal:
            reference = prefixes()[generation % MAX_GENERATIONS] + head.salt
            new_head = replace(head, generation=generation, reference=reference)
            return cls(store, new_head, is_new=True, calls_again=calls_again)

        if earlier is None:
            return new(0)
        was_cleared = earlier.max_tries != max_tries
        if allow_resubmit and was_cleared and earlier.completed is not None:
            return new(earlier.generation + 1, calls_again=True)
        journal = cls(store, earlier)
        if earlier.fingerprint == head.fingerprint:
            return journal
        if not journal.has_begun:
            return new(earlier.generation)
        if may_move:
            return new(earlier.generation + 1)  # with keys of its own
        raise VolubileInputsChanged(journal.changed(f"has {head.recipients} recipients in {head.parts} requests"))

    @classmethod
    def resume(cls, store: Store) -> SubmissionJournal | None:
        """The journal as an earlier step left it, whatever the inputs are now; None if nothing was ever begun."""
        head = Head.load(store)
        return cls(store, head) if head else None

    @property
    def submitted_at(self) -> datetime:
        return datetime.fromisoformat(self.head.submitted_at)

    def __len__(self) -> int:
        return self.head.parts

    def __getitem__(self, part: int) -> PartRecord:
        return self._records.get(part, PENDING)

    def __iter__(self) -> Iterator[PartRecord]:
        return (self[part] for part in range(len(self)))

    def numbers(self, *states: State) -> list[int]:
        """The parts in one of these states, in order."""
        return [number for number, record in enumerate(self) if record.state in states]

    def size(self, part: int) -> int:
        """People in one part: all parts but the last are full."""
        return min(self.head.part_size, self.head.recipients - part * self.head.part_size)

    def reference_of(self, part: int) -> str:
        """What each recipient of a part carries in the context: it tells which request made a call."""
        return f"{self.head.reference}-{part + 1}"

    def missing_ids(self) -> list[int]:
        """Accepted parts of which not every call's id is known. Calls of campaigns are found by the campaign's name."""
        if self.head.kind == "campaign":
            return []
        return [number for number in self.numbers("accepted") if len(self[number].ids) < self.size(number)]

    @property
    def has_begun(self) -> bool:
        """Whether anything was, or may have been, sent."""
        return any(record != PENDING for record in self)

    def begin(self, part: int, *, now: datetime, name: str | None = None) -> None:
        """Write down that ``part`` is about to be sent."""
        record = self[part]
        if (block := part // self.head.block) > self.head.begun:
            # Before the part, not after it: if this is the store's last word, nothing is in flight.
            self._write_block(block)
            self._write_head(replace(self.head, begun=block))
        resent = record.state == "to_resend"
        self._write({part: PartRecord("in_flight", record.sent_at or now, name=name, resent=resent)})

    def accept(self, part: int, ids: Sequence[str] = ()) -> None:
        """Write down that the service took ``part``, with the ids known so far."""
        self.accept_all({part: ids})

    def accept_all(self, ids: Mapping[int, Sequence[str]]) -> None:
        """:meth:`accept` for many parts at once. Ids already known stay."""
        self._write(
            {
                part: replace(self[part], state="accepted", ids=tuple(dict.fromkeys([*self[part].ids, *found])))
                for part, found in ids.items()
            }
        )

    def refuse(self, part: int, reason: str) -> None:
        """Write down that the service will not take ``part``, and why."""
        self._write({part: PartRecord("refused", reason=reason[:MAX_REASON])})

    def release(self, *parts: int) -> None:
        """Write down that the service certainly did not take ``parts``: they may be sent again."""
        # Of a part that is sent for the second time, only the second certainly was not taken.
        self._write({part: _to_resend(self[part]) if self[part].resent else PENDING for part in parts})

    def resend(self, *parts: int) -> None:
        """Write down that ``parts`` shall be sent again although it is not known whether they were taken."""
        self._write({part: _to_resend(self[part]) for part in parts})

    def miss(self, *parts: int, now: datetime) -> None:
        """Write down that a search did not find ``parts``. The first such moment counts."""
        self._write({part: replace(self[part], missed_at=now) for part in parts if self[part].missed_at is None})

    def recover(self, found: str, since: datetime, name: Callable[[str], str | None], generation: int) -> None:
        """Write down that each part may have been sent at any time from ``since`` on: the store had lost it.

        :param found: the reference of a call that an earlier try had made.
        :param name: the name of a campaign by its reference.
        """
        submission = found.rpartition("-")[0]
        self.head = replace(
            self.head,
            reference=submission,
            salt=submission[REFERENCE_LENGTH:],
            generation=max(generation, self.head.generation),
            submitted_at=since.isoformat(),
            begun=(len(self) - 1) // self.head.block,
        )
        # Parts before the head: without a head the next try looks again.
        self._write(
            {part: PartRecord("in_flight", since, name=name(self.reference_of(part))) for part in range(len(self))}
        )
        self._write_head(self.head)

    def complete(self, result: Mapping[str, Any]) -> None:
        """Write down that everything is done, with what a later try shall return instead of dialling."""
        self._write_head(replace(self.head, completed=dict(result)))

    def update(self, **changes: Any) -> None:
        """Write down changes of the head."""
        if (head := replace(self.head, **changes)) != self.head or self.is_new:
            self._write_head(head)

    def changed(self, this_try: str) -> str:
        """Say that the inputs changed.

        :param this_try: what this try has instead.
        """
        accepted, unknown, refused, pending = (
            len(self.numbers(*states))
            for states in (("accepted",), ("in_flight", "to_resend"), ("refused",), ("pending",))
        )
        return (
            "The recipients, the agent or how they are called (submit_as, redial) changed since an earlier try of this "
            f"task. That try had {self.head.recipients} recipients in {len(self)} requests: {accepted} were accepted, "
            f"{unknown} may have been, {refused} were refused and {pending} not sent. This try {this_try}. Nothing was "
            "sent. Restore the earlier input and clear the task to go on with it, or call the new people in a new Dag "
            "run."
        )

    def _write(self, records: Mapping[int, PartRecord]) -> None:
        """Write records, and those that share a block with them."""
        self._records.update(records)
        for block in sorted({part // self.head.block for part in records}):
            self._write_block(block)

    def _write_block(self, block: int) -> None:
        numbers = range(block * self.head.block, min((block + 1) * self.head.block, len(self)))
        known = {str(number): self[number].dump() for number in numbers if self[number] != PENDING}
        self._store.set(_parts_key(self.head, block), known)

    def _write_head(self, head: Head) -> None:
        self._store.set(HEAD_KEY, {"version": VERSION} | asdict(head))
        self.head, self.is_new = head, False


def _to_resend(record: PartRecord) -> PartRecord:
    return PartRecord("to_resend", record.sent_at, name=record.name)


def _parts_key(head: Head, block: int) -> str:
    return PARTS_KEY.format(generation=head.generation, block=block)


def _load_records(store: Store, head: Head) -> dict[int, PartRecord]:
    records = {}
    for block in range(-(-head.parts // head.block)):
        value = store.get(_parts_key(head, block))
        if value is None and block <= head.begun:
            raise VolubileUnknownSubmission(
                f"Key {_parts_key(head, block)} is gone from this task's state store: it told what was sent to whom. "
                "Nothing was sent now. Look in Volubile's dashboard who was called, and call the others in a new Dag "
                "run."
            )
        for number, record in (value or {}).items():
            records[int(number)] = PartRecord.load(record)
    return records
