"""The stand-in Pipedrive as the vendor's own client reads it, and the connector that fills the lake from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import keyring
import pytest
import requests

from tests.servers import crms
from tests.servers.organisation import edits, organisation
from tests.servers.pipedrive import ALL_SCOPES, CLIENT, TOKEN, Grant, Pipedrive
from tests.servers.ring import Memory
from workbench.connect import pipedrive
from workbench.connect.http import BudgetSpent, Refused
from workbench.connect.sync import sync
from workbench.errors import WorkbenchError
from workbench.lake import open_lake

JUDGE = Path(__file__).parent / "pipedrive_client"
BY_REFERENCE = {"deals": ["archive_time", "creator_user_id"]}  # told by the API's description, not declared by its client
DAY = timedelta(days=1)


# ---- the stand-in, judged by the vendor's client
@pytest.fixture(scope="module")
def judged():
    """(what the vendor's Node client read from the stand-in, the stand-in)."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node or npm is missing: the vendor's own client cannot judge the stand-in")
    if not (JUDGE / "node_modules" / "pipedrive").is_dir():
        got = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=JUDGE, capture_output=True, text=True, timeout=300)
        if got.returncode:
            pytest.skip(f"npm could not install the vendor's client: {got.stderr.strip()[-200:]}")
    org = organisation()
    with Pipedrive(org) as server:
        server.codes["one-use-code"] = Grant(1, frozenset(s for s in ALL_SCOPES if not s.startswith("mail")))
        deal = max(org.standing("deal"), key=lambda k: len(server.account.changes["deals", k]))
        server.account.update("deals", deal, is_archived=True)
        told = {"PIPEDRIVE_TOKEN": TOKEN, "PIPEDRIVE_CLIENT_ID": CLIENT[0], "PIPEDRIVE_CLIENT_SECRET": CLIENT[1], "PIPEDRIVE_CODE": "one-use-code", "PIPEDRIVE_WRITE": "1"}
        got = subprocess.run(["node", "read.js", server.url, "50", str(deal)], cwd=JUDGE, env=os.environ | told, capture_output=True, text=True, timeout=60)
        assert got.returncode == 0, got.stderr
        yield json.loads(got.stdout) | {"deal": deal}, server


