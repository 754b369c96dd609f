"""What was sent, what was accepted, what is in flight: the memory that keeps anyone from being called twice.

A repeated request is a second telephone call to a real person, and the service knows no idempotency key. So every
request that dials is written down before it is sent ("in flight") and again when its answer is there ("accepted"), in
a store that outlives retries, deferrals and dead workers: Airflow's task state store. A new try reads it first.

The order is the whole protection: write "in flight", send, write "accepted". Whatever dies in between leaves the part
in flight, and an in-flight part is never simply sent again. Two processes of one task cannot both write: Airflow gives
every try another id and refuses the store to the earlier one, so a worker that was taken for dead cannot begin a part.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from airflow_provider_volubile.calling.handles import SubmissionKind
from airflow_provider_volubile.calling.recipients import Recipient
from airflow_provider_volubile.exceptions import VolubileInputsChanged, VolubileUnknownSubmission

Part = Sequence[Recipient]

VERSION = 2
HEAD_KEY = "volubile_submission"
PARTS_KEY = "volubile_parts_{generation}_{block}"
# A change of one part writes its whole block: small blocks write little, few blocks are read soon. The store warns
# above 64 KB a value; an id takes 40 bytes, a part that is one call about 100, and a request takes up to 1,000 people.
IDS_PER_BLOCK = 100
# A reason is for a person to read; with 100 of them a block stays well below the limit.
MAX_REASON = 200
REFERENCE_LENGTH = 10
SALT_LENGTH = 6


class Store(Protocol):
    """The part of Airflow's task state store that the journal uses."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def set(self, key: str, value: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What is known of one part.

    :param state: ``pending`` was never sent, or certainly not taken; ``in_flight`` may or may not have been taken;
        ``accepted`` was taken and ``refused`` was answered with a definite no: neither is ever sent again.
    :param sent_at: when it was first sent, aware, to the second.
    :param missed_at: when a look first found nothing of it, or not all of it; likewise.
    :param resent: it is to be, or was, sent again although nobody knew whether it had been taken. While ``pending``
        it is looked for once more before.
    :param name: the campaign's name as it was sent.
    :param ids: the campaign's id, or the ids of the calls, as far as they are known.
    :param reason: why it was refused.
    """

    state: Literal["pending", "in_flight", "accepted", "refused"] = "pending"
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
        return cls(
            state=value["state"],
            sent_at=_moment(value.get("sent")),
            missed_at=_moment(value.get("missed")),
            resent=bool(value.get("resent")),
            name=value.get("name"),
            ids=tuple(value.get("ids", ())),
            reason=value.get("reason"),
        )


PENDING = PartRecord()


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


def salt() -> str:
    """What tells submissions of the same name apart: a Dag run made anew with its old id, or two Airflows."""
    return secrets.token_hex(SALT_LENGTH // 2)


def reference(dag_id: str, run_id: str, task_id: str, map_index: int, generation: int = 0) -> str:
    """A short name for one task's submission: the same on every try, another in every run.

    :param generation: how often the task was told to call everyone again on purpose.
    """
    identity = json.dumps([dag_id, run_id, task_id, map_index, generation])
    return hashlib.sha256(identity.encode()).hexdigest()[:REFERENCE_LENGTH]


def salt_of(reference: str) -> str:
    """The salt in the reference of a part."""
    return reference[REFERENCE_LENGTH : REFERENCE_LENGTH + SALT_LENGTH]


class SubmissionJournal:
    """The journal of one task's submission, kept in a store.

    Get it with :meth:`open`; it then holds a record for each part. Every change is written before the method returns.
    """

    def __init__(self, store: Store, head: dict[str, Any], *, is_new: bool = False, was_lost: bool = False) -> None:
        self._store = store
        self._head = head
        self._is_new = is_new
        self._was_lost = was_lost
        self._records = {} if is_new else _load_records(store, head)

    @classmethod
    def open(
        cls,
        store: Store,
        *,
        kind: SubmissionKind,
        agent_id: str,
        parts: Sequence[Part],
        now: datetime,
        settings: Mapping[str, Any] | None = None,
        max_tries: int = 0,
        allow_resubmit: bool = False,
    ) -> SubmissionJournal:
        """Read what earlier tries left, or begin. Nothing is written yet.

        :param store: survives everything but the Dag run itself.
        :param parts: the recipients of this try, cut in parts.
        :param now: the present, aware; becomes ``submitted_at`` of a new journal.
        :param settings: JSON of what must be the same for all parts, beside the agent.
        :param max_tries: as Airflow counts them: it raises the number whenever somebody clears the task.
        :param allow_resubmit: when the task was cleared after its submission had come to its end, call everyone
            again. A mere retry never does: a worker may die between the end and its report.
        :raises VolubileInputsChanged: an earlier try sent other people, another order, another agent or other
            settings, and something of that was, or may have been, accepted.
        """
        head = {
            "version": VERSION,
            "kind": kind,
            "agent_id": agent_id,
            "settings": dict(settings or {}),
            "fingerprint": fingerprint(kind, agent_id, parts, settings),
            "recipients": sum(map(len, parts)),
            "parts": len(parts),
            "part_size": max(map(len, parts), default=1),
            "block": max(1, IDS_PER_BLOCK // max(map(len, parts), default=1)),
            "generation": 0,
            "salt": salt(),
            "begun": -1,
            "submitted_at": now.isoformat(),
            "max_tries": max_tries,
        }
        earlier = _load_head(store)
        if earlier is None:
            return cls(store, head, is_new=True, was_lost=True)
        was_cleared = earlier.get("max_tries") != max_tries
        if allow_resubmit and was_cleared and earlier.get("completed") is not None:
            return cls(store, head | {"generation": earlier["generation"] + 1}, is_new=True)
        journal = cls(store, dict(earlier))
        if earlier["fingerprint"] == head["fingerprint"]:
            return journal
        if journal.has_begun:
            raise VolubileInputsChanged(
                journal.changed(f"has {head['recipients']} recipients in {head['parts']} requests")
            )
        return cls(store, head | {"generation": earlier["generation"]}, is_new=True)

    @classmethod
    def resume(cls, store: Store) -> SubmissionJournal | None:
        """The journal as an earlier step left it, whatever the inputs are now; None if nothing was ever begun."""
        head = _load_head(store)
        return cls(store, dict(head)) if head else None

    @property
    def is_new(self) -> bool:
        """Whether nothing of this submission was sent before."""
        return self._is_new

    @property
    def was_lost(self) -> bool:
        """Whether there was nothing at all in the store: the task never got so far, or the store was emptied."""
        return self._was_lost

    @property
    def agent_id(self) -> str:
        """The agent who calls, whatever the task's inputs say by now."""
        return str(self._head["agent_id"])

    @property
    def settings(self) -> Mapping[str, Any]:
        """What is the same for all parts, likewise."""
        settings: Mapping[str, Any] = self._head["settings"]
        return settings

    @property
    def kind(self) -> SubmissionKind:
        kind: SubmissionKind = self._head["kind"]
        return kind

    @property
    def recipients(self) -> int:
        """People in all parts."""
        return int(self._head["recipients"])

    @property
    def fingerprint(self) -> str:
        return str(self._head["fingerprint"])

    @property
    def generation(self) -> int:
        return int(self._head["generation"])

    @property
    def salt(self) -> str:
        return str(self._head["salt"])

    @property
    def submitted_at(self) -> datetime:
        return datetime.fromisoformat(self._head["submitted_at"])

    @property
    def completed(self) -> dict[str, Any] | None:
        """What :meth:`complete` was given by an earlier try, if that try came to its end."""
        value: dict[str, Any] | None = self._head.get("completed")
        return value

    def __len__(self) -> int:
        return int(self._head["parts"])

    def __getitem__(self, part: int) -> PartRecord:
        return self._records.get(part, PENDING)

    def __iter__(self) -> Iterator[PartRecord]:
        return (self[part] for part in range(len(self)))

    def size(self, part: int) -> int:
        """People in one part: all parts but the last are full."""
        full: int = self._head["part_size"]
        return min(full, self.recipients - part * full)

    def nameless(self) -> list[int]:
        """Accepted parts of which not every person's id is known."""
        return [
            number
            for number, record in enumerate(self)
            if record.state == "accepted" and len(record.ids) < self.size(number)
        ]

    def begin(self, part: int, *, now: datetime, name: str | None = None) -> None:
        """Write down that ``part`` is about to be sent."""
        record = self[part]
        if (block := part // self._head["block"]) > self._head["begun"]:
            # Before the part, not after it: if this is the store's last word, nothing is in flight.
            self._write_block(block)
            self._write_head(self._head | {"begun": block})
        self._write({part: PartRecord("in_flight", record.sent_at or now, name=name, resent=record.resent)})

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

    def resend(self, part: int) -> None:
        """Write down that ``part`` shall be sent again although nobody knows whether it was taken."""
        self._write({part: _to_resend(self[part])})

    def miss(self, *parts: int, now: datetime) -> None:
        """Write down that a look did not find ``parts``, or not all of them. The first such moment counts."""
        self._write({part: replace(self[part], missed_at=now) for part in parts if self[part].missed_at is None})

    def adopt(self, salt: str) -> None:
        """Take the salt of an earlier try that the store had lost. Written with the next note."""
        self._head = self._head | {"salt": salt}

    def suspect(self, since: datetime, names: Sequence[str | None]) -> None:
        """Write down that each part may have been sent at any time from ``since`` on: the store had lost it.

        :param names: the campaign's name for each part.
        """
        head = self._head | {"submitted_at": since.isoformat(), "begun": (len(self) - 1) // self._head["block"]}
        # Parts before the head: without a head the next try suspects them again.
        self._write({part: PartRecord("in_flight", since, name=name) for part, name in enumerate(names)})
        self._write_head(head)

    def complete(self, result: Mapping[str, Any]) -> None:
        """Write down that everything is done, with what a later try shall return instead of dialling."""
        self._write_head(self._head | {"completed": dict(result)})

    def note(self, **values: Any) -> None:
        """Keep small JSON values beside the submission."""
        if self._is_new or self._head | values != self._head:
            self._write_head(self._head | values)

    def noted(self, key: str) -> Any:
        return self._head.get(key)

    def _write(self, records: Mapping[int, PartRecord]) -> None:
        """Write records, and those that share a block with them."""
        self._records.update(records)
        for block in sorted({part // self._head["block"] for part in records}):
            self._write_block(block)

    def _write_block(self, block: int) -> None:
        size = self._head["block"]
        numbers = range(block * size, min((block + 1) * size, len(self)))
        known = {str(number): self[number].dump() for number in numbers if self[number] != PENDING}
        self._store.set(_parts_key(self._head, block), known)

    def _write_head(self, head: dict[str, Any]) -> None:
        self._store.set(HEAD_KEY, head)
        self._head = head
        self._is_new = False

    @property
    def has_begun(self) -> bool:
        """Whether anything was, or may have been, sent."""
        return any(record != PENDING for record in self)

    def changed(self, this_try: str) -> str:
        """Say that the inputs changed.

        :param this_try: what this try has instead.
        """
        states = ["in_flight" if record.resent and record.state == "pending" else record.state for record in self]
        return (
            "The recipients, the agent or how they are called (submit_as, redial) changed since an earlier try of this "
            "task. That try had "
            f"{self.recipients} recipients in {len(self)} requests: {states.count('accepted')} were accepted, "
            f"{states.count('in_flight')} may have been, {states.count('refused')} were refused and "
            f"{states.count('pending')} not sent. This try {this_try}. Nothing was sent. Restore the earlier input and "
            "clear the task to go on with it, or call the new people in a new Dag run."
        )


def _moment(timestamp: int | None) -> datetime | None:
    return datetime.fromtimestamp(timestamp, UTC) if timestamp else None


def _to_resend(record: PartRecord) -> PartRecord:
    return PartRecord(sent_at=record.sent_at, name=record.name, resent=True)


def _load_head(store: Store) -> Mapping[str, Any] | None:
    head: Mapping[str, Any] | None = store.get(HEAD_KEY)
    if head is not None and head.get("version") != VERSION:
        raise VolubileUnknownSubmission(
            "Another version of this provider wrote what this task has sent. Nothing was sent now. Let that version go "
            "on with this task, or call the people in a new Dag run."
        )
    return head


def _parts_key(head: Mapping[str, Any], block: int) -> str:
    return PARTS_KEY.format(generation=head["generation"], block=block)


def _load_records(store: Store, head: Mapping[str, Any]) -> dict[int, PartRecord]:
    records = {}
    for block in range(-(-head["parts"] // head["block"])):
        value = store.get(_parts_key(head, block))
        if value is None and block <= head["begun"]:
            raise VolubileUnknownSubmission(
                f"Key {_parts_key(head, block)} is gone from this task's state store: it told what was sent to whom. "
                "Nothing was sent now. Look in Volubile's dashboard who was called, and call the others in a new Dag "
                "run."
            )
        for number, record in (value or {}).items():
            records[int(number)] = PartRecord.load(record)
    return records
