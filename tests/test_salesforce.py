"""The Salesforce stand-in judged by clients that other people wrote, and the connector held to what the stand-in knows."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import keyring
import pandas as pd
import pytest
import requests

from tests.servers import salesforce as stand_in
from tests.servers.organisation import edits, organisation
from tests.servers.salesforce import CLIENT_ID, CLIENT_SECRET, PASSWORD, REFRESH, USERNAME, Salesforce
from tests.servers.salesforce_org import Org, make_field, utc
from workbench import schema
from workbench.connect.http import BudgetSpent
from workbench.connect.salesforce import Connector, converted_at
from workbench.connect.sync import sync
from workbench.errors import WorkbenchError
from workbench.lake import open_lake

JSFORCE = Path(__file__).parent / "jsforce"


class Plain(requests.adapters.HTTPAdapter):
    """Carries what simple-salesforce sends to https:// to the stand-in: it writes that scheme itself, whatever address it is given."""

    def __init__(self, url: str):
        super().__init__()
        self.url = url

    def send(self, request, **more):
        """The same request, over plain HTTP to the loopback."""
        request.url = self.url + request.path_url
        return super().send(request, **more)


def simple(server: Salesforce, **more):
    """simple-salesforce as it comes, logged in by client credentials."""
    from simple_salesforce import Salesforce as Simple
    session = requests.Session()
    session.mount("https://", Plain(server.url))
    return Simple(consumer_key=CLIENT_ID, consumer_secret=CLIENT_SECRET, domain="example.my", session=session, version="65.0", **more)


@pytest.fixture(scope="module")
def server():
    """A stand-in with the small organisation, whose pages are small."""
    with Salesforce(organisation(), page=100) as running:
        yield running


def asked(server: Salesforce, soql: str, path: str = "query") -> requests.Response:
    """The answer to a query, sent by hand."""
    token = requests.post(server.url + "/services/oauth2/token", {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}).json()["access_token"]
    return requests.get(f"{server.url}/services/data/v65.0/{path}", {"q": soql}, headers={"Authorization": f"Bearer {token}"})


def told(server: Salesforce, soql: str) -> list:
    """What one-column queries answer."""
    return [list(r.values())[1] for r in asked(server, soql).json()["records"]]


@pytest.fixture(scope="module")
def small():
    """An org of four opportunities whose answers can be reckoned by hand."""
    org = Org(utc(2026, 3, 10, 12))
    for name, closed, won in (("New", False, False), ("Won", True, True)):
        org.insert("OpportunityStage", {"MasterLabel": name, "ApiName": name, "IsActive": True, "IsClosed": closed, "IsWon": won, "DefaultProbability": 100.0 if won else 10.0}, utc(2025, 1, 1))
    account = org.insert("Account", {"Name": "O'Brien & Sons_100%", "Industry": "Retail"}, utc(2025, 1, 1))
    org.add_field("Opportunity", make_field("Models__c", "multipicklist"))
    for n, (name, stage, amount, models) in enumerate((("alpha", "New", 10.0, "S;M"), ("Beta", "Won", 20.0, "M"), ("gamma", "New", None, None), (None, "New", 40.0, "L;M;S"))):
        org.insert("Opportunity", {"Name": name, "StageName": stage, "Amount": amount, "CloseDate": f"2026-0{n + 1}-15", "AccountId": account if n < 2 else None, "Models__c": models},
                   utc(2026, 3, 7 + n, n))
    with Salesforce(sf=org) as running:
        yield running


@pytest.mark.parametrize(("where", "names"), [
    ("Name = 'ALPHA'", ["alpha"]),  # text compares without case
    ("Name != 'alpha'", ["Beta", "gamma", None]),  # null differs from anything
    ("Name = null", [None]), ("Amount != null", ["alpha", "Beta", None]),
    ("Amount > 10 AND Amount <= 40", ["Beta", None]), ("Amount < 15.5", ["alpha"]),
    ("Name LIKE '%A'", ["alpha", "Beta", "gamma"]), ("Name LIKE '_eta'", ["Beta"]), ("(NOT Name LIKE '%a') AND Amount > 1", [None]),
    ("Name IN ('beta', 'GAMMA')", ["Beta", "gamma"]), ("Name NOT IN ('beta')", ["alpha", "gamma", None]),
    ("StageName = 'Won' OR (Amount = null AND Account.Name = null)", ["Beta", "gamma"]),
    ("Account.Name LIKE 'o\\'brien%\\_100\\%'", ["alpha", "Beta"]), ("Account.Industry = 'retail' AND Amount = 20", ["Beta"]),
    ("AccountId IN (SELECT Id FROM Account WHERE Industry = 'Retail') AND IsWon = TRUE", ["Beta"]),
    ("Models__c INCLUDES ('S;M', 'L')", ["alpha", None]), ("Models__c EXCLUDES ('S')", ["Beta", "gamma"]),
    ("CreatedDate >= 2026-03-09T03:00:00+01:00", ["gamma", None]),  # gamma came at 02:00 UTC
    ("CreatedDate = TODAY", [None]), ("CreatedDate = YESTERDAY", ["gamma"]), ("CreatedDate = LAST_N_DAYS:2", ["Beta", "gamma", None]),
    ("CloseDate = THIS_MONTH", ["gamma"]), ("CloseDate < THIS_MONTH", ["alpha", "Beta"]), ("CloseDate > 2026-03-15", [None]),
    ("CALENDAR_MONTH(CloseDate) = 2", ["Beta"]), ("Opportunity.Amount = 40", [None])])
