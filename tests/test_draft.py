"""A drafted mapping loads plain exports of many shapes as it stands, says why, and keeps late fields from models."""

import os
import tomllib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workbench.connect.draft import draft_mapping
from workbench.connect.files import import_files
from workbench.connect.mapping import parse_mapping
from workbench.errors import WorkbenchError
from workbench.features.snapshots import snapshots
from workbench.lake import open_lake

NOW = datetime(2025, 6, 1)
REAL = os.environ.get("WORKBENCH_REAL_DATA", "")
real_data = pytest.mark.skipif(not REAL, reason="set WORKBENCH_REAL_DATA to the folder of the public data sets")
FIRST, LAST = ["Ann", "Bob", "Cy", "Dörte", "Eve", "Finn"], ["Lee", "Smith", "O'Hara", "Müller", "van Dyk", "Ng"]


def loaded(tmp_path, paths):
    """(drafted text, lake, report) of files imported by their draft as it stands."""
    text = draft_mapping(paths)
    (tmp_path / "drafted.toml").write_text(text, encoding="utf-8")
    lake = open_lake(tmp_path / "lake", create=True)
    folder = Path(os.path.commonpath([Path(p).parent for p in paths]))
    return text, lake, import_files(lake, tmp_path / "drafted.toml", folder, at=NOW)


def fields_of(text, column, place=0):
    """The entries that the draft gives a column in its n-th file."""
    told = tomllib.loads(text)["file"][place]["columns"][column]
    return told if isinstance(told, list) else [told]


def line_of(text, column):
    return next(line for line in text.splitlines() if line.startswith(f'"{column}" ='))


