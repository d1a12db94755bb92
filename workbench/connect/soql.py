"""Reading one Salesforce org: describe and SOQL through simple-salesforce, Bulk API 2.0 from so many rows on.

simple-salesforce writes https:// into every address, repeats a refused call without end, has no timeout and asks for indented JSON: it is given a session
(`_Session`) that carries its calls over our HttpClient, which renews the token, waits and counts. Its bulk2 holds pages in memory and never renews a token, so
that bulk jobs go over HttpClient directly. Sources: "REST API Developer Guide", "Bulk API 2.0 and Bulk API Developer Guide".
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property
from itertools import islice
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from workbench.connect.http import HttpClient, Refused

BULK_FROM, BATCH = 10_000, 2_000  # rows from which a bulk job costs fewer calls than pages; rows a batch
LONGEST = 12_000  # characters of a query in an address: the vendor takes 16,384 with the headers


def instant(value: str | None) -> datetime | None:
    """A stamp of REST (+0000) or Bulk (Z), or a date, as naive UTC.

    >>> instant("2026-01-31T10:20:30.000+0000"), instant("")
    (datetime.datetime(2026, 1, 31, 10, 20, 30), None)
    """
    return datetime.fromisoformat(value).replace(tzinfo=None) if value else None


class _Session:
    """What simple-salesforce takes for a requests session: its GETs over our client, with our login and without its wish for indented JSON."""

    def __init__(self, client: HttpClient):
        self.client, self.proxies = client, dict[str, str]()

    def request(self, method: str, url: str, *, params: dict | None = None, **_: Any) -> Any:
        """The answer, as much of it as simple-salesforce reads."""
        body = self.client.json("/" + url.split("/", 3)[3], params)
        return SimpleNamespace(status_code=200, headers={}, json=lambda **_: body)


class Reader:
    """What the user behind `client` may see of an org; fields hidden by field-level security are absent from describe, and a query that names one fails."""

    def __init__(self, version: float, bulk_from: int):
        self.version, self.bulk_from, self.described = f"{version:.1f}", bulk_from, dict[str, dict[str, dict]]()  # object -> its fields by name, as far as asked for

    @cached_property
    def client(self) -> HttpClient:
        """The org, logged in."""
        raise NotImplementedError

    @cached_property
    def _sf(self) -> Any:
        from simple_salesforce import Salesforce
        session: Any = _Session(self.client)
        return Salesforce(session_id="ours", instance_url=self.client.base, version=self.version, session=session, object_pairs_hook=dict)

    @cached_property
    def tables(self) -> dict[str, dict]:
        """The objects that the user may query, with what describe says of them."""
        return {o["name"]: o for o in self._sf.describe()["sobjects"] if o.get("queryable", True)}

    def field(self, table: str, path: str) -> dict | None:
        """What describe says of a path (Manager.Name); None where the user may not see it."""
        if table not in self.described:
            self.described[table] = {f["name"]: f for f in getattr(self._sf, table).describe()["fields"]} if table in self.tables else {}
        (first, _, rest), known = path.partition("."), self.described[table]
        if not rest:
            return known.get(first)
        to: list[str] = next((f["referenceTo"] for f in known.values() if f.get("relationshipName") == first), [])
        return self.field(to[0], rest) if len(to) == 1 else None

    def count(self, table: str, where: str = "") -> int:
        return self._sf.query(f"SELECT COUNT() FROM {table}{where and ' WHERE '}{where}")["totalSize"]

    def rows(self, table: str, paths: Iterable[str], *wheres: str | None, order: str = "", load: bool = False) -> Iterator[list[dict]]:
        """Batches of rows, those in the recycle bin and archived ones too: page by page, or by Bulk 2.0 where there are many or the query is long.

        paths, and conditions that begin with one, are left out where the user may not see it. load: the number of rows is asked for first, otherwise
        the first page tells it. What Bulk refuses comes page by page.
        """
        everything, paths = self.field(table, "IsDeleted") is not None, [p for p in dict.fromkeys(paths) if self.field(table, p)]
        where = " AND ".join(w for w in wheres if w and self.field(table, w.split()[0]))
        soql = f"SELECT {', '.join(paths)} FROM {table}{where and ' WHERE '}{where}"
        long = len(quote(soql)) > LONGEST
        page = None if long or load and self.count(table, where) >= self.bulk_from else self._sf.query(soql + order, include_deleted=everything)
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

    def firsts(self, history: str) -> Iterator[tuple[str, datetime]]:
        """(Field, instant of its first change) of a field history; the same field more than once where the server cannot group."""
        try:
            rows = [{"Field": r["Field"], "CreatedDate": r["expr0"]} for r in self._sf.query(f"SELECT Field, MIN(CreatedDate) FROM {history} GROUP BY Field")["records"]]
            batches: Iterable[list[dict]] = [rows]
        except Refused as error:
            if error.status != 400:
                raise
            batches = self.rows(history, ["Field", "CreatedDate"])
        yield from ((row["Field"], at) for rows in batches for row in rows if (at := instant(row["CreatedDate"])))

    def _bulk(self, table: str, paths: list[str], soql: str, everything: bool) -> Iterator[list[dict]]:
        """Batches of rows out of a query job, streamed; a part that breaks off is asked for again as a whole."""
        jobs, pause = f"/services/data/v{self.version}/jobs/query", 0.25
        job = f"{jobs}/{self.client.post(jobs, json={'operation': 'queryAll' if everything else 'query', 'query': soql}, again=True).json()['id']}"
        while (state := self.client.json(job))["state"] not in ("JobComplete", "Failed", "Aborted"):
            self.client.wait(pause := min(pause * 2, 30))
        if state["state"] != "JobComplete":
            raise Refused(f"Salesforce ended a bulk job: {state['state']}, {state.get('errorMessage')}.", status=400, body=str(state.get("errorMessage")))
        locator, tries = None, 3
        while locator != "null":
            heads, n = list[Any](), 0
            try:
                lines = self.client.lines(f"{job}/results", {"maxRecords": 25 * BATCH, "locator": locator}, seen=heads.append)
                for rows in self._table(table, paths, lines):
                    n += len(rows)
                    yield rows
                if n != int(heads[0].headers.get("Sforce-NumberOfRecords", n)):
                    raise Refused("Salesforce's answer to a bulk job broke off.")
                locator, tries = heads[0].headers.get("Sforce-Locator", "null"), 3
            except Refused as error:
                tries -= 1
                if error.status or not tries:
                    raise

    def _table(self, table: str, paths: list[str], lines: Iterable[str]) -> Iterator[list[dict]]:
        """CSV as rows in the form of REST."""
        cells = csv.reader(lines)
        if len(next(cells, [])) != len(paths):
            raise Refused("Salesforce answered a bulk job with something that is no table.")
        flags, nested = [p for p in paths if (self.field(table, p) or {}).get("type") == "boolean"], [p.rpartition(".") for p in paths if "." in p]
        while rows := [dict[str, Any](zip(paths, line, strict=False)) for line in islice(cells, BATCH)]:
            for row in rows:
                row.update((p, row[p] == "true") for p in flags)
                for over, _, last in nested:
                    place = row
                    for name in over.split("."):
                        place = place.setdefault(name, {})
                    place[last] = row[f"{over}.{last}"]
            yield rows