def test_a_condition_holds_for_the_rows_that_a_person_would_choose(small, where, names):
    assert told(small, f"SELECT Name FROM Opportunity WHERE {where} ORDER BY CloseDate") == names


@pytest.mark.parametrize(("soql", "rows"), [
    ("SELECT Name FROM Opportunity ORDER BY Name", [None, "alpha", "Beta", "gamma"]),  # nulls first, without case
    ("SELECT Name FROM Opportunity ORDER BY Name DESC NULLS LAST", ["gamma", "Beta", "alpha", None]),
    ("SELECT Name FROM Opportunity ORDER BY StageName DESC, Amount DESC NULLS LAST", ["Beta", None, "alpha", "gamma"]),
    ("SELECT Name FROM Opportunity ORDER BY CloseDate LIMIT 2 OFFSET 1", ["Beta", "gamma"]),
    ("SELECT SUM(Amount) s FROM Opportunity", [70.0]), ("SELECT AVG(Amount) FROM Opportunity GROUP BY StageName ORDER BY StageName", [25.0, 20.0]),  # (10 + 40) / 2; 20
    ("SELECT StageName FROM Opportunity GROUP BY StageName HAVING COUNT(Id) > 2", ["New"]), ("SELECT COUNT(AccountId) FROM Opportunity", [2]),
    ("SELECT COUNT_DISTINCT(StageName) n FROM Opportunity", [2])])
def test_rows_come_ordered_limited_and_summed_as_asked(small, soql, rows):
    assert told(small, soql) == rows


def test_count_without_a_field_answers_a_total_and_no_rows(small):
    assert asked(small, "SELECT COUNT() FROM Opportunity WHERE Amount > 10").json() == {"totalSize": 2, "done": True, "records": []}


@pytest.mark.parametrize(("soql", "code", "words"), [
    ("SELECT Nme FROM Lead", "INVALID_FIELD", "No such column 'Nme' on entity 'Lead'"), ("SELECT Id FROM Leed", "INVALID_TYPE", "sObject type 'Leed' is not supported"),
    ("SELECT Id FROM Lead WHERE", "MALFORMED_QUERY", "<EOF>"), ("SELECT Id FROM Lead WHERE Name = 'a' AND Name = 'b' OR Name = 'c'", "MALFORMED_QUERY", "unexpected token"),
    ("SELECT Id FROM Lead WHERE CreatedDate > '2026-01-01T00:00:00Z'", "INVALID_FIELD", "should not be enclosed in quotes"), ("SELECT Id FROM Lead WHERE CreatedDate > 2026-01-01", "INVALID_FIELD", "dateTime"),
    ("SELECT Id FROM Lead WHERE Name = 5", "INVALID_FIELD", "must be of type string"), ("SELECT Id FROM Lead WHERE Id = 'x'", "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field"),
    ("SELECT Id FROM Lead WHERE Description = 'x'", "INVALID_FIELD", "can not be filtered"), ("SELECT Id FROM LeadHistory WHERE OldValue = 'x'", "INVALID_FIELD", "can not be filtered"),
    ("SELECT Id FROM Lead ORDER BY Description", "MALFORMED_QUERY", "can not be sorted"), ("SELECT Id, Id FROM Lead", "INVALID_FIELD", "duplicate field selected: Id"),
    ("SELECT Name, COUNT(Id) FROM Lead", "MALFORMED_QUERY", "must be grouped or aggregated: Name"), ("SELECT Id FROM Lead OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE", "2000"),
    ("SELECT Id FROM Lead ALL ROWS", "MALFORMED_QUERY", "ALL ROWS not allowed"), ("SELECT FIELDS(ALL) FROM Lead", "MALFORMED_QUERY", "LIMIT of at most 200"), ("", "MALFORMED_QUERY", "specified")])
def test_a_query_that_the_vendor_refuses_is_refused_in_the_vendors_form(small, soql, code, words):
    answer = asked(small, soql)
    assert answer.status_code == 400 and answer.json()[0]["errorCode"] == code and words in answer.json()[0]["message"]