def salesforce_leads(path, n=400):
    r = np.random.default_rng(1)
    start = datetime(2024, 1, 1)
    status = r.choice(["Open - Not Contacted", "Working - Contacted", "Closed - Converted", "Closed - Not Converted"], n, p=[.3, .3, .2, .2])
    rows = []
    for i, s in enumerate(status):
        made = start + timedelta(days=int(r.integers(0, 300)))
        done = made + timedelta(days=int(r.integers(1, 60)))
        first, last = FIRST[i % 6], LAST[i // 6 % 6]
        rows.append({"Lead ID": f"00Q5g00000{i:05}EAA", "First Name": first, "Last Name": last, "Title": ["CEO", "Buyer", ""][i % 3], "Company / Account": f"Firm {i % 90}",
                     "Email": f"{first}.{i}@example.com" if i % 5 else "", "Phone": f"(555) 01{i % 100:02}-{i:04}", "Lead Source": r.choice(["Web", "web", "Trade Show", "--None--", "Referral"]),
                     "Lead Status": s, "Rating": r.choice(["Hot", "Warm", "Cold"]), "Industry": r.choice(["Retail", "Banking"]), "Annual Revenue": f"${int(r.integers(1, 900)):,},000",
                     "No. of Employees": int(r.integers(1, 999)), "State/Province": r.choice(["CA", "NY", "TX"]), "Country": "USA" if i % 7 else "Canada",
                     "Lead Owner": r.choice(["Kim Poe", "Lou Reed"]), "Converted": int(s == "Closed - Converted"), "Create Date": f"{made.month}/{made.day}/{made.year}",
                     "Converted Date": f"{done.month}/{done.day}/{done.year}" if s == "Closed - Converted" else "", "Last Activity": f"{done.month}/{done.day}/{done.year}"})
    frame = pd.DataFrame(rows)
    frame.to_csv(path, index=False)
    with path.open("a") as file:  # what a report ends with
        file.write('\n"Leads by status"\n"Copyright (c) All rights reserved."\n"Confidential Information - Do Not Distribute"\n')
    return frame


def test_a_salesforce_lead_report_loads_as_drafted(tmp_path):
    frame = salesforce_leads(tmp_path / "report1700000.csv")
    text, lake, report = loaded(tmp_path, [tmp_path / "report1700000.csv"])
    leads = lake.read("lead").set_index("id")
    assert report.counts[["entity", "loaded"]].values.tolist() == [["lead", 400], ["user", 2]]
    assert report.findings.loc[report.findings["rule"] == "ragged_line", "n"].sum() == 3  # the report's last lines
    assert leads["is_converted"].sum() == frame["Converted"].sum()
    assert leads["is_lost"].sum() == (frame["Lead Status"] == "Closed - Not Converted").sum()
    assert leads.loc["report1700000:00Q5g0000000000EAA", ["name", "company", "title"]].tolist() == ["Ann Lee", "Firm 0", "CEO"]
    assert leads["created_at"].min() == pd.to_datetime(frame["Create Date"], format="%m/%d/%Y").min()
    assert leads["converted_at"].notna().sum() == frame["Converted"].sum()
    assert set(leads["source"].dropna()) == {"Web", "Trade Show", "Referral"} and leads["x_source_not_chosen"].sum() == (frame["Lead Source"] == "--None--").sum()
    assert leads["owner_id"].isin(lake.read("user")["id"]).all()
    assert fields_of(text, "Lead Status") == [{"field": "is_lost", "values": {"Closed - Not Converted": True, "*": False}}, {"field": "status", "known_at": "current_only"}]
    assert fields_of(text, "Last Activity")[0]["known_at"] == "current_only" and fields_of(text, "Rating")[0]["known_at"] == "current_only"
    found = snapshots(lake, "lead", as_of=NOW)
    assert {"source", "industry", "country"} <= set(found.features) and not {"status", "rating", "x_last_activity"} & set(found.features)
    assert len(found.open) == frame["Lead Status"].str.startswith(("Open", "Working")).sum()


def pipedrive_deals(path, n=300):
    r = np.random.default_rng(2)
    rows = []
    for i in range(n):
        status, made = r.choice(["Open", "Won", "Lost"]), datetime(2024, 1, 2, 9) + timedelta(hours=int(r.integers(0, 7000)))
        end = (made + timedelta(days=int(r.integers(5, 50)))).strftime("%Y-%m-%d %H:%M:%S")
        rows.append({"Deal - ID": i + 1, "Deal - Title": f"Deal {i}", "Deal - Value": round(float(r.uniform(100, 9000)), 2), "Deal - Currency of Value": "EUR" if i % 2 else "USD",
                     "Deal - Status": status, "Deal - Stage": r.choice(["Qualified", "Demo", "Proposal"]), "Deal - Pipeline": r.choice(["Sales", "Renewals"]), "Deal - Owner": r.choice(["Kim", "Lou", "Max"]),
                     "Deal - Organization": f"Org {i % 40}" if i % 9 else "", "Deal - Contact person": f"{FIRST[i % 6]} {LAST[i // 6 % 6]}", "Deal - Deal created": made.strftime("%Y-%m-%d %H:%M:%S"),
                     "Deal - Won time": end if status == "Won" else "", "Deal - Lost time": end if status == "Lost" else "", "Deal - Lost reason": "Price" if status == "Lost" else "",
                     "Deal - Expected close date": "2025-09-01" if i % 3 else "", "Deal - Label": r.choice(["Hot", "Cold"])})
    frame = pd.DataFrame(rows)
    frame.to_csv(path, index=False)
    return frame


def test_a_pipedrive_deal_export_loads_as_drafted(tmp_path):
    frame = pipedrive_deals(tmp_path / "deals-123.csv")
    text, lake, report = loaded(tmp_path, [tmp_path / "deals-123.csv"])
    deals = lake.read("deal").set_index("id")
    assert report.counts.set_index("entity")["loaded"].to_dict() == {"deal": 300, "user": 3, "account": 40}
    assert "bad_date" not in set(report.findings["rule"]) and "broken_reference" not in set(report.findings["rule"])
    won, lost = frame["Deal - Status"] == "Won", frame["Deal - Status"] == "Lost"
    assert (deals["is_won"].eq(True).sum(), deals["is_won"].eq(False).sum()) == (won.sum(), lost.sum())
    assert deals["closed_at"].notna().sum() == (won | lost).sum()  # from the two columns of won and lost times
    assert sorted(deals["amount"]) == sorted(frame["Deal - Value"]) and set(deals["currency"]) == {"EUR", "USD"}
    assert deals["close_on"].notna().sum() == (frame["Deal - Expected close date"] != "").sum() and set(deals["pipeline"]) == {"Sales", "Renewals"}
    before = lake.read("deal", datetime(2024, 6, 1))
    assert len(before) == (frame["Deal - Deal created"] < "2024-06-01 00:00:00").sum()
    assert before["is_won"].notna().sum() == ((frame["Deal - Won time"] + frame["Deal - Lost time"]).between("2024", "2024-06-01 00:00:00")).sum()
    assert "LEAK" in line_of(text, "Deal - Lost reason") and fields_of(text, "Deal - Contact person")[0]["personal"]


def test_a_hubspot_deal_export_in_excel_loads_as_drafted(tmp_path):
    r = np.random.default_rng(3)
    rows = []
    for i in range(200):
        stage, made = r.choice(["Closed Won", "Closed Lost", "Appointment Scheduled", "Contract Sent"]), datetime(2024, 1, 2, 9, 30) + timedelta(hours=int(r.integers(0, 7000)))
        rows.append({"Record ID": 9000 + i, "Deal Name": f"Deal {i}", "Deal Stage": stage, "Pipeline": "Sales Pipeline", "Amount": float(r.integers(1, 90)) * 100,
                     "Close Date": made + timedelta(days=30), "Create Date": made, "Deal owner": r.choice(["Kim Poe", "Lou Reed"]), "Associated Company": f"Org {i % 30}",
                     "Deal Type": r.choice(["New Business", "Existing Business"]), "Number of times contacted": int(r.integers(0, 30)), "Last Modified Date": made + timedelta(days=40)})
    frame = pd.DataFrame(rows)
    frame.to_excel(tmp_path / "hubspot-crm-exports.xlsx", index=False)
    text, lake, report = loaded(tmp_path, [tmp_path / "hubspot-crm-exports.xlsx"])
    deals = lake.read("deal")
    is_open = ~frame["Deal Stage"].str.startswith("Closed")
    assert report.counts.set_index("entity")["loaded"].to_dict() == {"deal": 200, "user": 2, "account": 30}
    assert deals["is_won"].sum() == (frame["Deal Stage"] == "Closed Won").sum() and deals["is_won"].isna().sum() == is_open.sum()
    # the closing date of an open deal is a plan: it is in close_on, and closed_at is empty
    assert deals["closed_at"].notna().sum() == (~is_open).sum() and deals["close_on"].notna().all()
    assert report.findings.set_index("rule").loc["planned_close", "n"] == is_open.sum()
    assert fields_of(text, "Number of times contacted")[0]["known_at"] == "current_only"
    assert tomllib.loads(text)["file"][0]["columns"]["Pipeline"] == {"ignore": True}


def test_a_european_export_loads_with_its_dates_and_decimal_commas(tmp_path):
    r = np.random.default_rng(4)
    lines = ["Nr;Titel;Firma;Betrag;Rabatt;Status;Erstellt am;Abschlussdatum;Besitzer;Branche"]
    amounts = []
    for i in range(250):
        made = datetime(2024, 1, 1) + timedelta(days=int(r.integers(0, 200)))
        status = ["Gewonnen", "Verloren", "Offen"][i % 3]
        amounts.append(round(float(r.uniform(10, 99999)), 2))
        amount = f"{amounts[-1]:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")
        closed = f"{made + timedelta(days=20):%d.%m.%Y}" if status != "Offen" else ""
        lines.append(f"V-{i:04};Auftrag {i};Müller & Söhne {i % 25};{amount} €;{i % 7},5;{status};{made:%d.%m.%Y};{closed};{['Jörg', 'Anja'][i % 2]};{['Bau', 'Handel'][i % 2]}")
    (tmp_path / "Verkaufschancen.csv").write_bytes("\r\n".join(lines).encode("cp1252"))
    text, lake, report = loaded(tmp_path, [tmp_path / "Verkaufschancen.csv"])
    deals = lake.read("deal")
    assert report.counts.set_index("entity")["loaded"].to_dict() == {"deal": 250, "user": 2, "account": 25}
    assert sorted(deals["amount"]) == pytest.approx(sorted(amounts)) and set(deals["currency"]) == {"EUR"}
    assert set(deals["x_rabatt"]) == {x + 0.5 for x in range(7)}
    assert (deals["is_won"].eq(True).sum(), deals["is_won"].eq(False).sum()) == (84, 83)  # 250 = 84 + 83 + 83
    assert deals["created_at"].max() < pd.Timestamp(2024, 8, 1) and deals["created_at"].dt.day.max() > 12
    assert "%d.%m.%Y" in line_of(text, "Erstellt am") and lake.read("account")["name"].str.contains("Müller & Söhne").all()


