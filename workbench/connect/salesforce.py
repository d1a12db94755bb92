"""Salesforce Sales Cloud: what is read of an org, and what it means (soql.py: how it is read). The streams stand in salesforce.toml.

Logging in goes over HttpClient, since simple-salesforce knows no refresh tokens. Sources: "REST API Developer Guide", "Object Reference". Odd: limits come as
403; a conversion has a date only, and what it made tells the hour; OpportunityHistory tells stage, amount and close date since creation, other fields only where
tracking is on (LeadHistory, OpportunityFieldHistory ...), for 18 months. Not confirmed there, so read only where described: LastStageChangeDate, quotas, scores.
"""

from __future__ import annotations

import re
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from importlib import resources
from typing import Any
from urllib.parse import quote

from workbench.connect.credentials import KEYS, refreshed, secret
from workbench.connect.http import Allowance, HttpClient, Refused
from workbench.connect.soql import BULK_FROM, Reader, instant
from workbench.connect.streams import CustomField, Stream, at, with_fields
from workbench.errors import WorkbenchError

NO_TOKEN = "Is `url` the My Domain, and may the app log in so? See docs/salesforce.md."
TOKEN, IDS_AT_ONCE = "/services/oauth2/token", 300  # ids in one IN (...)
LOST = "unqualified|disqualified|not converted|lost|dead|junk"  # a lead's Status that gives it up; `lost_statuses` under [sources.NAME] names others
KINDS = {"boolean": "bool", "int": "int", "long": "int", "double": "float", "percent": "float", "currency": "money", "date": "date", "datetime": "time"}
UNREADABLE, CURSORS = ("address", "location", "base64", "anyType", "complexvalue"), ("SystemModstamp", "LastModifiedDate", "CreatedDate")
NATIVE = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")  # an id; a history tells each change of a lookup twice, by names and by ids
STAGES = {"stage": "StageName", "amount": "Amount", "close_on": "CloseDate"}  # what OpportunityHistory tells
STREAMS = tomllib.loads(resources.files("workbench").joinpath("connect/salesforce.toml").read_text(encoding="utf-8"))


def converted_at(row: dict) -> datetime | None:
    """When what the lead became was made, if on the day of ConvertedDate (of the org's zone); else the end of that day, or the last change if earlier.

    >>> converted_at({"IsConverted": True, "ConvertedDate": "2026-01-31", "ConvertedContact": {"CreatedDate": "2026-01-31T10:20:30.000+0000"}})
    datetime.datetime(2026, 1, 31, 10, 20, 30)
    """
    if not row.get("IsConverted") or not (day := instant(row.get("ConvertedDate"))):
        return None
    made = [t for o in ("Opportunity", "Contact", "Account") if (t := instant(at(row, f"Converted{o}.CreatedDate"))) and abs(t - day - timedelta(hours=12)) <= timedelta(hours=26)]
    return max(made) if made else min(day + timedelta(days=1, seconds=-1), instant(row.get("SystemModstamp")) or datetime.max)


def _kind(row: dict) -> str:
    words = f"{row.get('TaskSubtype')} {row.get('Type')} {'call' if row.get('CallType') else ''}".lower()
    return next((kind for kind in ("call", "email", "meeting", "note") if kind in words), "task")


def _id(path: str, prefix: str) -> Callable[[dict], Any]:
    return lambda row: row[path] if (row.get(path) or "").startswith(prefix) else None  # an id's first three characters tell its object


COMPUTED: dict[str, Callable[[dict], Any]] = {
    "deleted": lambda r: r.get("SystemModstamp") if r.get("IsDeleted") else None, "share": lambda r: float(r.get("DefaultProbability") or 0) / 100,
    "outcome": lambda r: "won" if r.get("IsWon") else "lost" if r.get("IsClosed") else "open", "won": lambda r: bool(r.get("IsWon")) if r.get("IsClosed") else None,
    "closed": lambda r: (r.get("_changed") or r.get("LastStageChangeDate") or r.get("CreatedDate")) if r.get("IsClosed") else None,
    "converted": converted_at, "ended": lambda r: converted_at(r) or (r["_ended"] if r["_lost"] else None), "worth": lambda r: 1 / float(r["ConversionRate"]), "kind": _kind,
    "direction": lambda r: {"Inbound": "in", "Outbound": "out"}.get(r.get("CallType") or "") or ("in" if r["_incoming"] else "out" if _kind(r) == "email" else None),
    "lead": _id("WhoId", "00Q"), "contact": _id("WhoId", "003"), "deal": _id("WhatId", "006"), "account": lambda r: r.get("AccountId") or _id("WhatId", "001")(r),
    "mail_direction": lambda r: "in" if r.get("Incoming") else "out", "mail_deal": _id("RelatedToId", "006"), "mail_account": _id("RelatedToId", "001"),
    "done": lambda r: r.get("CompletedDateTime") or r.get("ActivityDate"), "minutes": lambda r: float(r["CallDurationInSeconds"]) / 60 if r.get("CallDurationInSeconds") else None}


