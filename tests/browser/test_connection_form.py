"""The connection form in the browser: fill it in, save it, reopen it, test it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from airflow_provider_volubile.get_provider_info import get_provider_info
from airflow_provider_volubile.simulator import Simulator
from tests.live import LiveAirflow

from .conftest import Keep

pytestmark = [pytest.mark.airflow, pytest.mark.browser, pytest.mark.xdist_group("browser")]

FORM: dict[str, Any] = get_provider_info()["connection-types"][0]  # type: ignore[index]
PLACEHOLDERS: dict[str, str] = FORM["ui-field-behaviour"]["placeholders"]


def open_form(page: Page, airflow: LiveAirflow, connection_id: str) -> Locator:
    """Open the form of a new connection of our type."""
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("input[name=connection_id]").fill(connection_id)
    form.get_by_role("combobox").fill("volubile")
    page.get_by_role("option", name="Volubile", exact=True).click()
    expect(form.locator("input[name=password]")).to_be_visible()
    return form


def unfold(form: Locator, section: str) -> None:
    button = form.get_by_role("button", name=section, exact=True)
    if button.get_attribute("aria-expanded") != "true":
        button.click()


def fill(form: Locator, simulator: Simulator) -> None:
    host, _, port = simulator.url.rpartition(":")
    unfold(form, "Standard Fields")
    form.locator("input[name=host]").fill(host)
    form.locator("input[name=port]").fill(port)
    form.locator("input[name=password]").fill(simulator.primary_key)
    unfold(form, "Extra Fields")
    form.locator("#element_secondary_api_key").fill(simulator.secondary_key)


def save(form: Locator) -> None:
    form.get_by_role("button", name="Save").click()
    expect(form).to_be_hidden()


def press_test(page: Page, connection_id: str) -> None:
    """Press the button in the connection's row."""
    row = page.get_by_role("row").filter(has=page.get_by_text(connection_id, exact=True))
    row.get_by_role("button", name="Test Connection").click()


def reopen(page: Page, connection_id: str) -> Locator:
    row = page.get_by_role("row").filter(has=page.get_by_text(connection_id, exact=True))
    row.get_by_role("button", name="Edit Connection").click()
    form = page.get_by_role("dialog")
    expect(form.locator("input[name=password]")).to_be_visible()
    return form


def forget(airflow: LiveAirflow, connection_id: str) -> None:
    airflow.api("DELETE", f"/connections/{connection_id}")


def test_the_form_shows_and_explains_every_field(page: Page, airflow: LiveAirflow, keep: Keep) -> None:
    form = open_form(page, airflow, "volubile_default")
    for name, label in {"host": "API address", "password": "Primary API key", "port": "Port"}.items():
        expect(form.locator(f"input[name={name}]")).to_have_attribute("placeholder", PLACEHOLDERS[name])
        expect(form.get_by_text(label, exact=True)).to_be_visible()
    expect(form.locator("input[name=password]")).to_have_attribute("type", "password")
    for hidden in ("login", "schema"):
        expect(form.locator(f"[name={hidden}]")).to_have_count(0)
    keep(form, "connection-form-empty")

    unfold(form, "Extra Fields")
    for field in FORM["conn-fields"].values():
        expect(form.get_by_text(field["label"], exact=True)).to_be_visible()
        expect(form.get_by_text(field["description"], exact=True)).to_be_visible()
    expect(form.locator("#element_secondary_api_key")).to_have_attribute("type", "password")
    expect(form.locator("input[name=element_auth]")).to_have_value("api_key")
    expect(form.locator("input[name=element_timeout]")).to_have_value("30")
    keep(form, "connection-form-empty-extra")
    form.get_by_role("combobox").nth(1).press("ArrowDown")
    assert page.get_by_role("option").all_inner_texts() == ["api_key", "bearer"]


def test_a_connection_can_be_created_tested_and_reopened(
    page: Page, airflow: LiveAirflow, simulator: Simulator, keep: Keep
) -> None:
    form = open_form(page, airflow, "volubile_default")
    fill(form, simulator)
    keep(form, "connection-form-filled-extra")
    unfold(form, "Standard Fields")
    expect(form.locator("input[name=password]")).to_be_visible()
    keep(form, "connection-form-filled")
    save(form)

    press_test(page, "volubile_default")
    expect(page.get_by_text("Test Connection Successful")).to_be_visible()
    assert {entry["credential"] for entry in simulator.requests()} == {"primary", "secondary"}
    page.set_viewport_size({"width": 1000, "height": 560})
    keep(page, "connection-form-tested")
    page.set_viewport_size({"width": 1000, "height": 1000})

    page.reload()
    form = reopen(page, "volubile_default")
    expect(form.locator("input[name=password]")).to_have_value("***")
    unfold(form, "Extra Fields")
    expect(form.locator("#element_secondary_api_key")).to_have_value("***")
    expect(form.locator("input[name=element_auth]")).to_have_value("api_key")
    keep(form, "connection-form-reopened")
    unfold(form, "Extra Fields JSON")
    for key in (simulator.primary_key, simulator.secondary_key):
        assert key not in page.content()

    # Saving fields that show *** keeps both keys.
    unfold(form, "Standard Fields")
    form.locator("textarea[name=description]").fill("Winter campaign")
    save(form)
    press_test(page, "volubile_default")
    expect(page.get_by_text("Test Connection Successful")).to_be_visible()
    assert len([entry for entry in simulator.requests() if entry["status"] == 200]) == 4
    forget(airflow, "volubile_default")


def test_the_connection_uses_the_chosen_mode(page: Page, airflow: LiveAirflow, simulator: Simulator) -> None:
    form = open_form(page, airflow, "with_tokens")
    fill(form, simulator)
    form.get_by_role("combobox").nth(1).press("ArrowDown")
    page.get_by_role("option", name="bearer").click()
    save(form)
    press_test(page, "with_tokens")
    expect(page.get_by_text("Test Connection Successful")).to_be_visible()
    assert set(simulator.request_summary()) == {"issueToken", "listAgents"}
    forget(airflow, "with_tokens")


def test_a_failed_test_says_why(page: Page, airflow: LiveAirflow, simulator: Simulator, keep: Keep) -> None:
    form = open_form(page, airflow, "volubile_default")
    fill(form, simulator)
    save(form)
    simulator.revoke_key("secondary")
    press_test(page, "volubile_default")
    expect(page.get_by_text("The secondary API key is refused (401)")).to_be_visible()
    expect(page.get_by_text("The primary API key works")).to_be_visible()
    page.set_viewport_size({"width": 1000, "height": 560})
    keep(page, "connection-form-test-failed")
    for key in (simulator.primary_key, simulator.secondary_key):
        assert key not in page.content()
    forget(airflow, "volubile_default")