def test_the_vendors_client_reads_every_list_page_by_page(judged):
    told, server = judged
    rows = server.account.rows
    wanted = {"persons": len(rows["persons"]), "organizations": len(rows["organizations"]), "notes": len(rows["notes"]), "archived": 1,
              "deals": sum(not r["is_deleted"] and not r["is_archived"] for r in rows["deals"].values()), "archivedLeads": sum(r["is_archived"] for r in rows["leads"].values()),
              "leads": sum(not r["is_archived"] for r in rows["leads"].values()), "activities": sum(not r["is_deleted"] for r in rows["activities"].values())}
    assert {name: len({r["id"] for r in told["rows"][name]}) for name in wanted} == {name: len(told["rows"][name]) for name in wanted} == wanted
    assert {name: told["pages"][name] for name in wanted} == {name: -(-n // 50) for name, n in wanted.items()}  # pages of 50, none empty


def test_every_row_has_the_keys_that_the_vendors_client_declares_and_no_other(judged):
    told, _ = judged
    assert {k: sorted(v) for k, v in told["undeclared"].items() if v} == BY_REFERENCE
    assert {k: v for k, v in told["missing"].items() if v} == {}
    assert len(told["undeclared"]) == 19 and all(told["rows"][k] for k in told["undeclared"] if k != "mails")  # no list was judged empty


def test_the_vendors_client_meets_the_vendors_refusals(judged):
    told, _ = judged
    assert {k: (v.get("errorCode"), v["error"]) for k, v in told["refused"].items()} == {
        "badToken": (401, "unauthorized access"), "absent": (404, "Deal not found"), "badCursor": (400, "Invalid cursor"), "gone": (404, "unknown method"),
        "usedRefreshToken": (None, "invalid_grant"), "scope": (403, "Scope and URL mismatch")}


def test_the_vendors_client_logs_in_by_oauth_and_gets_a_new_refresh_token_each_time(judged):
    told, server = judged
    assert told["oauth"] == {"rotated": True, "base": f"{server.url}/api/v2", "me": 1}


def test_flow_and_changelog_tell_the_vendors_client_the_same_changes(judged):
    told, _ = judged
    log = sorted((c["time"], c["field_key"], c["old_value"], c["new_value"]) for c in told["rows"]["changelog"])
    flow = sorted((f["data"]["log_time"], f["data"]["field_key"], f["data"]["old_value"], f["data"]["new_value"]) for f in told["rows"]["flow"])
    assert len(log) > 5 and flow == log


def test_the_vendors_client_creates_changes_and_deletes(judged):
    told, server = judged
    written = told["written"]
    assert (written["created"]["value"], written["patched"]["value"], written["removed"]) == (10, 20, {"id": written["created"]["id"]})
    assert server.account.rows["deals"][written["created"]["id"]]["status"] == "deleted"


# ---- the stand-in's own rules
@pytest.fixture
def server():
    with Pipedrive(organisation(), daily=10**9) as running:
        yield running


def get(server, path, token=TOKEN, **params):
    return requests.get(f"{server.url}/api/{path}", params=params, headers={"x-api-token": token}, timeout=10)


def test_calls_cost_what_the_vendors_table_says(server):
    lead = next(iter(server.account.rows["leads"]))
    asked = {"v2/deals": 10, "v2/deals/1": 1, "v2/deals/archived": 20, "v2/stages": 5, "v2/persons": 10, "v2/deals/products?deal_ids=1": 10, "v2/dealFields": 10, "v1/leads": 20,
             f"v1/leads/{lead}": 2, "v1/leads/archived": 40, "v1/notes": 20, "v1/users": 20, "v1/users/me": 2, "v1/deals/1/changelog": 20, "v1/deals/1/flow": 40}
    cost = {}
    for path in asked:
        before = server.used
        assert get(server, path).status_code == 200
        cost[path] = server.used - before
    assert cost == asked


def test_a_spent_day_is_429_until_midnight_and_an_html_403_for_who_calls_on(server):
    server.daily = 25  # two lists of 10, not three
    answers = [get(server, "v2/deals") for _ in range(3)]
    assert [a.status_code for a in answers] == [200, 200, 429] and answers[1].headers["x-daily-ratelimit-token-remaining"] == "5"
    for _ in range(20):
        last = get(server, "v2/deals")
    assert last.status_code == 403 and last.headers["Content-Type"].startswith("text/html")
    server.org.now += DAY
    assert get(server, "v2/deals").status_code == 200


def test_more_than_the_burst_in_two_seconds_is_429_with_the_seconds_to_wait(server):
    server.burst = 3
    assert [get(server, "v2/deals/1").status_code for _ in range(4)] == [200, 200, 200, 429]
    assert get(server, "v2/deals/1").headers["x-ratelimit-reset"] == "2"


def test_bounds_include_the_first_instant_and_not_the_last(server):
    stamps = sorted(r["update_time"] for r in server.account.rows["persons"].values())
    low, high = stamps[40], stamps[90]
    told = get(server, "v2/persons", updated_since=low, updated_until=high, limit=500).json()["data"]
    assert len(told) == sum(low <= s < high for s in stamps)


def test_leads_tell_their_page_without_pagination_and_notes_within_it(server):
    leads, notes = get(server, "v1/leads", limit=10).json()["additional_data"], get(server, "v1/notes", limit=10).json()["additional_data"]
    assert leads == {"start": 0, "limit": 10, "more_items_in_collection": True}
    assert notes == {"pagination": {"start": 0, "limit": 10, "more_items_in_collection": True, "next_start": 10}}


def test_a_deleted_deal_is_listed_as_deleted_for_30_days_and_then_gone(server):
    server.account.delete("deals", 1)
    assert 1 not in [d["id"] for d in get(server, "v2/deals", limit=500).json()["data"]]
    assert 1 in [d["id"] for d in get(server, "v2/deals", status="deleted").json()["data"]]
    server.org.now += 31 * DAY
    assert get(server, "v2/deals/1").status_code == 404 and get(server, "v1/deals/1/changelog").status_code == 404


def test_a_converted_lead_vanishes_and_its_deal_names_it(server):
    lead = next(i for i, r in server.account.rows["leads"].items() if not r["is_archived"])
    answer = requests.post(f"{server.url}/api/v2/leads/{lead}/convert/deal", json={"stage_id": 1}, headers={"x-api-token": TOKEN}, timeout=10)
    conversion = answer.json()["data"]["conversion_id"]
    deal = get(server, f"v2/leads/{lead}/convert/status/{conversion}").json()["data"]["deal_id"]
    assert get(server, f"v1/leads/{lead}").status_code == 404 and get(server, f"v2/deals/{deal}").json()["data"]["source_lead_id"] == lead


def test_option_labels_change_the_type_of_a_value(server):
    code = next(c for n, (c, _) in server.mirror.codes.items() if n == "deal.models")
    plain, labelled = (get(server, "v2/deals/2", include_option_labels=b).json()["data"]["custom_fields"][code] for b in ("false", "true"))
    assert [o["label"] for o in labelled] == ["S", "M, wide"] and [o["id"] for o in labelled] == plain


def test_a_user_who_is_no_administrator_does_not_see_what_others_hide(server):
    server.tokens["hers"] = Grant(2)
    server.account.rows["deals"][1] |= {"visible_to": 1, "owner_id": 1}
    assert get(server, "v2/deals/1", token="hers").status_code == 404 and get(server, "v2/deals/1").status_code == 200


# ---- the connector
def connector(server, monkeypatch, *names, **told):
    """The connector of source crm, with these streams only (all, when none is named)."""
    plain = crms.connector("pipedrive", server, monkeypatch)
    made = pipedrive.Connector("crm", {"crm": "pipedrive", "url": server.url, "share": 1.0} | told) if told else plain
    made.streams = [s for s in made.streams if not names or s.name in names]
    return made


@pytest.fixture
def lake(tmp_path):
    return open_lake(tmp_path / "lake", create=True)


def synced(lake, server, monkeypatch, *names, **told):
    """The report of a sync that had no error."""
    report = sync(lake, "crm", connector(server, monkeypatch, *names, **told), now=server.org.now)
    assert list(report["error"]) == [""] * len(report)
    return report.set_index("stream")


def pulled(server, monkeypatch, name, since=None):
    made = connector(server, monkeypatch)
    return [row for page in made.pull(made.by_name[name], since) for row in page]


def test_the_lake_equals_the_crm_row_for_row_on_each_of_four_days(server, lake, monkeypatch):
    server.page = 60
    for day in range(4):
        if day:
            edits(server.org, day)
        synced(lake, server, monkeypatch)
        assert crms.differences(lake, server) == [] and crms.broken_histories(lake, crms.LIVE["pipedrive"]) == []


def test_deleted_rows_in_lists_end_their_records_too(server, lake, monkeypatch):
    server.lists_deleted = True
    synced(lake, server, monkeypatch, "activities")
    server.org.now += DAY
    server.org.delete("activity", 1)
    assert synced(lake, server, monkeypatch, "activities").loc["activities", "deleted"] == 1
    assert crms.differences(lake, server, ("activity",)) == [d for d in crms.differences(lake, server, ("activity",)) if "note-" in d or "mail-" in d]


def test_a_deals_past_is_told_as_it_was_at_every_instant(server, lake, monkeypatch):
    synced(lake, server, monkeypatch, "stages", "deals")
    org, rows = server.org, lake.sql("select id, valid_from, stage, amount, close_on, is_won, owner_id from deal_versions").df()
    begun = {k: r["created_at"] for k, r in org.records["deal"].items()}

    def at(key, name, instant):
        after = [c for c in org.of("deal", key, [name]) if c["at"] > instant]
        return after[0]["old"] if after else org.records["deal"][key][name]

    checked = 0
    for key in [k for k in org.standing("deal") if org.records["deal"][k]["source_lead_id"] is None]:
        mine = rows[rows["id"] == f"crm:{key}"]
        for instant in [begun[key], *(c["at"] for c in org.of("deal", key))]:
            row = mine[mine["valid_from"] <= instant].iloc[-1]
            assert (row["amount"], row["close_on"].date(), row["owner_id"]) == (at(key, "amount", instant), at(key, "close_on", instant), f"crm:{at(key, 'owner_id', instant)}")
            won, stage = at(key, "is_won", instant), at(key, "stage", instant)
            assert str(row["is_won"]) == ("<NA>" if won is None else str(won))
            assert won is not None or row["stage"] == stage  # a closed deal stays in its last open stage
            checked += 1
    assert checked > 250


def test_history_is_fetched_for_half_of_what_is_left_and_goes_back_further_each_day(server, lake, monkeypatch):
    server.daily = 1000  # 5 for stages + 5 for pipelines ... leave some 930: half of it, and of the rest of the share, pays for change logs of 20
    told = []
    for _ in range(4):
        synced(lake, server, monkeypatch, "stages", "deals")
        told.append(lake.sql("select count(distinct id) from deal_versions where origin = 'crm_history'").fetchall()[0][0])
        logs = [e for e in server.log if e["path"].endswith("changelog")]
        assert server.used <= server.daily and 20 * len(logs) <= server.daily / 2
        server.log.clear()
        server.org.now += DAY
    assert 15 <= told[0] <= 25 and told == sorted(set(told))  # 460 / 20 = 23 deals a day, further ones each day


def test_the_deals_that_changed_last_have_their_history_first(server, monkeypatch):
    server.daily = 1000
    made = connector(server, monkeypatch)
    deals = [r for page in made.pull(made.by_name["deals"], None) for r in page]
    first = [page[0]["id"] for page in made.history(made.by_name["deals"], None)]
    latest = sorted(deals, key=lambda r: r["update_time"], reverse=True)
    assert 0 < len(first) < len(deals) and first == [str(r["id"]) for r in latest[:len(first)]]


def test_before_its_history_is_told_a_deals_past_is_unknown_not_todays(server, lake, monkeypatch):
    server.daily = 500
    synced(lake, server, monkeypatch, "stages", "deals")
    untold = lake.sql("""select stage, amount, is_won, name from deal_versions v where valid_to is not null and origin = 'sync_diff'
        and id not in (select id from deal_versions where origin = 'crm_history') and closed_at is null""").df()
    assert len(untold) > 20 and untold[["stage", "amount", "is_won"]].isna().all().all() and untold["name"].notna().all()  # the name is assumed, and reported so


def test_an_outcome_that_no_change_tells_is_not_known_before_the_deal_closed(server, lake, monkeypatch):
    deal = server.account.create("deals", at=datetime(2026, 1, 5), title="Born won", stage_id=1, value=5, status="won", won_time="2026-01-20T10:00:00Z", close_time="2026-01-20T10:00:00Z")
    synced(lake, server, monkeypatch, "stages", "deals")
    rows = lake.sql(f"select valid_from, is_won from deal_versions where id = 'crm:{deal['id']}' order by valid_from").df()
    assert [(str(r.valid_from), str(r.is_won)) for r in rows.itertuples()] == [("2026-01-05 00:00:00", "<NA>"), ("2026-01-20 10:00:00", "True")]


def test_archived_deals_are_pulled_like_the_others(server, lake, monkeypatch):
    server.account.update("deals", 5, is_archived=True)
    assert len(pulled(server, monkeypatch, "deals")) == len(server.account.rows["deals"])
    assert 5 in [r["id"] for r in pulled(server, monkeypatch, "deals", since=server.org.now)]


def test_choices_become_labels_also_removed_ones_and_labels_with_commas(server, lake, monkeypatch):
    synced(lake, server, monkeypatch, "deals", "leads")
    column = {r[0]: r[1] for r in lake.sql("select label, field from custom_field where entity = 'lead'").fetchall()}
    interests, budget = column["Interests; all, of them"], column["Budget <b>approved</b>?"]
    told = {r[0] for r in lake.sql(f"select distinct {interests} from lead where {interests} is not null").fetchall()}
    assert told == {"Vans", "Vans; Cars, small", "Trucks & trailers; Bikes"}  # Bikes is no option any more
    assert "Don't know" in {r[0] for r in lake.sql(f"select distinct {budget} from lead").fetchall()}


def test_a_sum_of_money_keeps_its_currency_and_pipedrives_own_probability_is_kept_for_audit(server, lake, monkeypatch):
    server.account.update("deals", 2, probability=35)
    synced(lake, server, monkeypatch, "deals")
    assert lake.sql("select x_deposit::double, x_deposit_currency, x_pipedrive_probability from deal where id = 'crm:2'").fetchall() == [(10.5, "EUR", 35.0)]


def test_custom_fields_of_deals_have_their_history_too(server, lake, monkeypatch):
    synced(lake, server, monkeypatch, "stages", "deals")
    changes = [c for c in server.org.changes if c["entity"] == "deal" and c["field"] == "custom.score"]
    told = lake.history("deal", ["x_fit_score_0_100"])
    assert len(changes) == 2
    assert {(f"crm:{c['key']}", c["at"], c["old"], c["new"]) for c in changes} <= {(r.id, r.at.to_pydatetime(), float(r.old), float(r.new)) for r in told.itertuples() if r.old and r.new}


def converted(lake):
    return lake.sql("select * from lead where is_converted order by id").df()


def test_a_lead_that_was_converted_before_the_first_sync_is_rebuilt_from_its_deal(server, lake, monkeypatch):
    synced(lake, server, monkeypatch, "leads")
    org = server.org
    rows = {r["id"]: r for r in converted(lake).to_dict("records")}
    keys = [k for k, r in org.records["lead"].items() if r["converted_deal_id"]]
    assert set(rows) == {f"crm:{server.mirror.lead_id(k)}" for k in keys} and len(keys) > 5
    for key in keys:
        row, lead = rows[f"crm:{server.mirror.lead_id(key)}"], org.records["lead"][key]
        assert (row["created_at"], row["converted_at"], row["converted_deal_id"], row["source"]) == (lead["created_at"], lead["converted_at"], f"crm:{lead['converted_deal_id']}", lead["source"])
        assert (row["name"], row["company"]) == (lead["name"], lead["company"])


def test_a_leads_fixed_fields_are_the_same_whether_it_was_seen_before_or_after_its_conversion(server, tmp_path, monkeypatch):
    early, late = (open_lake(tmp_path / name, create=True) for name in ("early", "late"))
    synced(early, server, monkeypatch, "leads")
    for day in (1, 3):
        edits(server.org, day)
    synced(early, server, monkeypatch, "leads")
    synced(late, server, monkeypatch, "leads")
    fields = ["id", "name", "email", "phone", "company", "industry", "country", "source", "created_at", "is_converted", "converted_at", "closed_at", "converted_deal_id"]
    assert len(converted(late)) > 10 and converted(early)[fields].equals(converted(late)[fields])


def test_a_leads_id_tells_when_it_was_created_if_it_is_a_uuid_of_version_1():
    assert pipedrive.born("adf21080-0e10-11eb-879b-05d71fb426ec") == "2020-10-14T11:30:36.552000"  # the vendor's example was added at 11:30:36.551
    assert pipedrive.born("52e93d20-2603-41f0-a826-1f8b4459f0ad") == pipedrive.born("17") == ""  # version 4, and none at all


def test_an_archived_lead_is_lost(server, lake, monkeypatch):
    synced(lake, server, monkeypatch, "leads")
    assert lake.sql("select count(*) from lead where is_lost and closed_at is not null").fetchall() == [(sum(r["is_archived"] for r in server.account.rows["leads"].values()),)]


def test_a_lead_is_told_anew_when_only_its_person_changed(server, lake, monkeypatch):
    synced(lake, server, monkeypatch, "leads")
    lead = next(r for r in server.account.rows["leads"].values() if not r["is_archived"])
    server.org.now += DAY
    server.account.update("persons", lead["person_id"], emails=[{"value": "new@example.com", "primary": True, "label": "work"}])
    report = synced(lake, server, monkeypatch, "leads")
    assert report.loc["leads", "changed"] == 1 and lake.sql(f"select email from lead where id = 'crm:{lead['id']}'").fetchall() == [("new@example.com",)]


def test_no_lead_is_lost_where_others_vanish_between_two_pages(server, monkeypatch):
    server.page = 20
    leads = [i for i, r in server.account.rows["leads"].items() if not r["is_archived"]]
    gone = leads[:7]

    def vanish(server):
        for lead in [g for g in gone if g in server.account.rows["leads"]]:
            server.account.delete("leads", lead)

    server.faults.add("do", 2, path="/v1/leads$", action=vanish)  # after the first page
    assert {r["id"] for r in pulled(server, monkeypatch, "leads")} >= set(leads) - set(gone)


def test_only_headers_of_mails_are_read_unless_bodies_are_to_be_kept(server, lake, monkeypatch):
    synced(lake, server, monkeypatch, "mails")
    assert not any("include_body" in path for _, path in server.requests)
    mails = lake.sql("select subject, body, direction, happened_at from activity").df()
    assert len(mails) > 20 and mails["body"].isna().all() and mails["subject"].notna().all() and set(mails["direction"]) == {"in", "out"}
    synced(lake, server, monkeypatch, "mails", keep_bodies=True)
    bodies = [row["body"] for page in connector(server, monkeypatch, keep_bodies=True).pull(pipedrive.STREAMS[-1], None) for row in page]
    assert any("Line two" in b for b in bodies)


def test_a_budget_that_ends_among_mails_loses_no_ground(server, lake, monkeypatch):
    reports = []
    for _ in range(6):
        server.daily = 200  # 45 for the lists, 20 for each deal or person with mails
        reports.append(sync(lake, "crm", connector(server, monkeypatch, "mails"), now=server.org.now).set_index("stream").loc["mails"])
        server.org.now += DAY
    assert "allowance" in reports[0]["error"] and reports[-1]["error"] == ""
    assert crms.differences(lake, server, ("activity",)) == [d for d in crms.differences(lake, server, ("activity",)) if "activity activity-" in d or "activity note-" in d]


def test_a_spent_budget_is_told_and_not_tried_again(server, monkeypatch):
    made = connector(server, monkeypatch)
    server.daily = 0
    with pytest.raises(BudgetSpent):
        list(made.pull(made.by_name["persons"], None))
    assert len(server.requests) == 1


def test_without_rate_headers_the_budget_is_kept_by_the_cost_of_each_call(server, monkeypatch):
    server.limit_headers = False
    made = connector(server, monkeypatch, daily_tokens=100)
    with pytest.raises(BudgetSpent):
        for _ in range(11):
            list(made.pull(made.by_name["persons"], None))
    assert server.used == made.budget.spent == 100  # ten pages of 10


def test_a_missing_scope_fails_its_stream_alone_and_check_says_what_it_costs(server, lake, monkeypatch):
    server.tokens[TOKEN] = Grant(2, frozenset(s for s in ALL_SCOPES if not s.startswith(("mail", "recents"))))
    found = {row["stream"]: row for row in connector(server, monkeypatch).check()}
    assert not found["mails"]["readable"] and "engagement" in found["mails"]["costs"] and found["deals"]["readable"] and not found["deals"]["history"]
    assert "no administrator" in found["users"]["costs"] and all(r["readable"] for n, r in found.items() if n != "mails")
    report = sync(lake, "crm", connector(server, monkeypatch, "persons", "mails"), now=server.org.now).set_index("stream")
    assert report.loc["persons", "error"] == "" and "Scope and URL mismatch" in report.loc["mails", "error"]


def test_an_html_page_of_the_cdn_is_told_as_text(server, monkeypatch):
    server.daily, server.limit_headers = 5, False
    for _ in range(21):
        get(server, "v2/deals")
    made = connector(server, monkeypatch)
    with pytest.raises(Refused, match="Access denied") as refused:
        list(made.pull(made.by_name["persons"], None))
    assert "<" not in str(refused.value)


def test_the_token_is_in_no_address_and_in_no_error(server, lake, monkeypatch):
    synced(lake, server, monkeypatch, "persons")
    assert not any(TOKEN in path for _, path in server.requests)
    server.tokens.clear()
    report = sync(lake, "crm", connector(server, monkeypatch, "persons"), now=server.org.now)
    assert "unauthorized access" in report["error"][0] and TOKEN not in report.to_string()


# ---- OAuth
@pytest.fixture
def ring(monkeypatch):
    """A keyring in memory, in the place of the machine's."""
    before, memory = keyring.get_keyring(), Memory()
    keyring.set_keyring(memory)
    yield memory.kept
    keyring.set_keyring(before)


@pytest.fixture
def oauth(server, monkeypatch):
    """Makes connectors that log in by OAuth; the refresh token that was entered works once."""
    server.renewals["entered"] = Grant(1, frozenset(ALL_SCOPES))
    for key, value in {"CLIENT_ID": CLIENT[0], "CLIENT_SECRET": CLIENT[1], "REFRESH_TOKEN": "entered"}.items():
        monkeypatch.setenv(f"WORKBENCH_CRM_{key}", value)
    return lambda: connector(server, monkeypatch, "persons", auth="oauth")


def test_a_rotated_refresh_token_is_kept_and_used_the_next_time(server, oauth, ring):
    for _ in range(3):  # the entered one works for the first only
        made = oauth()
        assert sum(len(p) for p in made.pull(made.by_name["persons"], None)) == len(server.account.rows["persons"])
    assert list(ring) == [("workbench", "crm.rotated_token")] and ring["workbench", "crm.rotated_token"] in server.renewals


def test_an_access_token_that_ends_in_the_middle_is_renewed(server, oauth, ring):
    server.page, made = 20, oauth()
    server.faults.add("unauthorized", 4, path="/persons")
    assert sum(len(p) for p in made.pull(made.by_name["persons"], None)) == len(server.account.rows["persons"])


def test_a_token_that_was_entered_since_counts_where_the_kept_one_is_refused(server, oauth, ring):
    ring["workbench", "crm.rotated_token"] = "long dead"
    made = oauth()
    assert list(made.pull(made.by_name["persons"], None))


def test_without_a_keyring_a_new_refresh_token_is_not_lost_in_silence(server, oauth, monkeypatch):
    monkeypatch.setattr("workbench.connect.credentials.keep", lambda *told: False)
    made = oauth()
    with pytest.raises(WorkbenchError, match="no keyring"):
        list(made.pull(made.by_name["persons"], None))
