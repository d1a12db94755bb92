"""Agentbox (Reapit Sales, Australia): partner API, version 2, as its OpenAPI document and recorded answers tell it; agentbox.toml is the table of its streams.

What is odd: every scalar is a string, and "" is nothing; lists hide what is not active unless a status is asked for; the price as a number stands only in a listing's
own answer: one call each; nothing tells of deletions or earlier values: a sweep of the ids finds what vanished, and history arises from our own syncs.
Confirmed by no source: fields of enquiries, whom notes are about, where sold prices stand, custom fields (keys that the contract does not know are kept).
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from importlib import resources
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from workbench.connect.credentials import secret
from workbench.connect.http import Allowance, Budget, HttpClient, Refused, printable
from workbench.connect.streams import CustomField, Stream, at, with_fields

PAGE, TRIES, PACE = 100, 3, .25  # rows a page (100 is known to work), scans of a list that changes meanwhile, seconds a call (clients in use keep to 20 in 5)
SQUARE_METRES, ZONES = {"sqm": 1, "m2": 1, "squaremetres": 1, "ha": 10_000, "hectares": 10_000, "acres": 4046.856}, available_timezones()
FIXES = {400: "Is `url` under [sources.NAME] the address of API version 2?", 403: "Ask the vendor to open this part of the API for your key; the other streams go on.",
         404: "The gateway says so of keys that it does not accept, too: compare key and address with what the vendor sent."}


def _names(row: dict, path: str) -> str | None:
    """What stands at a path is called: a text, {"name": ...}, or a list of such, joined by "; "."""
    value = at(row, path)
    parts = value if isinstance(value, list) else [value]
    return "; ".join(str(at(p, "displayName", "name") or "") if isinstance(p, dict) else str(p) for p in parts if p not in (None, "")) or None


def _person(row: Any) -> str | None:
    """First and last name, else the company's."""
    return " ".join(v for k in ("firstName", "lastName") if (v := at(row, k))) or at(row, "companyName")


def _agent(row: dict, role: str = "Listing Agent") -> str | None:
    """The staff member in `role`, else the one shown first."""
    ranked = sorted(row.get("relatedStaffMembers") or [], key=lambda e: (e.get("role") != role, str(at(e, "displayOrder") or "~").zfill(9)))
    return at(ranked, "staffMember.id", "id")


def _land(row: dict) -> float | None:
    """Square metres; None where size or unit is missing or odd."""
    size, unit = str(at(row, "property.landArea.value")), re.sub(r"[^a-z0-9]", "", str(at(row, "property.landArea.unit")).lower())
    return float(size) * SQUARE_METRES[unit] if unit in SQUARE_METRES and re.fullmatch(r"\d+(\.\d+)?", size) else None


def _instant(value: Any) -> datetime | None:
    """A stamp with offset as naive UTC; None for anything else."""
    try:
        told = datetime.fromisoformat(value)
        return told.astimezone(UTC).replace(tzinfo=None) if told.tzinfo else None
    except (TypeError, ValueError):
        return None


MADE: dict[str, Callable[[dict], Any]] = {
    "(person)": _person, "(enquirer)": lambda r: _person(r.get("contact")), "(agent)": _agent, "(owner)": lambda r: _agent(r, "Primary Owner"), "(land)": _land,
    "(minutes)": lambda r: (end - start).total_seconds() / 60 if (start := _instant(r.get("startDate"))) and (end := _instant(r.get("endDate"))) and start <= end else None,
    "(active)": lambda r: str(r.get("status")).lower() == "active", "(no_mail)": lambda r: r.get("status") == "Do Not Contact" or at(r, "communicationRestrictions.doNotEmail"),
    "(no_call)": lambda r: r.get("status") == "Do Not Contact" or at(r, "communicationRestrictions.doNotCall"), "(category)": lambda r: str(at(r, "property.category") or "").lower(),
    "(sold_amount)": lambda r: at(r, "soldPrice", "contractDetails.price") if at(r, "soldDate") else None,
    "(suburbs)": lambda r: (_names(r, "suburbs") or "").replace("; ", ";"), "(categories)": lambda r: (_names(r, "propertyCategories") or "").replace("; ", ";").lower()}