def test_typeof_and_subqueries_nest_records_of_their_own_type(server):
    rows = asked(server, "SELECT Id, TYPEOF What WHEN Opportunity THEN StageName, Amount ELSE Name END FROM Task WHERE WhatId != null ORDER BY Id LIMIT 50").json()["records"]
    kinds = {r["What"]["attributes"]["type"]: set(r["What"]) for r in rows}
    assert kinds == {"Opportunity": {"attributes", "StageName", "Amount"}, "Account": {"attributes", "Name"}}
    won = asked(server, "SELECT Id, (SELECT StageName FROM OpportunityHistories ORDER BY CreatedDate) FROM Opportunity WHERE IsWon = true").json()["records"]
    assert all(r["OpportunityHistories"]["records"][-1]["StageName"] in ("Closed Won", "Renewed") for r in won) and len(won) > 5


# ---- other people's clients ---------------------------------------------------------------------------------------------
def test_simple_salesforce_pages_through_every_task_once(server):
    rows = list(simple(server).query_all_iter("SELECT Id, Subject, Owner.Name FROM Task"))
    assert len({r["Id"] for r in rows}) == len(rows) == 480  # four of five activities are tasks, the fifth are events
    assert all(r["Owner"]["Name"] for r in rows)


def test_simple_salesforce_sees_deleted_rows_only_where_it_asks_for_them(server):
    sf = simple(server)
    gone = [r["Id"] for r in sf.query_all("SELECT Id FROM Opportunity WHERE IsDeleted = true", include_deleted=True)["records"]]
    assert gone == [server.native_id("deal", 11)]
    assert sf.query("SELECT COUNT() FROM Opportunity WHERE IsDeleted = true")["totalSize"] == 0
    start, end = server.sf.now - timedelta(days=20), server.sf.now
    assert [r["id"] for r in sf.Opportunity.deleted(start, end)["deletedRecords"]] == gone


def test_simple_salesforce_describes_what_the_user_may_see_and_nothing_else(server):
    server.hidden = {"Lead": {"AnnualRevenue"}}
    try:
        sf = simple(server)
        names = {f["name"] for f in sf.Lead.describe()["fields"]}
        assert "AnnualRevenue" not in names and {"Status", "Fleet__c", "SystemModstamp"} <= names
        with pytest.raises(Exception, match="No such column 'AnnualRevenue'"):
            sf.query("SELECT AnnualRevenue FROM Lead")
    finally:
        server.hidden = {}
    assert "Lead" in {o["name"] for o in simple(server).describe()["sobjects"]}


def test_simple_salesforce_downloads_by_bulk_2_what_rest_tells(server):
    sf = simple(server)
    parts = list(sf.bulk2.Task.query("SELECT Id, Subject, CreatedDate FROM Task ORDER BY Id", max_records=100, wait=0))
    assert len(parts) == 5  # 480 tasks in parts of 100
    rest = {r["Id"]: r for r in sf.query_all_iter("SELECT Id, Subject, CreatedDate FROM Task")}
    import csv
    import io
    bulk = [row for part in parts for row in csv.DictReader(io.StringIO(part))]
    assert {r["Id"]: (r["Subject"], r["CreatedDate"].replace("Z", "+0000")) for r in bulk} == {i: (r["Subject"], r["CreatedDate"]) for i, r in rest.items()}


def test_simple_salesforce_writes_and_reads_back(server):
    sf = simple(server)
    made = sf.Lead.create({"LastName": "Made", "Company": "By hand", "Status": "New"})["id"]
    sf.Lead.update(made, {"Status": "Working"})
    assert sf.Lead.get(made)["Status"] == "Working"
    assert sf.limits()["DailyApiRequests"]["Max"] == 100_000 and sf.api_usage["api-usage"].total == 100_000
    with pytest.raises(Exception, match="REQUIRED_FIELD_MISSING"):
        sf.Lead.create({"LastName": "Nobody"})
    sf.Lead.delete(made)
    with pytest.raises(Exception, match="NOT_FOUND"):
        sf.Lead.get(made)
    server._print = None  # the organisation as it was


def test_simple_salesforce_logs_in_by_jwt_and_password_but_not_by_soap(server):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from simple_salesforce import Salesforce as Simple
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server.public_key = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    session = requests.Session()
    session.mount("https://", Plain(server.url))
    by_jwt = Simple(username=USERNAME, consumer_key=CLIENT_ID, privatekey=pem.decode(), session=session)
    by_password = Simple(username=USERNAME, password=PASSWORD, consumer_key=CLIENT_ID, consumer_secret=CLIENT_SECRET, session=session)
    for sf in (by_jwt, by_password):
        assert sf.query("SELECT COUNT() FROM Lead")["totalSize"] > 100
    with pytest.raises(Exception, match="disabled by default"):
        Simple(username=USERNAME, password="x", security_token="y", session=session)