def test_a_plain_marketing_list_loads_as_drafted(tmp_path):
    r = np.random.default_rng(5)
    n = 500
    frame = pd.DataFrame({"customer_number": np.arange(n) + 70000, "age": r.integers(18, 80, n), "city": r.choice(["Rome", "Oslo", "n/a"], n), "newsletter": r.choice(["yes", "no"], n),
                          "contacted_by": r.choice(["mail", "phone"], n), "channel": r.choice(["fair", "web"], n), "visits": r.integers(0, 9, n),
                          "signed_up_on": [f"2024-{m:02}-{d:02}" for m, d in zip(r.integers(1, 12, n), r.integers(1, 28, n), strict=True)],
                          "satisfaction": "", "purchased": r.choice(["yes", "no"], n, p=[.2, .8])})
    frame["satisfaction"] = np.where(frame["purchased"] == "yes", r.choice(["good", "great"], n), "")
    frame.to_csv(tmp_path / "spring_list.csv", index=False)
    text, lake, report = loaded(tmp_path, [tmp_path / "spring_list.csv"])
    leads = lake.read("lead")
    assert leads["is_converted"].sum() == (frame["purchased"] == "yes").sum() and set(leads["source"]) == {"fair", "web"}
    assert leads["city"].isna().sum() == leads["x_city_not_chosen"].sum() == (frame["city"] == "n/a").sum()
    assert leads["created_at"].notna().all() and leads["n_visits"].sum() == frame["visits"].sum()
    assert fields_of(text, "satisfaction")[0]["known_at"] == "outcome" and "LEAK" in line_of(text, "satisfaction")
    assert {"x_age", "x_newsletter"} <= set(snapshots(lake, "lead", as_of=NOW).features)


