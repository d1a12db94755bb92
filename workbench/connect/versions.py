"""What a sync heard of records, woven into the versions that stand: rows, told changes, deletions (versions.sql says how)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources

import duckdb
import pyarrow as pa

from workbench import schema
from workbench.rows import quoted, scratch

BUCKET = 15_000  # records that are compared at once, so that memory does not grow with the table
NEVER, LONG_AGO = "'infinity'::timestamp", "TIMESTAMP '1970-01-01'"


@dataclass
class Heard:
    """What one stream (or part) told: Parquet files of rows (Mapper.table) and of changes (Mapper.told), deletions, and how fields are known.

    gone: id, moment, merged_into. tracked: column -> since when its changes are told of every record (None = always). fresh: that history was
    told from its beginning. historized: columns that any history may tell of. assumed: as of Stream.
    """

    entity: str
    kinds: Mapping[str, str]  # column -> kind, in the order of the rows
    scope: str  # SQL condition on id: a record of this stream
    rows: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    gone: pa.Table | None = None
    tracked: Mapping[str, datetime | None] = field(default_factory=dict)
    fresh: bool = False
    historized: frozenset[str] = frozenset()
    assumed: frozenset[str] = frozenset()


def workplace() -> duckdb.DuckDBPyConnection:
    """A connection for `new_versions`, with little memory; what does not fit goes to disk."""
    con = scratch()
    con.execute("set memory_limit = '200MB'; set threads = 2; set preserve_insertion_order = false")
    return con


def new_versions(con: duckdb.DuckDBPyConnection, lake, heard: Heard, *, now: datetime) -> Iterator[tuple[pa.Table, dict[str, int]]]:
    """Bucket by bucket: the histories (id, valid_from, origin, recorded_at, columns) that replace those of their records, and {new, changed, deleted}."""
    columns = [c for c in heard.kinds if c in schema.entity(heard.entity).fields or c.startswith("x_")]
    columns += [c for c in ("deleted_at", "merged_into") if c not in columns]
    _views(con, heard, lake.relation_sql(heard.entity))
    stored = lake.column_types(heard.entity)
    types = {c: t for c, t in stored.items() if c in schema.entity(heard.entity).fields or c.startswith("x_")}
    types |= {c: schema.DUCKDB_TYPES[heard.kinds[c]] for c in columns if c not in types}
    known = ", ".join(f"{c if c in stored else 'null'}::{t} as {c}" for c, t in types.items())
    ids = "select id from pulled_all union select id from gone_all union select id from told_all"
    cuts = [r[0] for r in con.sql(f"select id from (select id, row_number() over (order by id) as place from ({ids})) where place % {BUCKET} = 1 order by id").fetchall()]
    before = lake.relation_sql(heard.entity)  # records that lie together in files: a later sync rewrites fewer of them
    script = resources.files("workbench.connect").joinpath("versions.sql").read_text(encoding="utf-8").format(**_parts(heard, columns, types, now))
    for first, last in zip(cuts, [*cuts[1:], None], strict=False):
        mine = f"id >= {quoted(first)}" + (f" and id < {quoted(last)}" if last else "")
        con.execute(f"""create or replace temp table pulled as select * from pulled_all where {mine} qualify row_number() over (partition by id order by _stamp desc nulls last, _n desc) = 1;
            create or replace temp table told as select * from told_all where {mine} and field <> '';
            create or replace temp table covered as select id, max(moment) as moment from told_all where {mine} and field = '' group by id;
            create or replace temp table gone as select id, min(moment) as moment, max(merged_into) as merged_into from gone_all where {mine} group by id;
            create or replace temp table stood as select id, valid_from, valid_to, recorded_at, origin, {known} from {before} where id in (
                select id from pulled union select id from told union select id from covered union select id from gone)""")
        if not (heard.fresh and heard.tracked):  # most of what an overlap brings stands already
            same = " and ".join(f"pulled.{c}::{types[c]} is not distinct from s.{c}" for c in columns if c in heard.kinds) or "true"
            con.execute(f"""delete from pulled using stood s where s.id = pulled.id and s.valid_to is null and {same} {'' if 'deleted_at' in heard.kinds else 'and s.deleted_at is null'}
                and pulled.id not in (select id from told union select id from covered union select id from gone)""")
        heard_of = "select id from pulled union select id from told union select id from covered union select id from gone"
        con.execute(f"delete from stood where id not in ({heard_of})")
        if not con.sql(f"{heard_of} limit 1").fetchall():
            continue
        con.execute(_news(heard, columns, now))
        con.execute(script)
        counts = con.sql("""select count(*) filter (is_new) as new, count(*) filter (not is_new and not ended) as changed, count(*) filter (not is_new and ended) as deleted
            from (select n.is_new, n.deleted_at is not null and s.deleted_at is null as ended from differing join news n using (id) left join (
                select id, deleted_at from stood where valid_to is null) s using (id))""").to_arrow_table().to_pylist()[0]
        if sum(counts.values()):
            yield con.sql("select * from version semi join differing using (id)").to_arrow_table(), counts


def _views(con, heard: Heard, stored: str) -> None:
    """Views pulled_all, told_all, gone_all over what was spilled; empty where nothing was."""
    types = {"id": "VARCHAR", "_stamp": "TIMESTAMP", "_n": "BIGINT"} | {c: schema.DUCKDB_TYPES[k] for c, k in heard.kinds.items()}
    told = {"id": "VARCHAR", "moment": "TIMESTAMP", "n": "BIGINT", "field": "VARCHAR", "old": "VARCHAR", "new": "VARCHAR"}
    for name, files, layout in (("pulled_all", heard.rows, types), ("told_all", heard.changes, told)):
        nothing = ", ".join(f"null::{t} as {c}" for c, t in layout.items())
        told_source = f"read_parquet([{', '.join(map(quoted, files))}])" if files else f"(select {nothing} where false)"
        con.execute(f"create or replace view {name} as select * from {told_source}")
    if heard.fresh and heard.tracked:  # told from its beginning: of every record
        con.execute(f"""create or replace view told_all as select id, moment, n, field, old, new from {told_source} union all
            select id, {LONG_AGO}, 0, '', null, null from {stored} where valid_to is null and {heard.scope}""")
    con.register("gone_arrow", heard.gone if heard.gone is not None else pa.table({"id": pa.array([], "string"), "moment": pa.array([], pa.timestamp("us")), "merged_into": pa.array([], "string")}))
    con.execute("create or replace view gone_all as select * from gone_arrow")


def _news(heard: Heard, columns: list[str], now: datetime) -> str:
    """SQL of table news: what is known now of each record, and when its points in time are (see versions.sql)."""
    told, entity, t = schema.entity(heard.entity).fields, heard.entity, f"TIMESTAMP '{now}'"
    ends = ("deleted_at", "merged_into")
    kept = "p.id is null" + (" or p.deleted_at is not null and p.{c} is null" if "deleted_at" in heard.kinds else "")  # what is deleted need not tell all any more
    values = [f"case when {kept.format(c=c)} then s.{c} else p.{c} end as {c}" for c in columns if c not in ends]
    values += [f"""case when p.id is null then coalesce(s.{c}, g.{c.replace('deleted_at', 'moment')})
        when g.moment >= coalesce(p._stamp, g.moment) then coalesce({own}, g.{c.replace('deleted_at', 'moment')}) else {own} end as {c}"""
               for c in ends for own in [f"p.{c}" if c in heard.kinds else "null"]]
    rules = " ".join(of.get(entity, "") for of in (schema.CLOSED, schema.WON, schema.LOST))
    decides = entity in schema.CLOSED and {*re.findall(r"\w+", rules)} & {*told} <= {*columns}
    closed = schema.CLOSED[entity] if decides else "sold_at" if "sold_at" in columns else "null::timestamp"
    decided = f"coalesce(({schema.WON[entity]}) or ({schema.LOST[entity]}), false)" if decides else "false"
    born = "p.created_at" if "created_at" in heard.kinds else "null::timestamp"
    default = "seen" if "created_at" in told else LONG_AGO  # a stage or product without a date has always been there
    is_told = f"{bool(heard.tracked)} and (k.id is null or {heard.fresh}) or c.id is not null"
    return f"""create or replace temp table news as with known as (select id, min(valid_from) as first, max(valid_from) as latest, bool_or(origin = 'crm_history') as was_told from stood group by id),
        row as (select i.id, {', '.join(values)}, greatest({t}, p._stamp, k.latest) as seen, k.first, k.latest, {born} as birth, k.id is null as is_new, p.id is null as is_partial,
            coalesce(k.was_told, false) and not ({is_told}) as was_told, {is_told} as is_told, coalesce(c.moment, {LONG_AGO}) as told_from
            from (select id from pulled union select id from gone union select id from told union select id from covered) i left join pulled p using (id) left join gone g using (id)
            left join covered c using (id) left join known k using (id) left join (select * from stood where valid_to is null) s using (id) where p.id is not null or k.id is not null),
        dated as (select * exclude (first, birth), coalesce(first, least(birth, seen), {default}) as born, {closed} as told_closed, {decided} as decided from row)
        select * exclude (told_closed), case when decided and told_closed <= seen and (is_new or told_closed >= latest) then greatest(told_closed, born) end as closed from dated"""


def _parts(heard: Heard, columns: list[str], types: Mapping[str, str], now: datetime) -> dict[str, str]:
    """What fills the braces of versions.sql: which columns each kind of point sets."""
    fields, t = schema.entity(heard.entity).fields, f"TIMESTAMP '{now}'"
    outcome = [c for c in columns if c in fields and fields[c].outcome]
    lasting = [c for c in columns if c in heard.assumed or c in fields and fields[c].known_at == "fixed"]
    tracked = [c for c in columns if c in heard.historized or c in heard.tracked]

    def sets(names: list[str], value: str = "{c}", when: str = "") -> str:
        made = (f"struct_pack(v := {value.format(c=c, t=types[c])}::{types[c]})" for c in names)
        return ", ".join(f"case when {when.format(c=c)} then {m} end as {c}" if when else f"{m} as {c}" for c, m in zip(names, made, strict=True)) or "null as _none"

    firsts = []
    for place, since in enumerate(sorted({heard.tracked.get(c) for c in tracked}, key=str)):
        names = [c for c in tracked if heard.tracked.get(c) == since]
        olds = ", ".join(f"first(struct_pack(v := try_cast(old as {types[c]})) order by moment, n) filter (where field = '{c}') as {c}" for c in names)
        values = ", ".join(f"coalesce(f.{c}, struct_pack(v := n.{c}::{types[c]})) as {c}" for c in names)
        at_least = f", TIMESTAMP '{since}'" if since else ""
        firsts.append(f"""union all by name select id, greatest(n.born, n.told_from{at_least}) as moment, 2.{place:04} as rank, 'crm_history' as origin, {t} as recorded_at, {values}
            from news n left join (select id, {olds} from told group by id) f using (id) where n.is_told and greatest(n.born, n.told_from{at_least}) <= n.seen""")
    changes = ", ".join(f"last(struct_pack(v := try_cast(new as {types[c]})) order by n) filter (where field = '{c}') as {c}" for c in tracked) or "null as _none"
    told = [f"case when was_told or s.{c} is not null then struct_pack(v := s.{c}) end as {c}" if c in tracked else f"struct_pack(v := s.{c}) as {c}" for c in types]
    late = set(columns) - set(lasting) - {"deleted_at", "merged_into"}  # without any, a birth says all that is to be seen
    birth = f"{sets(lasting)}, {sets(outcome, when='closed is null and not decided')}"
    return {"stood": ", ".join(told), "birth": birth.replace("null as _none, null as _none", "null as _none"), "first": "\n    ".join(firsts), "change": changes, "close": sets(outcome),
            "ending": sets(["deleted_at", "merged_into"]), "sight": sets(columns), "seen": "not is_partial" + (" and not (is_new and deleted_at is null)" if not late else ""), "now": t, "columns": ", ".join(types),
            "filled": ", ".join(f"(last_value({c} ignore nulls) over w).v as {c}" for c in types), "packed": ", ".join(f"{c} := {c}" for c in types)}
