"""OpenTelemetry's instrumentation of requests records URLs; not ours, whose queries hold numbers and signatures."""

from __future__ import annotations

from typing import Any

import requests
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from airflow_provider_volubile.api.client import VolubileClient

PAGE = {"content": [], "page": 1, "size": 100, "totalElements": 0, "totalPages": 0}


def test_no_span_holds_a_number_or_a_signature(
    server: Any, other_server: Any, tell: Any, client: VolubileClient
) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    server.on(".*/recording", tell.answer(302, headers={"Location": other_server.url + "/a?signature=planted"}))
    server.on(".*", tell.answer(200, PAGE))
    other_server.on(".*", tell.answer(200, body=b"audio", headers={"Content-Type": "audio/mpeg"}))
    RequestsInstrumentor().instrument(tracer_provider=provider)
    try:
        client.list_calls(phone="+33639980142")
        with client.open_recording("x") as recording:
            assert b"".join(recording.iter_chunks()) == b"audio"
        recorded = spans.get_finished_spans()
        requests.get(server.url + "/theirs?page=7", timeout=5)
    finally:
        RequestsInstrumentor().uninstrument()
    assert [span.to_json() for span in recorded] == []
    (theirs,) = spans.get_finished_spans()
    assert "/theirs" in theirs.to_json(), "others' requests are recorded"
