"""Plain exports: each bad row is told with its line, the rest loads, and nobody sees an outcome before its time."""

import gzip
import os
from datetime import date, datetime
from pathlib import Path

import pandas as pd
import pytest

from workbench.connect.files import import_files
from workbench.connect.mapping import COLUMN_KEYS, FILE_KEYS, KEYS, parse_mapping
from workbench.connect.tables import read_text_table
from workbench.errors import WorkbenchError
from workbench.features.snapshots import snapshots
from workbench.lake import open_lake

NOW = datetime(2025, 1, 1)
ROOT = Path(__file__).resolve().parent.parent
REAL = os.environ.get("WORKBENCH_REAL_DATA", "")
real_data = pytest.mark.skipif(not REAL, reason="set WORKBENCH_REAL_DATA to the folder of the public data sets")
LEADS = """source = "s"
bad_share = 0.5
{top}
[[file]]
name = "{file}"
entity = "lead"
{extra}
[file.columns]
Id = {{ field = "id" }}
Name = {{ field = "name" }}
Created = {{ field = "created_at" }}
Visits = {{ field = "n_visits" }}
Won = {{ field = "is_converted" }}
{columns}
"""
HEADER = "Id,Name,Created,Visits,Won\n"
SOUND = HEADER + "1,Ann,2024-01-05,3,1\n2,Bob,2024-02-05,4,0\n3,Cy,2024-03-05,5,\n4,Di,2024-04-05,6,\n"


@pytest.fixture
def lake(tmp_path):
    return open_lake(tmp_path / "lake", create=True)


def imported(lake, tmp_path, text, *, name="leads.csv", mapping=LEADS, at=NOW, **filled):
    """Import `text` (bytes or str; None: the file stands already) by the mapping."""
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    told = {"file": name, "top": "", "extra": "", "columns": ""} | filled
    (tmp_path / "m.toml").write_text(mapping.format(**told), encoding="utf-8")
    return import_files(lake, tmp_path / "m.toml", at=at)


def told(report, rule):
    """(line, record_id, detail) of each finding of a rule."""
    rows = report.findings[report.findings["rule"] == rule]
    return [(r.line, r.record_id if isinstance(r.record_id, str) else None, r.detail) for r in rows.itertuples()]


# Each bad row: (what is wrong, its line in the file, the rule, what the detail must say)
BAD_ROWS = [
    ("a date that is none", "9,Ed,2024-13-45,1,1\n", "bad_date", "Created = 2024-13-45"),
    ("a year that is none", "9,Ed,0024-01-05,1,1\n", "bad_date", "Created = 0024-01-05"),
    ("a number that is none", "9,Ed,2024-01-05,many,1\n", "bad_number", "Visits = many"),
    ("half a visit", "9,Ed,2024-01-05,2.5,1\n", "bad_number", "Visits = 2.5"),
    ("neither yes nor no", "9,Ed,2024-01-05,1,perhaps\n", "bad_value", "Won = perhaps"),
    ("a key twice", "1,Ed,2024-01-05,1,1\n", "duplicate_key", "line 2"),
    ("no key", ",Ed,2024-01-05,1,1\n", "missing_key", "Id is empty"),
    ("a blank key", "  ,Ed,2024-01-05,1,1\n", "missing_key", "Id is empty"),
    ("too few columns", "9,Ed\n", "ragged_line", "2 columns instead of 5"),
    ("too many columns", "9,Ed,2024-01-05,1,1,x\n", "ragged_line", "6 columns instead of 5"),
    ("an unclosed quote", '9,"Ed,2024-01-05,1,1\n', "ragged_line", "9,"),
    ("a byte that is no UTF-8", b"9,J\xfcrgen,2024-01-05,1,1\n", "encoding", "J"),
]


@pytest.mark.parametrize(("row", "rule", "says"), [b[1:] for b in BAD_ROWS], ids=[b[0] for b in BAD_ROWS])
def test_a_bad_row_becomes_a_finding_with_its_line_and_the_rest_loads(lake, tmp_path, row, rule, says):
    row = row if isinstance(row, bytes) else row.encode()
    lines = SOUND.replace("Ann", "Zoë").encode().splitlines(keepends=True)  # the one accent tells that the file is UTF-8
    report = imported(lake, tmp_path, b"".join([*lines[:3], row, *lines[3:]]))  # the bad row is line 4
    assert [(line, says in detail) for line, _, detail in told(report, rule)] == [(4, True)]
    assert list(report.counts.itertuples(index=False)) == [("leads.csv", "lead", 5, 4, 1)]
    assert list(lake.read("lead")["id"]) == ["s:1", "s:2", "s:3", "s:4"]
    assert lake.sql("select line, rule from finding where rule = '" + rule + "'").fetchall() == [(4, rule)]


