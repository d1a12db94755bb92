"""Where rows live: every version of every record, read as of any instant.

Current = `valid_to is null`; as of t = `valid_from <= t and (valid_to is null or t < valid_to)`. Before a field's
`history_from` (table `field`) its value is unknown, and null is what a reader gets, never today's value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa

from workbench import schema
from workbench.errors import WorkbenchError
from workbench.rows import OWN, canonical, checked_rows, duck_type, named_columns, of_source, quoted, rows_of, scratch, x_type
from workbench.settings import settings
from workbench.store import Store


def open_lake(path: str | Path | None = None, version: int | None = None, create: bool = False) -> Lake:
    """Open the lake at `path` (default: WORKBENCH_LAKE or data/lake), pinned to publish `version` where one is given.

    A scheduled run pins its version through WORKBENCH_LAKE_VERSION, so that its notebooks see one state.
    """
    folder = Path(path) if path else settings().lake
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    elif not folder.is_dir():
        raise WorkbenchError(f"There is no lake at {folder}.", fix="Run `workbench demo` or `workbench import MAPPING.toml`, or name another with --lake.")
    if version is None and not create and os.environ.get("WORKBENCH_LAKE_VERSION"):
        if not re.fullmatch(r"-1|\d+", number := os.environ["WORKBENCH_LAKE_VERSION"]):
            raise WorkbenchError(f"WORKBENCH_LAKE_VERSION={number} is no version.", fix="`workbench lake versions` lists them.")
        version = int(number)
    return Lake(Store(folder, version))


class Lake:
    """A lake opened at one published version; writing moves it to the version that it publishes."""

    def __init__(self, store: Store):
        self.store, self.path = store, store.path
        self._connections: dict[datetime | None, tuple[dict[str, int], duckdb.DuckDBPyConnection]] = {}

    @property
    def version(self) -> int:
        """Number of the publish that is read; -1 before the first."""
        return self.store.version

    def relation_sql(self, table: str) -> str:
        """SQL that reads every row of a Delta table as published, or no row at all where it is absent."""
        types, files = self.column_types(table), self.store.files(table)
        nothing = f"select {', '.join(f'null::{kind} as {c}' for c, kind in types.items())} where false"  # names what no file holds yet
        stored = f" union all by name select * from read_parquet([{', '.join(map(quoted, files))}], union_by_name = true)" if files else ""
        return f"({nothing}{stored})"

    def column_types(self, table: str) -> dict[str, str]:
        """Column -> DuckDB type of a table: version columns, canonical fields, then x_ fields."""
        stored = self.store.schema(table) if table in self.store.heads else canonical(table)
        return {field.name: duck_type(field.type) for field in stored}

    def columns(self, entity: str) -> list[str]:
        """The columns of an entity's table, in the order of `column_types`."""
        return list(self.column_types(entity))

    def fields(self) -> pd.DataFrame:
        """Table `field`: one row a source, entity and field that differs from the schema's defaults."""
        return duckdb.default_connection().cursor().sql(f"select * from {self.relation_sql('field')} order by source, entity, field").df()

    def masked_columns(self, entity: str, instant: str, fields: pd.DataFrame) -> str:
        """Select list in which a field is null where `fields` (table `field`) say that it was not known yet at SQL expression `instant`."""
        masks: dict[str, list[str]] = {}
        late = fields["history_from"].notna() | (fields["known_at"] == "current_only")
        for row in fields[late & (fields["entity"] == entity)].itertuples():
            since = "recorded_at" if row.known_at == "current_only" else f"TIMESTAMP '{row.history_from}'"
            masks.setdefault(row.field, []).append(f"when {of_source(row.source)} and {instant} < {since} then null")
        return ", ".join(f"case {' '.join(masks[c])} else {c} end as {c}" if c in masks else c for c in self.columns(entity))

    def connection(self, as_of: datetime | None = None) -> duckdb.DuckDBPyConnection:
        """A DuckDB connection with a view an entity (current, or as of an instant), `<entity>_versions`, `field`, `finding`.

        View `version` tells of every version of every entity: source, entity, id, valid_from, valid_to, recorded_at, origin, deleted_at.
        """
        known = self._connections.get(as_of)
        if known and known[0] == self.store.heads:
            return known[1]
        connection, fields, t = scratch(), self.fields(), f"TIMESTAMP '{as_of}'"
        for entity in schema.ENTITIES:
            if as_of is None:
                columns, when = "*", "valid_to is null and deleted_at is null"
            else:
                columns = self.masked_columns(entity, t, fields)
                when = f"valid_from <= {t} and (valid_to is null or {t} < valid_to) and (deleted_at is null or deleted_at > {t})"
            connection.execute(f"create view {entity}_versions as select * from {self.relation_sql(entity)}")
            connection.execute(f"create view {entity} as select {columns} from {entity}_versions where {when}")
        for own in OWN:
            connection.execute(f"create view {own} as select * from {self.relation_sql(own)}")
        common = "id, valid_from, valid_to, recorded_at, origin, deleted_at"
        parts = [f"select split_part(id, ':', 1) as source, '{e}' as entity, {common} from {e}_versions" for e in schema.ENTITIES]
        connection.execute(f"create view version as {' union all '.join(parts)}")
        self._connections[as_of] = (dict(self.store.heads), connection)
        return connection

    def sql(self, query: str, as_of: datetime | None = None) -> duckdb.DuckDBPyRelation:
        """A relation over the views (see `connection`); `.df()` gives pandas."""
        return self.connection(as_of).sql(query)

    def read(self, entity: str, as_of: datetime | None = None, columns: list[str] | None = None) -> pd.DataFrame:
        """One row a record that stands at `as_of` (None = now known), ordered by id; money as float, times naive UTC."""
        schema.entity(entity)
        missing = set(columns or []) - set(self.columns(entity))
        if missing:
            raise WorkbenchError(f"{entity} has no column {', '.join(sorted(missing))}.", fix="`workbench dictionary` lists them.")
        names = ", ".join(columns) if columns else "*"
        return self.sql(f"select {names} from {entity} order by id", as_of).df()

    def history(self, entity: str, fields: list[str]) -> pd.DataFrame:
        """Transitions: one row a record, field and change: id, at, field, old, new (as text; the first value has old null)."""
        if not fields or set(fields) - set(self.columns(entity)):
            raise WorkbenchError(f"{entity} has no history of {', '.join(fields) or 'no field'}.", fix="`workbench dictionary` lists the fields.")
        parts = [f"select id, valid_from as \"at\", '{f}' as field, lag({f}::varchar) over w as old, {f}::varchar as new, "
                 f"row_number() over w as n from {entity}_versions window w as (partition by id order by valid_from)" for f in fields]
        return self.sql(f"""select id, "at", field, old, new from ({' union all '.join(parts)})
            where old is distinct from new order by id, "at", field""").df()

    def versions(self) -> pd.DataFrame:
        """One row a publish, the latest first: version, published_at (UTC), tables (number of them)."""
        return pd.DataFrame([(n, at, len(tables)) for n, at, tables in reversed(self.store.publishes())], columns=["version", "published_at", "tables"])

    def compact(self) -> None:
        """Join small files; content and pinned versions stay."""
        with self.writer():
            self.store.compact()

    def vacuum(self, now: datetime, keep_days: int = 90) -> int:
        """Delete files that no version published in the last `keep_days` needs; their number."""
        with self.writer():
            return self.store.vacuum(now, keep_days)

    def entities(self) -> list[str]:
        """Entities that have rows."""
        return [e for e in schema.ENTITIES if not self.is_empty(e)]

    def is_empty(self, entity: str) -> bool:
        """No record of this entity was ever seen."""
        return not self.store.files(entity)

    def sources(self) -> pd.DataFrame:
        """One row a source and entity: n_records, first_valid_from, last_valid_from, last_recorded_at."""
        return self.sql("""select source, entity, count(distinct id) as n_records, min(valid_from) as first_valid_from, max(valid_from)
            as last_valid_from, max(recorded_at) as last_recorded_at from version group by all order by source, entity""").df()

    def latest_event(self, source: str | None = None) -> datetime | None:
        """The latest instant that any version begins (of `source`); None for an empty lake."""
        return self.sql(f"select max(valid_from) from version where {of_source(source)}").fetchall()[0][0]

    @contextmanager
    def writer(self, timeout: float = 60) -> Iterator[Lake]:
        """Several writes published together at the end; anything raised publishes nothing."""
        with nullcontext() if self.store.lock.is_locked else self.store.writer(timeout):
            yield self

    def upsert(self, entity: str, frame: pd.DataFrame, *, at: datetime, origin: str = "sync_diff") -> dict[str, int]:
        """Bring records to the state that `frame` (id and any fields) tells at instant `at`; columns left out keep their value.

        Idempotent. Closes the version that differs and opens one at `at`; a record of the same instant is replaced.
        Returns {new, changed, same}. Refuses what breaks the schema, and an `at` before a record's latest version.
        """
        with self.writer():
            plan = self._upsert_plan(entity, self._prepare(entity, frame, []), at, origin)
            counts = plan.sql("""select count(*) filter (was is null) as new, count(*) filter (was is not null and differs) as changed,
                count(*) filter (not differs) as same from plan""").df().iloc[0].astype(int).to_dict()
            late = plan.sql("select id from plan where differs and was > valid_from limit 3").fetchall()
            if late:
                raise WorkbenchError(f"{entity} {', '.join(r[0] for r in late)}: changed at {at}, but a later version stands already.",
                                     fix="Load the whole history with load_versions.")
            opened = plan.sql("select * exclude (was, differs) from plan where differs")
            closed = plan.sql("""select l.* replace (p.valid_from as valid_to) from live l join plan p using (id)
                where p.differs and p.was < p.valid_from""")
            changed = plan.sql("select id from plan where differs and was is not null").to_arrow_table()
            self._replace(entity, changed, "t.valid_to is null", opened.union(closed).to_arrow_table())
            return counts

    def _upsert_plan(self, entity: str, given: pa.Table, at: datetime, origin: str) -> duckdb.DuckDBPyConnection:
        """Tables on a connection of their own: live (current versions of the given ids) and plan (a version to open an id; was: the current one's
        valid_from, differs: it must be opened)."""
        connection, names = scratch(), [c for c in given.column_names if c != "id"]
        connection.register("given", given)
        connection.execute(f"create table live as select * from {self.relation_sql(entity)} "
                           "where valid_to is null and id in (select id from given)")
        stamp = {"id": "g.id", "valid_from": f"TIMESTAMP '{at}'", "valid_to": "null::timestamp", "recorded_at": f"TIMESTAMP '{at}'",
                 "origin": quoted(origin), "deleted_at": "null::timestamp"} | {c: f"g.{c}" for c in names}
        told = ["deleted_at", *names]  # a deleted record that is told of again stands again
        differs = " or ".join(f"{stamp[c]} is distinct from l.{c}" for c in told)
        version = ", ".join(f"{stamp.get(c, f'l.{c}')} as {c}" for c in self.columns(entity))
        connection.execute(f"""create table plan as select {version}, l.valid_from as was, was is null or {differs} as differs
            from given g left join live l using (id)""")
        return connection

    def load_versions(self, entity: str, frame: pd.DataFrame, *, origin: str = "import", recorded_at: datetime | None = None) -> int:
        """Replace the whole histories of the ids in `frame` (id, valid_from, [valid_to, recorded_at], fields); the rows written.

        valid_to, where absent, is the next version's valid_from; recorded_at defaults to valid_from.
        """
        with self.writer():
            given = self._prepare(entity, frame, ["valid_from"])
            connection = scratch()
            connection.register("given", given)
            names = given.column_names
            stamp = {"valid_to": "lead(valid_from) over (partition by id order by valid_from)", "origin": quoted(origin),
                     "recorded_at": "valid_from" if recorded_at is None else f"TIMESTAMP '{recorded_at}'"}
            chosen = ", ".join(c if c in names else f"{stamp.get(c, 'null')} as {c}" for c in self.columns(entity))
            known = connection.sql(f"select distinct id from given semi join {self.relation_sql(entity)} using (id)")
            self._replace(entity, known.to_arrow_table(), "true", connection.sql(f"select {chosen} from given").to_arrow_table())
            return given.num_rows

    def _replace(self, entity: str, ids: pa.Table, which: str, rows: pa.Table) -> None:
        """Put `rows` in the place of the versions of `ids` for which `which` (SQL about t) holds."""
        if which == "true" and 0 < ids.num_rows <= 5000:
            self.store.delete(entity, f"id in ({', '.join(map(quoted, ids['id'].to_pylist()))})")
        elif ids.num_rows:  # a MERGE reads all of the table
            self.store.merge(entity, ids, f"t.id = s.id and {which}", lambda merge: merge.when_matched_delete())
        if rows.num_rows:
            self.store.append(entity, rows.cast(self.store.schema(entity)))

    def _prepare(self, entity: str, frame: pd.DataFrame | pa.Table, needed: list[str]) -> pa.Table:
        """Check `frame` against the schema and cast it; an unknown column becomes x_... and gets its place. Errors name rows and columns."""
        table = named_columns(entity, frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False), ["id", *needed])
        self.store.create(entity, canonical(entity))
        stored = self.columns(entity)
        if new := [pa.field(c, x_type(table.schema.field(c).type)) for c in table.column_names if c not in stored]:
            self.store.add_columns(entity, new)
        types = self.column_types(entity)
        given = checked_rows(entity, table, {c: types[c] for c in table.column_names}, versions=bool(needed))
        if custom := [c for c in table.column_names if c.startswith("x_")]:
            known = {(r.source, r.field) for r in self.fields().itertuples() if r.entity == entity}
            sources = [r[0] for r in duckdb.default_connection().cursor().sql("select distinct split_part(id, ':', 1) from given order by 1").fetchall()]
            if rows := [{"source": s, "entity": entity, "field": c, "known_at": "assumed"} for s in sources for c in custom if (s, c) not in known]:
                self.set_fields(rows)
        return given

    def set_fields(self, rows: list[dict]) -> None:
        """Say of fields how they are known: rows of table `field`, keyed by source, entity and field."""
        for row in rows:
            if row["known_at"] not in schema.KNOWN_AT:
                raise WorkbenchError(f"{row['field']}: known_at {row['known_at']!r} is unknown.", fix=f"One of {', '.join(schema.KNOWN_AT)}.")
            if not re.fullmatch(r"[a-z0-9_]+", row["source"]):
                raise WorkbenchError(f"Source {row['source']!r} is no source name.", fix="Use a-z, 0-9 and _.")
        self.put_rows("field", rows, ("source", "entity", "field"))

    def put_rows(self, table: str, rows: list[dict], key: tuple[str, ...]) -> None:
        """Put rows into a table that holds no versions, in the place of those with the same key; nothing where they stand so already."""
        with self.writer():
            before, names = rows_of(self.relation_sql(table)), canonical(table).names
            kept = {tuple(r[k] for k in key): r for r in before} | {tuple(r[k] for k in key): {n: r.get(n) for n in names} for r in rows}
            if list(kept.values()) != before:
                self._overwrite(table, list(kept.values()))

    def add_findings(self, frame: pd.DataFrame) -> None:
        """Append import findings: source, file, line, rule, entity, record_id, detail, n (rows it stands for)."""
        with self.writer():
            self._overwrite("finding", rows_of(self.relation_sql("finding")) + frame.astype(object).where(frame.notna(), None).to_dict("records"))

    def clear_findings(self, source: str) -> None:
        """Drop the import findings of a source, before it is imported again."""
        with self.writer():
            self._overwrite("finding", rows_of(f"{self.relation_sql('finding')} where source = {quoted(source)} is not true"))

    def _overwrite(self, table: str, rows: list[dict]) -> None:
        self.store.create(table, canonical(table))
        self.store.overwrite(table, pa.Table.from_pylist(rows, canonical(table)))
