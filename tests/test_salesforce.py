"""The Salesforce stand-in judged by clients that other people wrote, and the connector held to what the stand-in knows."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from tests.servers import salesforce as stand_in
from tests.servers.organisation import organisation
from tests.servers.salesforce import CLIENT_ID, CLIENT_SECRET, PASSWORD, USERNAME, Salesforce
from tests.servers.salesforce_org import Org, make_field, utc

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