def test_a_reference_that_leads_nowhere_is_emptied_and_told(lake, tmp_path):
    (tmp_path / "users.csv").write_text("User\nu1\n")
    mapping = """source = "s"
[[file]]
name = "users.csv"
entity = "user"
columns.User = { field = "id" }
[[file]]
name = "deals.csv"
entity = "deal"
columns.Id = { field = "id" }
columns.Owner = { field = "owner_id" }
"""
    (tmp_path / "m.toml").write_text(mapping)
    (tmp_path / "deals.csv").write_text("Id,Owner\n1,u1\n2,gone\n3,gone\n4,\n")
    report = import_files(lake, tmp_path / "m.toml", at=NOW)
    # lines 3 and 4 name the user "gone": one finding that stands for 2 rows, at the first of them
    assert report.findings[["rule", "line", "record_id", "n"]].values.tolist() == [["broken_reference", 3, "s:2", 2]]
    assert "Owner = gone is no user" in report.findings["detail"][0]
    assert lake.read("deal")["owner_id"].fillna("-").tolist() == ["s:u1", "-", "-", "-"]


def test_past_the_bad_share_the_file_is_refused_before_anything_is_written(lake, tmp_path):
    rows = "".join(f"{i},N,2024-01-05,{'x' if i < 6 else i},1\n" for i in range(100))
    with pytest.raises(WorkbenchError, match=r"6 of 100 rows are bad \(more than 5%\); most often bad_number, e\.g\. line 2: Visits = x"):
        imported(lake, tmp_path, "Id,Name,Created,Visits,Won,Extra 1,Extra 2\n" + rows.replace("\n", ",,\n"), mapping=LEADS.replace("bad_share = 0.5", ""))
    assert lake.version == -1 and not list(lake.path.iterdir())  # 6 % is over, nothing stands
    report = imported(lake, tmp_path, HEADER + rows.replace("5,N,2024-01-05,x", "5,N,2024-01-05,5"), mapping=LEADS.replace("bad_share = 0.5", ""))
    assert report.counts["loaded"].tolist() == [95]  # exactly 5 % is not


def test_lines_that_an_unclosed_quote_would_swallow_are_rows_again(lake, tmp_path):
    # csv readers take everything to the next quote, here the end of the file, as one cell
    report = imported(lake, tmp_path, HEADER + '1,"Ann,2024-01-05,3,1\n' + "".join(f"{i},N,2024-01-05,3,1\n" for i in range(2, 40)))
    assert report.counts["loaded"].tolist() == [38] and told(report, "ragged_line")[0][0] == 2


def test_columns_left_out_are_told(lake, tmp_path):
    report = imported(lake, tmp_path, SOUND.replace("Won\n", "Won,Fax,Note\n").replace("\n", ",,\n").replace("Note,,", "Note"), columns="Note = { ignore = true }")
    assert report.unused == ["Fax", "Note (ignored by the mapping)"]


def test_importing_twice_changes_nothing(lake, tmp_path):
    first = imported(lake, tmp_path, SOUND + "5,Ed,2024-13-01,1,1\n")
    before = lake.read("lead"), lake.sql("select * from lead_versions order by id, valid_from").fetchall(), lake.version
    again = imported(lake, tmp_path, None, at=datetime(2025, 6, 1))
    assert first.changed and not again.changed and "nothing was written" in again.message()
    pd.testing.assert_frame_equal(lake.read("lead"), before[0])
    assert (lake.sql("select * from lead_versions order by id, valid_from").fetchall(), lake.version) == before[1:]
    assert lake.sql("select count(*) from finding").fetchall() == [(1,)]


def test_an_undated_export_imported_again_keeps_its_date(lake, tmp_path):
    mapping = LEADS.replace('Created = {{ field = "created_at" }}', "")
    imported(lake, tmp_path, SOUND, mapping=mapping)
    again = imported(lake, tmp_path, None, mapping=mapping, at=datetime(2025, 6, 1))
    assert not again.changed and again.exported_at == NOW
    changed = imported(lake, tmp_path, SOUND.replace("Ann", "Anna"), mapping=mapping, at=datetime(2025, 6, 1))
    assert changed.changed and lake.read("lead")["name"][0] == "Anna"


def test_a_mended_mapping_replaces_the_records(lake, tmp_path):
    imported(lake, tmp_path, SOUND)
    report = imported(lake, tmp_path, None, columns="")
    assert not report.changed
    report = imported(lake, tmp_path, None, mapping=LEADS.replace('{{ field = "name" }}', '{{ field = "company" }}'))
    assert report.changed and lake.read("lead")["name"].isna().all() and lake.read("lead")["company"][0] == "Ann"


