"""Features as of each row of a spine: the SQL files, run where only the spine and as-of views can be seen (decision 0005)."""

from __future__ import annotations

import re
from importlib import resources

import duckdb
import pandas as pd
import pyarrow as pa

from workbench import schema
from workbench.errors import WorkbenchError
from workbench.rows import of_source, scratch

# What each SQL file may see beside its own entity: view -> the field of the scored record that points to it.
_BESIDE = {"lead": {}, "deal": {"account": "account_id", "product": "product_id"}}
# What a version of today tells about its own future: never in a view.
_LATER = ("valid_to", "recorded_at", "deleted_at", "merged_into")
TEXT_LEVELS = 200  # a text field with more different values is free text or a key, not a category
HALF_LIFE = 14.0  # days after which an inbound activity or visit counts half in `engagement`, until it is learned
BATCH = 50  # so many activities entered at one instant, a day or more after they happened, were migrated


def as_of_features(lake, entity: str, spine: pd.DataFrame, allow: list[str] | None = None, *, half_life: float = HALF_LIFE) -> pd.DataFrame:
    """Features of `entity` (lead or deal) for each row of `spine` (id, as_of): one row a spine row, in its order, numbered from 0.

    Fields that table `field` (or the schema) calls current_only or outcome read as null, unless named in `allow`. half_life: days, of `engagement`.
    """
    if entity not in _BESIDE:
        raise WorkbenchError(f"There are no features of {entity!r}.", fix=f"Choose {' or '.join(_BESIDE)}.")
    sql = feature_sql(lake, entity, allow or [], half_life)
    with as_of_connection(lake, entity, spine, allow or [], sql) as connection:
        rows = connection.sql(sql).to_arrow_table()  # through Arrow: texts reach pandas without being copied one by one
    return rows.to_pandas(types_mapper={pa.bool_(): pd.BooleanDtype()}.get).drop(columns="spine_row")


def field_status(lake, entity: str) -> pd.DataFrame:
    """One row a source and field of `entity` with known_at, history_from: table `field` over the schema's defaults (source '' = default)."""
    rows = lake.fields()
    rows = rows.loc[rows["entity"] == entity, ["source", "field", "known_at", "history_from"]]
    defaults = [{"source": "", "field": f.name, "known_at": f.known_at, "history_from": pd.NaT} for f in schema.entity(entity).fields.values()]
    return pd.concat([pd.DataFrame(defaults).astype(rows.dtypes), rows], ignore_index=True)


def custom_fields(lake, entity: str, allow: list[str]) -> list[str]:
    """The x_ fields that may be features: marked fixed, historized or assumed by some source, texts of few levels only."""
    types, status = lake.column_types(entity), field_status(lake, entity)
    usable = set(status.loc[~status["known_at"].isin(schema.NEVER_LEARNED), "field"]) | set(allow)
    names = [c for c in types if c.startswith("x_") and c in usable]
    texts = [c for c in names if types[c] == "VARCHAR"]
    counts = lake.sql(f"select {', '.join(f'count(distinct {c}) as {c}' for c in texts)} from {entity}_versions").df().iloc[0] if texts else {}
    return [c for c in names if c not in texts or counts[c] <= TEXT_LEVELS]


def engagement_at(lake, entity: str, spine: pd.DataFrame, half_lives: list[float]) -> pd.DataFrame:
    """Decayed sums of inbound activities and visits of each row of `spine` (id, as_of): a column a half-life, in days."""
    columns = ", ".join(f'coalesce({_engagement(h)}, 0) as "{h}"' for h in half_lives)
    sql = f"select {columns} from spine s left join activity_at a using (spine_row) group by s.spine_row order by s.spine_row"
    with as_of_connection(lake, entity, spine, [], sql) as connection:
        return connection.sql(sql.replace("visible_at, as_of", "visible_at, a.as_of")).df().set_axis(half_lives, axis=1)


def _engagement(half_life: float) -> str:
    """SQL: one for each inbound activity and visit, half of it after every `half_life` days."""
    return f"sum(power(0.5, date_diff('second', visible_at, as_of) / {86400.0 * float(half_life)})) filter (where is_done and (direction = 'in' or kind = 'web'))"


def feature_sql(lake, entity: str, allow: list[str], half_life: float = HALF_LIFE) -> str:
    """The entity's SQL file with its one generated block: the x_ fields; a date as the days from it to as_of."""
    types = lake.column_types(entity)
    custom = [f"date_diff('day', r.{c}, s.as_of)::double as {c}" if types[c] in ("DATE", "TIMESTAMP") else f"r.{c}" for c in custom_fields(lake, entity, allow)]
    text = resources.files("workbench.features").joinpath(f"{entity}.sql").read_text(encoding="utf-8")
    return text.replace("/* custom */", "".join(f",\n    {c}" for c in custom)).replace("/* engagement */", _engagement(half_life))


