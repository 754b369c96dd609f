"""What people type and read: parameters, templates, documentation of every operator and sensor."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, cast, get_args, get_origin, get_type_hints, is_typeddict

import pytest
from airflow.sdk import BaseOperator, BaseSensorOperator

from airflow_provider_volubile.get_provider_info import get_provider_info
from airflow_provider_volubile.tasks import UI_COLOR, UI_FGCOLOR, Personal

REQUIRED = {
    "agent_id": "a",
    "call_id": "c",
    "calls": ["c"],
    "campaign": "c",
    "campaign_id": "c",
    "changes": {"active": True},
    "name": "n",
    "output_path": "/o",
    "phone": "+33639980001",
    "recipients": ["+33639980001"],
    "status": "PAUSED",
    "time_slots": ["09:00-12:00"],
}


def public_operators() -> Iterator[type[BaseOperator]]:
    info = cast("dict[str, Any]", get_provider_info())
    for group in (*info["operators"], *info["sensors"]):
        for name in group["python-modules"]:
            for cls in vars(import_module(name)).values():
                is_operator = inspect.isclass(cls) and issubclass(cls, BaseOperator) and cls.__module__ == name
                if is_operator and cls.__name__.startswith("Volubile"):
                    yield cls


OPERATORS = sorted(public_operators(), key=lambda cls: cls.__name__)
pytestmark = pytest.mark.parametrize("cls", OPERATORS, ids=lambda cls: cls.__name__)


def own_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """What the provider's own classes take, not Airflow's."""
    found: dict[str, inspect.Parameter] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("airflow_provider_volubile") and "__init__" in vars(base):
            init = getattr(base.__init__, "__wrapped__", base.__init__)
            found |= dict(inspect.signature(init).parameters)
    return {name: parameter for name, parameter in found.items() if name not in ("self", "kwargs")}


def made(cls: type[BaseOperator], **changes: Any) -> BaseOperator:
    needed = {name for name, parameter in own_parameters(cls).items() if parameter.default is parameter.empty}
    taken = inspect.signature(getattr(cls.__init__, "__wrapped__", cls.__init__)).parameters
    if "phone" in taken:
        needed.discard("recipients")  # settled by the operator for one person
    return cls(task_id="t", **{name: REQUIRED[name] for name in needed if name in REQUIRED} | changes)


def test_every_parameter_is_explained(cls: type[BaseOperator]) -> None:
    """In the docstring of the class or of one of its bases, which it names."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("airflow_provider_volubile")]
    text = "\n".join(base.__doc__ or "" for base in bases)
    documented = set(re.findall(r":param (\w+):", text))
    hidden = {"timeout", "poke_interval"} if issubclass(cls, BaseSensorOperator) else set()
    hidden |= {"recipients"} if "phone" in own_parameters(cls) else set()
    assert set(own_parameters(cls)) - documented - hidden == set()
    if own := set(own_parameters(cls)) - set(re.findall(r":param (\w+):", cls.__doc__ or "")) - {"volubile_conn_id"}:
        assert re.search(r":class:`~?airflow_provider_volubile\S+` for the other parameters", cls.__doc__ or ""), own


def test_templates_reach_every_field(cls: type[BaseOperator]) -> None:
    """A template field is a parameter of the same name; what is rendered is what is used."""
    fields = cls.template_fields
    assert len(set(fields)) == len(fields)
    assert "volubile_conn_id" in fields
    for field in fields:
        assert field in own_parameters(cls)
        operator = made(cls, **{field: "{{ value }}"})
        operator.render_template_fields({"value": "rendered"})
        value = getattr(operator, field)
        assert (value.value if isinstance(value, Personal) else value) == "rendered"


def test_airflow_is_told_how_to_show_it(cls: type[BaseOperator]) -> None:
    assert set(cls.template_fields_renderers) <= set(cls.template_fields)
    assert set(cls.template_fields_renderers.values()) <= {"json"}
    assert cls.template_ext == (), "a path of people is no template"
    assert (cls.ui_color, cls.ui_fgcolor) == (UI_COLOR, UI_FGCOLOR)


def test_airflows_own_parameters_keep_their_meaning(cls: type[BaseOperator]) -> None:
    """Sensors pass their interval on to Airflow; nothing else takes a name that Airflow has."""
    airflows = BaseSensorOperator if issubclass(cls, BaseSensorOperator) else BaseOperator
    taken: set[str] = set()
    for base in airflows.__mro__:
        if "__init__" in vars(base):
            taken |= set(inspect.signature(getattr(base.__init__, "__wrapped__", base.__init__)).parameters)
    assert own_parameters(cls).keys() & taken <= {"self", "kwargs", "poke_interval"}


def test_what_it_returns_is_a_documented_dict(cls: type[BaseOperator]) -> None:
    method = "execute_complete" if issubclass(cls, BaseSensorOperator) else "execute"
    result = get_type_hints(getattr(cls, method))["return"]
    if get_origin(result) is list:
        (result,) = get_args(result)
    assert is_typeddict(result)
    assert result.__doc__
    text = "\n".join(base.__doc__ or "" for base in cls.__mro__)
    assert re.search(rf":class:`~?[\w.]*\b{result.__name__}`", text), "the docstring says what it returns"
