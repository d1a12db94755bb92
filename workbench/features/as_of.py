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
    own = _as_of_join(lake, entity, allow, "s.id", "spine s")
    connection.execute(f"create view {entity}_at as {own}")
    for other, key in _BESIDE[entity].items():
        pointers = f"(select spine_row, as_of, {key} as key from ({own})) s"
        connection.execute(f"create view {other}_at as {_as_of_join(lake, other, allow, 's.key', pointers)}")
    connection.execute(f"""create view activity_at as select *, coalesce(greatest(case when coalesce(is_done, true) then happened_at end, created_at),
        valid_from) as visible_at from ({_as_of_join(lake, "activity", allow, "s.id", "spine s", f"{entity}_id")}) where visible_at <= as_of""")
    return connection


def _as_of_join(lake, entity: str, allow: list[str], key: str, spine: str, on: str = "id") -> str:
    """SQL: the version of each record that stood at its spine row's instant, with what was not known then as null."""
    known = _known_columns(lake, entity, allow)
    return (f"select s.spine_row, s.as_of, {known} from {spine} join {lake.relation_sql(entity, entity_kinds(entity))} v on v.{on} = {key} "
            "where v.valid_from <= s.as_of and (v.valid_to is null or s.as_of < v.valid_to) and (v.deleted_at is null or v.deleted_at > s.as_of)")


def _known_columns(lake, entity: str, allow: list[str]) -> str:
    """Select list: a field that training must not see, or that had no history yet at s.as_of, reads as null."""
    status, rows = field_status(lake, entity), lake.fields()
    late = rows[(rows["entity"] == entity) & rows["history_from"].notna()]
    columns = []
    for c in lake.columns(entity):
        mine = status[(status["field"] == c)]
        default_hidden = bool(((mine["source"] == "") & mine["known_at"].isin(_NEVER)).any()) and c not in allow
        cases = [f"when v.id[:{len(r.source) + 1}] = '{r.source}:' then {'null' if r.known_at in _NEVER and c not in allow else 'v.' + c}"
                 for r in mine.itertuples() if r.source and (r.known_at in _NEVER and c not in allow) != default_hidden]
        cases = [f"when v.id[:{len(r.source) + 1}] = '{r.source}:' and s.as_of < TIMESTAMP '{r.history_from}' then null"
                 for r in late[late["field"] == c].itertuples()] + cases
        other = f"nullif(v.{c}, v.{c})" if default_hidden else f"v.{c}"
        columns.append(f"case {' '.join(cases)} else {other} end as {c}" if cases else f"{other} as {c}")
    return ", ".join(columns)
