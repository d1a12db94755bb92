"""Pipedrive: API v2, and version 1 for what v2 does not have (users, leads, notes, mails, change logs); pipedrive.toml is the table of its streams.

What is odd: every call costs tokens of a daily budget, one deal's change log as much as two pages of 500 deals, so history is fetched within half of what is left, the latest
changed deals first; archived deals and leads stand in lists of their own; a converted lead vanishes, and its deal names it; a lead has no name or address of its own, but a
person and an organization; lists by `start` skip rows when earlier ones vanish, so pages overlap; merging is not told. Not confirmed, and so read defensively: whether lists
show deleted rows, which rate headers are sent, whether owners are logged as user_id or owner_id, that a new mail changes its deal or person, that a lead's id is a UUID of v1.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from importlib import resources
from typing import Any
from uuid import UUID

from workbench.connect.credentials import refreshed, secret
from workbench.connect.http import Allowance, Budget, BudgetSpent, HttpClient, Refused
from workbench.connect.streams import CustomField, Stream, at, with_fields

PAGE, IDS, LITE = 500, 100, 30_000  # rows a page, ids a call, tokens a day of the smallest plan with one seat
ABOUT, WON = {"person_id": "persons", "organization_id": "organizations"}, {"won": True, "lost": False}  # what a lead is about; what a status says


def born(lead: str) -> str:
    """When a lead was created, out of its id; "" where that is no version-1 UUID."""
    told = UUID(lead) if re.fullmatch("[0-9a-fA-F-]{36}", lead) else UUID(int=0)
    return (datetime(1582, 10, 15) + timedelta(microseconds=told.time // 10)).isoformat() if told.version == 1 else ""


MADE: dict[str, Callable[[dict], Any]] = {
    "gone": lambda r: at(r, "update_time", "modified") if r.get("is_deleted") or r.get("active_flag") is False and "content" in r else None,
    "probability": lambda r: None if (p := r.get("deal_probability")) is None else p / 100, "is_won": lambda r: WON.get(r["status"]),
    "closed_at": lambda r: at(r, "close_time", f"{r['status']}_time"), "direction": lambda r: "out" if r.get("sent_flag") else "in",
    "happened_at": lambda r: r.get("done") and r.get("marked_as_done_time") or (f"{r['due_date']} {r.get('due_time') or '00:00'}" if r.get("due_date") else r["add_time"]),
    "minutes": lambda r: int(m[1]) * 60 + int(m[2]) if (m := re.match(r"(\d+):(\d\d)", r.get("duration") or "")) else None,
    "outcome": lambda r: (WON.get(r["status"]), MADE["closed_at"](r), r.get("lost_reason")),
    "kind": lambda r: {"lunch": "meeting", "deadline": "task"}.get(r.get("type") or "", r.get("type")),
    "party": lambda r: next((p["linked_person_id"] for p in r.get("to" if r.get("sent_flag") else "from") or [] if p.get("linked_person_id")), None),
    "do_not_email": lambda r: {"unsubscribed": True, "archived": True, "subscribed": False}.get(r.get("marketing_status") or "")}


def _unless(pages: Iterator[list[dict]], *statuses: int) -> Iterator[list[dict]]:
    """The pages; none where they are refused with one of these statuses."""
    try:
        yield from pages
    except Refused as refused:
        if refused.status not in statuses:
            raise


def _stream(name: str, told: dict) -> Stream:
    """A stream as pipedrive.toml tells it; the other keys stay in `more`."""
    return Stream(name, told["entity"], {k: MADE[v[1:-1]] if v[0] == "(" else v for k, v in told["fields"].items()}, told.get("cursor", "update_time"), prefix=told.get("prefix", ""),
                  historized=frozenset(told.get("historized", [])), assumed=frozenset(told.get("assumed", [])), ordered="ordered" in told, swept=told.get("swept", True),
                  parts=tuple(Stream("deals/products", "deal_product", i, each="_items", within="deal_id", assumed=frozenset({"quantity", "amount"})) for i in told.get("items", [])),
                  more={"always": {}, "lists": {name: told["cost"]}, **told, "named": {k: v.split(": ") for k, v in told.get("named", {}).items()}})


TABLE = tomllib.loads(resources.files("workbench.connect").joinpath("pipedrive.toml").read_text(encoding="utf-8"))
TYPES, LOGGED = TABLE.pop("types"), TABLE.pop("logged")
STREAMS = [_stream(name, told) for name, told in TABLE.items()]


class Connector:
    """Reads one company. told: url, share, fields, keep_bodies, auth (token, oauth), login (where OAuth tokens are renewed), daily_tokens (where no header tells them)."""

    name = "pipedrive"

    def __init__(self, source: str, told: dict[str, Any]):
        self.source, self.keep_bodies, self._known = source, bool(told.get("keep_bodies")), dict[str, Any]()
        self.streams, self.budget = with_fields(STREAMS, told.get("fields", {})), Budget(told.get("share", .5), daily=told.get("daily_tokens"))
        self.by_name, self.oauth = {s.name: s for s in self.streams}, told.get("auth", "token") == "oauth"
        self.login = told.get("login") or (told["url"] if told["url"].startswith("http:") else "https://oauth.pipedrive.com")  # http: is the loopback, a server that plays both
        self.client = HttpClient(told["url"], crm="Pipedrive", headers=self._headers, renew=lambda: self._known.pop("token", None), budget=self.budget, limit=_allowance)
        self._deals, self.untold = dict[str, tuple](), list[str]()  # deals that this sync pulled: update_time and outcome; those whose changes the lake never heard

    def _headers(self) -> dict[str, str]:
        self._known["token"] = token = self._known.get("token") or (
            refreshed(self.source, self.login, "/oauth/token")["access_token"] if self.oauth else secret(self.source, "token"))
        return {"Authorization": f"Bearer {token}"} if self.oauth else {"x-api-token": token}

    def _cursor(self, path: str, params: dict, *, cost: float = 10, v: int = 2) -> Iterator[list[dict]]:
        """Pages of v2 (and of v1's change logs)."""
        told: Any = ""
        while told is not None:
            page = self.client.json(f"/api/v{v}/{path}", {"limit": PAGE, **params, **({"cursor": told} if told else {})}, cost=cost)
            yield page.get("data") or []
            told = at(page, "additional_data.next_cursor")

    def _offset(self, path: str, params: dict, *, cost: float = 20) -> Iterator[list[dict]]:
        """Pages of v1 by `start`, each beginning a little before the last one's end; one that holds none of its rows shows that earlier rows vanished: a step back."""
        start, before = 0, set[str]()
        while True:
            page = self.client.json(f"/api/v1/{path}", {"limit": PAGE, **params, "start": start}, cost=cost)
            rows, told = page.get("data") or [], at(page, "additional_data.pagination", "additional_data") or {}
            seen = {str(at(r, "id", "data.id", "key", "name")) for r in rows}
            if start and before and not before & seen:
                start = max(0, start - (told.get("limit") or PAGE))
                continue
            yield rows
            if not told.get("more_items_in_collection"):
                return
            start, before = start + max(1, len(rows) - max(1, len(rows) // 20)), seen if len(rows) > 1 else set()

    def _of(self, path: str, name: str, ids: Iterable[Any]) -> Iterator[dict]:
        """The rows of some ids."""
        wanted = sorted({*ids} - {None})
        return (row for n in range(0, len(wanted), IDS) for page in self._cursor(path, {name: ",".join(map(str, wanted[n:n + IDS]))}) for row in page)

    def _rows(self, stream: Stream, since: datetime | None, **params: Any) -> Iterator[list[dict]]:
        """Pages of every list that holds rows of a stream; lists of v2 by ascending update_time."""
        asked = {**stream.more["always"], **params, **({"updated_since": f"{since:%Y-%m-%dT%H:%M:%SZ}"} if since and stream.cursor else {})}
        if stream.name in ("leads", "mails") and not params:
            yield from self._leads(since) if stream.name == "leads" else self._mails(since)
        else:
            for path, cost in stream.more["lists"].items():
                yield from (self._offset if stream.more.get("v") == 1 else self._cursor)(path, asked, cost=cost)

    def pull(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """Rows changed since, with the names behind their ids; a deal with its line items, a lead with its person and organization."""
        for rows in self._rows(stream, since):
            if stream.name == "deals":
                items: dict[int, list] = {}
                for item in self._of("deals/products", "deal_ids", [r["id"] for r in rows if r.get("products_count", 1) and not r.get("is_deleted")]):
                    items.setdefault(item["deal_id"], []).append(item)
                rows = [r | {"_items": items.get(r["id"], [])} for r in rows]
                self._deals |= {str(r["id"]): (r["update_time"], *MADE["outcome"](r)) for r in rows}
            for key, path in ABOUT.items() if stream.name == "leads" else ():
                found = {r["id"]: self._dressed(self.by_name[path], r) for r in self._of(path, "ids", [r.get(key) for r in rows])}
                rows = [r | {f"_{key[:-3]}": found.get(r.get(key))} for r in rows]
            yield [self._dressed(stream, r) for r in rows]

    def _dressed(self, stream: Stream, row: dict) -> dict:
        """A row with the names behind its ids, as `named` of pipedrive.toml tells."""
        for to, (place, key) in stream.more["named"].items():
            ids = row[key] if isinstance(row.get(key), list) else [row.get(key)]
            row = row | {to: "; ".join(self._names(place).get(str(i), str(i)) for i in ids if i is not None)}
        return row

    def _names(self, place: str) -> dict[str, str]:
        """Id -> name, of a list ("stages") or of a field's options ("dealFields.channel")."""
        path, _, code = place.partition(".")
        if code:
            return next((f["_options"] for f in self._fields(path) if f["field_code"] == code), {})
        if place not in self._known:
            self._known[place] = {str(r["id"]): r["name"] for page in (self._offset(path, {}) if path == "leadLabels" else self._cursor(path, {}, cost=5)) for r in page}
        return self._known[place]

    def _fields(self, path: str) -> list[dict]:
        """Field definitions, with the options that were removed: v1 alone tells these, and may not any more."""
        if path not in self._known:
            removed = {f["key"]: f.get("options_deleted") or [] for page in _unless(self._offset(path, {}), 403, 404, 410) for f in page}
            self._known[path] = [f | {"_options": {str(o["id"]): o["label"] for o in [*removed.get(f["field_code"], []), *(f.get("options") or [])]}}
                                 for page in self._cursor(path, {}) for f in page]
        return self._known[path]

    def _leads(self, since: datetime | None) -> Iterator[list[dict]]:
        """Leads that changed, or whose person or organization did; then those that became deals, rebuilt from deals that changed (and never younger than these)."""
        after, about = f"{since:%Y-%m-%dT%H:%M:%S}" if since else "", ABOUT.items() if since else ()
        moved = {(key, r["id"]): r["update_time"] for key, path in about for page in self._cursor(path, {"updated_since": f"{after}Z"}) for r in page}
        for path, cost in self.by_name["leads"].more["lists"].items():
            for page in self._offset(path, {"sort": "add_time ASC"}, cost=cost):
                yield [r | {"_at": stamp, "_is_converted": False, "_closed": r["update_time"] if r.get("is_archived") else None} for r in page
                       if (stamp := max(r["update_time"], *(moved.get((k, r.get(k)), "") for k in ABOUT))) >= after]
        for page in self._rows(self.by_name["deals"], since):
            yield [{"id": d["source_lead_id"], "title": d["title"], "add_time": min(born(d["source_lead_id"]) or "9", d["add_time"]), "_deal": d, "_closed": d["add_time"],
                    "_at": d["update_time"], "is_archived": False, "_is_converted": True, "organization_id": d.get("org_id"),
                    **{k: d.get(k) for k in ("person_id", "channel", "origin", "origin_id")}} for d in page if d.get("source_lead_id")]

    def _mails(self, since: datetime | None) -> Iterator[list[dict]]:
        """Headers of the mails of each deal that changed, and of each person without a deal, in the order of their changes, so that a spent budget loses no ground."""
        asked = {"persons": "email_messages_count,open_deals_count,closed_deals_count", "deals": "email_messages_count"}
        found = [(r["update_time"], path == "deals", r["id"]) for path, fields in asked.items() for page in self._rows(self.by_name[path], since, include_fields=fields) for r in page
                 if r.get("email_messages_count", 1) and not (r.get("open_deals_count") or r.get("closed_deals_count"))]
        for stamp, is_deal, id in sorted(found):
            for page in _unless(self._offset(f"{'deals' if is_deal else 'persons'}/{id}/mailMessages", {"include_body": 1} if self.keep_bodies else {}), 404):
                yield [m["data"] | {"_at": stamp, "_deal": id if is_deal else None} for m in page]

    def ids(self, stream: Stream) -> Iterator[list[str]] | None:
        """Ids of all that stands; None where rows are pulled whole anyway."""
        return ([str(r["id"]) for r in page if not MADE["gone"](r)] for page in self._rows(stream, None)) if stream.cursor else None

    def tracked(self, stream: Stream, since: datetime | None = None) -> dict[str, datetime | None]:
        """Nothing of every record: change logs are fetched deal by deal. Nor deletions: rows tell that they were deleted, or are absent from `ids`."""
        return {}
    deletions = tracked

    def history(self, stream: Stream, since: datetime | None) -> Iterator[list[dict]]:
        """The change logs of deals: those that this sync pulled, the latest changed first, then older ones, for half of the tokens that are left today."""
        b, mine, untold = self.budget, self._deals, set(self.untold)
        end = b.spent + min(b.share * (b.daily or LITE) - b.spent, LITE if b.left is None else b.left) / 2
        ids = sorted(mine, key=lambda i: (since is None and i in untold, mine[i][0]), reverse=True)  # where all were pulled again, those never told come first
        with suppress(BudgetSpent):  # where somebody else asks for much
            for id in [*ids, *(i for i in self.untold if i not in mine)] if stream.name == "deals" else []:
                if b.spent + 21 > end:
                    return
                log = [c for page in _unless(self._cursor(f"deals/{id}/changelog", {}, cost=20, v=1), 404) for c in page]
                outcome = mine[id][1:] if id in mine else MADE["outcome"](self.client.json(f"/api/v2/deals/{id}", cost=1)["data"])
                yield [{"id": id, "field": field, "at": when, "old": old, "new": new} for field, when, old, new in self._told(log, *outcome)]

    def _told(self, log: list[dict], won: bool | None, closed: str | None, reason: str | None) -> Iterator[tuple]:
        """A deal's changes as (field, at, old, new), after a row that says that they are told; an outcome that no change of status tells came when the deal closed."""
        yield "", None, None, None
        closing = {"field_key": "status", "time": closed, "new_value": "won" if won else "lost"}
        turns = [c for c in log if c["field_key"] == "status"] or [closing] * bool(won is not None and closed)
        for c in turns + [c for c in log if c["field_key"] != "status"]:
            key, old, new, when = c["field_key"], c.get("old_value") or "", c.get("new_value") or "", datetime.fromisoformat(c["time"].rstrip("Z"))
            if key == "status":
                yield from (("is_won", when, WON.get(old), WON.get(new)), ("closed_at", when, None, when if new in WON else None))
                yield "lost_reason", when, None, reason if new == "lost" and c is turns[-1] else None
            elif key in ("stage_id", "pipeline_id"):
                yield key[:-3], when, *(self._names(f"{key[:-3]}s").get(v, v) for v in (old, new))
            elif key and key != "lost_reason":
                yield LOGGED.get(key, key), when, old, new

    def discover(self, stream: Stream) -> list[CustomField]:
        """The company's own fields, parts of a value (currency, end) as fields of their own; scores and probabilities that Pipedrive gives are kept beside them, for audit."""
        found = []
        for f in self._fields(stream.more["definitions"]) if "definitions" in stream.more else []:
            code, name, kind, own = f["field_code"], f["field_name"], f["field_type"], f["is_custom_field"]
            for part, its in TYPES.get(kind, {"": "text"}).items() if own or re.search("score|probability", code) and kind in ("int", "double") and stream.name == "deals" else ():
                key, value = f"{code}_{part}" if part else code, f".{part or 'value'}" if len(TYPES.get(kind, [])) > 1 or kind == "time" else ""
                path, options = f"custom_fields.{code}{value}" if own and stream.name != "leads" else key, f["_options"] if kind in ("enum", "set") else {}
                found.append(CustomField(key, path, f"{'' if own else 'Pipedrive '}{name} {part}".strip(), its, options, "," if kind == "set" else ""))
        return found

    def check(self) -> list[dict]:
        """One row a stream: stream, entity, readable, rows (not told), history, costs. A token sees what its user sees."""
        me, found = self.client.json("/api/v1/users/me", cost=2)["data"], []
        hidden = "" if any(a.get("admin") for a in me.get("access") or []) else "this user is no administrator: what others keep to themselves is missing everywhere"
        for stream in self.streams:
            found.append(row := {"stream": stream.name, "entity": stream.entity, "readable": True, "rows": None, "history": False, "costs": hidden if stream.name == "users" else ""})
            try:
                rows = next(self._rows(stream, None, limit=1))
                row["history"] = stream.name == "deals" and bool(rows) and next(self._cursor(f"deals/{rows[0]['id']}/changelog", {"limit": 1}, cost=20, v=1)) is not None
            except Refused as refused:
                row |= {"readable": "changelog" in refused.what, "costs": f"{stream.more['costs']} ({refused.what})"}
        return found


def _allowance(answer: Any) -> Allowance | None:
    """Headers, where they are sent: tokens of the day; seconds until the window of two seconds ends, where nothing remains of it."""
    names = ("daily-ratelimit-token-limit", "daily-ratelimit-token-remaining", "ratelimit-remaining", "ratelimit-reset")
    limit, left, calls, reset = (float(t) if re.fullmatch(r"\d+(\.\d+)?", t := answer.headers.get(f"x-{name}", "")) else None for name in names)
    return Allowance(limit, left, reset if calls == 0 else None)
