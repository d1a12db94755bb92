"""Salesforce Sales Cloud: describe and SOQL through simple-salesforce, Bulk API 2.0 above BULK_FROM rows. The streams stand in salesforce.toml.

simple-salesforce writes https:// into every address, repeats a refused call without end, has no timeout and asks for indented JSON: it is given a session
(`_Session`) that carries its calls over our HttpClient, which renews the token, waits and counts. Its bulk2 holds pages in memory and never renews a token, and
it knows no refresh tokens: bulk and login go over HttpClient directly. Sources: "REST API", "Bulk API 2.0" Developer Guides, "Object Reference".
Odd: fields hidden by field-level security are absent from describe and make a query fail, so every SELECT is built from describe; limits come as 403; a conversion
has a date only, and what it made tells the hour; OpportunityHistory tells stage, amount and close date since creation, other fields only where tracking is on
(LeadHistory, OpportunityFieldHistory ...), for 18 months. Not confirmed there, so read only where described: LastStageChangeDate, quotas, Einstein's scores.
"""

from __future__ import annotations

import csv
import re
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from importlib import resources
from itertools import islice
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from workbench.connect.credentials import keep, secret
from workbench.connect.http import Allowance, HttpClient, Refused
from workbench.connect.streams import CustomField, Stream, with_fields
from workbench.errors import WorkbenchError

BULK_FROM, BATCH, IDS_AT_ONCE = 10_000, 2_000, 300  # rows from which a bulk job costs fewer calls than pages; rows a batch; ids in one IN (...)
LONGEST = 12_000  # characters of a query in an address: the vendor takes 16,384 with the headers
LOST = "unqualified|disqualified|not converted|lost|dead|junk"  # a lead's Status that gives it up; `lost_statuses` under [sources.NAME] names others
KINDS = {"boolean": "bool", "int": "int", "long": "int", "double": "float", "percent": "float", "currency": "money", "date": "date", "datetime": "time"}
UNREADABLE, CURSORS = ("address", "location", "base64", "anyType", "complexvalue"), ("SystemModstamp", "LastModifiedDate", "CreatedDate")
STAGES = {"stage": "StageName", "amount": "Amount", "close_on": "CloseDate"}  # what OpportunityHistory tells
STREAMS = tomllib.loads(resources.files("workbench").joinpath("connect/salesforce.toml").read_text(encoding="utf-8"))
GRANTS = {"client_credentials": "client_id client_secret", "refresh_token": "client_id refresh_token", "jwt": "client_id username private_key",
          "password": "client_id client_secret username password"}  # auth -> the secrets that it needs


def _at(row: Any, path: str) -> Any:
    for name in path.split("."):
        row = row.get(name) if isinstance(row, dict) else None
    return row


def instant(value: str | None) -> datetime | None:
    """A stamp of REST (+0000) or Bulk (Z), or a date, as naive UTC.

    >>> instant("2026-01-31T10:20:30.000+0000"), instant("")
    (datetime.datetime(2026, 1, 31, 10, 20, 30), None)
    """
    return datetime.fromisoformat(value).replace(tzinfo=None) if value else None


def converted_at(row: dict) -> datetime | None:
    """When what the lead became was made, if on the day of ConvertedDate (of the org's zone); else the end of that day, or the last change if earlier.

    >>> converted_at({"IsConverted": True, "ConvertedDate": "2026-01-31", "ConvertedContact": {"CreatedDate": "2026-01-31T10:20:30.000+0000"}})
    datetime.datetime(2026, 1, 31, 10, 20, 30)
    """
    if not row.get("IsConverted") or not (day := instant(row.get("ConvertedDate"))):
        return None
    made = [t for o in ("Opportunity", "Contact", "Account") if (t := instant(_at(row, f"Converted{o}.CreatedDate"))) and abs(t - day - timedelta(hours=12)) <= timedelta(hours=26)]
    return max(made) if made else min(day + timedelta(days=1, seconds=-1), instant(row.get("SystemModstamp")) or datetime.max)


def _kind(row: dict) -> str:
    words = f"{row.get('TaskSubtype')} {row.get('Type')} {'call' if row.get('CallType') else ''}".lower()
    return next((kind for kind in ("call", "email", "meeting", "note") if kind in words), "task")