def as_of_connection(lake, entity: str, spine: pd.DataFrame, allow: list[str], sql: str) -> duckdb.DuckDBPyConnection:
    """A connection that holds `spine`, `<entity>_at`, `activity_at` and what the entity points to, as it stood at each spine row; nothing else."""
    connection = scratch()
    connection.execute("set python_enable_replacements = false")  # a file sees no variable of Python's, either
    connection.register("given", spine[["id", "as_of"]].reset_index(drop=True).reset_index(names="spine_row"))
    connection.execute("create table spine as select spine_row::bigint as spine_row, id::varchar as id, as_of::timestamp as as_of from given")
    connection.unregister("given")
    used = set(re.findall(r"\br\.(\w+)", sql)) | {"id", *_BESIDE[entity].values()}  # r = the scored record
    connection.execute(f"create table {entity}_at as {_standing(lake, entity, allow, used)}")
    for other, key in _BESIDE[entity].items():
        pointers = f"(select spine_row, as_of, {key} as id from {entity}_at)"
        connection.execute(f"create view {other}_at as {_standing(lake, other, allow, spine=pointers)}")
    standing = _standing(lake, "activity", allow, spine=f"{entity}_at", rows=_activities(lake, entity), key="about",
                         more=", coalesce(is_done, true) as done, v.valid_from as begun, v.migrated")
    # Told as done by a later version: visible from that version. Told as done from the start: from the later of entry and event.
    connection.execute(f"""create view activity_at as select * exclude (is_done, done), done as is_done, coalesce(case when migrated then happened_at
        when not done then created_at when begun > created_at then greatest(created_at, least(happened_at, begun))
        else greatest(created_at, happened_at) end, begun) as visible_at from ({standing}) where visible_at <= as_of""")
    return connection


def _standing(lake, entity: str, allow: list[str], used: set[str] | None = None, *, spine: str = "spine", rows: str = "", key: str = "id", more: str = "") -> str:
    """SQL: the version of each record that stood at its spine row's instant, with what was not known then as null."""
    known = ", ".join(_known(lake, entity, allow, used))
    return (f"select s.spine_row, s.as_of, {known}{more} from {spine} s join {rows or lake.relation_sql(entity)} v on v.{key} = s.id "
            "where v.valid_from <= s.as_of and (v.valid_to is null or s.as_of < v.valid_to) and (v.deleted_at is null or v.deleted_at > s.as_of)")


def _known(lake, entity: str, allow: list[str], used: set[str] | None) -> list[str]:
    """Select list: a field that training must not see, or that had no history yet at s.as_of, reads as null."""
    status = field_status(lake, entity).to_dict("records")
    tracked: dict[str, pd.Timestamp] = {}
    for r in status:  # a version from before a history began may hide changes that nobody recorded
        if pd.notna(r["history_from"]):
            tracked[r["source"]] = max(r["history_from"], tracked.get(r["source"], r["history_from"]))
    columns = []
    for c in lake.columns(entity):
        if c in _LATER or used is not None and c not in used:
            continue
        cases = [f"when {of_source(s, 'v.id')} and v.valid_from < TIMESTAMP '{t}' then null" for s, t in tracked.items() if c == "valid_from"]
        default = False
        for r in (r for r in status if r["field"] == c):
            never, mine = r["known_at"] in schema.NEVER_LEARNED and c not in allow, f"when {of_source(r['source'], 'v.id')}"
            if not r["source"]:
                default = never
            elif never:
                cases.append(f"{mine} then null")
            elif default or pd.notna(r["history_from"]):
                late = f" and s.as_of >= TIMESTAMP '{r['history_from']}'" if pd.notna(r["history_from"]) else ""
                cases += [f"{mine}{late} then v.{c}", f"{mine} then null"]
        cases += ["when true then null"] if default else []
        columns.append(f"case {' '.join(cases)} else v.{c} end as {c}" if cases else f"v.{c}")
    return columns


def _activities(lake, entity: str) -> str:
    """Every version of every activity with `about` (the lead or deal) and `migrated`; a migrated one begins when it happened."""
    rows = lake.relation_sql("activity")
    entered = "coalesce(a.created_at, a.valid_from)"
    older, many = "happened_at < created_at - interval 1 day and valid_from <= created_at", f"group by all having count(*) >= {BATCH}"
    entries = f"select created_at from activity_versions where {older} {many}"
    batches = lake.sql(f"""select split_part(id, ':', 1), created_at from activity_versions where {older} and created_at in ({entries}) {many}
        """).fetchall() if lake.sql(f"{entries} limit 1").fetchall() else []
    same = " or ".join(f"(a.created_at = TIMESTAMP '{at}' and {of_source(source, 'a.id')})" for source, at in batches)
    migrated = f"coalesce(a.happened_at < a.created_at and ({same}), false)" if same else "false"
    first = f"case when {migrated} and a.valid_from <= a.created_at then a.happened_at else a.valid_from end" if same else "a.valid_from"
    moves, subject = "", [f"a.{entity}_id"]
    for other in ("contact", "deal") if entity == "lead" else ():
        subject.append(f"to_{other}.lead_id")
        moves += f""" left join ({_conversions(lake, other)}) to_{other} on a.lead_id is null and to_{other}.id = a.{other}_id
            and {entered} >= to_{other}.lead_since and {entered} < to_{other}.since"""
    return (f"(select a.* replace ({first} as valid_from), coalesce({', '.join(subject)}) as about, {migrated} as migrated "
            f"from {rows} a{moves} where coalesce({', '.join(subject)}) is not null)")


def _conversions(lake, other: str) -> str:
    """SQL: one row a contact or deal that a lead became: id, since, lead_id, lead_since.

    An activity that is older than the contact or deal it hangs on was moved there, so it was the lead's until then and stays so.
    """
    leads, others = (lake.relation_sql(e) for e in ("lead", other))
    told = f"select id as lead_id, converted_{other}_id as id, coalesce(converted_at, closed_at, valid_from) as decided from {leads} where converted_{other}_id is not null"
    if other == "deal":
        told += f" union all select source_lead_id, id, coalesce(created_at, valid_from) from {others} where source_lead_id is not null"
    born = "select id, min(coalesce(created_at, valid_from)) as since from {} group by id"
    return f"""select o.id, o.since, first(t.lead_id order by t.decided, t.lead_id) as lead_id, first(l.since order by t.decided, t.lead_id) as lead_since
        from ({told}) t join ({born.format(others)}) o using (id) join ({born.format(leads)}) l on l.id = t.lead_id group by all"""