def test_an_opportunity_report_without_ids_loads_with_owners_and_accounts(tmp_path):
    r, n = np.random.default_rng(6), 300
    stage = r.choice(["Prospecting", "Closed Won", "Closed Lost", "Negotiation/Review"], n)
    frame = pd.DataFrame({"Opportunity Owner": r.choice(["Kim Poe", "KIM POE", "Lou Reed"], n, p=[.5, .1, .4]), "Account Name": [f"Acc {i % 50}" for i in range(n)],
                          "Opportunity Name": [f"Opp {i % 290}" for i in range(n)], "Stage": stage, "Amount": [f"USD {x:,.2f}" for x in r.random(n) * 1e5],
                          "Probability (%)": pd.Series(stage).map({"Closed Won": 100, "Closed Lost": 0}).fillna(50).astype(int), "Age": r.integers(0, 300, n), "Close Date": "10/25/2024",
                          "Created Date": "1/13/2024", "Lead Source": r.choice(["Web", "Partner"], n)})
    frame.to_csv(tmp_path / "report.csv", index=False)
    text, lake, report = loaded(tmp_path, [tmp_path / "report.csv"])
    assert report.counts.set_index("entity")["loaded"].to_dict() == {"deal": 300, "user": 2, "account": 50}  # Kim Poe in two spellings is one
    assert set(report.findings["rule"]) == {"planned_close", "replaced_value"} and lake.sql("select count(owner_id), count(account_id) from deal").fetchall() == [(300, 300)]
    assert "# QUESTION: which column identifies a row?" in text and set(lake.read("deal")["currency"]) == {"USD"}
    assert [fields_of(text, c)[0]["known_at"] for c in ("Probability (%)", "Age")] == ["outcome", "current_only"]