@pytest.fixture(scope="module")
def jsforce():
    """The folder with jsforce installed."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not here, so jsforce cannot judge the stand-in: apt-get install nodejs npm")
    if not (JSFORCE / "node_modules" / "jsforce").is_dir():
        made = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=JSFORCE, capture_output=True, text=True, timeout=300)
        if made.returncode:
            pytest.skip(f"npm could not install jsforce: {made.stderr.strip()[-200:]}")
    return JSFORCE


def test_jsforce_logs_in_queries_pages_describes_and_downloads_in_bulk(server, jsforce):
    done = subprocess.run(["node", "judge.js", server.url, CLIENT_ID, CLIENT_SECRET, USERNAME, PASSWORD, server.sf.now.isoformat()], cwd=jsforce, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    seen, sf = json.loads(done.stdout), server.sf
    tasks = sorted(i for i, r in sf.objects["task"].rows.items() if not r["IsDeleted"])
    assert seen["user"] == seen["identity"] == sf.admin and seen["wrong"]["code"] == "invalid_client" and "disabled by default" in seen["soap"]["message"]
    assert seen["total"] == seen["auto"] == len(tasks) and seen["ids"] == tasks
    assert len(seen["pages"]) > 5 and max(seen["pages"]) <= 100 and min(seen["pages"][:-1]) < 100  # fewer than were asked for
    deals = [r for r in sf.objects["opportunity"].rows.values() if not r["IsDeleted"]]
    assert seen["found"] == sorted((r["Amount"] for r in deals if r["IsWon"]), reverse=True)[:3]
    assert dict(seen["groups"]) == {s: sum(r["StageName"] == s for r in deals) for s in {r["StageName"] for r in deals}}
    assert seen["nested"]["OpportunityHistories"]["totalSize"] > 1
    assert seen["deleted"] == seen["gone"] == [server.native_id("deal", 11)]
    assert {"Fleet__c", "Budget__c"} <= set(seen["fields"]) and {"LeadHistory", "OpportunityHistory"} <= set(seen["objects"])
    assert [seen[k]["code"] for k in ("missing", "unknown", "malformed", "bulkRefused")] == ["INVALID_FIELD", "INVALID_TYPE", "MALFORMED_QUERY", "API_ERROR"]
    assert {r["Id"]: float(r["Amount"]) for r in seen["bulk"]} == {r["Id"]: r["Amount"] for r in deals} and seen["bulkAll"] == len(deals) + 1
    assert seen["usage"]["limit"] == seen["limits"]["Max"] and seen["after"] is not None


def test_versions_that_were_retired_are_gone_and_unknown_ones_not_found(server):
    token = simple(server).session_id
    status = {v: requests.get(f"{server.url}/services/data/v{v}.0/limits", headers={"Authorization": f"Bearer {token}"}).status_code for v in (20, 30, 31, 65, 99)}
    assert status == {20: 410, 30: 410, 31: 200, 65: 200, 99: 404}


def test_opportunity_history_begins_at_creation_and_ends_at_what_is_shown(server):
    sf = server.sf
    for deal in sf.objects["opportunity"].rows.values():
        rows = sorted((r for r in sf.objects["opportunityhistory"].rows.values() if r["OpportunityId"] == deal["Id"]), key=lambda r: r["CreatedDate"])
        assert rows[0]["CreatedDate"] == deal["CreatedDate"] and (rows[-1]["StageName"], rows[-1]["Amount"]) == (deal["StageName"], deal["Amount"])
    assert stand_in.VERSIONS[0] == 31


# ---- the connector ------------------------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    """What the environment knows of source sf; no keyring."""
    from keyring.backends.null import Keyring
    keyring.set_keyring(Keyring())
    for key, value in {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "username": USERNAME, "password": PASSWORD, "refresh_token": REFRESH}.items():
        monkeypatch.setenv(f"WORKBENCH_SF_{key.upper()}", value)


def connector(server: Salesforce, **told) -> Connector:
    """A connector of source sf that never sleeps."""
    made = Connector("sf", {"crm": "salesforce", "url": server.url} | told)
    made._login.wait = lambda seconds: None
    made.client.wait = lambda seconds: None
    return made


def pulled(made: Connector, name: str, since=None) -> dict[str, dict]:
    """Native id -> row in the lake's words."""
    from workbench.connect.streams import Mapper
    stream = next(s for s in made.streams if s.name == name)
    mapper = Mapper(stream, "sf", {f"x_{c.native.lower()}": c for c in made.discover(stream)}, keep_bodies=True, stamp=stream.cursor)
    rows = [row for batch in made.pull(stream, since) for row in mapper.table(batch).to_pylist()]
    assert not mapper.bad
    return {row["id"].partition(":")[2]: {k: v for k, v in row.items() if k not in ("id", "_n")} for row in rows}