def test_a_later_dated_export_begins_a_history(lake, tmp_path):
    imported(lake, tmp_path, SOUND, top="exported_on = 2024-06-30")
    later = SOUND.replace("3,Cy,2024-03-05,5,", "3,Cy,2024-03-05,9,1") + "5,Ed,2024-07-05,1,\n"
    assert imported(lake, tmp_path, later, top="exported_on = 2024-07-31").changed
    assert not imported(lake, tmp_path, None, top="exported_on = 2024-07-31").changed  # nor does it wipe what it added to
    assert lake.read("lead", datetime(2024, 7, 15)).set_index("id").loc["s:3", "n_visits"] == 5  # as the first export told
    assert lake.read("lead").set_index("id").loc["s:3", "n_visits"] == 9
    assert lake.sql("select count(*) from lead_versions where id = 's:1'").fetchall() == [(2,)]  # creation and outcome, no third
    assert list(lake.read("lead")["id"]) == ["s:1", "s:2", "s:3", "s:4", "s:5"]


def test_csv_gzip_excel_and_parquet_give_equal_lakes(tmp_path):
    frame = pd.DataFrame({"Id": [1, 2, 3], "Name": ["Ann", "Ünal, \"Bo\"", "None"], "Created": pd.to_datetime(["2024-01-05 10:30", "2024-02-05 00:00", "2024-03-05 00:00"]),
                          "Visits": [3, None, 5], "Won": [True, False, None], "Score": [1.5, 2.0, -0.25]})
    frame.to_csv(tmp_path / "leads.csv", index=False)
    (tmp_path / "leads.csv.gz").write_bytes(gzip.compress((tmp_path / "leads.csv").read_bytes()))
    frame.to_excel(tmp_path / "leads.xlsx", index=False)
    frame.to_parquet(tmp_path / "leads.parquet")
    lakes = []
    for name in ("leads.csv", "leads.csv.gz", "leads.xlsx", "leads.parquet"):
        lake = open_lake(tmp_path / name.replace(".", "_"), create=True)
        report = imported(lake, tmp_path, None, name=name, columns='Score = { field = "x_score", type = "float" }')
        assert report.findings.empty, name
        lakes.append(lake.sql("select * from lead_versions order by id, valid_from").fetchall())
    assert len(lakes[0]) == 5 and lakes[0] == lakes[1] == lakes[2] == lakes[3]  # 2 decided leads have 2 versions, 1 open has 1


@pytest.mark.parametrize(("name", "data"), [
    ("semicolon", b"Id;Name;Created;Visits;Won\n1;M\xc3\xbcller, A;2024-01-05;3;1\n"),
    ("tab", b"Id\tName\tCreated\tVisits\tWon\n1\tM\xc3\xbcller, A\t2024-01-05\t3\t1\n"),
    ("byte order mark", b"\xef\xbb\xbfId;Name;Created;Visits;Won\r\n1;M\xc3\xbcller, A;2024-01-05;3;1\r\n"),
    ("utf-16", "Id\tName\tCreated\tVisits\tWon\r\n1\tMüller, A\t2024-01-05\t3\t1\r\n".encode("utf-16")),
    ("latin-1", b'Id,Name,Created,Visits,Won\n1,"M\xfcller, A",2024-01-05,3,1\n'),
    ("old mac line ends", b'Id,Name,Created,Visits,Won\r1,"M\xc3\xbcller, A",2024-01-05,3,1\r'),
    ("mixed line ends", b'Id,Name,Created,Visits,Won\r\n\n1,"M\xc3\xbcller, A",2024-01-05,3,1\r\r\n'),
    ("blanks around", b'Id, Name ,Created,Visits,Won\n 1 ,"\xc2\xa0M\xc3\xbcller, A ",2024-01-05 , 3,1\n'),
])
def test_dialects_of_csv_give_the_same_record(lake, tmp_path, name, data):
    report = imported(lake, tmp_path, data)
    assert lake.read("lead")[["id", "name", "n_visits"]].values.tolist() == [["s:1", "Müller, A", 3]]
    assert [f for f in report.findings["rule"]] == (["encoding"] if name == "latin-1" else [])  # a guess is told


def test_a_quoted_line_break_keeps_the_numbers_of_later_lines(lake, tmp_path):
    # lines: 1 header, 2-3 Ann, 4 empty, 5 the bad one
    report = imported(lake, tmp_path, HEADER + '1,"Ann\nLee",2024-01-05,3,1\n\n2,Bob,2024-02-05,x,0\n')
    assert told(report, "bad_number") == [(5, "s:2", "Visits = x")] and lake.read("lead")["name"].tolist() == ["Ann\nLee"]


def test_an_empty_file_is_an_error_and_a_bare_header_a_finding(lake, tmp_path):
    with pytest.raises(WorkbenchError, match="has no header line"):
        imported(lake, tmp_path, b"")
    report = imported(lake, tmp_path, HEADER)
    assert told(report, "empty_file") == [(1, None, "a header and no row")] and report.counts["read"].tolist() == [0]