def test_contacts_with_a_lifecycle_stage_are_leads(tmp_path):
    n = 200
    stages = ["subscriber", "lead", "customer", "opportunity"] * 50
    frame = pd.DataFrame({"Record ID": range(n), "Email": [f"a{i}@x.com" for i in range(n)], "Lifecycle Stage": stages, "Lead Status": ["NEW", "UNQUALIFIED", "", ""] * 50,
                          "Create Date": "2024-01-05 10:00", "Became a Customer Date": ["", "", "2024-05-05 10:00", ""] * 50, "Original Source": ["Organic", "Direct"] * 100})
    frame.to_csv(tmp_path / "all-contacts.csv", index=False)
    _, lake, _ = loaded(tmp_path, [tmp_path / "all-contacts.csv"])
    found = lake.sql("select is_converted, is_lost, count(*), count(converted_at) from lead group by all order by all").fetchall()
    assert found == [(False, False, 100, 0), (False, True, 50, 0), (True, False, 50, 50)]  # an empty status is not given up


def test_a_won_date_alone_tells_who_won_and_asks_who_lost(tmp_path):
    frame = pd.DataFrame({"deal_id": range(60), "won_date": ["2024-01-05 10:00:00", ""] * 30, "segment": ["a", "b", "c"] * 20})
    frame.to_csv(tmp_path / "closed_deals.csv", index=False)
    text, lake, _ = loaded(tmp_path, [tmp_path / "closed_deals.csv"])
    assert lake.sql("select is_won, count(*), count(closed_at) from deal group by 1 order by 1").fetchall() == [(True, 30, 30), (None, 30, 0)]
    assert "# QUESTION:" in line_of(text, "won_date")


def drafted(tmp_path, frame, name="leads.csv"):
    frame.to_csv(tmp_path / name, index=False)
    return draft_mapping([tmp_path / name])


def test_won_counts_only_where_closed(tmp_path):
    frame = pd.DataFrame({"Opportunity ID": [f"006{i}" for i in range(90)], "Stage": ["A", "B", "C"] * 30, "Closed": ["1", "1", "0"] * 30, "Won": ["1", "0", "0"] * 30,
                          "Created Date": ["2024-01-05"] * 90})
    frame.to_csv(tmp_path / "opportunities.csv", index=False)
    _, lake, _ = loaded(tmp_path, [tmp_path / "opportunities.csv"])
    assert lake.sql("select is_won, count(*) from deal group by 1 order by 1 nulls last").fetchall() == [(False, 30), (True, 30), (None, 30)]


def test_day_and_month_are_told_by_evidence_or_asked(tmp_path):
    days = [f"{d:02}/{m:02}/2024" for m in range(1, 7) for d in range(1, 13)]
    base = {"Lead ID": range(72), "Converted": ["0", "1"] * 36}
    asked = drafted(tmp_path, pd.DataFrame(base | {"Created": days}))
    assert "# QUESTION:" in line_of(asked, "Created") and "day or the month first" in line_of(asked, "Created")
    told = drafted(tmp_path, pd.DataFrame(base | {"Created": [*days[:-1], "25/06/2024"]}))
    assert fields_of(told, "Created")[0]["format"] == "%d/%m/%Y" and "QUESTION" not in line_of(told, "Created")
    beside = drafted(tmp_path, pd.DataFrame(base | {"Created": days, "Last Call": ["25/06/2024"] * 36 + ["26/06/2024"] * 36}))
    assert fields_of(beside, "Created")[0]["format"] == "%d/%m/%Y" and "other dates" in line_of(beside, "Created")