def synced(lake, server: Salesforce, *only: str):
    """A sync (of these streams only, where any are named) that must have no error."""
    made = connector(server)
    made.streams = [s for s in made.streams if not only or s.name in only]
    report = sync(lake, "sf", made, now=server.org.now)
    assert not report["error"].any(), report.loc[report["error"] != "", ["stream", "error"]].to_string()
    return report


def in_lake(lake, server: Salesforce, entity: str, as_of=None) -> dict[str, dict]:
    """What the lake shows of an entity, in the form of `Salesforce.expected`."""
    columns = server.expresses[entity]
    rows = lake.sql(f"select id, {', '.join(columns)} from {entity}", as_of).to_arrow_table().to_pylist()
    bare = {f.name for f in schema.entity(entity).fields.values() if f.references}
    plain = lambda c, v: v.partition(":")[2] if c in bare and v else float(v) if isinstance(v, Decimal) else v  # noqa: E731
    return {r["id"].partition(":")[2]: {c: plain(c, r[c]) for c in columns} for r in rows}


def assert_equal(lake, server: Salesforce, *entities: str) -> None:
    """The lake equals the server, row for row and field for field."""
    for entity in entities or server.expresses:
        assert in_lake(lake, server, entity) == server.expected(entity), entity


@pytest.fixture
def lake(tmp_path):
    """An empty lake."""
    return open_lake(tmp_path / "lake", create=True)


def test_the_lake_equals_the_org_after_the_first_load_and_after_days_of_edits(lake):
    with Salesforce(organisation(), page=100) as server:
        first = synced(lake, server)
        assert first["new"].sum() == sum(len(server.expected(e)) for e in server.expresses) + lake.sql(
            "select count(distinct id) from version where deleted_at is not null").fetchall()[0][0]
        assert_equal(lake, server)
        for day in (1, 2, 3, 4):  # day 3 merges contacts, day 4 deletes for good
            edits(server.org, day)
            if day > 1:
                synced(lake, server)
                assert_equal(lake, server)
        versions = lake.sql("select count(*) from version").fetchall()
        again = synced(lake, server)
        assert again[["new", "changed", "deleted"]].sum().sum() == 0 and lake.sql("select count(*) from version").fetchall() == versions


def test_a_deal_stood_at_any_instant_where_the_crm_says_it_stood(lake):
    with Salesforce(organisation(), page=500) as server:
        synced(lake, server, "Opportunity")
        org = server.org
        for at in (org.now - timedelta(days=400), org.now - timedelta(days=200), org.now - timedelta(days=20)):
            rows = {r["id"]: r for r in lake.read("deal", at).to_dict("records")}
            for key, deal in org.standing("deal").items():
                if deal["created_at"] > at:
                    continue
                row, later = rows[f"sf:{server.native_id('deal', key)}"], [c for c in org.of("deal", key) if c["at"] > at]
                then = {f: next((c["old"] for c in later if c["field"] == f), deal[f]) for f in ("stage", "amount", "close_on")}
                assert (row["stage"], row["amount"], row["close_on"].date()) == tuple(then.values())
                assert pd.isna(row["is_won"]) if deal["closed_at"] is None or deal["closed_at"] > at else row["is_won"] == deal["is_won"]


def test_bulk_tells_what_pages_tell(server):
    page, bulk = connector(server), connector(server, bulk_from=1)
    for name in ("Opportunity", "Lead", "Task", "User", "Product2"):
        assert pulled(bulk, name) == pulled(page, name) != {}
    deals = next(s for s in page.streams if s.name == "Opportunity")
    first, second = ([c for b in made.history(deals, None) for c in b] for made in (page, bulk))
    as_text = [(c["id"], c["at"], c["field"], str(c["new"] or "")) for c in first]
    assert sorted(as_text) == sorted((c["id"], c["at"], c["field"], c["new"] or "") for c in second) and len(first) > 500


def test_few_rows_come_in_pages_and_many_in_bulk_by_count(server):
    made = connector(server, bulk_from=100)
    server.requests.clear()
    pulled(made, "Opportunity")  # 91 rows with the deleted one
    assert not any("jobs" in path for _, path in server.requests)
    pulled(made, "Lead")  # 118
    assert sum(method == "POST" and "jobs" in path for method, path in server.requests) == 1
    server.requests.clear()
    pulled(made, "Task", server.org.now - timedelta(days=700))  # an increment that turns out to be large
    assert any("jobs" in path for _, path in server.requests) and not any("COUNT" in path for _, path in server.requests)


