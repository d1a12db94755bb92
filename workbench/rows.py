"""Rows on their way in: the types of columns in Arrow and DuckDB, and the checks that name rows and columns."""

import re
from tempfile import gettempdir

import duckdb
import pyarrow as pa

from workbench import schema
from workbench.errors import WorkbenchError

ARROW = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "money": pa.decimal128(18, 2), "bool": pa.bool_(), "date": pa.date32(),
         "time": pa.timestamp("us")}
FIELD = {"source": "text", "entity": "text", "field": "text", "known_at": "text", "history_from": "time", "kind": "text", "meaning": "text",
         "personal": "bool"}
FINDING = {"source": "text", "file": "text", "line": "int", "rule": "text", "entity": "text", "record_id": "text", "detail": "text", "n": "int"}
SYNC_STATE = {"source": "text", "stream": "text", "entity": "text", "mark": "time", "history_mark": "time", "loaded_at": "time", "succeeded_at": "time", "tried_at": "time",
              "swept_at": "time", "n_rows": "int", "n_changed": "int", "n_deleted": "int", "n_calls": "int", "spent": "float", "error": "text", "columns": "text"}
CUSTOM_FIELD = {"source": "text", "entity": "text", "field": "text", "native": "text", "label": "text", "kind": "text", "options": "text", "dropped_at": "time"}
OWN = {"field": FIELD, "finding": FINDING, "sync_state": SYNC_STATE, "custom_field": CUSTOM_FIELD}  # tables that hold no versions


def canonical(table: str) -> pa.Schema:
    """The Arrow schema of an entity's table without custom fields, or of a table of OWN."""
    kinds = OWN.get(table) or {name: kind for name, kind, _ in schema.VERSION} | {f.name: f.kind for f in schema.entity(table).fields.values()}
    return pa.schema([(name, ARROW[kind]) for name, kind in kinds.items()])


def scratch() -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that reckons in UTC; what does not fit goes to the system's temporary folder, not to the working one."""
    connection = duckdb.connect(config={"temp_directory": gettempdir(), "autoinstall_known_extensions": False})
    connection.execute("set TimeZone = 'UTC'")
    connection.execute("set enable_progress_bar = false")  # it would draw between the lines of reports and tests
    return connection


def quoted(value: object) -> str:
    """A value as an SQL text literal."""
    return "'" + str(value).replace("'", "''") + "'"


def of_source(source: str | None, column: str = "id") -> str:
    """SQL condition: the record comes from `source` (any, when None)."""
    return "true" if source is None else f"starts_with({column}, {quoted(source + ':')})"


def rows_of(source: str) -> list[dict]:
    """All rows of an SQL source as dicts."""
    return duckdb.default_connection().cursor().sql(f"select * from {source}").to_arrow_table().to_pylist()


def x_name(column: str) -> str:
    """The name of a custom field.

    >>> x_name("Lead Score (new)"), x_name("x_tag")
    ('x_lead_score_new', 'x_tag')
    """
    return "x_" + re.sub(r"[^a-z0-9]+", "_", column.lower().removeprefix("x_")).strip("_")


def x_type(kind: pa.DataType) -> pa.DataType:
    """The stored Arrow type of a custom field that came as `kind`."""
    is_kind = {"time": pa.types.is_timestamp, "int": pa.types.is_integer, "bool": pa.types.is_boolean, "date": pa.types.is_date,
               "float": lambda kind: pa.types.is_floating(kind) or pa.types.is_decimal(kind)}
    return next((ARROW[name] for name, holds in is_kind.items() if holds(kind)), pa.string())


def duck_type(kind: pa.DataType) -> str:
    """The DuckDB type of a stored Arrow type."""
    return next((schema.DUCKDB_TYPES[name] for name, arrow in ARROW.items() if kind == arrow), "VARCHAR")


def named_columns(entity: str, table: pa.Table, needed: list[str]) -> pa.Table:
    """`table` with unknown columns named x_...; refused where a needed column is missing or two have one name."""
    names = [c if c in canonical(entity).names else x_name(c) for c in table.column_names]
    bad = [f"column {c} is missing" for c in needed if c not in names]
    bad += [f"column {old!r} cannot be told by name from another" for old, c in zip(table.column_names, names, strict=True) if names.count(c) > 1 or c == "x_"]
    if bad:
        raise WorkbenchError(f"{entity}: " + "; ".join(bad) + ".", fix="Rename the columns; one of your own is called x_...")
    return table.rename_columns(names)


def checked_rows(entity: str, table: pa.Table, types: dict[str, str], *, versions: bool) -> pa.Table:
    """`table` cast to `types`; refuses rows that break the types, the key or the form of ids, naming rows and columns."""
    connection, key = scratch(), "id, valid_from" if versions else "id"
    connection.register("given", table)
    faults = [(f"{c} is not null and try_cast({c} as {kind}) is null", c, f"{{}}: {c} = {{!r}} is no {kind.lower()}")
              for c, kind in types.items() if kind != duck_type(table.schema.field(c).type)]
    faults += [("valid_from is null", "null", "{}: valid_from is missing")] if versions else []
    faults += [(f"true group by {key} having count(*) > 1", "null", "{} stands twice"),
               ("id is null or not regexp_matches(id, '^[a-z0-9_]+:.+')", "null", "id {!r} is not <source>:<native id>")]
    bad = [sentence.format(*row) for where, value, sentence in faults for row in connection.sql(f"select id, {value} from given where {where} limit 3").fetchall()]
    if bad:
        raise WorkbenchError(f"{entity} breaks the schema: " + "; ".join(bad[:6]) + ".", fix="Mend these rows; nothing was written.")
    return connection.sql(f"select {', '.join(f'cast({c} as {kind}) as {c}' for c, kind in types.items())} from given").to_arrow_table()
