"""People to call, as they come: lists, spreadsheets, damaged numbers."""

from __future__ import annotations

import gzip
import json
import logging
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_volubile.calling.recipients import read_recipients, split_parts
from airflow_provider_volubile.exceptions import VolubileInputError

LUCIE = "+33639980142"
KARIM = "+33639980177"
GARAGE = "+33199001201"


def phones(result):
    return [recipient.phone for recipient in result.accepted]


def reasons(result):
    return {rejection.line: rejection.reason for rejection in result.rejected}


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


class TestForms:
    def test_plain_numbers(self):
        result = read_recipients([LUCIE, KARIM])
        assert phones(result) == [LUCIE, KARIM]
        assert [recipient.context for recipient in result.accepted] == [{}, {}]

    def test_the_two_shapes_of_a_row_are_one(self):
        nested = read_recipients([{"phone": LUCIE, "context": {"first_name": "Lucie", "day": "Friday"}}])
        flat = read_recipients([{"phone": LUCIE, "first_name": "Lucie", "day": "Friday"}])
        assert nested == flat
        assert flat.accepted[0].context == {"first_name": "Lucie", "day": "Friday"}

    def test_a_context_of_none_is_no_context(self):
        assert read_recipients([{"phone": LUCIE, "context": None}]).accepted[0].context == {}

    def test_the_context_may_hold_a_phone_of_its_own(self):
        result = read_recipients([{"phone": LUCIE, "context": {"phone": "01"}}])
        assert (result.accepted[0].phone, result.accepted[0].context) == (LUCIE, {"phone": "01"})

    def test_named_columns(self):
        rows = [{"mobile": LUCIE, "first_name": "Lucie", "note": "x"}]
        result = read_recipients(rows, phone_field="mobile", context_fields=["first_name"])
        assert (result.accepted[0].phone, result.accepted[0].context) == (LUCIE, {"first_name": "Lucie"})

    def test_any_iterable_serves(self):
        assert phones(read_recipients({"phone": phone} for phone in (LUCIE, KARIM))) == [LUCIE, KARIM]

    @pytest.mark.parametrize("source", ["[{'phone': '+33639980142'}]", '{"phone": "+33639980142"}'])
    def test_the_text_of_a_list_is_explained(self, source):
        with pytest.raises(VolubileInputError, match=r"recipients=task\.output"):
            read_recipients(source)

    def test_one_object_is_not_a_list(self):
        with pytest.raises(VolubileInputError, match="list of them"):
            read_recipients({"phone": LUCIE})

    def test_a_row_that_is_neither_object_nor_text(self):
        with pytest.raises(VolubileInputError, match=r"row 2: .* found int"):
            read_recipients([LUCIE, 5])


