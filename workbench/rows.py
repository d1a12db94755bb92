"""Rows on their way in: the types of columns in Arrow and DuckDB, and the checks that name rows and columns."""

from __future__ import annotations

import re
from tempfile import gettempdir

import duckdb
import pyarrow as pa

from workbench import schema
from workbench.errors import WorkbenchError

ARROW = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "money": pa.decimal128(18, 2), "bool": pa.bool_(),
          "date": pa.date32(), "time": pa.timestamp("us")}
FIELD = {"source": "text", "entity": "text", "field": "text", "known_at": "text", "history_from": "time", "kind": "text",
          "meaning": "text", "personal": "bool"}
FINDING = {"source": "text", "file": "text", "line": "int", "rule": "text", "entity": "text", "record_id": "text",
            "detail": "text", "n": "int"}
OWN = {"field": FIELD, "finding": FINDING}  # tables that hold no versions


def arrow_schema(kinds: dict[str, str]) -> pa.Schema:
    """The Arrow schema of columns by kind."""
    return pa.schema([(name, ARROW[kind]) for name, kind in kinds.items()])


def entity_kinds(table: str) -> dict[str, str]:
    """Every canonical column of an entity's table (or of `field`, `finding`) with its kind."""
    if table in OWN:
        return OWN[table]
    return {name: kind for name, kind, _ in schema.VERSION} | {f.name: f.kind for f in schema.entity(table).fields.values()}


def scratch() -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that reckons in UTC; what does not fit goes to the system's temporary folder, not to the working one."""
    connection = duckdb.connect(config={"temp_directory": gettempdir(), "autoinstall_known_extensions": False})
    connection.execute("set TimeZone = 'UTC'")
    return connection


def quoted(value: object) -> str:
    """A value as an SQL text literal."""
    return "'" + str(value).replace("'", "''") + "'"


def of_source(source: str | None, column: str = "id") -> str:
    """SQL condition: the record comes from `source` (any, when None)."""
    return "true" if source is None else f"starts_with({column}, {quoted(source + ':')})"


def rows_of(source: str) -> list[dict]:
    """All rows of an SQL source as dicts."""
    return duckdb.default_connection().sql(f"select * from {source}").to_arrow_table().to_pylist()


def x_name(column: str) -> str:
    """The name of a custom field.

    >>> x_name("Lead Score (new)"), x_name("x_tag")
    ('x_lead_score_new', 'x_tag')
    """
    return "x_" + re.sub(r"[^a-z0-9]+", "_", column.lower().removeprefix("x_")).strip("_")


def x_type(kind: pa.DataType) -> pa.DataType:
    """The stored Arrow type of a custom field that came as `kind`."""
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us")
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.float64()
    return kind if pa.types.is_boolean(kind) or pa.types.is_date(kind) else pa.string()


def duck_type(kind: pa.DataType) -> str:
    """The DuckDB type of a stored Arrow type."""
    if pa.types.is_decimal(kind):
        return "DECIMAL(18,2)"
    for name, arrow in ARROW.items():
        if kind == arrow:
            return schema.DUCKDB_TYPES[name]
    return "VARCHAR"


def named_columns(entity: str, table: pa.Table, needed: list[str]) -> pa.Table:
    """`table` with unknown columns named x_...; refused where a needed column is missing or two have one name."""
    names = [c if c in entity_kinds(entity) else x_name(c) for c in table.column_names]
    bad = [f"column {c} is missing" for c in needed if c not in names]
    bad += [f"column {old!r} cannot be told by name from another" for old, c in zip(table.column_names, names, strict=True) if names.count(c) > 1 or c == "x_"]
    if bad:
        raise WorkbenchError(f"{entity}: " + "; ".join(bad) + ".", fix="Rename the columns; one of your own is called x_...")
    return table.rename_columns(names)


def checked_rows(entity: str, table: pa.Table, types: dict[str, str], *, versions: bool) -> pa.Table:
    """`table` cast to `types`; refuses rows that break the types, the key or the form of ids, naming rows and columns."""
    connection = scratch()
    connection.register("given", table)
    bad = []
    for column, kind in types.items():
        if kind == duck_type(table.schema.field(column).type) != "DECIMAL(18,2)":
            continue
        found = connection.sql(f"select id, {column} from given where {column} is not null and try_cast({column} as {kind}) is null limit 3").fetchall()
        bad += [f"{row[0]}: {column} = {row[1]!r} is no {kind.lower()}" for row in found]
    key = "id, valid_from" if versions else "id"
    bad += [f"{row[0]} stands twice" for row in connection.sql(f"select id, {key} from given group by {key if versions else 'id'} having count(*) > 1 limit 3").fetchall()]
    if versions:
        bad += [f"{row[0]}: valid_from is missing" for row in connection.sql("select id from given where valid_from is null limit 3").fetchall()]
    ids = connection.sql("select id from given where id is null or not regexp_matches(id, '^[a-z0-9_]+:.+') limit 3").fetchall()
    bad += [f"id {row[0]!r} is not <source>:<native id>" for row in ids]
    if bad:
        raise WorkbenchError(f"{entity} breaks the schema: " + "; ".join(bad[:6]) + ".", fix="Mend these rows; nothing was written.")
    return connection.sql(f"select {', '.join(f'cast({c} as {kind}) as {c}' for c, kind in types.items())} from given").to_arrow_table()