def test_columns_of_one_name_are_told_apart(lake, tmp_path):
    imported(lake, tmp_path, "Id,Name,Created,Visits,Won,name,\n1,Ann,2024-01-05,3,1,Bob,7\n", columns='name_6 = { field = "company" }\ncolumn_7 = { field = "title" }')
    assert lake.read("lead")[["name", "company", "title"]].values.tolist() == [["Ann", "Bob", "7"]]


def test_local_times_become_utc_and_an_offset_is_taken_at_its_word(lake, tmp_path):
    rows = "1,A,2024-07-01 10:00,1,\n2,B,2024-01-01 10:00,1,\n3,C,2024-07-01T10:00:00+05:00,1,\n4,D,2024-07-01T10:00:00Z,1,\n5,E,2024-07-01 10:00:00 UTC,1,\n"
    imported(lake, tmp_path, HEADER + rows, top='time_zone = "Europe/Berlin"')
    # Berlin is 2 hours ahead in July, 1 in January; +05:00 is 5:00 UTC
    assert [t.hour for t in lake.read("lead")["created_at"]] == [8, 9, 5, 10, 10]


def test_numbers_with_a_decimal_comma_and_separators(lake, tmp_path):
    rows = "Id;Net;Share\n1;1.234,50 €;12,5%\n2;-1.000;3\n3;1 234,5;\n4;12.50;\n"
    mapping = 'source = "s"\nbad_share = 0.5\n[[file]]\nname = "leads.csv"\nentity = "lead"\ndecimal = ","\n[file.columns]\nId = {{ field = "id" }}\n' \
              'Net = {{ field = "x_net", type = "money" }}\nShare = {{ field = "x_share", type = "float" }}'
    report = imported(lake, tmp_path, rows, mapping=mapping)
    assert lake.read("lead")["x_net"].tolist() == [1234.5, -1000, 1234.5]
    assert lake.read("lead")["x_share"].tolist()[:2] == [0.125, 3]
    assert told(report, "bad_number") == [(5, "s:4", "Net = 12.50")]  # a point cannot separate two digits: not 1250, not 12.5


def test_placeholders_are_missing_but_shown_not_chosen_is_kept_for_models(lake, tmp_path):
    rows = [f"{i},{('Select', '', 'Web')[i % 3]},{('No', 'Yes')[i % 2]}" for i in range(60)]
    mapping = 'source = "s"\n[[file]]\nname = "leads.csv"\nentity = "lead"\nplaceholders = ["Select"]\n[file.columns]\nId = {{ field = "id" }}\n' \
              'Source = {{ field = "source" }}\nWon = {{ field = "is_converted" }}'
    imported(lake, tmp_path, "\n".join(["Id,Source,Won", *rows]), mapping=mapping)
    assert lake.sql("select source, x_source_not_chosen, count(*) from lead group by all order by 1, 2").fetchall() == [("Web", False, 20), (None, False, 20), (None, True, 20)]
    assert "x_source_not_chosen" in snapshots(lake, "lead", as_of=NOW).features
    assert "x_won_not_chosen" not in lake.columns("lead")  # never shown there


def test_value_maps_say_what_values_mean(lake, tmp_path):
    columns = 'State = [{ field = "status", values = { nw = "new", junk = "" } }, { field = "is_lost", values = { lost = true, "*" = false, "" = false } }]'
    report = imported(lake, tmp_path, "Id,Name,Created,Visits,Won,State\n1,A,2024-01-05,1,,nw\n2,B,2024-01-05,1,,junk\n3,C,2024-01-05,1,,lost\n4,D,2024-01-05,1,,\n",
                      columns=columns)
    found = lake.read("lead")
    assert found["status"].fillna("-").tolist() == ["new", "-", "lost", "-"]
    assert found["is_lost"].tolist() == [False, False, True, False]  # the last is empty in the file
    assert told(report, "replaced_value") == [(2, None, "State: e.g. 'nw' read as 'new', as the mapping says")]
    assert report.findings["n"].tolist() == [2]  # lines 2 and 3


DEALS = """source = "s"
exported_on = 2024-12-31
[[file]]
name = "{file}"
entity = "deal"
{extra}
[file.columns]
Id = {{ field = "id" }}
Created = {{ field = "created_at" }}
Closed = [{{ field = "closed_at" }}, {{ field = "close_on", known_at = "current_only" }}]
Stage = [{{ field = "stage", known_at = "current_only" }}, {{ field = "is_won", values = {{ Won = true, Lost = false, "*" = "" }} }}]
Value = {{ field = "amount", known_at = "outcome" }}
{columns}
"""
DEAL_ROWS = "Id,Created,Closed,Stage,Value\n1,2024-01-05,2024-03-01,Won,100\n2,2024-01-05,2025-03-01,Offer,50\n3,,,Offer,10\n4,2024-01-05,,Offer,\n5,2024-01-05,2024-01-05,Lost,0\n"