@pytest.mark.parametrize(("values", "kind"), [
    (["1,234.50", "12.00", "7.25"], {"type": "float"}),
    (["1.234,50", "12,00", "7,25"], {"type": "float", "decimal": ","}),
    (["1200", "12", "7"], {"type": "int"}),
    (["00123", "00124", "7"], {}),
    (["12%", "7.5%", "100%"], {"type": "float"}),
    (["yes", "no", "no"], {"type": "bool"}),
    (["ja", "nein", "nein"], {"type": "bool", "values": {"ja": True, "nein": False}}),
    (["11-50", "51-200", "200+"], {}),
    (["2024-01-05", "2024-02-05", "2024-03-05"], {"type": "date"}),
    (["Jan 5, 2024", "Feb 5, 2024", "Dec 15, 2024"], {"type": "date", "format": "%b %d, %Y"}),
    (["1/5/2024 9:05 AM", "12/25/2024 11:30 PM", "2/1/2024 1:00 AM"], {"type": "time", "format": "%m/%d/%Y %I:%M %p"}),
    (["2024-01-05T10:00:00Z", "2024-01-06T10:00:00Z", "2024-01-06T10:00:01.5Z"], {"type": "time"}),
])
def test_types_are_drafted_and_load(tmp_path, values, kind):
    pd.DataFrame({"Lead ID": range(60), "Created": ["2024-01-05"] * 60, "Thing": values * 20, "Converted": ["0", "1", "0", "0", "1", "0"] * 10}).to_csv(tmp_path / "leads.csv", index=False)
    text, lake, report = loaded(tmp_path, [tmp_path / "leads.csv"])
    assert {k: v for k, v in fields_of(text, "Thing")[0].items() if k in ("type", "decimal", "format", "values")} == kind
    assert report.counts["loaded"].tolist() == [60] and lake.read("lead")["x_thing"].notna().all()


def test_personal_columns_are_found_by_name_and_by_content(tmp_path):
    n = 60
    frame = pd.DataFrame({"Lead ID": range(n), "Login": [f"u{i}@mail.org" for i in range(n)], "Reach": [f"+49 170 {i:07}" for i in range(n)],
                          "Best contact": [f"{FIRST[i % 6]} {LAST[i // 10]}" for i in range(n)], "Street": [f"Road {i}" for i in range(n)], "Size": ["S", "L"] * 30, "Converted": ["0", "1"] * 30})
    text = drafted(tmp_path, frame)
    assert {c for c in frame if fields_of(text, c)[0].get("personal")} == {"Login", "Reach", "Best contact", "Street"}
    assert "e-mail addresses" in line_of(text, "Login") and "phone numbers" in line_of(text, "Reach") and "person names" in line_of(text, "Best contact")


def test_references_are_found_across_files_with_broken_shares_and_spellings(tmp_path):
    accounts = [f"Acme {c}" for c in "ABCDEFGHIJ"]
    pd.DataFrame({"Account ID": [f"A{i}" for i in range(10)], "Account Name": accounts, "Parent": ["", "", *[f"A{i % 2}" for i in range(8)]], "Industry": ["Retail", "Bank"] * 5}).to_csv(tmp_path / "accounts.csv", index=False)
    pd.DataFrame({"Product": ["Box One", "Box Two", "Crate"], "List price": [1, 2, 3]}).to_csv(tmp_path / "products.csv", index=False)
    pd.DataFrame({"Deal ID": range(100), "Client": [f"A{i % 10}" for i in range(95)] + ["Z9"] * 5, "Item": ["BoxOne", "Box Two", "Crate", "box two"] * 25,
                  "Status": ["Won", "Lost", "Open", "Won"] * 25}).to_csv(tmp_path / "deals.csv", index=False)
    text, lake, report = loaded(tmp_path, [tmp_path / f"{n}.csv" for n in ("accounts", "products", "deals")])
    told = {f["entity"]: f["columns"] for f in tomllib.loads(text)["file"]}
    assert told["account"]["Parent"]["field"] == "parent_id" and told["deal"]["Client"]["field"] == "account_id"
    assert "95.0% of its values" in line_of(text, "Client")
    assert told["deal"]["Item"]["values"] == {"BoxOne": "Box One", "box two": "Box Two"} and "# QUESTION:" in line_of(text, "Item")
    assert lake.sql("select count(*) from deal where product_id is null").fetchall() == [(0,)]
    assert report.findings.loc[report.findings["rule"] == "broken_reference", "n"].tolist() == [5]


