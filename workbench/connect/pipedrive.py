"""Pipedrive: API v2, and version 1 for what v2 does not have (users, leads, notes, mails, change logs); pipedrive.toml is the table of its streams.

What is odd: every call costs tokens of a daily budget, and one deal's change log as much as two pages of 500 deals, so that history is fetched within half of what is left,
the latest changed deals first; archived deals and leads stand in lists of their own; a converted lead vanishes, and its deal names it; a lead has no name or address of its
own, but a person and an organization; lists by `start` skip rows when earlier ones vanish, so that pages overlap. Not confirmed, and so read defensively: whether lists show
deleted rows, which rate headers are sent, whether owners are logged as user_id or owner_id, that a new mail counts as a change of its deal or person, that a lead's id is a
version-1 UUID (it is in the examples that were published). No list tells what was merged: the loser is absent, and becomes deleted.
"""

from __future__ import annotations

import heapq
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial
from importlib import resources
from typing import TYPE_CHECKING, Any
from uuid import UUID

from workbench.connect.credentials import refreshed, secret
from workbench.connect.http import Allowance, Budget, BudgetSpent, HttpClient, Refused
from workbench.connect.streams import CustomField, Stream, with_fields

if TYPE_CHECKING:
    from requests import Response

PAGE, IDS, LITE = 500, 100, 30_000  # rows a page, ids a call, tokens a day of the smallest plan with one seat
LEAD = {"person_id": "persons", "organization_id": "organizations"}  # what a lead is about