def test_what_bulk_refuses_comes_in_pages(server):
    server.no_bulk = {"Lead"}
    try:
        assert pulled(connector(server, bulk_from=1), "Lead") == pulled(connector(server), "Lead")
    finally:
        server.no_bulk = set()


def test_a_part_of_a_bulk_job_that_breaks_off_is_asked_for_again(server):
    fault = server.faults.add("truncated", path="/results")
    try:
        rows = pulled(connector(server, bulk_from=1), "Task")
    finally:
        server.faults.clear()
    assert fault.done == 1 and len(rows) == 480


def test_a_select_too_long_for_an_address_goes_by_bulk():
    org = Org(utc(2026, 3, 10))
    for n in range(600):
        org.add_field("Lead", make_field(f"A_rather_long_name_of_a_field_{n}__c"))
    org.insert("Lead", {"LastName": "Li", "Company": "Li AG", "Status": "New", "A_rather_long_name_of_a_field_7__c": "seven"}, utc(2026, 3, 1))
    with Salesforce(sf=org) as server:
        rows = pulled(connector(server), "Lead")
        assert [r["x_a_rather_long_name_of_a_field_7__c"] for r in rows.values()] == ["seven"] and any("jobs" in path for _, path in server.requests)


def test_hidden_fields_and_denied_objects_are_told_and_cost_no_row(server):
    server.hidden, server.denied = {"Lead": {"Rating", "Fleet__c"}}, {"Case", "EmailMessage"}
    try:
        made = connector(server)
        told = {r["stream"]: r for r in made.check()}
        assert told["Lead"] == {"stream": "Lead", "entity": "lead", "readable": True, "rows": 118, "history": True, "costs": "hidden: Rating"}
        assert not told["Case"]["readable"] and told["Case"]["rows"] is None and "service cases" in told["Case"]["costs"]
        rows = pulled(made, "Lead")
        assert len(rows) == 118 and {r["rating"] for r in rows.values()} == {None} and len(pulled(made, "Task")) == 480
    finally:
        server.hidden, server.denied = {}, set()


def test_custom_fields_keep_key_label_type_and_options(server):
    made = connector(server)
    deal, lead = (next(s for s in made.streams if s.name == n) for n in ("Opportunity", "Lead"))
    kinds = {c.native: c.kind for s in (deal, lead) for c in made.discover(s)}
    assert kinds == {"Loss_Reason__c": "text", "Score__c": "float", "Renews__c": "date", "Tender__c": "bool", "Deposit__c": "money", "Models__c": "text", "Briefing__c": "long",
                     "Reviewed__c": "time", "Sponsor__c": "text", "Clash__c": "text", "Budget__c": "text", "Fleet__c": "int", "Interests__c": "text"}
    interests = next(c for c in made.discover(lead) if c.native == "Interests__c")
    assert interests.label == "Interests; all, of them" and interests.separator == ";" and "Bikes" in interests.options.values()  # an option that was removed
    told = {r["x_interests__c"] for r in pulled(made, "Lead").values()}
    assert told == {None, "Vans", "Vans; Cars, small", "Trucks & trailers; Bikes"}


def test_a_field_mapped_in_the_settings_fills_a_canonical_one(server):
    rows = pulled(connector(server, fields={"deal": {"lost_reason": "Loss_Reason__c", "competitor": "Owner.Department"}}), "Opportunity")
    assert {r["lost_reason"] for r in rows.values()} == {None, "Price", "Timing, budget", "Competitor"}


def test_a_conversion_has_its_hour_and_a_lost_lead_the_day_it_was_given_up(server):
    rows, org = pulled(connector(server), "Lead"), server.org
    for key, lead in org.standing("lead").items():
        row = rows[server.native_id("lead", key)]
        assert (row["is_converted"], row["converted_at"], row["is_lost"]) == (lead["is_converted"], lead["converted_at"], bool(lead["is_lost"]))
        assert row["closed_at"] == lead["closed_at"]
    assert sum(r["is_converted"] for r in rows.values()) > 10 and sum(r["is_lost"] for r in rows.values()) > 10


def test_a_conversion_without_a_trace_of_its_hour_ends_with_its_day():
    row = {"IsConverted": True, "ConvertedDate": "2026-01-31", "SystemModstamp": "2026-02-07T00:00:00.000+0000"}
    assert converted_at(row) == datetime(2026, 1, 31, 23, 59, 59)
    assert converted_at(row | {"SystemModstamp": "2026-01-31T12:00:00.000+0000"}) == datetime(2026, 1, 31, 12)  # it was not touched later
    older = {"CreatedDate": "2025-06-01T00:00:00.000+0000"}  # a contact that had been there before
    assert converted_at(row | {"ConvertedContact": older}) == datetime(2026, 1, 31, 23, 59, 59)
    assert converted_at(row | {"IsConverted": False}) is None


