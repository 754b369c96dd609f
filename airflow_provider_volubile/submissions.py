"""What was sent, what was accepted, what is in flight: the memory that keeps anyone from being called twice.

A repeated request is a second telephone call to a real person, and the service knows no idempotency key. So every
request that dials is written down before it is sent ("in flight") and again when its answer is there ("accepted"), in
a store that outlives retries, deferrals and dead workers: Airflow's task state store. A new try reads it first.

The order is the whole protection: write "in flight", send, write "accepted". Whatever dies in between leaves the part
in flight, and an in-flight part is never simply sent again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from airflow_provider_volubile.exceptions import VolubileInputsChanged
from airflow_provider_volubile.recipients import Recipient

SubmissionKind = Literal["campaign", "bulk", "call"]
Part = Sequence[Recipient]

HEAD_KEY = "volubile_submission"
PARTS_KEY = "volubile_parts_{generation}_{block}"
# The store warns above 64 KB a value: an id takes 40 bytes, and a part that is one call about 80.
IDS_PER_BLOCK = 500


class Store(Protocol):
    """The part of Airflow's task state store that the journal uses."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def set(self, key: str, value: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What is known of one part.

    :param state: ``pending`` was never sent, or certainly not taken; ``in_flight`` may or may not have been taken;
        ``accepted`` was taken and ``refused`` was answered with a definite no: neither is ever sent again.
    :param sent_at: when it was last sent, aware, to the second.
    :param name: the campaign's name as it was sent.
    :param ids: the campaign's id, or the ids of the calls, as far as they are known.
    :param reason: why it was refused.
    """

    state: Literal["pending", "in_flight", "accepted", "refused"] = "pending"
    sent_at: datetime | None = None
    name: str | None = None
    ids: tuple[str, ...] = ()
    reason: str | None = None

    def dump(self) -> dict[str, Any]:
        value = {
            "state": self.state,
            "sent": int(self.sent_at.timestamp()) if self.sent_at else None,
            "name": self.name,
            "ids": list(self.ids),
            "reason": self.reason,
        }
        return {key: entry for key, entry in value.items() if entry}

    @classmethod
    def load(cls, value: Mapping[str, Any]) -> PartRecord:
        sent = value.get("sent")
        return cls(
            state=value["state"],
            sent_at=datetime.fromtimestamp(sent, UTC) if sent else None,
            name=value.get("name"),
            ids=tuple(value.get("ids", ())),
            reason=value.get("reason"),
        )


PENDING = PartRecord()


def fingerprint(kind: SubmissionKind, agent_id: str, parts: Sequence[Part]) -> str:
    """A digest of who is called by whom, in which order and parts. It tells changed inputs and reveals no one."""
    digest = hashlib.sha256(f"{kind}\n{agent_id}\n".encode())
    for part in parts:
        people = [[person.phone, dict(person.context)] for person in part]
        digest.update(json.dumps(people, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def reference(dag_id: str, run_id: str, task_id: str, map_index: int, generation: int = 0) -> str:
    """A short name for one task's submission: the same on every try, another in every run.

    :param generation: how often the task was told to call everyone again on purpose.
    """
    identity = json.dumps([dag_id, run_id, task_id, map_index, generation])
    return hashlib.sha256(identity.encode()).hexdigest()[:10]


class SubmissionJournal:
    """The journal of one task's submission, kept in ``store``.

    Open it with :meth:`open`; it then holds a record for each part. Every change is written before the method returns.

    :param store: survives everything but the Dag run itself.
    """

    def __init__(self, store: Store, head: dict[str, Any], records: dict[int, PartRecord]) -> None:
        self._store = store
        self._head = head
        self._records = records

    @classmethod
    def open(
        cls,
        store: Store,
        *,
        kind: SubmissionKind,
        agent_id: str,
        parts: Sequence[Part],
        now: datetime,
        allow_resubmit: bool = False,
    ) -> SubmissionJournal:
        """Read what earlier tries left, or begin.

        :param parts: the recipients of this try, cut in parts.
        :param now: the present, aware; becomes ``submitted_at`` of a new journal.
        :param allow_resubmit: forget a submission that an earlier try completed, and call everyone again.
        :raises VolubileInputsChanged: an earlier try sent other people, another order or another agent, and
            something of that was, or may have been, accepted.
        """
        head = {
            "version": 1,
            "kind": kind,
            "fingerprint": fingerprint(kind, agent_id, parts),
            "recipients": sum(map(len, parts)),
            "parts": len(parts),
            "part_size": max(map(len, parts), default=1),
            "block": max(1, IDS_PER_BLOCK // max(map(len, parts), default=1)),
            "generation": 0,
            "submitted_at": now.isoformat(),
        }
        earlier = store.get(HEAD_KEY)
        if earlier is None:
            return cls._begin(store, head)
        if allow_resubmit and earlier.get("completed") is not None:
            return cls._begin(store, head | {"generation": earlier["generation"] + 1})
        journal = cls(store, dict(earlier), _load_records(store, earlier))
        if earlier["fingerprint"] == head["fingerprint"]:
            return journal
        touched = [record for record in journal._records.values() if record.state != "pending"]
        if touched:
            accepted = sum(record.state == "accepted" for record in touched)
            raise VolubileInputsChanged(
                f"The recipients or the agent changed since an earlier try: that try had {earlier['recipients']} "
                f"recipients in {earlier['parts']} parts, of which {accepted} were accepted and "
                f"{len(touched) - accepted} may have been; this try has {head['recipients']} in {head['parts']} "
                "parts. Nothing was sent. Restore the earlier input and clear the task to go on with it, or call "
                "the new people in a new Dag run."
            )
        return cls._begin(store, head | {"generation": earlier["generation"]})

    @classmethod
    def resume(cls, store: Store) -> SubmissionJournal | None:
        """The journal as an earlier step left it, whatever the inputs are now; None if nothing was ever begun."""
        head = store.get(HEAD_KEY)
        return cls(store, dict(head), _load_records(store, head)) if head else None

    @classmethod
    def _begin(cls, store: Store, head: dict[str, Any]) -> SubmissionJournal:
        store.set(HEAD_KEY, head)
        return cls(store, head, {})

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

    def size(self, part: int) -> int:
        """People in one part: all parts but the last are full."""
        full: int = self._head["part_size"]
        return min(full, self.recipients - part * full)

    def __iter__(self) -> Iterator[PartRecord]:
        return (self[part] for part in range(len(self)))

    def begin(self, part: int, *, now: datetime, name: str | None = None) -> None:
        """Write down that ``part`` is about to be sent."""
        self._write(part, PartRecord("in_flight", now, name))

    def accept(self, part: int, ids: Sequence[str] = ()) -> None:
        """Write down that the service took ``part``, with the ids known so far."""
        self._write(part, replace(self[part], state="accepted", ids=tuple(ids)))

    def refuse(self, part: int, reason: str) -> None:
        """Write down that the service will not take ``part``, and why."""
        self._write(part, PartRecord("refused", reason=reason))

    def release(self, part: int) -> None:
        """Write down that the service certainly did not take ``part``: it may be sent again."""
        self._write(part, PENDING)

    def complete(self, result: Mapping[str, Any]) -> None:
        """Write down that everything is done, with what a later try shall return instead of dialling."""
        self._write_head(self._head | {"completed": dict(result)})

    def note(self, key: str, value: Any) -> None:
        """Keep a small JSON value beside the submission; None removes it."""
        if self._head.get(key) != value:
            self._write_head(
                {name: old for name, old in self._head.items() if name != key} | ({} if value is None else {key: value})
            )

    def noted(self, key: str) -> Any:
        return self._head.get(key)

    def _write(self, part: int, record: PartRecord) -> None:
        size = self._head["block"]
        first = part // size * size
        block = {number: self[number] for number in range(first, first + size)} | {part: record}
        self._store.set(
            _parts_key(self._head, part // size),
            {str(number): known.dump() for number, known in block.items() if known != PENDING},
        )
        self._records[part] = record

    def _write_head(self, head: dict[str, Any]) -> None:
        self._store.set(HEAD_KEY, head)
        self._head = head


def _parts_key(head: Mapping[str, Any], block: int) -> str:
    return PARTS_KEY.format(generation=head["generation"], block=block)


def _load_records(store: Store, head: Mapping[str, Any]) -> dict[int, PartRecord]:
    records = {}
    for block in range(-(-head["parts"] // head["block"])):
        for number, value in (store.get(_parts_key(head, block)) or {}).items():
            records[int(number)] = PartRecord.load(value)
    return records