class TestNumbers:
    @pytest.mark.parametrize(
        "cell",
        [
            "+33639980142",
            "+33 6 39 98 01 42",
            "+33\u00a06\u202f39\u00a098 01 42",  # unbreakable spaces, as French software writes them
            "\u202a+33 6 39 98 01 42\u202c",  # copied from an address book
            "'+33639980142",  # a spreadsheet's mark of text
            "tel:+33639980142",
            "+33 (0)6.39-98/01 42",
            "＋３３６３９９８０１４２",
        ],
    )
    def test_forms_of_an_international_number(self, cell):
        assert phones(read_recipients([cell])) == [LUCIE]

    @pytest.mark.parametrize(
        "cell", ["0639980142", "06.39.98.01.42", "639980142", 639980142, "33639980142", "0033639980142"]
    )
    def test_a_national_number_needs_its_region(self, cell):
        rows = [{"phone": cell}]
        assert phones(read_recipients(rows, default_region="FR")) == [LUCIE]
        assert "no default_region" in reasons(read_recipients(rows))[1]

    @pytest.mark.parametrize(
        ("cell", "reason"),
        [
            ("3.36E+10", "scientific notation"),
            ("3,36E+10", "scientific notation"),
            (3.3639980142e25, "scientific notation"),
            ("33639980142.0", "stored as a decimal"),
            (33639980142.0, "stored as a decimal"),
            ("", "has no number"),
            (None, "has no number"),
            (True, "holds bool"),
            (["+33639980142"], "holds list"),
            ("anonymous", "characters"),
            ("06 39 98 01 42 poste 12", "characters"),
            ("+33639980142;ext=3", "characters"),
            ("0800 FLOWERS", "characters"),
            ("15", "emergency or short"),
            ("112", "emergency or short"),
            ("+33112", "emergency or short"),
            ("3639", "emergency or short"),
            ("+336399801", "too short"),
            ("06 39 98 01 42 / 06 39 98 01 77", "two numbers"),
            ("063998014", "one digit short"),
            ("+999123456789", "country code does not exist"),
            ("+", "characters"),
        ],
    )
    def test_what_is_no_number_is_rejected_with_a_reason(self, cell, reason):
        result = read_recipients([{"phone": cell}, {"phone": KARIM}], default_region="FR")
        assert phones(result) == [KARIM]
        assert reason in reasons(result)[1]

    def test_a_number_without_its_area_is_rejected(self):
        assert "area code" in reasons(read_recipients(["555-0123"], default_region="US"))[1]

    @pytest.mark.parametrize("region", ["XX", "fr", "", "France"])
    def test_an_unknown_region(self, region):
        with pytest.raises(VolubileInputError, match="default_region '"):
            read_recipients([LUCIE], default_region=region)

    def test_the_first_of_a_number_wins(self):
        rows = [{"phone": "0639980142", "who": "first"}, {"phone": LUCIE, "who": "second"}]
        result = read_recipients(rows, default_region="FR")
        assert [recipient.context["who"] for recipient in result.accepted] == ["first"]
        assert reasons(result) == {2: "same number as line 1"}

    def test_unknown_ranges_are_called_counted_and_said(self, caplog):
        with caplog.at_level(logging.WARNING):
            result = read_recipients([LUCIE, GARAGE, KARIM])
        assert phones(result) == [LUCIE, GARAGE, KARIM]
        assert result.unknown_range == 2
        assert "2 numbers" in caplog.text

    def test_strict_numbers_reject_unknown_ranges(self):
        result = read_recipients([LUCIE, GARAGE], strict_numbers=True)
        assert phones(result) == [GARAGE]
        assert "no range known" in reasons(result)[1]


class TestCsv:
    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    @pytest.mark.parametrize("name", ["people.csv", "people.csv.gz", "PEOPLE.CSV"])
    def test_separators_and_compression(self, tmp_path, separator, name):
        text = separator.join(["phone", "first_name"]) + "\n" + separator.join([LUCIE, "Lucie"]) + "\n"
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        result = read_recipients(str(path))
        assert (result.accepted[0].phone, result.accepted[0].context) == (LUCIE, {"first_name": "Lucie"})

    def test_a_french_spreadsheet(self, tmp_path):
        path = write(
            tmp_path / "clients.csv",
            "\ufeffMobile;prenom;note;\r\n"
            '06 39 98 01 42;Zoé;"deux\r\nlignes; et plus";\r\n'
            "\r\n"
            "3,36E+10;Karim;;\r\n"
            "01 99 00 12 01;Garage;ouvert;\r\n",
        )
        result = read_recipients(path, phone_field="Mobile", default_region="FR")
        assert [(recipient.line, recipient.phone) for recipient in result.accepted] == [
            (2, LUCIE),
            (6, GARAGE),
        ]
        assert result.accepted[0].context == {"prenom": "Zoé", "note": "deux\r\nlignes; et plus"}
        assert "scientific" in reasons(result)[5]

    def test_a_path_object_serves(self, tmp_path):
        from airflow.sdk import ObjectStoragePath

        path = write(tmp_path / "people.csv", f"phone\n{LUCIE}\n")
        assert phones(read_recipients(Path(path))) == [LUCIE]
        assert phones(read_recipients(ObjectStoragePath(path))) == [LUCIE]

    def test_a_row_with_too_many_cells_is_not_called(self, tmp_path):
        path = write(tmp_path / "people.csv", f"phone,name\n{LUCIE},Lucie,Paris\n{KARIM},Karim,\n{GARAGE}\n")
        result = read_recipients(path)
        assert reasons(result) == {2: "has 3 cells where the header has 2"}
        assert [recipient.context for recipient in result.accepted] == [{"name": "Karim"}, {"name": ""}]

    def test_a_missing_column_is_named_with_those_that_are_there(self, tmp_path):
        path = write(tmp_path / "people.csv", f"mobile;first_name\n{LUCIE};Lucie\n")
        with pytest.raises(VolubileInputError) as error:
            read_recipients(path)
        assert str(error.value) == f"{path}: has no column 'phone' (phone_field); its columns: 'mobile', 'first_name'"
        with pytest.raises(VolubileInputError, match=r"no column 'city' \(context_fields\)"):
            read_recipients(path, phone_field="mobile", context_fields=["city"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('phone,note\n+33639980142,"never closed\n+33639980177,x\n', "line 2: is not valid CSV"),
            ("phone,phone\n+33639980142,x\n", "columns of the same name: phone"),
            ("+33639980142;Lucie\n+33639980177;Karim\n", "a telephone number stands where the names of columns are"),
            ("06 39 98 01 42;06 39 98 01 42\n", "a telephone number stands where the names of columns are"),
            ("", "has no header line"),
            ("\n\n", "has no header line"),
        ],
    )
    def test_damaged_files(self, tmp_path, text, message):
        path = write(tmp_path / "people.csv", text)
        with pytest.raises(VolubileInputError, match=message) as error:
            read_recipients(path)
        assert path in str(error.value)
        assert "39980142" not in str(error.value).replace(" ", "")

    def test_another_encoding_is_explained(self, tmp_path):
        path = write(tmp_path / "people.csv", f"phone;prenom\n{KARIM};Karim\n{LUCIE};Zoé\n", "cp1252")
        with pytest.raises(VolubileInputError, match="line 3: is not UTF-8; in Excel"):
            read_recipients(path)

    def test_an_empty_table_is_nobody(self, tmp_path):
        result = read_recipients(write(tmp_path / "people.csv", "phone,name\n"))
        assert (result.accepted, result.rejected) == ((), ())


