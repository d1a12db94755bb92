"""What a CRM tells since the last sync, stream by stream, on disk: rows, told changes, deletions, and the marks from which the next sync goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workbench import schema
from workbench.connect.http import BudgetSpent, Refused
from workbench.connect.streams import Connector, CustomField, Mapper, Stream, named_fields
from workbench.connect.versions import Heard, workplace
from workbench.errors import WorkbenchError
from workbench.rows import quoted, rows_of

SPILL = 20_000  # rows that are written to disk at once
SWEEPS = ((2_000, timedelta(0)), (50_000, timedelta(hours=20)), (10**12, timedelta(days=7)))  # up to so many records: how long after the last sweep ids are compared
# An activity is what it is from its entry on (decision 0005), unless a stream says otherwise; a sync sees what changes of it later.
ASSUMED = {"activity": frozenset(schema.entity("activity").fields) - {"created_at", "deleted_at", "merged_into"}}
TOLD = pa.schema([("id", pa.string()), ("moment", pa.timestamp("us")), ("n", pa.int64()), ("field", pa.string()), ("old", pa.string()), ("new", pa.string())])
BEGINNING = datetime(1970, 1, 1)


@dataclass
class Part:
    """A stream, or a stream made of its rows, as it is read: what waits to be written to disk, what was heard, what is gone (id, moment, merged_into)."""

    stream: Stream
    mapper: Mapper
    heard: Heard
    waiting: list[pa.Table] = field(default_factory=list)
    gone: list[dict] = field(default_factory=list)


@dataclass
class Pulled:
    """What one stream told in this sync, before anything is written; parts[0] is the stream itself where it has an entity.

    whole: every record was pulled. latest, told: the latest stamp of a row and of a change. stops: 2 = the next stream would meet the same error.
    """

    stream: Stream
    state: dict[str, Any]
    parts: list[Part] = field(default_factory=list)
    custom: dict[str, CustomField] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    n: int = 0
    whole: bool = False
    latest: datetime | None = None
    told: datetime | None = None
    error: str = ""
    stops: int = 0
    seconds: float = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("new", "changed", "deleted"), 0))


class Puller:
    """Reads the streams of one source into files of `spill`; `states` and `custom` are the lake's rows of sync_state and custom_field."""

    def __init__(self, lake, source: str, connector: Connector, now: datetime, full: bool, overlap: timedelta, spill: Path, say: Callable[[str], None]):
        self.lake, self.source, self.connector, self.now, self.full, self.overlap, self.spill, self.say = lake, source, connector, now, full, overlap, spill, say
        mine = f"where source = {quoted(source)}"
        self.states = {r["stream"]: r for r in rows_of(f"{lake.relation_sql('sync_state')} {mine}")}
        self.custom = rows_of(f"{lake.relation_sql('custom_field')} {mine}")
        self.n_files, self.spoke, self.db = 0, 0.0, workplace()
        today = self.states.get("", {})  # the row without a stream: what the day has cost so far
        if today and today["tried_at"] > now - timedelta(days=1):
            connector.budget.spent += today["spent"]
        self.day = today["tried_at"] if today and today["tried_at"] > now - timedelta(days=1) else now

    def read(self, one: Pulled, stops: int) -> None:
        """Pull a stream; an error is told, and ends the sync where the next stream would only meet it again (twice no answer or no credit, once no budget)."""
        try:
            self.pull(one)
        except WorkbenchError as error:
            one.error = f"{self.connector.name}, {one.stream.name}: {error}"
            one.stops = 2 if isinstance(error, BudgetSpent) else stops + 1 if isinstance(error, Refused) and (error.exhausted or error.status in (0, 401)) else 0
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:  # what the connector did not expect; its words may be personal
            at = error.__traceback__
            while at and at.tb_next:
                at = at.tb_next
            one.error = f"{self.connector.name}, {one.stream.name}: an answer of unexpected shape ({type(error).__name__} at {Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno})." if at else ""
        if not one.error:
            return
        had = self.states.get(one.stream.name, {})
        one.state.update({k: had.get(k) for k in ("mark", "columns", "history_mark", "swept_at")})
        if one.latest and one.stream.ordered:  # what came before the failure is complete up to its last stamp; its history is told by the next sync
            known = [c for c in json.loads(had.get("columns") or "[]") if c.startswith("history:")]
            one.state.update(mark=self.capped(one.latest), columns=json.dumps(sorted([*(c for c in one.columns if not c.startswith("history:")), *known])))
            for part in one.parts:
                part.heard.changes, part.heard.tracked, part.gone = [], {}, []
        else:
            one.parts.clear()

    def pull(self, one: Pulled) -> None:
        """Everything that a stream tells since its marks, spilled to disk; the marks move once it is complete."""
        stream, state = one.stream, one.state
        if stream.entity:
            stood = [r for r in self.custom if r["entity"] == stream.entity]
            one.custom = named_fields(self.connector.discover(stream), stood, self.lake.column_types(stream.entity))
        for s in (stream, *stream.parts) if stream.entity else stream.parts:
            mapper = Mapper(s, self.source, one.custom if s is stream else {}, keep_bodies=self.connector.keep_bodies, stamp=stream.cursor)
            one.parts.append(Part(s, mapper, Heard(s.entity, {n: k for n, (k, _, _) in mapper.columns.items()}, self.of_stream(s),
                                                  assumed=s.assumed or ASSUMED.get(s.entity, frozenset()))))
        tracked, had = self.connector.tracked(stream) if stream.entity else {}, set(json.loads(state.get("columns") or "[]"))
        columns = {*stream.fields, *(f"{c.native}:{c.kind}" for c in one.custom.values())}
        one.columns = sorted([*columns, *(f"history:{f}" for f in tracked)])
        one.whole = bool(self.full or not stream.cursor or not state.get("mark") or columns - had)
        since = None if one.whole else state["mark"] - self.overlap
        self.rows(one, since)
        if stream.entity:
            if not one.whole and self.sweep(one):
                one.whole = True
                self.rows(one, None)
            fresh = self.full or not state.get("history_mark") or not {f"history:{f}" for f in tracked} <= had
            self.changes(one, tracked, None if fresh else state["history_mark"] - self.overlap)
            self.deletions(one, since)
        state.update(mark=self.capped(max(filter(None, [state.get("mark"), one.latest]), default=None)), columns=json.dumps(one.columns),
                     loaded_at=state.get("loaded_at") or self.now, succeeded_at=self.now, swept_at=self.now if one.whole else state.get("swept_at"))

    def capped(self, mark: datetime | None) -> datetime | None:
        """A mark is an hour ahead of our clock at most: one broken stamp must not hide what follows."""
        return min(mark, self.now + timedelta(hours=1)) if mark else None

    def rows(self, one: Pulled, since: datetime | None) -> None:
        """Spill the stream's rows."""
        begun, first = time.perf_counter(), one.n
        try:
            for batch in self.connector.pull(one.stream, since):
                for part in one.parts:
                    part.waiting.append(part.mapper.table(batch))
                one.n += len(batch)
                if any(sum(t.num_rows for t in part.waiting) >= SPILL for part in one.parts):
                    self.flush(one)
                if time.perf_counter() > self.spoke + 1:
                    self.spoke = time.perf_counter()
                    self.say(f"{one.stream.name}: {one.n:,} rows, {(one.n - first) / (self.spoke - begun):,.0f} a second")
        finally:
            self.flush(one)
        if one.n > first:
            self.say(f"{one.stream.name}: {one.n:,} rows, {(one.n - first) / (time.perf_counter() - begun):,.0f} a second")

    def flush(self, one: Pulled) -> None:
        """Write what waits to files."""
        for part in one.parts:
            if part.waiting:
                table = pa.concat_tables(part.waiting)
                one.latest = max(filter(None, [one.latest, pc.max(table["_stamp"]).as_py()]), default=None)
                part.heard.rows.append(self.file(table))
                part.waiting.clear()

    def file(self, table: pa.Table) -> str:
        """A new file of the spill folder with this table."""
        self.n_files += 1
        pq.write_table(table, path := self.spill / f"{self.n_files}.parquet", compression="zstd")
        return str(path)

    def changes(self, one: Pulled, tracked: dict[str, datetime | None], since: datetime | None) -> None:
        """Spill the changes that the CRM tells; custom fields by their names in the lake."""
        mapper, heard, names = one.parts[0].mapper, one.parts[0].heard, {c.native: n for n, c in one.custom.items()}
        heard.tracked = {names.get(f, f): at for f, at in tracked.items() if names.get(f, f) in mapper.columns}
        told_of = {names.get(f, f) for f in one.stream.historized} | (set(one.custom) if "*" in one.stream.historized else set())
        heard.historized, heard.fresh = frozenset(told_of & set(mapper.columns)), since is None
        if hasattr(self.connector, "untold") and told_of:
            self.connector.untold = self.untold(one.parts[0])
        n, mark = 0, one.state.get("history_mark") or (one.latest or self.now - timedelta(days=1) if tracked else None)
        for batch in self.connector.history(one.stream, since):
            told = [t for t in (mapper.told({**c, "field": names.get(c["field"], c["field"])}) for c in batch) if t]
            heard.changes.append(self.file(pa.Table.from_pylist([{**t, "n": i, "moment": t["moment"] or BEGINNING} for i, t in enumerate(told, n)], TOLD)))
            n += len(told)
            one.told = max(filter(None, [one.told, *(t["moment"] for t in told if t["field"])]), default=None)
            self.say(f"{one.stream.name}: {n:,} changes")
        one.state["history_mark"] = self.capped(one.told) or mark

    def of_stream(self, stream: Stream) -> str:
        """SQL condition: a record of this stream's, not of another one that fills the same table."""
        others = [s.prefix for t in self.connector.streams for s in (t, *t.parts) if s.entity == stream.entity and len(s.prefix) > len(stream.prefix)]
        return " and ".join(f"{no}starts_with(id, {quoted(f'{self.source}:{p}')})" for no, p in [("", stream.prefix), *(("not ", p) for p in others)])

    def sweep(self, one: Pulled) -> bool:
        """Compare ids with the CRM's, at each sync where they are few and now and then where they are many: those absent there are gone. True: all must
        be pulled, since some are unknown here, or since the CRM has no cheaper way to tell."""
        part, last = one.parts[0], one.state.get("swept_at")
        n = self.db.sql(f"select count(*) from ({self.living(part)})").fetchall()[0][0]
        if not one.stream.swept or last and last > self.now - next(pause for size, pause in SWEEPS if n <= size):
            return False
        batches = self.connector.ids(one.stream)
        if batches is None:
            return True
        files = [self.file(pa.table({"id": pa.array([part.mapper.id_of(i) for i in batch], pa.string())})) for batch in batches if batch]
        self.absent(one, files + part.heard.rows)
        one.state["swept_at"] = self.now
        return bool(self.db.sql(f"select 1 from {ids_in(files)} where id not in (select id from {ids_in(part.heard.rows)}) and id not in ({self.living(part)}) limit 1").fetchall())

    def living(self, part: Part, columns: str = "id") -> str:
        """SQL: the records of a stream that stand in the lake."""
        return f"select {columns} from {self.lake.relation_sql(part.heard.entity)} where valid_to is null and deleted_at is null and {part.heard.scope}"

    def untold(self, part: Part) -> list[str]:
        """Native ids of the records that stand and whose changes were never told, the latest changed first."""
        told = f"select id from {self.lake.relation_sql(part.heard.entity)} where origin = 'crm_history'"
        found = self.db.sql(f"select id from ({self.living(part, 'id, valid_from')}) where id not in ({told}) order by valid_from desc, id").fetchall()
        return [i.removeprefix(f"{self.source}:{part.stream.prefix}") for i, in found]

    def absent(self, one: Pulled, here: list[str]) -> None:
        """What stands in the lake and is in none of these files is gone; not when it is half of all, which smells of a lost permission."""
        part = one.parts[0]
        gone = self.db.sql(f"select id from ({self.living(part)}) where id not in (select id from {ids_in(here)})").to_arrow_table()["id"].to_pylist()
        n = self.db.sql(f"select count(*) from ({self.living(part)})").fetchall()[0][0] if gone else 0
        if not self.full and len(gone) > max(20, n / 2):
            raise WorkbenchError(f"{len(gone):,} of {n:,} records are gone all at once, so none was marked as deleted.",
                                 fix="Was a permission taken away? `workbench sync SOURCE --full` takes them for deleted.")
        part.gone += [{"id": i, "moment": self.now, "merged_into": None} for i in gone]

    def deletions(self, one: Pulled, since: datetime | None) -> None:
        """What was deleted: told by the CRM, or absent from a whole pull."""
        part, last = one.parts[0], one.state.get("succeeded_at")
        asked = max(last - timedelta(days=1), since or BEGINNING) - self.overlap if last and not self.full else None
        told = {i: d for batch in self.connector.deletions(one.stream, asked) for d in batch for i in [part.mapper.id_of(d["id"])]}
        if one.whole and one.state.get("loaded_at"):
            self.absent(one, part.heard.rows)
        part.gone = [g for g in part.gone if g["id"] not in told]
        part.gone += [{"id": i, "moment": d["at"], "merged_into": part.mapper.id_of(d["merged_into"]) if d.get("merged_into") else None} for i, d in told.items()]


def ids_in(files: list[str]) -> str:
    """SQL source of the ids in these Parquet files."""
    return f"read_parquet([{', '.join(map(quoted, files))}])" if files else "(select ''::varchar as id where false)"