def born(lead: str) -> str:
    """When a lead was created, out of its id; "" where that is no version-1 UUID.

    >>> born("adf21080-0e10-11eb-879b-05d71fb426ec")
    '2020-10-14T11:30:36.552000'
    """
    told = UUID(lead) if re.fullmatch("[0-9a-fA-F-]{36}", lead) else UUID(int=0)
    return (datetime(1582, 10, 15) + timedelta(microseconds=told.time // 10)).isoformat() if told.version == 1 else ""


def _at(paths: list[str], row: Any) -> Any:
    """The first value that is told at one of the paths; of a list, its primary element, else its first.

    >>> _at(["name", "emails.value"], {"emails": [{"value": "a@x"}, {"value": "b@x", "primary": True}]})
    'b@x'
    """
    for path in paths:
        value = row
        for part in path.split("."):
            value = next(iter(sorted(value, key=lambda e: not e.get("primary"))), None) if isinstance(value, list) else value
            value = value.get(part) if isinstance(value, dict) else None
        if value not in (None, ""):
            return value
    return None


MADE: dict[str, Callable[[dict], Any]] = {
    "gone": lambda r: _at(["update_time", "modified"], r) if r.get("is_deleted") or r.get("active_flag") is False and "content" in r else None,
    "probability": lambda r: None if r.get("deal_probability") is None else r["deal_probability"] / 100,
    "is_won": lambda r: {"won": True, "lost": False}.get(r["status"]), "closed_at": lambda r: _at(["close_time", f"{r['status']}_time"], r),
    # a done activity took place when it was marked as done, and not before; another one is planned for its due date (UTC)
    "happened_at": lambda r: r.get("done") and r.get("marked_as_done_time") or (f"{r['due_date']} {r.get('due_time') or '00:00'}" if r.get("due_date") else r["add_time"]),
    "minutes": lambda r: int(m[1]) * 60 + int(m[2]) if (m := re.match(r"(\d+):(\d\d)", r.get("duration") or "")) else None,
    "kind": lambda r: {"lunch": "meeting", "deadline": "task"}.get(r.get("type") or "", r.get("type")), "direction": lambda r: "out" if r.get("sent_flag") else "in",
    "party": lambda r: next((p["linked_person_id"] for p in r.get("to" if r.get("sent_flag") else "from") or [] if p.get("linked_person_id")), None),
    "do_not_email": lambda r: {"unsubscribed": True, "archived": True, "subscribed": False}.get(r.get("marketing_status") or "")}


def _path(told: str | bool) -> Any:
    """A path as pipedrive.toml writes it, for a Stream."""
    if isinstance(told, bool) or told[0] in "=(":
        return (lambda row: told) if isinstance(told, bool) else (lambda row: told[1:]) if told[0] == "=" else MADE[told[1:-1]]
    return partial(_at, told.split(" | ")) if "|" in told or re.search(r"(emails|phones|prices)\.", told) else told


def _stream(name: str, told: dict) -> Stream:
    """A stream as pipedrive.toml tells it; the other keys stay in `more`."""
    parts = [Stream("deals/products", "deal_product", told["items"], each="_items", within="deal_id", assumed=frozenset({"quantity", "amount"}))] if "items" in told else []
    return Stream(name, told["entity"], {k: _path(v) for k, v in told["fields"].items()}, told.get("cursor", "update_time"), prefix=told.get("prefix", ""), parts=tuple(parts),
                  historized=frozenset(told.get("historized", [])), assumed=frozenset(told.get("assumed", [])), ordered="ordered" in told, swept=told.get("swept", True),
                  more={"v": 2, "always": {}, "named": {}, "path": name, **told})


TABLE = tomllib.loads(resources.files("workbench.connect").joinpath("pipedrive.toml").read_text(encoding="utf-8"))
TYPES, LOGGED = TABLE.pop("types"), TABLE.pop("logged")
STREAMS = [_stream(name, told) for name, told in TABLE.items()]


class Connector:
    """Reads one company. told: url, share, fields, keep_bodies, auth (token, oauth), login (where OAuth tokens are renewed), daily_tokens (where no header tells them)."""

    name = "pipedrive"

    def __init__(self, source: str, told: dict[str, Any]):
        self.source, self.oauth, self.keep_bodies = source, told.get("auth", "token") == "oauth", bool(told.get("keep_bodies"))
        self.streams, self.budget = with_fields(STREAMS, told.get("fields", {})), Budget(told.get("share", .5), daily=told.get("daily_tokens"))
        self.client = HttpClient(told["url"], crm="Pipedrive", headers=self._headers, renew=self._renew if self.oauth else None, budget=self.budget, limit=_allowance)
        self.login = told.get("login") or (told["url"] if told["url"].startswith("http:") else "https://oauth.pipedrive.com")  # http: is the loopback, a server that plays both
        self.by_name, self._known = {s.name: s for s in self.streams}, dict[str, Any]()
        self._deals: dict[str, dict] = {}  # the deals that this sync pulled
        self.untold: list[str] = []  # older deals whose changes the lake never heard, as the sync knows them

    def _headers(self) -> dict[str, str]:
        if "token" not in self._known:
            self._known["token"] = "" if self.oauth else secret(self.source, "token")
        if self.oauth and not self._known["token"]:
            self._renew()
        return {"Authorization": f"Bearer {self._known['token']}"} if self.oauth else {"x-api-token": self._known["token"]}

    def _renew(self) -> None:
        self._known["token"] = refreshed(self.source, self.login, "/oauth/token")["access_token"]

    # ---- lists
    def _cursor(self, path: str, params: dict, *, cost: float = 10, v: int = 2) -> Iterator[list[dict]]:
        """Pages of v2 (and of v1's change logs)."""
        told: Any = ""
        while told is not None:
            page = self.client.json(f"/api/v{v}/{path}", {"limit": PAGE, **params, **({"cursor": told} if told else {})}, cost=cost)
            yield page.get("data") or []
            told = _at(["additional_data.next_cursor"], page)

    def _offset(self, path: str, params: dict, *, cost: float = 20) -> Iterator[list[dict]]:
        """Pages of v1 by `start`, each beginning a little before the last one's end; one that holds none of its rows shows that earlier rows vanished: a step back."""
        start, before = 0, set[str]()
        while True:
            page = self.client.json(f"/api/v1/{path}", {"limit": PAGE, **params, "start": start}, cost=cost)
            rows, told = page.get("data") or [], _at(["additional_data.pagination", "additional_data"], page) or {}
            seen = {str(_at(["id", "data.id"], r)) for r in rows}
            if start and not before & seen:
                start = max(0, start - (told.get("limit") or PAGE))
                continue
            yield rows
            if not told.get("more_items_in_collection"):
                return
            start, before = start + max(1, len(rows) - max(1, len(rows) // 20)), seen

    def _lists(self, stream: Stream, since: datetime | None, **params: Any) -> Iterator[list[dict]]:
        """Pages of every list that holds rows of a stream; lists of v2 by ascending update_time."""
        params = {**stream.more["always"], **params, **({"updated_since": f"{since:%Y-%m-%dT%H:%M:%SZ}"} if since and stream.cursor else {})}
        if stream.name == "users":
            yield self.client.json("/api/v1/users", cost=20).get("data") or []
        elif stream.more["v"] == 1:
            yield from self._offset(stream.more["path"], params)
        else:
            params |= {"sort_by": "update_time"} if stream.cursor else {}
            for path, cost in ((stream.name, stream.more["cost"]), *([("deals/archived", 20)] if stream.name == "deals" else [])):
                yield from self._cursor(path, params, cost=cost)

    def _of(self, path: str, name: str, ids: Iterable[Any]) -> Iterator[dict]:
        """The rows of some ids."""
        wanted = sorted({*ids} - {None})
        return (row for n in range(0, len(wanted), IDS) for page in self._cursor(path, {name: ",".join(map(str, wanted[n:n + IDS]))}) for row in page)

    def _rows(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        return self._leads(since) if stream.name == "leads" else self._mails(since) if stream.name == "mails" else self._lists(stream, since)

    def pull(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Rows changed since, with the names behind their ids; a deal with its line items, a lead with its person and organization."""
        for rows in self._rows(stream, since):
            if stream.name == "deals":
                items = defaultdict(list)
                for item in self._of("deals/products", "deal_ids", [r["id"] for r in rows if r.get("products_count") and not r["is_deleted"]]):
                    items[item["deal_id"]].append(item)
                rows = [r | {"_items": items[r["id"]]} for r in rows]
                self._deals |= {str(r["id"]): {k: r.get(k) for k in ("update_time", "status", "close_time", "won_time", "lost_time", "lost_reason")} for r in rows}
            for key, path in LEAD.items() if stream.name == "leads" else ():
                found = {r["id"]: self._dressed(self.by_name[path], r) for r in self._of(path, "ids", [r.get(key) for r in rows])}
                rows = [r | {f"_{key[:-3]}": found.get(r.get(key))} for r in rows]
            yield [self._dressed(stream, r) for r in rows]

    def _dressed(self, stream: Stream, row: dict) -> dict:
        """A row with the names behind its ids, as `named` of pipedrive.toml tells."""
        for to, told in stream.more["named"].items():
            place, key = told.split(": ")
            ids = told if isinstance(told := row.get(key), list) else [told]
            row = row | {to: "; ".join(self._names(place).get(str(i), str(i)) for i in ids if i is not None)}
        return row

    def _names(self, place: str) -> dict[str, str]:
        """Id -> name, of a list ("stages") or of a field's options ("dealFields.channel")."""
        if place not in self._known:
            path, _, code = place.partition(".")
            rows = [o for f in self._fields(path) if f["field_code"] == code for o in f.get("options") or []] if code else [
                r for page in (self._offset(path, {}) if path == "leadLabels" else self._cursor(path, {}, cost=5)) for r in page]
            self._known[place] = {str(r["id"]): r.get("name") or r.get("label") for r in rows}
        return self._known[place]

    def _fields(self, path: str) -> list[dict]:
        """Field definitions, with the options that were removed: v1 alone tells these, and may not any more."""
        if path not in self._known:
            self._known[path], removed = [f for page in self._cursor(path, {}) for f in page], {}
            try:
                removed = {f["key"]: f.get("options_deleted") for page in self._offset(path, {}) for f in page}
            except Refused:
                pass
            for f in self._known[path]:
                f["_options"] = {str(o["id"]): o["label"] for o in [*(removed.get(f["field_code"]) or []), *(f.get("options") or [])]}
        return self._known[path]

    def _leads(self, since: datetime | None) -> Iterator[list[dict]]:
        """Leads that changed, or whose person or organization did; then those that became deals since, rebuilt from these."""
        moved, after = dict[tuple[str, Any], str](), f"{since:%Y-%m-%dT%H:%M:%S}" if since else ""
        for key, path in LEAD.items() if since else ():
            moved |= {(key, r["id"]): r["update_time"] for page in self._cursor(path, {"updated_since": f"{after}Z"}) for r in page}
        for path, cost in (("leads", 20), ("leads/archived", 40)):
            for page in self._offset(path, {"sort": "add_time ASC"}, cost=cost):
                rows = [r | {"_at": max(r["update_time"], *(moved.get((k, r.get(k)), "") for k in LEAD)), "_is_converted": False,
                             "_closed": r["update_time"] if r["is_archived"] else None} for r in page]
                yield [r for r in rows if r["_at"] >= after]
        for page in self._lists(self.by_name["deals"], since):
            yield [{"id": d["source_lead_id"], "title": d["title"], "add_time": min(born(d["source_lead_id"]) or "9", d["add_time"]), "_deal": d, "_closed": d["add_time"], "_at": d["add_time"], "is_archived": False,
                    "_is_converted": True, "organization_id": d.get("org_id"), **{k: d.get(k) for k in ("person_id", "channel", "origin", "origin_id")}}
                   for d in page if d.get("source_lead_id")]

    def _mails(self, since: datetime | None) -> Iterator[list[dict]]:
        """Headers of the mails of each deal that changed, and of each person without a deal, in the order of their changes, so that a spent budget loses no ground."""
        def each(name: str, more: str) -> Iterator[dict]:
            return (r for page in self._lists(self.by_name[name], since, include_fields="email_messages_count" + more) for r in page if r.get("email_messages_count"))
        persons = (r for r in each("persons", ",open_deals_count,closed_deals_count") if not r["open_deals_count"] + r["closed_deals_count"])
        for record in heapq.merge(persons, sorted(each("deals", ""), key=lambda r: r["update_time"]), key=lambda r: r["update_time"]):
            deal = {"_deal": record["id"]} if "stage_id" in record else {}
            for page in self._offset(f"{'deals' if deal else 'persons'}/{record['id']}/mailMessages", {"include_body": 1} if self.keep_bodies else {}):
                yield [m["data"] | deal | {"_at": record["update_time"]} for m in page]

    def ids(self, stream: Stream) -> Iterator[list[str]] | None:
        """Ids of all that stands; None where rows are pulled whole anyway."""
        return ([str(r["id"]) for r in page if not MADE["gone"](r)] for page in self._rows(stream, None)) if stream.cursor else None

    def deletions(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Nothing: rows tell that they were deleted, or are absent from `ids`."""
        return iter(())

    # ---- history
    def tracked(self, stream: Stream) -> dict[str, datetime | None]:
        """Nothing of every record: change logs are fetched deal by deal."""
        return {}

    def history(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """The change logs of deals: those that this sync pulled, the latest changed first, then older ones, for half of the tokens that are left today."""
        b, mine = self.budget, self._deals
        end = b.spent + min(b.share * (b.daily or LITE) - b.spent, LITE if b.left is None else b.left) / 2
        for id in [*sorted(mine, key=lambda i: mine[i]["update_time"], reverse=True), *(i for i in self.untold if i not in mine)] if stream.name == "deals" else []:
            if b.spent + 20 > end:
                return
            try:
                log = [c for page in self._cursor(f"deals/{id}/changelog", {}, cost=20, v=1) for c in page]
            except BudgetSpent:  # somebody else asks for much
                return
            except Refused as refused:
                if refused.status != 404:  # purged
                    raise
                continue
            yield [{"id": id, "field": field, "at": at, "old": old, "new": new} for field, at, old, new in self._told(log, mine.get(id, {"status": ""}))]

    def _told(self, log: list[dict], deal: dict) -> Iterator[tuple]:
        """A deal's changes as (field, at, old, new), after a row that says that they are told; an outcome that no change of status tells came when the deal closed."""
        yield "", None, None, None
        turns = [c for c in log if c["field_key"] == "status"]
        if not turns and deal["status"] in ("won", "lost"):
            turns = log = [*log, {"field_key": "status", "time": MADE["closed_at"](deal), "old_value": "open", "new_value": deal["status"]}]
        for c in log:
            key, old, new, at = c["field_key"], c.get("old_value"), c.get("new_value"), datetime.fromisoformat(c["time"].rstrip("Z"))
            if key == "status":
                won = MADE["is_won"]({"status": new})
                yield "is_won", at, MADE["is_won"]({"status": old}), won
                yield "closed_at", at, None, None if won is None else at
                yield "lost_reason", at, None, deal.get("lost_reason") if won is False and c is turns[-1] else None
            elif key in ("stage_id", "pipeline_id"):
                yield key[:-3], at, *(v and self._names(f"{key[:-3]}s").get(v, v) for v in (old, new))
            elif key != "lost_reason":  # told with the status
                yield LOGGED.get(key, key), at, old, new

    # ---- what there is
    def discover(self, stream: Stream) -> list[CustomField]:
        """The company's own fields, parts of a value (currency, end) as fields of their own; scores and probabilities that Pipedrive gives are kept beside them, for audit."""
        out, in_lead = [], stream.name == "leads"
        for f in self._fields(stream.more["definitions"]) if "definitions" in stream.more else []:
            code, name, kind = f["field_code"], f["field_name"], f["field_type"]
            if f["is_custom_field"]:
                for part, its in TYPES.get(kind, {"": "text"}).items():
                    at = f"{code}_{part}" if part else code
                    path = at if in_lead else f"custom_fields.{code}" + (f".{part or 'value'}" if len(TYPES.get(kind, [])) > 1 or kind == "time" else "")
                    out.append(CustomField(at, path, f"{name} {part}".strip(), its, f["_options"] if kind in ("enum", "set") else {}, "," if kind == "set" else ""))
            elif re.search("score|probability", code) and kind in ("int", "double") and not in_lead:
                out.append(CustomField(code, code, f"Pipedrive {name}", "float"))
        return out

    def check(self) -> list[dict]:
        """One row a stream: stream, entity, readable, rows (not told), history, costs. A token sees what its user sees."""
        me, found = self.client.json("/api/v1/users/me", cost=2)["data"], []
        for stream in self.streams:
            row = {"stream": stream.name, "entity": stream.entity, "readable": True, "rows": None, "history": False, "costs": ""}
            try:
                rows = next(self._lists(stream, None, limit=1))
                row["history"] = stream.name == "deals" and bool(rows) and next(self._cursor(f"deals/{rows[0]['id']}/changelog", {"limit": 1}, cost=20, v=1)) is not None
            except Refused as refused:
                row |= {"readable": "changelog" in refused.what, "costs": f"{stream.more['costs']} ({refused.what})"}
            found.append(row)
        if not any(a.get("admin") for a in me.get("access") or []):
            found[0]["costs"] = "this user is no administrator: what others keep to themselves is missing everywhere"
        return found


def _allowance(answer: Response) -> Allowance | None:
    """Headers, where they are sent: tokens of the day; seconds until the window of two seconds ends, where nothing remains of it."""
    limit, left, calls, reset = (float(t) if re.fullmatch(r"\d+(\.\d+)?", t := answer.headers.get(f"x-{name}", "")) else None for name in (
        "daily-ratelimit-token-limit", "daily-ratelimit-token-remaining", "ratelimit-remaining", "ratelimit-reset"))
    return Allowance(limit, left, reset if calls == 0 else None)