class TestOtherFiles:
    @pytest.mark.parametrize("name", ["people.jsonl", "people.ndjson", "people.jsonl.gz"])
    def test_json_lines_keep_their_line_numbers(self, tmp_path, name):
        rows = [
            f'{{"phone": "{LUCIE}", "context": {{"day": "Fri\u2028day"}}}}',
            "",
            f'"{KARIM}"',
            '{"phone": "x"}',
        ]
        result = read_recipients(write(tmp_path / name, "\n".join(rows)))
        assert [(recipient.line, recipient.phone) for recipient in result.accepted] == [
            (1, LUCIE),
            (3, KARIM),
        ]
        assert result.accepted[0].context == {"day": "Fri\u2028day"}
        assert list(reasons(result)) == [4]

    def test_json(self, tmp_path):
        path = write(tmp_path / "people.json", json.dumps([LUCIE, {"phone": KARIM, "day": "Friday"}], indent=2))
        assert phones(read_recipients(path)) == [LUCIE, KARIM]

    def test_parquet(self, tmp_path):
        import pyarrow.parquet

        table = pyarrow.table({"phone": [LUCIE, None, KARIM], "day": ["Friday", "Monday", "Sunday"]})
        pyarrow.parquet.write_table(table, tmp_path / "people.parquet")
        result = read_recipients(tmp_path / "people.parquet")
        assert [(recipient.line, recipient.phone) for recipient in result.accepted] == [
            (1, LUCIE),
            (3, KARIM),
        ]
        assert reasons(result) == {2: "has no number"}

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("people.jsonl", '"+33639980142"\n{"phone": ', "line 2: is not valid JSON"),
            ("people.jsonl", '"+33639980142"\n\n7', "line 3: expected an object or a string, found int"),
            ("people.jsonl", '{"phone": "+33639980142", "x": NaN}', "NaN is not valid JSON"),
            ("people.json", '[\n"+33639980142",\nx]', "line 3: is not valid JSON"),
            ("people.json", '{"phone": "+33639980142"}', "expected a JSON list, found dict"),
            ("people.json", "[" * 100_000, "nested too deeply"),
            ("people.parquet", "PAR1", "not a valid Parquet file"),
            ("people.xlsx", "", r"expected \.csv, \.jsonl"),
            ("people", "", r"expected \.csv, \.jsonl"),
            ("people.parquet.gz", "", r"expected \.csv, \.jsonl"),
        ],
    )
    def test_damaged_files(self, tmp_path, name, text, message):
        path = write(tmp_path / name, text)
        with pytest.raises(VolubileInputError, match=message) as error:
            read_recipients(path)
        assert path in str(error.value)
        assert "39980142" not in str(error.value).replace(" ", "")

    def test_half_a_gzip_file(self, tmp_path):
        path = tmp_path / "people.csv.gz"
        path.write_bytes(gzip.compress(f"phone\n{LUCIE}\n".encode())[:-6])
        with pytest.raises(VolubileInputError, match="not a whole gzip file"):
            read_recipients(path)

    @pytest.mark.parametrize(
        ("source", "shown"),
        [
            ("+33639980142", r"\+33 6 \*\* \*\* \*\* 42, a number where a list or a path is expected"),
            ("06 39 98 01 42", r"06 \*\* \*\* \*\* 42, a number"),
            ("07700 900123", r"07 \*\* \*\* \*\* \* 23, a number"),
            (639980142, r"6 \*\* \*\* \*\* 42, a number"),
            ("07700 900123, 07700 900124", r"\*\*\*\*\* \*{6}, \*\*\*\*\* \*{6}, a text where a list or a path"),
            ("/data/2025-11-12/people.xlsx", r"/data/\*{4}-\*\*-\*\*/people.xlsx, a text .* expected \.csv, \.jsonl"),
        ],
    )
    def test_a_number_is_no_path(self, source, shown):
        with pytest.raises(VolubileInputError, match=shown) as error:
            read_recipients(source, default_region="GB")
        assert len(re.findall(r"\d", str(error.value))) <= 5

    @pytest.mark.parametrize("path", ["nowhere/people.csv", "nosuchstore://bucket/people.csv"])
    def test_a_file_that_cannot_be_read(self, path):
        with pytest.raises(VolubileInputError, match=f"{path}: cannot be read"):
            read_recipients(path)

    def test_parquet_without_pyarrow_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(VolubileInputError, match=r"airflow-provider-volubile\[parquet\]"):
            read_recipients(write(tmp_path / "people.parquet", "PAR1"))


