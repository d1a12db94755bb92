"""Features as of each row of a spine: the SQL files, run where only the spine and as-of views can be seen."""

from __future__ import annotations

from importlib import resources

import duckdb
import pandas as pd

from workbench import schema
from workbench.errors import WorkbenchError
from workbench.rows import entity_kinds

# What each SQL file may see beside its own entity: view -> (entity, the field of the scored record that points to it).
_BESIDE = {"lead": {}, "deal": {"account": "account_id", "product": "product_id"}}
_NEVER = ("current_only", "outcome")
TEXT_LEVELS = 200  # a text field with more different values is free text or a key, not a category


def as_of_features(lake, entity: str, spine: pd.DataFrame, allow: list[str] | None = None) -> pd.DataFrame:
    """Features of `entity` (lead or deal) for each row of `spine` (id, as_of): one row a spine row, in its order.

    Fields that table `field` (or the schema) calls current_only or outcome read as null, unless named in `allow`.
    """
    if entity not in _BESIDE:
        raise WorkbenchError(f"There are no features of {entity!r}.", fix=f"Choose {' or '.join(_BESIDE)}.")
    connection = _as_of_connection(lake, entity, spine, allow or [])
    sql = resources.files("workbench.features").joinpath(f"{entity}.sql").read_text(encoding="utf-8")
    custom = "".join(f",\n    r.{c}" for c in custom_fields(lake, entity, allow or []))
    return connection.sql(sql.replace("/* custom */", custom)).df().drop(columns="spine_row")


def field_status(lake, entity: str) -> pd.DataFrame:
    """One row a source and field of `entity` with known_at: table `field` over the schema's defaults (source '' = default)."""
    rows = lake.fields()
    rows = rows.loc[rows["entity"] == entity, ["source", "field", "known_at"]]
    defaults = [{"source": "", "field": f.name, "known_at": f.known_at} for f in schema.entity(entity).fields.values()]
    return pd.concat([pd.DataFrame(defaults), rows], ignore_index=True)


def hidden_fields(lake, entity: str, allow: list[str]) -> dict[str, list[str]]:
    """Fields that training must not see: field -> sources ('' = every source that says nothing else)."""
    status = field_status(lake, entity)
    hidden = status[status["known_at"].isin(_NEVER) & ~status["field"].isin(allow)]
    return {f: sorted(rows["source"]) for f, rows in hidden.groupby("field")}


def custom_fields(lake, entity: str, allow: list[str]) -> list[str]:
    """The x_ fields that may be features: marked fixed, historized or assumed by some source, typed, few levels."""
    known = [c for c in lake.columns(entity) if c.startswith("x_")]
    status = field_status(lake, entity)
    usable = set(status.loc[~status["known_at"].isin(_NEVER), "field"]) | set(allow)
    texts = set(lake.sql(f"select column_name from (describe {entity}_versions) where column_type = 'VARCHAR'").df()["column_name"])
    names = [c for c in known if c in usable]
    counted = [c for c in names if c in texts]
    if not counted:
        return names
    counts = lake.sql(f"select {', '.join(f'approx_count_distinct({c}) as {c}' for c in counted)} from {entity}_versions").df().iloc[0]
    return [c for c in names if c not in counted or counts[c] <= TEXT_LEVELS]


def _as_of_connection(lake, entity: str, spine: pd.DataFrame, allow: list[str]) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.register("spine_rows", spine[["id", "as_of"]].reset_index(names="spine_row") if spine.index.is_unique else
                        spine[["id", "as_of"]].reset_index(drop=True).reset_index(names="spine_row"))
    connection.execute("create table spine as select spine_row::bigint as spine_row, id, as_of::timestamp as as_of from spine_rows")
    connection.unregister("spine_rows")
    own = _visible(lake, entity, allow)
    connection.execute(f"create view {entity}_at as {_as_of_join(own, 's.id')}")
    for other, key in _BESIDE[entity].items():
        if key in hidden_fields(lake, entity, allow):  # the pointer itself tells the outcome
            connection.execute(f"create view {other}_at as select null::bigint as spine_row, * from {_visible(lake, other, allow)} where false")
        else:
            joined = _as_of_join(own, "s.id")
            connection.execute(f"create view {other}_at as select o.spine_row, v.* from ({joined}) o join spine s using (spine_row) "
                               f"join {_visible(lake, other, allow)} v on v.id = o.{key} where {_VALID}")
    connection.execute(f"""create view activity_at as select * from (select s.spine_row, s.as_of, v.*, case when coalesce(v.is_done, true)
        then greatest(v.created_at, v.happened_at) else v.created_at end as visible_at from spine s join {_visible(lake, 'activity', allow)} v
        on v.{entity}_id = s.id where {_VALID}) where coalesce(visible_at, valid_from) <= as_of""")
    return connection


_VALID = ("v.valid_from <= s.as_of and (v.valid_to is null or s.as_of < v.valid_to) and (v.deleted_at is null or v.deleted_at > s.as_of)")


def _as_of_join(versions: str, key: str) -> str:
    return f"select s.spine_row, s.as_of, v.* from spine s join {versions} v on v.id = {key} where {_VALID}"


def _visible(lake, entity: str, allow: list[str]) -> str:
    """SQL of an entity's versions in which every field that training must not see is null."""
    hidden, kept = hidden_fields(lake, entity, allow), field_status(lake, entity)
    columns = []
    for c in lake.columns(entity):
        if c in hidden and "" in hidden[c]:  # hidden by default: shown only where a source says otherwise
            shown = kept.loc[(kept["field"] == c) & (kept["source"] != "") & ~kept["known_at"].isin(_NEVER), "source"]
            tests = " or ".join(f"id[:{len(x) + 1}] = '{x}:'" for x in shown)
            columns.append(f"case when {tests} then {c} end as {c}" if tests else f"nullif({c}, {c}) as {c}")
        elif c in hidden:
            tests = " or ".join(f"id[:{len(x) + 1}] = '{x}:'" for x in hidden[c])
            columns.append(f"case when {tests} then null else {c} end as {c}")
        else:
            columns.append(c)
    return f"(select {', '.join(columns)} from {lake.relation_sql(entity, entity_kinds(entity))})"