def _stream(name: str, told: Mapping[str, Any]) -> Stream:
    """A stream as salesforce.toml tells it; @word names one of COMPUTED."""
    fields = {k: COMPUTED[v[1:]] if v[0] == "@" else v for k, v in (pair.split("=", 1) for pair in told["fields"].split())}
    return Stream(name, told["entity"], fields, key="Id", cursor="" if told.get("whole") else CURSORS[0], prefix=told.get("prefix", ""),
                  historized=frozenset(STAGES if name == "Opportunity" else ()), more=told)


class Connector(Reader):
    """One org. told: url (My Domain), auth (client_credentials, jwt, refresh_token, password), audience, version, share, keep_bodies, fields, lost_statuses, bulk_from."""

    name, scored_by = "salesforce", "einstein"

    def __init__(self, source: str, told: Mapping[str, Any]):
        super().__init__(float(told.get("version", 60)), int(told.get("bulk_from", BULK_FROM)))
        self.source, self.told, self.keep_bodies = source, told, bool(told.get("keep_bodies", False))
        self._lost = re.compile("|".join(map(re.escape, told.get("lost_statuses", ()))) or f".*({LOST}).*", re.IGNORECASE)
        self._token, self._secrets, self._date, self._maps = "", set[str](), "", dict[str, dict]()
        self._login = HttpClient(told["url"], crm="Salesforce", secrets=lambda: [*self._secrets, self._token], share=told.get("share", .5), limit=self._limit)
        self.budget = self._login.budget

    def _renew(self) -> str:
        """Get a token; the address of the org."""
        how = self.told.get("auth", "client_credentials")
        if ("salesforce", how) not in KEYS:
            raise WorkbenchError(f"[sources.{self.source}] auth = {how!r} is unknown.", fix=f"Use {', '.join(w for crm, w in KEYS if crm == 'salesforce')}.")
        must, _, may = KEYS["salesforce", how].partition("|")
        form = {key: secret(self.source, key, needed=key in must.split()) for key in (*must.split(), *may.split())}
        self._secrets |= {t for v in form.values() if v for t in (v, quote(v, safe=""))}
        if how == "jwt":
            import jwt
            now = parsedate_to_datetime(self._login.get("/services/data").headers["Date"])  # the vendor's clock; the token holds three minutes by it
            claims = {"iss": form["client_id"], "sub": form["username"], "aud": self.told.get("audience", self.told["url"]), "exp": int(now.timestamp()) + 180}
            form, how = {"assertion": jwt.encode(claims, form["private_key"].replace("\\n", "\n"), algorithm="RS256")}, "urn:ietf:params:oauth:grant-type:jwt-bearer"
        elif how == "password":
            warnings.warn("Salesforce is retiring logins by password: make a connected app with client credentials (docs/salesforce.md).", stacklevel=2)
            form["password"] += form.pop("security_token")
        try:
            answer = refreshed(self.source, self.told["url"], TOKEN) if how == "refresh_token" else self._login.post(TOKEN, {"grant_type": how} | form, again=True).json()
            self._token = answer["access_token"]
        except (Refused, ValueError, LookupError, TypeError) as error:
            raise Refused(f"Salesforce gave no token. {getattr(error, 'what', 'It answered with something else.')}", fix=NO_TOKEN, status=getattr(error, "status", 0)) from None
        return answer.get("instance_url") or self.told["url"]

    @cached_property
    def client(self) -> HttpClient:
        """The org behind the login, reached once it is needed."""
        return HttpClient(self._renew(), crm="Salesforce", headers=lambda: {"Authorization": f"Bearer {self._token}"}, renew=self._renew, budget=self.budget,
                          timeout=(10, 130), limit=self._limit, secrets=lambda: [*self._secrets, self._token])

    def _limit(self, response: Any) -> Allowance | None:
        """Sforce-Limit-Info; a 403 of too many at once asks for patience, one of the day's total says that nothing is left."""
        self._date = response.headers.get("Date", "")
        if response.status_code == 403 and b"REQUEST_LIMIT_EXCEEDED" in response.content:
            return Allowance(wait=3) if b"Concurrent" in response.content else Allowance(left=0)
        used = re.search(r"api-usage=(\d+)/(\d+)", response.headers.get("Sforce-Limit-Info", ""))
        return Allowance(float(used[2]), float(used[2]) - float(used[1])) if used else None

    # ---- what there is
    @cached_property
    def streams(self) -> list[Stream]:
        """The streams of salesforce.toml whose objects the user may read; all of them, to tell it one by one, where nothing can be asked."""
        try:
            names: Any = self.tables
        except WorkbenchError:
            names = STREAMS
        return with_fields([_stream(name, told) for name, told in STREAMS.items() if name in names], self.told.get("fields", {}))

    def discover(self, stream: Stream) -> list[CustomField]:
        """The org's own fields of a stream, formulas too (they change without moving a stamp)."""
        self.field(stream.name, "Id")
        found = []
        for f in (f for f in self.described[stream.name].values() if f.get("custom") and f["type"] not in UNREADABLE):
            kind = "long" if f["type"] == "textarea" and f.get("length", 0) > 255 else "int" if f["type"] == "double" and f.get("scale") == 0 else KINDS.get(f["type"], "text")
            options = {o["value"]: o.get("label") or o["value"] for o in f.get("picklistValues") or []}
            found.append(CustomField(f["name"], f["name"], f.get("label") or f["name"], kind, options, ";" if f["type"] == "multipicklist" else ""))
        return found

    def check(self) -> list[dict]:
        """One row an object of salesforce.toml: stream, entity, readable, rows, history, costs (what the models lose; hidden fields by name)."""
        out, streams = [], {s.name: s for s in self.streams}
        for name, table in STREAMS.items():
            s = streams.get(name)
            hidden = sorted(p for p in s.fields.values() if isinstance(p, str) and p[0] not in "_=" and not any(self.field(name, q) for q in p.split(" | "))) if s else []
            out.append({"stream": name, "entity": table["entity"], "readable": s is not None, "rows": self.count(name) if s else None, "history": bool(s and self.tracked(s)),
                        "costs": f"hidden: {', '.join(hidden)}" if hidden else "" if s else table["costs"]})
        return out

    # ---- rows
    def pull(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Rows with what other objects tell of them (`join`), the currency of an org that has one, and `_lost`; fields that vanish meanwhile are looked up again, once."""
        self._maps.clear()
        more: dict[str, Any] = {}
        for attempt in (1, 2):
            try:
                told = (stream.key, "IsDeleted", *CURSORS, *stream.fields.values(), *stream.more.get("needs", "").split())
                wanted = [p for path in told if isinstance(path, str) for p in path.split(" | ")]
                stamp = next((c for c in CURSORS if self.field(stream.name, c)), "") if stream.cursor else ""
                if "CurrencyIsoCode" in wanted and not self.field(stream.name, "CurrencyIsoCode"):
                    more = {"CurrencyIsoCode": self._currency}
                changed = f"{stamp} >= {since:%Y-%m-%dT%H:%M:%SZ}" if since and stamp else ""
                wanted += [c.native for c in self.discover(stream)]
                for rows in self.rows(stream.name, wanted, stream.more.get("where"), changed, load=since is None and bool(stamp)):
                    known = {name: self._joined(stream, join, [r["Id"] for r in rows], since) for name, *join in stream.more.get("join", ())}
                    for row in rows:
                        row |= more | {name: values.get(row["Id"]) for name, values in known.items()} | {stream.cursor: row.get(stamp)}
                        row["_lost"] = not row.get("IsConverted") and bool(self._lost.fullmatch(row.get("Status") or ""))
                    yield rows
                return
            except Refused as error:
                if attempt == 2 or "INVALID_FIELD" not in error.body:
                    raise
                self.described.clear()

    @cached_property
    def _currency(self) -> str | None:
        readable = self.field("Organization", "DefaultCurrencyIsoCode")
        return self._sf.query("SELECT DefaultCurrencyIsoCode FROM Organization")["records"][0]["DefaultCurrencyIsoCode"] if readable else None

    def _joined(self, stream: Stream, join: list[str], ids: list[str], since: datetime | None) -> dict[str, Any]:
        """Id -> the greatest value that another object tells of it: of these ids in an increment, of all (kept for this load) otherwise."""
        (table, key, path, only, *unless), found = join, dict[str, Any]()
        if table in self._maps or not self.field(table, path) or any(self.field(stream.name, p) for p in unless):
            return self._maps.get(table, found)
        some = bool(since and stream.cursor)
        for i in range(0, len(ids) if some else 1, IDS_AT_ONCE):
            those = f"{key} IN ({', '.join(map(repr, ids[i:i + IDS_AT_ONCE]))})" if some else f"{key} != null"
            for rows in self.rows(table, [key, path], only, those, load=not some and bool(stream.cursor)):
                for row in rows:
                    if (value := at(row, path)) not in (None, ""):
                        found[row[key]] = max(value, found.get(row[key], value))
        self._maps |= {} if some else {table: found}
        return found

    # ---- the past
    def tracked(self, stream: Stream) -> dict[str, datetime | None]:
        """Stage, amount and close date of a deal since its creation; each other field since the first change that its history still holds."""
        found: dict[str, datetime | None] = {f: None for f, p in STAGES.items() if stream.name == "Opportunity" and self.field("OpportunityHistory", p)}
        if (table := stream.more.get("history")) in self.tables:
            for field, first in self.firsts(table):
                name = self._named(stream, field)[0]
                if name and (known := found.get(name, first)):  # None: since creation
                    found[name] = min(known, first)
        return found

    def _named(self, stream: Stream, field: str) -> tuple[str, bool]:
        """Canonical name of a history's Field, or a custom field's own ("": isn't kept, such as `created`); whether it is a lookup (Owner for OwnerId)."""
        native, told = next(((n, f) for n in (field, f"{field}Id") if (f := self.field(stream.name, n))), ("", {}))
        return next((n for n, path in stream.fields.items() if path == native), native if told.get("custom") else ""), told.get("type") == "reference"

    def history(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Changes of stage, amount and close date out of OpportunityHistory (each row tells all three), of tracked fields out of the field history."""
        where, order = f"CreatedDate >= {since:%Y-%m-%dT%H:%M:%SZ}" if since else "", " ORDER BY CreatedDate, Id"
        if stream.name == "Opportunity" and "OpportunityHistory" in self.tables:
            for rows in self.rows("OpportunityHistory", ("OpportunityId", "CreatedDate", *STAGES.values(), "PrevAmount", "PrevCloseDate"), where, order=order, load=since is None):
                yield [{"id": r["OpportunityId"], "at": instant(r["CreatedDate"]), "field": f, "old": r.get(f"Prev{p}"), "new": r[p]}
                       for r in rows for f, p in STAGES.items() if p in r]
        if (table := stream.more.get("history")) in self.tables:
            for rows in self.rows(table, (f"{stream.name}Id", "CreatedDate", "Field", "OldValue", "NewValue"), where, order=order, load=since is None):
                told = [(r, *self._named(stream, r["Field"]), r["OldValue"], r["NewValue"]) for r in rows]
                yield [{"id": r[f"{stream.name}Id"], "at": instant(r["CreatedDate"]), "field": name, "old": old, "new": new} for r, name, lookup, old, new in told
                       if name and not (lookup and any(v and not NATIVE.fullmatch(v) for v in (old, new)))]

    def deletions(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """What the delete log tells since `since` (it holds 15 days); what lies in the recycle bin comes with the rows."""
        end = parsedate_to_datetime(self._date or "Thu, 01 Jan 1970 00:00:00 GMT").replace(tzinfo=None)
        if since and stream.cursor and self.tables[stream.name].get("replicateable", True) and (start := max(since, end - timedelta(days=29))) < end:
            span = {k: f"{v:%Y-%m-%dT%H:%M:%S}+00:00" for k, v in (("start", start), ("end", end))}
            try:
                told = self.client.json(f"/services/data/v{self.version}/sobjects/{stream.name}/deleted/", span)["deletedRecords"]
                yield [{"id": r["id"], "at": instant(r["deletedDate"]), "merged_into": None} for r in told]
            except Refused as error:  # an object without a log: its ids are compared
                if error.status not in (400, 404):
                    raise

    def ids(self, stream: Stream) -> Iterator[list[str]]:
        """Ids of every record that stands, archived ones too."""
        yield from ([r["Id"] for r in rows] for rows in self.rows(stream.name, ["Id"], stream.more.get("where"), "IsDeleted = false"))

    def scores(self) -> Iterator[list[dict]]:
        """Einstein's own lead scores, where the org has them: id (of the lead), p (score / 100)."""
        for rows in self.rows("ScoreIntelligence", ["BaseId", "Score"], "Score != null", load=True) if self.field("ScoreIntelligence", "Score") else ():
            yield [{"id": r["BaseId"], "p": float(r["Score"]) / 100} for r in rows]