class TestContext:
    def test_reserved_names_are_left_out_and_said(self, caplog):
        rows = [{"phone": LUCIE, "context": {"system": {"phone": "x"}, "day": "Friday"}}]
        with caplog.at_level(logging.WARNING):
            result = read_recipients(rows)
        assert result.accepted[0].context == {"day": "Friday"}
        assert "'system' is left out" in caplog.text

    def test_values_are_sent_as_the_agent_would_say_them(self):
        rows = [{"phone": LUCIE, "sum": 7.0, "member": True, "nothing": None, "tags": ["a", 1]}]
        context = read_recipients(rows).accepted[0].context
        assert context == {"sum": "7", "member": "true", "tags": ["a", 1]}

    @pytest.mark.parametrize("value", [datetime.now(UTC), float("nan"), b"bytes", {"deep": {1, 2}}])
    def test_a_value_that_is_not_json_is_named_and_not_shown(self, value):
        rows = [{"phone": KARIM}, {"phone": LUCIE, "visit": value}]
        with pytest.raises(VolubileInputError, match=r"recipients, line 2: .*'visit'") as error:
            read_recipients(rows)
        assert str(value) not in str(error.value)

    def test_names_the_prompt_cannot_use_are_said_once(self, caplog):
        rows = [{"phone": phone, "first name": "x", "prénom": "y", "day": "z"} for phone in (LUCIE, KARIM)]
        with caplog.at_level(logging.WARNING):
            read_recipients(rows)
        assert caplog.text.count("special characters") == 1
        assert "context_fields: 'first name', 'prénom'" in caplog.text

    def test_columns_nobody_asked_for_draw_no_warning(self, caplog):
        with caplog.at_level(logging.WARNING):
            read_recipients([{"phone": GARAGE, "first name": "x", "day": "z"}], context_fields=["day"])
        assert caplog.records == []


def test_no_message_holds_a_number(caplog):
    rows = [
        "0639980142",
        "0639980142",
        "+33639980142 x",
        "063998014",
        "33639980142.0",
        "+999639980142",
        LUCIE,
    ]
    with caplog.at_level(logging.DEBUG):
        result = read_recipients([*rows, KARIM])
    text = caplog.text + str(result.rejected)
    assert len(result.rejected) == 6
    for shown in ("639980142", "63998014", "39980177"):
        assert shown not in text.replace(" ", "")
    assert {rejection.phone for rejection in result.rejected} >= {"06 ** ** ** 42"}


def test_many_rejections_do_not_fill_the_log(caplog):
    with caplog.at_level(logging.WARNING):
        read_recipients(["nonsense"] * 500)
    assert len(caplog.records) == 21
    assert "480 more rows" in caplog.records[-1].getMessage()


def test_parts_keep_the_order_and_lose_nobody():
    people = read_recipients([f"+3363998{number:04}" for number in range(2_500)]).accepted
    parts = split_parts(people)
    assert [len(part) for part in parts] == [1000, 1000, 500]
    assert [person for part in parts for person in part] == list(people)
    assert split_parts(()) == []


def test_importing_loads_nothing_heavy():
    code = "import sys, airflow_provider_volubile.calling.recipients; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"phonenumbers", "pyarrow", "airflow", "pandas"} & set(run.stdout.split())