def _id(path: str, prefix: str) -> Callable[[dict], Any]:
    return lambda row: row[path] if (row.get(path) or "").startswith(prefix) else None  # an id's first three characters tell its object


COMPUTED: dict[str, Callable[[dict], Any]] = {
    "deleted": lambda r: r.get("SystemModstamp") if r.get("IsDeleted") else None, "share": lambda r: float(r.get("DefaultProbability") or 0) / 100,
    "outcome": lambda r: "won" if r.get("IsWon") else "lost" if r.get("IsClosed") else "open", "won": lambda r: bool(r.get("IsWon")) if r.get("IsClosed") else None,
    "closed": lambda r: (r["LastStageChangeDate"] or r.get("CreatedDate")) if r.get("IsClosed") and "LastStageChangeDate" in r else None,
    "converted": converted_at, "ended": lambda r: converted_at(r) or (r["_ended"] if r["_lost"] else None), "worth": lambda r: 1 / float(r["ConversionRate"]),
    "always": lambda r: "1970-01-01", "kind": _kind, "meeting": lambda r: "meeting", "mail": lambda r: "email", "case": lambda r: "case", "in": lambda r: "in", "yes": lambda r: True,
    "direction": lambda r: {"Inbound": "in", "Outbound": "out"}.get(r.get("CallType") or "") or ("in" if r["_incoming"] else "out" if _kind(r) == "email" else None),
    "lead": _id("WhoId", "00Q"), "contact": _id("WhoId", "003"), "deal": _id("WhatId", "006"), "account": lambda r: r.get("AccountId") or _id("WhatId", "001")(r),
    "mail_direction": lambda r: "in" if r.get("Incoming") else "out", "mail_deal": _id("RelatedToId", "006"), "mail_account": _id("RelatedToId", "001"),
    "done": lambda r: r.get("CompletedDateTime") or r.get("ActivityDate"), "minutes": lambda r: float(r["CallDurationInSeconds"]) / 60 if r.get("CallDurationInSeconds") else None}


def stream(name: str, told: Mapping[str, Any]) -> Stream:
    """A stream as salesforce.toml tells it; a path that begins with @ names one of COMPUTED."""
    fields = {k: COMPUTED[v[1:]] if v[0] == "@" else v for k, v in (pair.split("=") for pair in told["fields"].split())}
    return Stream(name, told["entity"], fields, key="Id", cursor="" if told.get("whole") else CURSORS[0], prefix=told.get("prefix", ""), ordered=not told.get("whole"),
                  historized=frozenset(STAGES if name == "Opportunity" else ()), more=told)


class _Session:
    """What simple-salesforce takes for a requests session: its GETs over our client, with our login and without its wish for indented JSON."""

    def __init__(self, client: HttpClient):
        self.client, self.proxies = client, dict[str, str]()

    def request(self, method: str, url: str, *, params: dict | None = None, **_: Any) -> Any:
        """The answer, as much of it as simple-salesforce reads."""
        body = self.client.json("/" + url.split("/", 3)[3], params)
        return SimpleNamespace(status_code=200, headers={}, json=lambda **_: body)


