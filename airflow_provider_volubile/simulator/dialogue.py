"""Content of the simulated calls, in French: transcripts, summaries, extracted answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from airflow_provider_volubile.simulator import chance

_DAYS = ("lundi", "mardi", "mercredi", "jeudi", "vendredi")
_REMARKS = (
    "vient avec ses propres pneus",
    "attend sur place",
    "demande un véhicule de prêt",
    "passera déposer les clés la veille",
    "préfère être rappelé par SMS",
)
_HELLOS = ("Oui, allô ?", "Allô, bonjour.", "Oui, c'est moi.", "Bonjour, je vous écoute.")
_OFFERS = (
    "Je vous appelle du garage au sujet de votre rendez-vous de {day}. Est-ce toujours bon pour vous ?",
    "Le garage vous attend {day} pour la révision. Pouvez-vous me confirmer votre venue ?",
    "Vos pneus hiver sont arrivés, nous avons une place {day}. Cela vous convient-il ?",
)
_ANSWERS = {
    "confirmed": (
        "Oui, {day} c'est parfait.",
        "C'est noté, je serai là {day}.",
        "Oui, pas de problème pour {day}.",
    ),
    "moved": (
        "Ah non, je ne peux pas. Plutôt {day} matin ?",
        "Est-ce possible {day} en fin de journée ?",
        "Je préférerais {day}, si vous avez de la place.",
    ),
    "refused": (
        "Non merci, j'ai trouvé un autre garage.",
        "Je préfère annuler.",
        "Non, ce n'est plus la peine.",
    ),
}
_QUESTIONS = (
    ("Faut-il prévoir un véhicule de prêt ?", ("Non, je vais attendre sur place.", "Oui, ce serait bien.")),
    ("Apportez-vous vos propres pneus ?", ("Oui, ils sont dans le coffre.", "Non, montez les vôtres.")),
    ("Avez-vous remarqué un bruit particulier ?", ("Un sifflement au freinage.", "Rien de spécial, non.")),
    ("Souhaitez-vous un rappel la veille ?", ("Oui, par SMS.", "Non, ce n'est pas nécessaire.")),
)
_CLOSINGS = {
    "confirmed": "Parfait, c'est confirmé. À bientôt !",
    "moved": "C'est noté, je déplace votre rendez-vous à {day}. Bonne journée !",
    "refused": "Je comprends, j'annule le rendez-vous. Bonne journée.",
}
_SUMMARIES = {
    "confirmed": "Le client confirme son rendez-vous de {day}.",
    "moved": "Le client déplace son rendez-vous à {day}.",
    "refused": "Le client annule son rendez-vous.",
}


class Event(NamedTuple):
    """One event of a transcript; ``offset`` is its place in the call, from 0 (first ring) to 1 (end)."""

    offset: float
    action: str
    actor: str
    message: str | None = None


class Findings(NamedTuple):
    """Summary and extracted data of a completed call, in the API's field names."""

    summary: str
    extractors: list[dict[str, Any]]
    extracted_data: dict[str, Any]
    classifiers: list[dict[str, Any]]
    classification_data: dict[str, Any]


def _outcome(seed: int, call_id: str) -> tuple[str, str]:
    outcome = chance.weighted({"confirmed": 60, "moved": 28, "refused": 12}, seed, call_id, "outcome")
    return outcome, chance.pick(_DAYS, seed, call_id, "day")


def findings(seed: int, call_id: str) -> Findings:
    """Return summary, extractors and classifiers of a completed call."""
    outcome, day = _outcome(seed, call_id)
    count = chance.between(0, 2, seed, call_id, "remarks")
    first = chance.between(0, len(_REMARKS) - 1, seed, call_id, "remark")
    remarks = [_REMARKS[(first + step) % len(_REMARKS)] for step in range(count)]
    visit: dict[str, list[str]] = {}
    if outcome != "refused":
        visit["day"] = [day]
    if remarks:
        visit["remarks"] = remarks
    return Findings(
        summary=_SUMMARIES[outcome].format(day=day),
        extractors=[{"name": "visit", "value": [{"name": name, "value": found} for name, found in visit.items()]}],
        extracted_data={
            "visit": {name: found if len(found) > 1 else found[0] for name, found in visit.items()},
        },
        classifiers=[{"name": "outcome", "value": outcome}],
        classification_data={"outcome": outcome},
    )


def transcript(seed: int, call_id: str, status: str, first_name: str | None) -> list[Event]:
    """Return the events of an answered call, in order."""
    machine = status == "VOICE_BOX"
    spoken = list(_utterances(seed, call_id, status, first_name))
    step = 0.88 / (len(spoken) + 1)
    events = [
        Event(0.0, "RING", "UNKNOWN"),
        Event(0.1, "ANSWER", "ANSWERING_MACHINE" if machine else "HUMAN"),
    ]
    for place, (action, actor, message) in enumerate(spoken, start=1):
        events.append(Event(0.1 + place * step, action, actor, message))
    if status in ("TRANSFERRED", "FAILOVER"):
        events.append(Event(0.97, "TRANSFER_CALL", "AGENT"))
    events.append(Event(1.0, "HANG_UP", "AGENT" if machine else "HUMAN"))
    return events


def _utterances(seed: int, call_id: str, status: str, first_name: str | None) -> Iterator[tuple[str, str, str | None]]:
    outcome, day = _outcome(seed, call_id)
    greeting = f"Bonjour {first_name}, ici le garage." if first_name else "Bonjour, ici le garage."

    def agent(text: str) -> tuple[str, str, str]:
        return "AGENT_SPEAK", "AGENT", text.format(day=day)

    def human(text: str) -> tuple[str, str, str]:
        return "HUMAN_SPEAK", "HUMAN", text.format(day=day)

    if status == "VOICE_BOX":
        yield "ANSWERING_MACHINE_BEEP", "ANSWERING_MACHINE", None
        yield "AGENT_SPEAK", "AGENT", f"{greeting} Merci de nous rappeler au sujet de votre rendez-vous."
        return
    yield "AGENT_SPEAK", "AGENT", greeting
    yield human(chance.pick(_HELLOS, seed, call_id, "hello"))
    if status == "FAILOVER":
        yield agent("Un instant, je vous passe un conseiller.")
        return
    yield agent(chance.pick(_OFFERS, seed, call_id, "offer"))
    yield human(chance.pick(_ANSWERS[outcome], seed, call_id, "answer"))
    first = chance.between(0, len(_QUESTIONS) - 1, seed, call_id, "question")
    for step in range(chance.between(0, 3, seed, call_id, "questions")):
        question, answers = _QUESTIONS[(first + step) % len(_QUESTIONS)]
        yield agent(question)
        yield human(chance.pick(answers, seed, call_id, "reply", step))
    if status == "TRANSFERRED":
        yield human("Je voudrais parler à quelqu'un, s'il vous plaît.")
        yield agent("Bien sûr, je vous mets en relation.")
        return
    yield agent(_CLOSINGS[outcome])