def test_outcomes_and_today_s_values_are_invisible_until_the_close(lake, tmp_path):
    imported(lake, tmp_path, DEAL_ROWS, mapping=DEALS)
    late = ["is_won", "closed_at", "close_on", "stage", "amount"]
    day_before = lake.read("deal", datetime(2024, 2, 29)).set_index("id")
    assert day_before.loc[["s:1", "s:2", "s:4"], late].isna().all().all()
    closed = lake.read("deal", datetime(2024, 3, 2)).set_index("id")
    assert closed.loc["s:1", "is_won"] and closed.loc["s:1", "amount"] == 100
    assert closed.loc["s:2", late].isna().all()  # still open: its stage and amount are those of the export
    assert lake.read("deal").set_index("id").loc["s:2", ["stage", "amount"]].tolist() == ["Offer", 50]


def test_records_without_any_date_stand_only_from_the_export_on(lake, tmp_path):
    report = imported(lake, tmp_path, DEAL_ROWS, mapping=DEALS)
    assert told(report, "no_date") == [(4, None, "no created_at and no closed_at: stands in time only from the export on")]
    assert "s:3" not in set(lake.read("deal", datetime(2024, 12, 30))["id"]) and "s:3" in set(lake.read("deal")["id"])


def test_the_closing_date_of_an_open_deal_is_a_plan(lake, tmp_path):
    report = imported(lake, tmp_path, DEAL_ROWS, mapping=DEALS)
    deal = lake.read("deal").set_index("id").loc["s:2"]
    assert pd.isna(deal["closed_at"]) and deal["close_on"] == pd.Timestamp(2025, 3, 1)
    assert [t[0] for t in told(report, "planned_close")] == [3]


def test_a_typo_in_a_year_does_not_move_the_export_into_the_future(lake, tmp_path):
    report = imported(lake, tmp_path, SOUND.replace("2024-04-05", "2094-04-05"))
    assert report.exported_at == NOW


def test_a_running_number_orders_rows_that_have_no_date(lake, tmp_path):
    mapping = LEADS.replace('Created = {{ field = "created_at" }}', "")
    imported(lake, tmp_path, "Id,Name,Created,Visits,Won,No\na,A,,1,1,20\nb,B,,1,1,9\n", mapping=mapping, extra='order_by = "No"')
    assert lake.read("lead")[["id", "created_order"]].values.tolist() == [["s:a", 20], ["s:b", 9]]
    imported(lake, tmp_path, "Id,Name,Created,Visits,Won,No\na,A,,1,1,L-20\nb,B,,1,1,L-19\n", mapping=mapping, extra='order_by = "No"')
    assert lake.read("lead")["created_order"].tolist() == [2, 1]


def test_several_columns_join_into_one_field(lake, tmp_path):
    rows = "Id,First,Last,Day,Time\n1,Ann,Lee,2024-01-05,10:30\n2,,Cher,2024-01-05,\n3,,,,\n"
    mapping = 'source = "s"\n[[file]]\nname = "leads.csv"\nentity = "lead"\njoin = {{ Full = ["First", "Last"], When = ["Day", "Time"] }}\n[file.columns]\n' \
              'Id = {{ field = "id" }}\nFull = {{ field = "name" }}\nWhen = {{ field = "created_at", format = ["%Y-%m-%d %H:%M", "%Y-%m-%d"] }}'
    report = imported(lake, tmp_path, rows, mapping=mapping)
    assert lake.read("lead")["name"].fillna("-").tolist() == ["Ann Lee", "Cher", "-"]
    assert lake.read("lead")["created_at"][0] == pd.Timestamp(2024, 1, 5, 10, 30) and not report.unused


def test_companies_and_owners_inside_a_deal_file_become_records_of_their_own(lake, tmp_path):
    extra = """columns.Id = {{ field = "id" }}
columns.Owner = {{ field = "owner_id" }}
[[file]]
name = "{file}"
entity = "user"
distinct = true
columns.Owner = [{{ field = "id" }}, {{ field = "name" }}]
"""
    report = imported(lake, tmp_path, "Id,Owner\n1,Ann\n2,Ann\n3,\n4,Bob\n", mapping='source = "s"\n[[file]]\nname = "{file}"\nentity = "deal"\n' + extra)
    assert report.findings.empty and report.counts[["entity", "read", "loaded"]].values.tolist() == [["deal", 4, 4], ["user", 2, 2]]
    assert lake.read("deal")["owner_id"].fillna("-").tolist() == ["s:Ann", "s:Ann", "-", "s:Bob"]