def _stream(name: str, told: dict) -> Stream:
    """A stream as agentbox.toml tells it, which stays in `more`."""
    fields, words = ({k: MADE.get(v, v) for k, v in told.get(table, {}).items()} for table in ("fields", "words"))
    link = Stream("links", "link", {k: k for k in ("entity", "record_id", "other_entity", "other_id")}, each="_links", within="record_id", prefix=f"{name}-")
    parts = [link] * ("links" in told) + [Stream("words", "activity", words, prefix="enquiry-", within="lead_id")] * bool(words)
    return Stream(name, told["entity"], fields, told.get("cursor", "lastModified"), prefix=told.get("prefix", ""), parts=tuple(parts), ordered="stamped" in told,
                  more={"path": name, "key": name, "asks": [{}], "always": {}, "extra": [], "stamped": False, **told})


TABLE = tomllib.loads(resources.files("workbench.connect").joinpath("agentbox.toml").read_text(encoding="utf-8"))
CONTRACT = set(TABLE.pop("contract")["keys"].split())
STREAMS = [_stream(name, told) for name, told in TABLE.items()]


class Connector:
    """Reads one agency. told: url, share, keep_bodies, fields, pace (seconds between calls), time_zone (of bare local times, until offices tell)."""
    name = "agentbox"

    def __init__(self, source: str, told: dict[str, Any]):
        self.source, self._taken, self._secrets, self.zone = source, dict[str, int](), dict[str, str](), ZoneInfo(told.get("time_zone") or "Australia/Sydney")
        self.streams, self.keep_bodies, self.budget = with_fields(STREAMS, told.get("fields", {})), told.get("keep_bodies", False), Budget(told.get("share", .5))
        self.client = HttpClient(told["url"], crm="Agentbox", headers=self._headers, renew=self._secrets.clear, budget=self.budget, limit=_allowance, pace=told.get("pace", PACE))

    def _headers(self) -> dict[str, str]:
        if not self._secrets:  # read again after a 401: a key may have been changed meanwhile
            self._secrets.update({key: secret(self.source, key) for key in ("client_id", "api_key")})
        return {"X-Client-ID": self._secrets["client_id"], "X-API-Key": self._secrets["api_key"], "Accept": "application/json"}

    def check(self) -> list[dict]:
        """One row a stream: stream, entity, readable, rows, history (False: Agentbox keeps none), costs."""
        rows: list[dict] = [{"stream": s.name, "entity": s.entity, "readable": True, "rows": None, "history": False, "costs": ""} for s in self.streams]
        for stream, row in zip(self.streams, rows, strict=True):
            try:
                row["rows"] = self._page(stream, {"limit": 1})[2]
            except Refused as refused:
                row.update(readable=False, costs=f"{stream.more['costs']} ({refused.what})")
        return rows

    def discover(self, stream: Stream) -> list[CustomField]:
        """What no field of the lake holds, and keys that the contract does not know, as the latest rows show them."""
        extra = [e.split(" | ") for e in stream.more["extra"]]
        fields = [CustomField(path, partial(_names, path=path) if kind == "text" else path, label, kind) for label, path, kind in extra]
        rows = self._page(stream, {"orderBy": "lastModified", "order": "DESC"} if stream.more["stamped"] else {})[0]
        rows = rows + (self._details(rows[:1]) if stream.name == "listings" else [])
        own = {k: v for row in rows for k, v in row.items() if k not in CONTRACT and k not in {path.split(".")[0] for _, path, _ in extra} and v not in (None, "", [], {})}
        return fields + [CustomField(k, k, k, "bool" if isinstance(v, bool) else "text") for k, v in own.items()]

    def pull(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Rows changed since, a listing with its own answer (the number of its price, its people); bare local times with the offset of the first office's zone."""
        for rows in self._rows(stream, since):
            if stream.name == "offices" and (named := at(self._json(f"offices/{rows[0]['id']}", lost={}) if rows else {}, "office.timezone")) in ZONES:
                self.zone = ZoneInfo(named)
            yield [self._dressed(stream, row) for row in (self._details(rows) if stream.name == "listings" else rows)]

    def tracked(self, stream: Stream) -> dict[str, datetime | None]:
        """Nothing: Agentbox tells no earlier value of any field."""
        return {}

    def history(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Nothing; see tracked. What was deleted is absent from `ids`."""
        return iter(())
    deletions = history

    def ids(self, stream: Stream) -> Iterator[list[str]] | None:
        """Ids of all that stands, from lists without blocks; None where all is pulled anyway."""
        return ([str(r["id"]) for r in rows] for rows in self._rows(stream, None, bare=True)) if stream.cursor else None

    def _rows(self, stream: Stream, since: datetime | None, *, bare: bool = False) -> Iterator[list[dict]]:
        """Pages of list items. Page numbers over a set that changes meanwhile skip rows, so where lists can be put in order of lastModified, each page begins at the
        stamp that the last one ended with; a second with more rows than a page holds is read by page number, in a window that ends with it."""
        low, known = since if stream.cursor else None, set[tuple]()
        start = self._window(low)
        while stream.more["stamped"]:
            rows, last, _ = self._page(stream, self._window(low) | {"orderBy": "lastModified", "order": "ASC"}, bare=bare)
            stamps = [_instant(r.get("lastModified")) or datetime.max for r in rows]
            if stamps != sorted(stamps) or datetime.max in stamps:  # the order was not obeyed, or rows have no stamps
                break
            yield [r for r, when in zip(rows, stamps, strict=True) if (when, r["id"]) not in known]
            if last <= 1 or not rows:
                return
            known, top = {(when, r["id"]) for r, when in zip(rows, stamps, strict=True)}, stamps[-1].replace(microsecond=0)
            if low and top <= low:
                top = low + timedelta(seconds=1)
                yield from self._by_page(stream, self._window(low, top), bare=bare)
            low = top
        yield from self._by_page(stream, start, bare=bare)

    def _by_page(self, stream: Stream, window: dict, *, bare: bool) -> Iterator[list[dict]]:
        """Page after page; the one before again where the number of items fell meanwhile, and all of them where some are missing at the end."""
        for _ in range(TRIES):
            seen, page, last, least = set[str](), 1, 1, math.inf
            while page <= last:
                rows, last, items = self._page(stream, {**window, "page": page}, bare=bare)
                yield rows
                seen.update(str(r["id"]) for r in rows)
                page, least = page - 1 if items < least and page > 1 else page + 1, min(least, items)
            if len(seen) >= items:
                return
        raise Refused(f"Agentbox, {stream.name}: the list changed each of the {TRIES} times that it was read.", fix="Sync again at a quieter hour.")

    def _page(self, stream: Stream, params: dict, *, bare: bool = False) -> tuple[list[dict], int, int]:
        """One page: rows, number of the last page, items (-1 = not told). What the server does not take (`asks` of agentbox.toml) is left out from then on."""
        asks = [{}] if bare else stream.more["asks"][self._taken.get(stream.name, 0):]
        try:
            told = self._json(stream.more["path"], {"limit": PAGE, **stream.more["always"], **params, **asks[0]})
        except Refused as refused:
            if refused.status not in (400, 422) or len(asks) == 1:
                raise
            self._taken[stream.name] = self._taken.get(stream.name, 0) + 1
            return self._page(stream, params)
        rows, last, items = told.get(stream.more["key"]), str(told.get("last")), str(told.get("items"))
        if not isinstance(rows, list):
            raise Refused(f"Agentbox, {stream.name}: the answer holds no {stream.more['key']}.", fix="The vendor changed something: please report it.")
        last = {"INF": "1", "NAN": "1", "None": str(params.get("page", 1) + (len(rows) >= PAGE))}.get(last, last)
        return rows, int(last), int(items) if items.isdigit() else -1

    def _json(self, path: str, params: dict | None = None, *, lost: dict | None = None) -> dict:
        """What stands under `response`; Refused for an error in any of the vendor's forms, also inside HTTP 200; `lost` for a 404."""
        try:
            told = self.client.json(f"/{path}", {k: v for k, v in {"version": "2", **(params or {})}.items() if v != ""})
            inner = at(told, "response", "Response") or told
            if isinstance(inner, dict) and not at(inner, "errors", "errorCode"):
                return inner
            code, words = str(at(inner, "errors.code", "errorCode")), printable(str(at(inner, "errors.detail", "errors.title", "errorMessage") or inner))
            raise Refused(f"Agentbox answered {code} to {path}: {words}.", status=int(code) if code.isdigit() else 0, body=words)
        except Refused as refused:
            if refused.status == 404 and lost is not None:
                return lost
            raise Refused(refused.what, fix=FIXES.get(refused.status, refused.fix), status=refused.status, body=refused.body) from None

    def _details(self, rows: list[dict]) -> list[dict]:
        """Listings with what only their own answers tell; without those deleted meanwhile."""
        told = ((row, self._json(f"listings/{row['id']}", {"include": "relatedStaffMembers,relatedContacts"}, lost={})) for row in rows)
        return [row | more["listing"] for row, more in told if "listing" in more]

    def _dressed(self, stream: Stream, row: dict) -> dict:
        """A row with offsets on its bare local times (a sale on a day counts from the day's end), _at (entry of an enquiry) and _links."""
        zone, sold = ZoneInfo(row["timezone"]) if str(row.get("timezone")) in ZONES else self.zone, at(row, "soldDate")
        row = row | {"_sold_at": f"{sold}T23:59:59" if sold and len(sold) == 10 else sold, "_at": at(row, "enquiryDate", "date", "firstCreated")}
        bare = {k: v for k, v in row.items() if isinstance(v, str) and re.fullmatch(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d", v)}
        row |= {k: datetime.fromisoformat(v).replace(tzinfo=zone).isoformat() for k, v in bare.items()}
        me, mine = f"{stream.prefix}{row.get('id')}", at(row, "contact.id", "attachedContacts.id") if stream.entity == "activity" else None
        about = [("listing", row.get("listing")), ("contact", row.get("contact")), *(("listing", e) for e in row.get("attachedListings") or []),
                 *(("contact", e) for k in ("attachedContacts", "relatedContacts") for e in row.get(k) or [])]
        links = [{"id": "-".join(map(str, filter(None, (me, other, id, e.get("role"))))), "entity": stream.entity, "record_id": me, "other_entity": other, "other_id": id}
                 for other, e in about if (id := at(e, "contact.id", "id")) and id != mine]
        return row | {"_links": links}

    def _window(self, low: datetime | None, high: datetime | None = None) -> dict[str, str]:
        """Filters by change, both ends inclusive, in agency time with offset."""
        ends = {"filter[modifiedAfter]": low, "filter[modifiedBefore]": high}
        return {k: end.replace(tzinfo=UTC, microsecond=0).astimezone(self.zone).isoformat() for k, end in ends.items() if end}


def _allowance(answer: Any) -> Allowance | None:
    """x-ratelimit-*: seconds to wait where nothing remains; reset is an instant in epoch seconds, or a duration."""
    left, reset, date = (answer.headers.get(k, "") for k in ("x-ratelimit-remaining", "x-ratelimit-reset", "Date"))
    epoch = parsedate_to_datetime(date).timestamp() if date and len(reset) > 9 else 0
    return Allowance(wait=max(0, int(reset) - epoch)) if left == "0" and reset.isdigit() else None