def test_a_key_that_repeats_is_asked_about_and_a_missing_one_too(tmp_path):
    text = drafted(tmp_path, pd.DataFrame({"Lead ID": [*range(58), 1, 2], "Converted": ["0", "1"] * 30}))
    assert "# QUESTION:" in line_of(text, "Lead ID") and "2 rows" in line_of(text, "Lead ID")
    text = drafted(tmp_path, pd.DataFrame({"Source": ["a", "b"] * 30, "Converted": ["0", "1"] * 30}))
    assert "which column identifies a row" in text


def test_an_export_without_an_outcome_asks_for_one(tmp_path):
    assert "QUESTION: which column tells whether a deal was won" in drafted(tmp_path, pd.DataFrame({"Deal ID": range(60), "Amount": range(60)}), "deals.csv")
    assert "QUESTION: which column tells whether a lead became" in drafted(tmp_path, pd.DataFrame({"Lead ID": range(60), "Source": ["a", "b"] * 30}))


def test_a_file_of_no_known_entity_is_left_out_with_a_note(tmp_path):
    pd.DataFrame({"Deal ID": range(60), "Stage": ["Won", "Lost"] * 30}).to_csv(tmp_path / "deals.csv", index=False)
    pd.DataFrame({"Field": ["a"], "Description": ["b"]}).to_csv(tmp_path / "about.csv", index=False)
    text = draft_mapping([tmp_path / "about.csv", tmp_path / "deals.csv"])
    assert [f["name"] for f in tomllib.loads(text)["file"]] == ["deals.csv"] and '# QUESTION: is "about.csv" needed?' in text


def test_hostile_names_and_values_give_a_valid_mapping_that_loads(tmp_path):
    evil = ['"', "'", "\\", "a\nb", "]]", "# x", "{}", "'; drop table raw; --", "\u202e", "Ünï", "<script>", "Lead\tSource", "日本"]
    frame = pd.DataFrame({"Lead ID": [f"{e}{i}" for i in range(5) for e in evil], "Converted": (["0", "1"] * 40)[: 5 * len(evil)]} | {e: [f"{e}{i % 3}" for i in range(5 * len(evil))] for e in evil})
    name = "le'a\"ds\n\x01[x].csv"
    frame.to_csv(tmp_path / name, index=False)
    text, lake, report = loaded(tmp_path, [tmp_path / name])
    assert report.counts["loaded"].tolist()[0] == 65 and not report.unused
    assert lake.read("lead")["id"].str.contains("drop table").sum() == 5


@pytest.mark.parametrize("data", [b"Lead ID,Converted\n", b"Lead ID\n1\n", b"a;b\n;\n;\n", b"Lead ID,Converted,Created\n1,1,2024-01-05\n"])
def test_tiny_files_are_drafted_too(tmp_path, data):
    (tmp_path / "leads.csv").write_bytes(data)
    assert parse_mapping(draft_mapping([tmp_path / "leads.csv"])).files[0].entity == "lead"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WorkbenchError, match="There is no file .*gone.csv"):
        draft_mapping([tmp_path / "gone.csv"])
    with pytest.raises(WorkbenchError, match="workbench mapping FILE"):
        draft_mapping([])


@real_data
def test_the_course_seller_s_draft_loads_and_keeps_late_fields_from_models(tmp_path):
    text, lake, report = loaded(tmp_path, [Path(REAL) / "x_education_leads" / "leads.csv.gz"])
    assert report.counts["loaded"].tolist() == [9240] and lake.sql("select count(*) filter (is_converted) from lead").fetchall() == [(3561,)]
    assert "Select" in tomllib.loads(text)["file"][0]["placeholders"]
    late = ["Tags", "Lead Quality", "Lead Profile", *(f"Asymmetrique {k}" for k in ("Activity Index", "Profile Index", "Activity Score", "Profile Score"))]
    assert {c: fields_of(text, c)[0]["known_at"] in ("outcome", "current_only") for c in late} == dict.fromkeys(late, True)
    assert "AUC 0.92" in line_of(text, "Tags")
    found = set(snapshots(lake, "lead", as_of=NOW).features)
    assert {"source", "origin_form", "n_visits", "web_seconds", "country", "city", "x_city_not_chosen"} <= found
    assert not [f for f in found if "tags" in f or "asymm" in f or "quality" in f or "profile" in f]