def test_a_key_that_stands_in_two_files_is_a_duplicate_of_the_second(lake, tmp_path):
    (tmp_path / "leads_1.csv").write_text(SOUND)
    (tmp_path / "leads_2.csv").write_text(HEADER + "7,Gus,2024-01-05,3,1\n2,Twin,2024-01-05,3,1\n")
    report = imported(lake, tmp_path, None, name="leads_*.csv")
    assert told(report, "duplicate_key") == [(3, "s:2", "stands in leads_1.csv already")]
    assert lake.read("lead")["name"].tolist() == ["Ann", "Bob", "Cy", "Di", "Gus"]


EVIL = ["'; drop table raw; --", '"; drop table raw; --', "a' || (select 1) || '", "x|y", "{}", "%s", "\\", "select * from read_text('/etc/passwd')", "a\tb", "ünï"]


def test_hostile_names_and_cells_are_only_text(lake, tmp_path):
    header = ["Id", *EVIL]
    pd.DataFrame([["1", *EVIL], ["2", *[f"{e}!" for e in EVIL]]], columns=header).to_csv(tmp_path / "le'ads [1]*.csv", index=False)
    (tmp_path / "le'ads 1x.csv").write_text("nothing of this may be read")
    columns = "".join(f"{toml(e)} = {{ field = 'x_f{i}', placeholders = [{toml(e)}], values = {{ {toml(e + '!')} = {toml(e + '?')} }}, meaning = {toml(e)} }}\n" for i, e in enumerate(EVIL))
    text = f'source = "s"\n[[file]]\nname = {toml("le" + chr(39) + "ads [1]*.csv")}\nentity = "lead"\norder_by = {toml(EVIL[0])}\n' \
           f'join = {{ {toml(EVIL[0] + "j")} = [{toml(EVIL[0])}, {toml(EVIL[1])}] }}\n[file.columns]\nId = {{ field = "id" }}\n{columns}{toml(EVIL[0] + "j")} = {{ field = "company" }}\n'
    (tmp_path / "m.toml").write_text(text, encoding="utf-8")
    report = import_files(lake, tmp_path / "m.toml", at=NOW)
    found = lake.read("lead")
    assert found.loc[1, [f"x_f{i}" for i in range(len(EVIL))]].tolist() == [e + "?" for e in EVIL]
    assert found.loc[0, [f"x_f{i}_not_chosen" for i in range(len(EVIL))]].all() and found.loc[0, "company"] == f"{EVIL[0]} {EVIL[1]}"
    assert report.counts["loaded"].tolist() == [2]


def toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'


@pytest.mark.parametrize("evil", EVIL)
def test_a_hostile_key_column_only_names_the_finding(lake, tmp_path, evil):
    pd.DataFrame({evil: ["1", None, "1", "2'"], "N": list("1x34")}).to_csv(tmp_path / "leads.csv", index=False)
    text = f'source = "s"\nbad_share = 1\n[[file]]\nname = "leads.csv"\nentity = "lead"\n[file.columns]\n{toml(evil)} = {{ field = "id" }}\nN = {{ field = "n_visits" }}\n'
    (tmp_path / "m.toml").write_text(text, encoding="utf-8")
    report = import_files(lake, tmp_path / "m.toml", at=NOW)
    assert told(report, "missing_key")[0][2] == f"{evil} is empty" and len(told(report, "duplicate_key")) == 1
    assert list(lake.read("lead")["id"]) == ["s:1", "s:2'"]


def test_a_file_of_two_thousand_columns_loads(lake, tmp_path):
    names = [f"c{i}" for i in range(2000)]
    pd.DataFrame([[str(i), *range(2000)] for i in range(50)], columns=["Id", *names]).to_csv(tmp_path / "wide.csv", index=False)
    columns = "".join(f'{n} = {{ field = "x_{n}", type = "float" }}\n' for n in names[:300])
    (tmp_path / "m.toml").write_text(f'source = "s"\n[[file]]\nname = "wide.csv"\nentity = "lead"\n[file.columns]\nId = {{ field = "id" }}\n{columns}')
    report = import_files(lake, tmp_path / "m.toml", at=NOW)
    assert len(report.unused) == 1700 and lake.read("lead", columns=["x_c299"])["x_c299"].tolist() == [299.0] * 50