def test_without_the_stamp_of_its_last_stage_a_deal_closes_with_its_last_recorded_change(server):
    server.hidden, org = {"Opportunity": {"LastStageChangeDate"}}, server.org
    try:
        for since in (None, org.now - timedelta(days=900)):  # a first load, an increment
            rows = pulled(connector(server), "Opportunity", since)
            assert {key: rows[server.native_id("deal", key)]["closed_at"] for key in org.standing("deal")} == {key: r["closed_at"] for key, r in org.standing("deal").items()}
    finally:
        server.hidden = {}


def test_a_server_that_cannot_group_tells_by_its_rows_since_when_fields_are_tracked(server):
    made = connector(server)
    lead = next(s for s in made.streams if s.name == "Lead")
    grouped = made.tracked(lead)
    server.groups = False
    try:
        assert made.tracked(lead) == grouped and set(grouped) == {"status", "rating", "owner_id", "Fleet__c"}
    finally:
        server.groups = True


def test_statuses_named_in_the_settings_give_a_lead_up(server):
    rows = pulled(connector(server, lost_statuses=["Working"]), "Lead")
    assert {r["status"] for r in rows.values() if r["is_lost"]} == {"Working"}


def test_mails_tell_the_direction_of_their_task_and_stand_alone_without_one():
    org = Org(utc(2026, 3, 10))
    lead = org.insert("Lead", {"LastName": "Li", "Company": "Li AG", "Status": "New"}, utc(2026, 3, 1))
    tasks = [org.insert("Task", {"WhoId": lead, "Subject": s, "TaskSubtype": "Email", "Status": "Completed", "CompletedDateTime": "2026-03-02T10:00:00.000+0000"}, utc(2026, 3, 2)) for s in ("a", "b")]
    for task, incoming in zip(tasks, (True, False), strict=True):
        org.insert("EmailMessage", {"ActivityId": task, "Incoming": incoming, "Subject": "x", "Status": "3"}, utc(2026, 3, 2))
    account = org.insert("Account", {"Name": "A"}, utc(2026, 3, 1))
    org.insert("EmailMessage", {"RelatedToId": account, "Incoming": True, "Subject": "alone", "TextBody": "Hello", "Status": "0", "MessageDate": "2026-03-03T09:00:00.000+0000"}, utc(2026, 3, 3))
    org.insert("Case", {"CaseNumber": "1", "AccountId": account, "Subject": "Broken", "IsClosed": True}, utc(2026, 3, 4))
    with Salesforce(sf=org) as server:
        made = connector(server)
        for since in (None, datetime(2026, 1, 1)):  # a first load, an increment
            assert [r["direction"] for r in pulled(made, "Task", since).values()] == ["in", "out"]
        mail, = pulled(made, "EmailMessage").values()
        assert (mail["kind"], mail["subject"], mail["body"], mail["direction"], mail["account_id"], mail["deal_id"]) == ("email", "alone", "Hello", "in", f"sf:{account}", None)
        case, = pulled(made, "Case").values()
        assert (case["kind"], case["is_done"], case["created_at"]) == ("case", True, datetime(2026, 3, 4))


def test_an_org_of_one_currency_has_it_in_every_amount():
    org = Org(utc(2026, 3, 10), currency="GBP")
    org.insert("Opportunity", {"Name": "D", "StageName": "New", "CloseDate": "2026-04-01", "Amount": 5.0}, utc(2026, 3, 1))
    with Salesforce(sf=org) as server:
        made = connector(server)
        assert [r["currency"] for r in pulled(made, "Opportunity").values()] == ["GBP"]
        assert {"CurrencyType", "DatedConversionRate"}.isdisjoint(s.name for s in made.streams)


def test_einsteins_own_scores_are_read_where_the_org_has_them(server):
    org = Org(utc(2026, 3, 10), features={"einstein"})
    lead = org.insert("Lead", {"LastName": "Li", "Company": "Li AG", "Status": "New"}, utc(2026, 3, 1))
    org.insert("ScoreIntelligence", {"BaseId": lead, "Score": 87.0}, utc(2026, 3, 2))
    with Salesforce(sf=org) as other:
        assert [r for b in connector(other).scores() for r in b] == [{"id": lead, "p": 0.87}]
    assert list(connector(server).scores()) == []