@real_data
def test_the_hardware_seller_s_draft_loads_with_its_references_and_outcome(tmp_path):
    text, lake, report = loaded(tmp_path, sorted((Path(REAL) / "maven_crm_sales").glob("*.csv.gz")))
    assert report.counts.set_index("entity")["loaded"].to_dict() == {"account": 85, "product": 7, "deal": 8800, "user": 35}
    assert lake.sql("select count(*) filter (is_won), count(*) filter (not is_won) from deal").fetchall() == [(4238, 2473)]
    assert lake.sql("select count(product_id), count(owner_id), count(account_id) from deal").fetchall() == [(8800, 8800, 7375)]
    place = [f["entity"] for f in tomllib.loads(text)["file"]].index("deal")
    assert fields_of(text, "product", place)[0]["values"] == {"GTXPro": "GTX Pro"}
    assert {c: fields_of(text, c, place)[-1]["known_at"] for c in ("account", "close_value", "deal_stage")} == {"account": "outcome", "close_value": "outcome", "deal_stage": "current_only"}
    assert len(lake.read("deal", datetime(2017, 6, 30))) < 8300


def test_a_list_of_properties_loads_as_listings_whose_price_is_known_from_the_sale_on(tmp_path):
    n = 100
    pd.DataFrame({"Address": [f"{i} High St" for i in range(n)], "Suburb": ["Fitzroy", "Carlton"] * 50, "Postcode": [3065, 3053] * 50, "Bedrooms": [2, 3] * 50,
                  "Price": [500_000 + i for i in range(n)], "Sold date": [f"{i % 28 + 1}/03/2024" for i in range(n)]}).to_csv(tmp_path / "listings.csv", index=False)
    _, lake, _ = loaded(tmp_path, [tmp_path / "listings.csv"])
    found = lake.read("listing").iloc[0]
    assert found[["suburb", "postcode", "bedrooms"]].tolist() == ["Fitzroy", "3065", 2] and found["sold_at"] == pd.Timestamp(2024, 3, 1)
    assert lake.sql("select count(sold_amount) from listing").fetchall() == [(n,)]


@real_data
def test_real_sales_of_property_and_a_real_mailing_load_whole_as_drafted(tmp_path):
    _, lake, report = loaded(tmp_path, [Path(REAL) / "melbourne_housing" / "Melbourne_housing_FULL.csv.gz"])
    assert report.counts[["entity", "read", "loaded"]].values.tolist() == [["listing", 34857, 34857]]
    assert lake.sql("select count(sold_amount), min(sold_at), max(sold_at) from listing").fetchall() == [(27247, datetime(2016, 1, 28), datetime(2018, 3, 17))]
    _, lake, report = loaded(tmp_path, [Path(REAL) / "hillstrom_email" / "hillstrom.csv.gz"])
    assert report.counts[["read", "loaded"]].values.tolist() == [[64000, 64000]]  # spend is 0 in 99.1 % of the rows, and a decimal in the rest
    assert lake.sql("select count(*) from lead where x_spend > 0").fetchall() == [(578,)]


@pytest.mark.parametrize("values, fed", [("2024-02-{:02}", 'field = "closed_at"'), ("yes", "")], ids=["a date", "a flag"])
def test_a_column_closed_is_the_closing_time_only_where_it_holds_dates(tmp_path, values, fed):
    rows = [f"{i},Firm {i},2024-01-{i:02},{i % 2},{values.format(i)}" for i in range(1, 29)]
    (tmp_path / "leads.csv").write_text("Lead ID,Company,Created,Converted,Closed\n" + "\n".join(rows))
    line = next(line for line in draft_mapping([tmp_path / "leads.csv"]).splitlines() if line.startswith('"Closed"'))
    assert ('field = "closed_at"' in line) == bool(fed)