@pytest.mark.parametrize(("mapping", "says"), [
    ("source = 's", "not valid TOML"),
    ("source = 'S!'\n[[file]]\nname='a'\nentity='lead'", "Use a-z, 0-9"),
    ("source = 5\n[[file]]\nname='a'\nentity='lead'", "not of type text"),
    ("source = 's'", "names no"),
    ("source = 's'\nfile = ['x']", "names no"),
    ("source = 's'\ntime_zone = 'Mars'\n[[file]]\nname='a'\nentity='lead'", "no time zone"),
    ("source = 's'\nbad_share = 5\n[[file]]\nname='a'\nentity='lead'", "0.05 for 5 %"),
    ("source = 's'\nbad_share = 'x'\n[[file]]\nname='a'\nentity='lead'", "not of type"),
    ("source = 's'\n[[file]]\nname='a'\nentity='leed'", "There is no entity 'leed'"),
    ("source = 's'\n[[file]]\nname='a'\nentity='lead'\nplaceholder=['x']", "Did you mean 'placeholders'"),
    ("source = 's'\n[[file]]\nname='a'\nentity='lead'\ncolumns.A = 'name'", "no table of keys"),
    ("source = 's'\n[[file]]\nname='a'\nentity='lead'\ncolumns.A = {field='nmae'}", "Did you mean 'name'"),
    ("source = 's'\n[[file]]\nname='a'\nentity='lead'\ncolumns.A = {field='x_a', type='txt'}", "Types: text, int"),
    ("source = 's'\n[[file]]\nname='a'\nentity='lead'\ncolumns.A = {field='name', type='int'}", "name is text, not int"),
    ("source = 's'\n[[file]]\nname='a'\nentity='lead'\ncolumns.A = {field='name', known_at='historized'}", "an export has no history"),
    ("source = 's'\n[[file]]\nname='a'\nentity='lead'\ncolumns.A = {field='name'}\ncolumns.B = {field='name'}", "fed by two columns"),
    ("source = 's'\n[[file]]\nname='a'\nentity='lead'\ncolumns.A = {field='x_a', reference='acount'}", "no entity 'acount'"),
    ("source = 's'\n[[file]]\nname='a'\nentity='lead'\ncolumns.A = {field='x_a', decimal=';'}", "no decimal sign"),
    ("source = 's'\n[[file]]\nname='a'\nentity='deal'\nconstants = {curency='USD'}", "no field 'curency'"),
    ("source = 's'\n[[file]]\nname='a'\nentity='deal'\njoin = {A='B'}", "names no columns"),
    ("source = 's'\n[[file]]\nname='a'\nentity='deal'\ndistinct = true", "distinct needs a key"),
])
def test_a_mistake_in_a_mapping_is_named_with_its_remedy(mapping, says):
    with pytest.raises(WorkbenchError) as error:
        parse_mapping(mapping)
    assert says in str(error.value) and error.value.fix


@pytest.mark.parametrize(("name", "data", "says"), [
    ("gone.csv", None, "--data FOLDER"),
    ("a.parquet", b"no parquet", "cannot be read"),
    ("a.xlsx", b"no excel", "cannot be read|no readable Excel"),
    ("a.csv.gz", b"no gzip", "cannot be read"),
    ("/etc/*.csv", None, "There is no"),
    ("a.csv", b"\x00\x01\x02\n", "no column"),
])
def test_a_file_that_cannot_be_read_is_an_error_with_a_remedy(lake, tmp_path, name, data, says):
    with pytest.raises(WorkbenchError, match=says) as error:
        imported(lake, tmp_path, data, name=name)
    assert error.value.fix and lake.version == -1


def test_a_column_or_constant_that_does_not_fit_is_an_error_with_a_remedy(lake, tmp_path):
    with pytest.raises(WorkbenchError, match=r"leads.csv has no column 'Fax'. Its columns: Id, Name, Created, Visits, Won"):
        imported(lake, tmp_path, SOUND, columns='Fax = { field = "phone" }')
    with pytest.raises(WorkbenchError, match="cannot be read as lead.*Check the mapping"):
        imported(lake, tmp_path, SOUND, extra='constants = { employees = "many" }')
    with pytest.raises(WorkbenchError, match="encoding 'utf-99' is unknown"):
        imported(lake, tmp_path, SOUND, extra='encoding = "utf-99"')


def test_a_sheet_is_chosen_by_name(tmp_path):
    with pd.ExcelWriter(tmp_path / "b.xlsx") as book:
        pd.DataFrame({"A": [1]}).to_excel(book, sheet_name="one", index=False)
        pd.DataFrame({"B": [date(2024, 1, 5)], "C": ["NA"]}).to_excel(book, sheet_name="two", index=False)
    assert read_text_table(tmp_path / "b.xlsx").columns == ["A"]
    assert read_text_table(tmp_path / "b.xlsx", sheet="two").connection.sql("select * from raw").fetchall() == [("2024-01-05", "NA", 2)]
    with pytest.raises(WorkbenchError, match="Its sheets: one, two"):
        read_text_table(tmp_path / "b.xlsx", sheet="three")