def test_what_left_the_bin_is_found_by_the_delete_log_or_by_the_ids_that_are_missing(lake):
    with Salesforce(organisation(), page=500) as server:
        synced(lake, server, "Opportunity", "Lead")
        org = server.org
        org.now += timedelta(hours=2)
        org.delete("deal", 3, hard=True)  # only the delete log tells of it
        synced(lake, server, "Opportunity", "Lead")
        assert_equal(lake, server, "deal", "lead")
        row = lake.sql(f"select max(deleted_at) from deal_versions where id = 'sf:{server.native_id('deal', 3)}'").fetchall()
        assert row == [(org.now,)]
        org.now += timedelta(days=40)  # nobody synced for so long that the log is empty, too
        org.delete("lead", 30, org.now - timedelta(days=30))
        synced(lake, server, "Opportunity", "Lead")
        assert_equal(lake, server, "deal", "lead")


def test_a_deletion_undone_brings_the_record_back(lake):
    with Salesforce(organisation(), page=500) as server:
        synced(lake, server, "Opportunity", "Lead")
        org = server.org
        org.now += timedelta(hours=2)
        org.restore("deal", 11)
        synced(lake, server, "Opportunity", "Lead")
        assert server.native_id("deal", 11) in in_lake(lake, server, "deal")
        assert_equal(lake, server, "deal", "lead")


# ---- logging in, limits, drift ------------------------------------------------------------------------------------------
def test_every_flow_of_the_contract_logs_in(server, monkeypatch):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    server.public_key = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    monkeypatch.setenv("WORKBENCH_SF_PRIVATE_KEY", key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode())
    for how in ("client_credentials", "jwt", "refresh_token"):
        assert "Lead" in connector(server, auth=how).tables
    with pytest.warns(UserWarning, match="retiring logins by password"):
        assert "Lead" in connector(server, auth="password").tables
    with pytest.raises(WorkbenchError, match="auth = 'soap' is unknown"):
        connector(server, auth="soap")


def test_a_refused_login_says_what_the_vendor_said_and_never_the_secret(server, monkeypatch):
    monkeypatch.setenv("WORKBENCH_SF_CLIENT_SECRET", "canary-7391")
    with pytest.raises(WorkbenchError, match="gave no token.*invalid client credentials.*docs/salesforce.md") as told:
        connector(server)
    assert "canary" not in str(told.value)


def test_a_session_that_ends_midway_is_renewed(server):
    made = connector(server)
    server.faults.add("unauthorized", at=3)
    try:
        assert len(pulled(made, "Task")) == 480
    finally:
        server.faults.clear()
    assert sum("token" in path for _, path in server.requests[-30:]) >= 1


def test_too_many_at_once_is_waited_for_and_the_days_total_is_not(server):
    made, waits = connector(server), []
    made.client.wait = waits.append
    server.faults.add("limit", at=2)
    try:
        assert len(pulled(made, "Task")) == 480 and waits[0] == 3  # seconds
        server.faults.clear()
        server.faults.add("spent", at=2, times=0)
        with pytest.raises(BudgetSpent, match="used up"):
            pulled(connector(server), "Task")
    finally:
        server.faults.clear()


def test_no_more_than_the_share_of_the_allowance_is_used():
    with Salesforce(organisation(), api_calls=40) as server, pytest.raises(BudgetSpent, match="share of this workbench is 25%"):
        made = connector(server, share=0.25)
        for stream in made.streams:
            list(made.pull(stream, None))
    assert made.budget.calls <= 11 and server.used <= 10  # 40 / 4; the login is one more


def test_a_field_dropped_between_describe_and_query_is_looked_up_again(server):
    made = connector(server)
    lead = next(s for s in made.streams if s.name == "Lead")
    made.discover(lead)
    server.hidden = {"Lead": {"Industry"}}
    try:
        assert len(pulled(made, "Lead")) == 118
    finally:
        server.hidden = {}


def test_a_retired_version_is_told_as_such(server):
    with pytest.raises(WorkbenchError, match="410.*no longer supported"):
        connector(server, version=30).tables  # noqa: B018


def test_a_bulk_job_that_fails_midway_loses_no_row(lake):
    with Salesforce(organisation(), page=2) as server:  # parts of 50 rows, in no order
        def run():
            made = connector(server, bulk_from=1)
            made.streams = [s for s in made.streams if s.name == "Task"]
            return sync(lake, "sf", made, now=server.org.now).iloc[0]

        server.faults.add("truncated", at=3, times=0, path="/results")
        assert "broke off" in run()["error"]
        server.faults.clear()
        assert run()["rows"] == 480 and lake.sql("select count(*) from activity").fetchall() == [(480,)]


def test_what_simple_salesforce_asks_for_is_carried_by_our_client_and_nothing_else_is(server):
    made = connector(server)
    calls = made.budget.calls
    assert made._sf.query("SELECT Id FROM Lead LIMIT 1")["totalSize"] == 1 and made.budget.calls == calls + 1
    assert made._sf.session_id != made._token  # simple-salesforce never holds the token