class Connector:
    """One org. told: url (My Domain), auth (one of GRANTS), audience, version, share, keep_bodies, fields, lost_statuses, bulk_from."""

    name = "salesforce"

    def __init__(self, source: str, told: Mapping[str, Any]):
        self.source, self.told, self.keep_bodies = source, told, bool(told.get("keep_bodies", False))
        self.version, self.bulk_from = f"{float(told.get('version', 60)):.1f}", int(told.get("bulk_from", BULK_FROM))
        self._lost = re.compile("|".join(map(re.escape, told.get("lost_statuses", ()))) or f".*({LOST}).*", re.IGNORECASE)
        self._token, self._secrets, self._date = "", set[str](), ""
        self._described, self._maps = dict[str, dict[str, dict]](), dict[str, dict]()
        self._login = HttpClient(told["url"], crm="Salesforce", secrets=lambda: [*self._secrets, self._token], share=told.get("share", .5))
        self.budget = self._login.budget

    def _renew(self) -> str:
        """Get a token; the address of the org."""
        if (how := self.told.get("auth", "client_credentials")) not in GRANTS:
            raise WorkbenchError(f"[sources.{self.source}] auth = {how!r} is unknown.", fix=f"Use {', '.join(GRANTS)}.")
        form = {"grant_type": how} | {key: secret(self.source, key) for key in GRANTS[how].split()}
        form["client_secret"] = form.get("client_secret") or secret(self.source, "client_secret", needed=False)
        self._secrets |= {t for v in [*form.values()][1:] if v for t in (v, quote(v, safe=""))}
        if how == "jwt":
            import jwt
            now = parsedate_to_datetime(self._login.get("/services/data").headers["Date"])  # the vendor's clock; the token holds three minutes by it
            claims = {"iss": form["client_id"], "sub": form["username"], "aud": self.told.get("audience", self.told["url"]), "exp": int(now.timestamp()) + 180}
            signed = jwt.encode(claims, form["private_key"].replace("\\n", "\n"), algorithm="RS256")
            form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed}
        elif how == "password":
            warnings.warn("Salesforce is retiring logins by password: make a connected app with client credentials (docs/salesforce.md).", stacklevel=2)
            form["password"] += secret(self.source, "security_token", needed=False)
        answer = self._login.post("/services/oauth2/token", {k: v for k, v in form.items() if v}, again=True).json()
        self._token = answer["access_token"]
        if answer.get("refresh_token") not in (None, form.get("refresh_token")):
            keep(self.source, "refresh_token", answer["refresh_token"])
        return answer.get("instance_url") or self.told["url"]

    @cached_property
    def client(self) -> HttpClient:
        """The org behind the login, reached once it is needed."""
        return HttpClient(self._renew(), crm="Salesforce", headers=lambda: {"Authorization": f"Bearer {self._token}"}, renew=self._renew, budget=self.budget,
                          limit=self._limit, secrets=lambda: [*self._secrets, self._token])

    @cached_property
    def _sf(self) -> Any:
        from simple_salesforce import Salesforce
        return Salesforce(session_id="ours", instance_url=self.client.base, version=self.version, session=_Session(self.client), object_pairs_hook=dict)

    def _limit(self, response: Any) -> Allowance | None:
        """Sforce-Limit-Info; a 403 of too many at once asks for patience, one of the day's total says that nothing is left."""
        self._date = response.headers.get("Date", "")
        used = re.search(r"api-usage=(\d+)/(\d+)", response.headers.get("Sforce-Limit-Info", ""))
        daily, left = (float(used[2]), float(used[2]) - float(used[1])) if used else (None, None)
        if response.status_code == 403 and b"REQUEST_LIMIT_EXCEEDED" in response.content:
            return Allowance(daily, None, wait=3) if b"Concurrent" in response.content else Allowance(daily, 0)
        return Allowance(daily, left)

    # ---- what there is
    @cached_property
    def tables(self) -> set[str]:
        """The objects that the user may query."""
        return {o["name"] for o in self._sf.describe()["sobjects"] if o.get("queryable", True)}

    @cached_property
    def streams(self) -> list[Stream]:
        """The streams whose objects the user may read, each with the stamp that its object has."""
        told = [stream(name, table) for name, table in STREAMS.items() if name in self.tables]
        told = [replace(s, cursor=next((c for c in CURSORS if s.cursor and self._field(s.name, c)), "")) for s in told]
        return with_fields(told, self.told.get("fields", {}))

    def _field(self, table: str, path: str) -> dict | None:
        """What describe says of a path (Manager.Name); None where the user may not see it."""
        if table not in self._described:
            self._described[table] = {f["name"]: f for f in getattr(self._sf, table).describe()["fields"]} if table in self.tables else {}
        (first, _, rest), known = path.partition("."), self._described[table]
        if not rest:
            return known.get(first)
        to = next((f["referenceTo"] for f in known.values() if f.get("relationshipName") == first), [])
        return self._field(to[0], rest) if len(to) == 1 else None

    def discover(self, stream: Stream) -> list[CustomField]:
        """The org's own fields of a stream, formulas too (they change without moving a stamp)."""
        self._field(stream.name, "Id")
        found = [f for f in self._described[stream.name].values() if f.get("custom") and f["type"] not in UNREADABLE]
        kinds = ["long" if f["type"] == "textarea" and f.get("length", 0) > 255 else "int" if f["type"] == "double" and f.get("scale") == 0 else KINDS.get(f["type"], "text") for f in found]
        return [CustomField(f["name"], f["name"], f.get("label") or f["name"], kind, {o["value"]: o.get("label") or o["value"] for o in f.get("picklistValues") or []},
                            ";" if f["type"] == "multipicklist" else "") for f, kind in zip(found, kinds, strict=True)]

    def check(self) -> list[dict]:
        """One row an object of salesforce.toml: stream, entity, readable, rows, history, costs (what the models lose; hidden fields by name)."""
        out, streams = [], {s.name: s for s in self.streams}
        for name, table in STREAMS.items():
            s = streams.get(name)
            hidden = sorted(p for p in s.fields.values() if isinstance(p, str) and p[0] != "_" and not self._field(name, p)) if s else []
            out.append({"stream": name, "entity": table["entity"], "readable": s is not None, "rows": self._count(name) if s else None, "history": bool(s and self.tracked(s)),
                        "costs": f"hidden: {', '.join(hidden)}" if hidden else "" if s else table["costs"]})
        return out

    # ---- rows
    def _count(self, table: str, where: str = "") -> int:
        return self._sf.query(f"SELECT COUNT() FROM {table}{where and ' WHERE '}{where}")["totalSize"]

    def _rows(self, table: str, paths: list[str], where: str = "", *, order: str = "", load: bool = False) -> Iterator[list[dict]]:
        """Batches of rows, those in the recycle bin and archived ones too, page by page or by Bulk 2.0 where there are many or the query is long.

        load: their number is asked for first (else the first page tells it). What Bulk refuses comes page by page.
        """
        soql, everything = f"SELECT {', '.join(paths)} FROM {table}{where and ' WHERE '}{where}", self._field(table, "IsDeleted") is not None
        long = len(quote(soql)) > LONGEST
        page = None if long or load and self._count(table, where) >= self.bulk_from else self._sf.query(soql + order, include_deleted=everything)
        if page is None or page["totalSize"] >= self.bulk_from:
            try:
                return (yield from self._bulk(table, paths, soql, everything))
            except Refused as error:
                if error.status != 400 or long or "INVALID_FIELD" in error.body:
                    raise
            page = page or self._sf.query(soql + order, include_deleted=everything)
        yield page["records"]
        while not page["done"]:
            page = self._sf.query_more(page["nextRecordsUrl"], identifier_is_url=True, include_deleted=everything)
            yield page["records"]

    def _bulk(self, table: str, paths: list[str], soql: str, everything: bool) -> Iterator[list[dict]]:
        """Batches of rows out of a query job, streamed; a part that breaks off is asked for again as a whole."""
        jobs, pause, state = f"/services/data/v{self.version}/jobs/query", 0.25, dict[str, Any]()
        job = f"{jobs}/{self.client.post(jobs, json={'operation': 'queryAll' if everything else 'query', 'query': soql}, again=True).json()['id']}"
        while (state := self.client.json(job))["state"] not in ("JobComplete", "Failed", "Aborted"):
            self.client.wait(pause := min(pause * 2, 30))
        if state["state"] != "JobComplete":
            raise Refused(f"Salesforce ended a bulk job: {state['state']}, {state.get('errorMessage')}.", status=400, body=str(state.get("errorMessage")))
        locator, tries = None, 3
        while locator != "null":
            heads, n = dict[str, str](), 0
            try:
                lines = self.client.lines(f"{job}/results", {"maxRecords": 25 * BATCH, "locator": locator}, seen=lambda response, heads=heads: heads.update(response.headers))
                for rows in self._table(table, paths, lines):
                    n += len(rows)
                    yield rows
                if n != int(heads.get("Sforce-NumberOfRecords", n)):
                    raise Refused("Salesforce's answer to a bulk job broke off.")
                locator, tries = heads.get("Sforce-Locator", "null"), 3
            except Refused as error:
                tries -= 1
                if error.status or not tries:
                    raise

    def _table(self, table: str, paths: list[str], lines: Iterable[str]) -> Iterator[list[dict]]:
        """CSV as rows in the form of REST."""
        cells = csv.reader(lines)
        if len(next(cells, [])) != len(paths):
            raise Refused("Salesforce answered a bulk job with something that is no table.")
        flags, nested = [p for p in paths if (self._field(table, p) or {}).get("type") == "boolean"], [p.split(".") for p in paths if "." in p]
        while rows := [dict[str, Any](zip(paths, line, strict=False)) for line in islice(cells, BATCH)]:
            for row in rows:
                row.update((p, row[p] == "true") for p in flags)
                for *over, last in nested:
                    place = row
                    for name in over:
                        place = place.setdefault(name, {})
                    place[last] = row[".".join((*over, last))]
            yield rows

    def pull(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Rows with what other objects tell of them; a field that vanished meanwhile is looked up again, once."""
        where = " AND ".join(filter(None, (stream.more.get("where"), f"{stream.cursor} >= {since:%Y-%m-%dT%H:%M:%SZ}" if since and stream.cursor else "")))
        for attempt in (1, 2):
            try:
                wanted = [stream.key, "IsDeleted", *CURSORS, *(p for p in stream.fields.values() if isinstance(p, str)), *stream.more.get("needs", "").split(), *(c.native for c in self.discover(stream))]
                paths = [p for p in dict.fromkeys(wanted) if p[0] != "_" and self._field(stream.name, p)]
                for rows in self._rows(stream.name, paths, where, order=f" ORDER BY {stream.cursor}, Id" if stream.cursor else "", load=since is None):
                    yield self._completed(stream, rows, since)
                return
            except Refused as error:
                if attempt == 2 or "INVALID_FIELD" not in error.body:
                    raise
                self._described.clear()

    def _completed(self, stream: Stream, rows: list[dict], since: datetime | None) -> list[dict]:
        more = {"CurrencyIsoCode": self._currency} if "CurrencyIsoCode" in stream.fields.values() and not self._field(stream.name, "CurrencyIsoCode") else {}
        name, *join = stream.more.get("join", [""])
        known = self._joined(stream, join, [r["Id"] for r in rows], since) if name else {}
        return [row | more | {name: known.get(row["Id"]), "_lost": not row.get("IsConverted") and bool(self._lost.fullmatch(row.get("Status") or ""))} for row in rows]

    @cached_property
    def _currency(self) -> str | None:
        """The currency of an org that has one."""
        readable = self._field("Organization", "DefaultCurrencyIsoCode")
        return self._sf.query("SELECT DefaultCurrencyIsoCode FROM Organization")["records"][0]["DefaultCurrencyIsoCode"] if readable else None

    def _joined(self, stream: Stream, join: list[str], ids: list[str], since: datetime | None) -> dict[str, Any]:
        """Id -> the greatest value that another object tells of it: of these ids in an increment, of all (kept for this load) otherwise."""
        (table, key, path, only), found = join, dict[str, Any]()
        if not self._field(table, path) or since is None and stream.name in self._maps:
            return self._maps.get(stream.name, found)
        chunks = [ids[i:i + IDS_AT_ONCE] for i in range(0, len(ids), IDS_AT_ONCE)] if since and stream.cursor else [None]
        for chunk in chunks:
            where = " AND ".join(filter(None, (only, f"{key} IN ({', '.join(map(repr, chunk))})" if chunk else f"{key} != null")))
            for rows in self._rows(table, [p for p in (key, path, "IsDeleted") if self._field(table, p)], where, load=not chunk):
                for row in rows:
                    if not row.get("IsDeleted") and (value := _at(row, path)) not in (None, ""):
                        found[row[key]] = max(value, found.get(row[key], value))
        self._maps |= {stream.name: found} if chunks == [None] else {}
        return found

    # ---- the past
    def tracked(self, stream: Stream) -> dict[str, datetime | None]:
        """Stage, amount and close date of a deal since its creation; each other field since the first change that its history still holds."""
        found: dict[str, datetime | None] = {f: None for f, p in STAGES.items() if stream.name == "Opportunity" and self._field("OpportunityHistory", p)}
        if (table := stream.more.get("history")) in self.tables:
            with suppress(Refused):
                for row in self._sf.query(f"SELECT Field, MIN(CreatedDate) since FROM {table} GROUP BY Field")["records"]:
                    if name := self._named(stream, row["Field"])[0]:
                        found.setdefault(name, instant(row["since"]))
        return found

    def _named(self, stream: Stream, field: str) -> tuple[str, bool]:
        """(canonical name of a history's Field, or a custom field's own; "" for what isn't kept, such as `created`; whether it is a lookup: Owner for OwnerId)."""
        native = next((n for n in (field, f"{field}Id") if self._field(stream.name, n)), "")
        told = self._field(stream.name, native) or {"type": ""}
        return next((name for name, path in stream.fields.items() if path == native), native if told.get("custom") else "") if native else "", told["type"] == "reference"

    def history(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Changes of stage, amount and close date out of OpportunityHistory (each row tells all three), of tracked fields out of the field history."""
        where, how = f"CreatedDate >= {since:%Y-%m-%dT%H:%M:%SZ}" if since else "", {"order": " ORDER BY CreatedDate, Id", "load": since is None}
        if stream.name == "Opportunity" and "OpportunityHistory" in self.tables:
            paths = [p for p in ("Id", "OpportunityId", "CreatedDate", *STAGES.values(), "PrevAmount", "PrevCloseDate") if self._field("OpportunityHistory", p)]
            for rows in self._rows("OpportunityHistory", paths, where, **how):
                yield [{"id": r["OpportunityId"], "at": instant(r["CreatedDate"]), "field": f, "old": r.get(f"Prev{p}"), "new": r[p]} for r in rows for f, p in STAGES.items() if p in r]
        if (table := stream.more.get("history")) in self.tables:
            key = f"{stream.name}Id"
            for rows in self._rows(table, ["Id", key, "CreatedDate", "Field", "OldValue", "NewValue"], where, **how):
                yield [{"id": r[key], "at": instant(r["CreatedDate"]), "field": name, "old": r["OldValue"], "new": r["NewValue"]} for r in rows
                       for name, lookup in [self._named(stream, r["Field"])] if name and not (lookup and _is_name(r["OldValue"], r["NewValue"]))]

    def deletions(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """What the delete log tells since `since` (it holds 15 days); what lies in the recycle bin comes with the rows."""
        if since and stream.cursor and self._field(stream.name, "IsDeleted"):
            end = parsedate_to_datetime(self._date).replace(tzinfo=None)
            if (start := max(since, end - timedelta(days=29))) < end:
                span = {k: f"{v:%Y-%m-%dT%H:%M:%S}+00:00" for k, v in (("start", start), ("end", end))}
                told = self.client.json(f"/services/data/v{self.version}/sobjects/{stream.name}/deleted/", span)["deletedRecords"]
                yield [{"id": r["id"], "at": instant(r["deletedDate"]), "merged_into": None} for r in told]

    def ids(self, stream: Stream) -> Iterator[list[str]]:
        """Ids of every record that stands, archived ones too."""
        where = " AND ".join(filter(None, (stream.more.get("where"), self._field(stream.name, "IsDeleted") and "IsDeleted = false")))
        yield from ([r["Id"] for r in rows] for rows in self._rows(stream.name, ["Id"], where, load=True))

    def scores(self) -> Iterator[list[dict]]:
        """Einstein's own lead scores, where the org has them: id (of the lead), p (score / 100)."""
        for rows in self._rows("ScoreIntelligence", ["BaseId", "Score"], "Score != null", load=True) if self._field("ScoreIntelligence", "Score") else ():
            yield [{"id": r["BaseId"], "p": float(r["Score"]) / 100} for r in rows]


def _is_name(*values: str | None) -> bool:
    """A history tells each change of a lookup twice, by names and by ids: these are the names."""
    return any(v and not re.fullmatch(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?", v) for v in values)