def test_every_key_of_a_mapping_is_explained():
    page = (ROOT / "docs" / "mapping.md").read_text(encoding="utf-8")
    assert [k for k in (*KEYS, *FILE_KEYS, *COLUMN_KEYS) if f"`{k}`" not in page] == []


@pytest.fixture(scope="module")
def real_lakes(tmp_path_factory):
    lakes = {}
    for name in ("maven_crm_sales", "x_education_leads"):
        lake = open_lake(tmp_path_factory.mktemp(name) / "lake", create=True)
        lakes[name] = lake, import_files(lake, ROOT / "data" / "mappings" / f"{name}.toml", Path(REAL) / name, at=NOW)
    return lakes


@real_data
def test_the_hardware_seller_loads_with_its_traps_handled(real_lakes):
    lake, report = real_lakes["maven_crm_sales"]
    assert report.counts[["entity", "loaded", "rejected"]].values.tolist() == [["user", 35, 0], ["product", 7, 0], ["account", 85, 0], ["deal", 8800, 0]]
    found = {(r.file, r.rule, r.detail.split(":")[0]): r.n for r in report.findings.itertuples()}
    assert found == {("accounts.csv.gz", "replaced_value", "sector"): 12, ("accounts.csv.gz", "replaced_value", "office_location"): 1,
                     ("sales_pipeline.csv.gz", "replaced_value", "product"): 1480, ("sales_pipeline.csv.gz", "no_date", "no created_at and no closed_at"): 500}
    assert lake.sql("select count(*) from deal where product_id is null").fetchall() == [(0,)]  # GTXPro found its product
    assert lake.sql("select count(*), count(is_won) from deal where account_id is null").fetchall() == [(1425, 0)]  # all of them open
    assert lake.sql("select count(*) filter (is_won), count(*) filter (not is_won), count(*) filter (is_won is null) from deal").fetchall() == [(4238, 2473, 2089)]
    assert lake.sql("select count(*) from account where industry = 'technolgy' or country = 'Philipines'").fetchall() == [(0,)]
    assert lake.sql("select count(*) from account a join account p on a.parent_id = p.id").fetchall()[0][0] == report_children()


def report_children() -> int:
    return int(pd.read_csv(Path(REAL) / "maven_crm_sales" / "accounts.csv.gz")["subsidiary_of"].notna().sum())


@real_data
def test_the_hardware_seller_shows_no_outcome_before_its_time(real_lakes):
    lake, _ = real_lakes["maven_crm_sales"]
    ahead = lake.sql("select count(*) from (select c.id from deal c join deal_versions v using (id) where v.valid_from < c.closed_at and "
                     "coalesce(v.is_won::varchar, v.closed_at::varchar, v.amount::varchar, v.account_id, v.stage) is not null)").fetchall()
    assert ahead == [(0,)]
    in_june = lake.read("deal", datetime(2017, 6, 30, 23, 59))
    truth = pd.read_csv(Path(REAL) / "maven_crm_sales" / "sales_pipeline.csv.gz", parse_dates=["engage_date", "close_date"])
    assert len(in_june) == (truth["engage_date"] <= "2017-06-30").sum()
    assert in_june["is_won"].notna().sum() == (truth["close_date"] <= "2017-06-30").sum()
    found = snapshots(lake, "deal", as_of=datetime(2017, 12, 31, 23, 59, 59), source="maven_crm_sales")
    assert not {"stage", "amount", "account_id"} & set(found.features) and {"stage", "amount", "account_id"} <= set(found.excluded["field"])


@real_data
def test_the_course_seller_shows_models_only_what_stood_at_creation(real_lakes):
    lake, report = real_lakes["x_education_leads"]
    assert report.counts[["entity", "read", "loaded"]].values.tolist() == [["lead", 9240, 9240]]
    assert lake.sql("select count(*) filter (is_converted) from lead").fetchall() == [(3561,)]
    assert lake.sql("select count(*) from lead where city is null and x_city_not_chosen").fetchall() == [(2249,)]
    assert lake.sql("select count(*) from lead where x_specialization_not_chosen").fetchall() == [(1942,)]
    assert lake.sql("select count(*) from lead where source = 'google'").fetchall() == [(0,)]
    found = snapshots(lake, "lead", as_of=NOW, source="x_education_leads")
    assert set(found.features) == {
        "origin_form", "source", "do_not_email", "do_not_call", "n_visits", "web_seconds", "pages_per_visit", "country", "city", "x_specialization", "x_saw_search",
        "x_saw_newspaper_article", "x_saw_forums", "x_saw_newspaper", "x_saw_digital_advertisement", "x_saw_recommendation", "x_wants_free_copy",
        "x_city_not_chosen", "x_specialization_not_chosen"}
    assert {"x_tags", "x_lead_quality", "x_lead_profile", "x_heard_from", "x_last_activity", "x_asymmetrique_activity_score"} <= set(found.excluded["field"])
