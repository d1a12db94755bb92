"""One file read as one entity: its rows checked and typed, and a finding for each that is left out or changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from workbench import schema
from workbench.connect.mapping import FileMapping, Mapping, Target
from workbench.connect.tables import TextTable, column_sql
from workbench.connect.typed import among, clean_sql, mapped, raw_sql, typed_sql
from workbench.errors import WorkbenchError
from workbench.rows import quoted

EVENTS = ("lead", "deal", "activity")  # what happens at some time; an account or product without a date stands from the first day
CLOSES = ("closed_at", "converted_at", "sold_at")
MARK = "x_{}_not_chosen"
_BAD = {"int": "bad_number", "float": "bad_number", "money": "bad_number", "date": "bad_date", "time": "bad_date", "bool": "bad_value"}
# What is not decided, for a deal and for a lead by the fields that there are: a closing date beside it is a plan.
_UNDECIDED = (("deal", {"is_won"}, "is_won is null"),
              ("lead", {"is_converted", "is_lost"}, "not coalesce(is_converted, false) and not coalesce(is_lost, is_converted is not null)"),
              ("lead", {"is_converted"}, "is_converted is null"))


@dataclass
class Part:
    """One file read as one entity: temporary table `typed` (id, fields, _line) on `connection` holds its sound rows."""

    file: FileMapping
    path: Path
    connection: duckdb.DuckDBPyConnection
    findings: list[dict]
    n_read: int
    marks: list[str]

    def count(self) -> int:
        return self.connection.sql("select count(*) from typed").fetchall()[0][0]

    def tell(self, rule: str, line: int | None, detail: str, *, n: int = 1, record: str | None = None, lost: bool = False) -> None:
        self.findings.append({"rule": rule, "line": line, "detail": detail, "n": n, "record_id": record, "lost": lost, "file": self.path.name, "entity": self.file.entity})


def checked_part(file: FileMapping, path: Path, table: TextTable, mapping: Mapping, first: bool) -> Part:
    """Type one file: temporary table `typed` (id, fields, _line) of sound rows; findings for the others."""
    part = Part(file, path, table.connection.cursor(), [], 0, [])
    part.connection.execute("set TimeZone = 'UTC'")
    if first:
        for f in table.findings:
            part.tell(f["rule"], f["line"], f["detail"], lost=f["lost"])
    asked = [c for t in file.targets for c in file.joined.get(t.column, [t.column])] + [file.order_by] * bool(file.order_by)
    absent = sorted(set(asked) - set(table.columns))
    if absent:
        raise WorkbenchError(f"{path.name} has no column {', '.join(map(repr, absent))}.", fix=f"Its columns: {', '.join(table.columns)}.")
    joined = "".join(f", nullif(concat_ws(' ', {', '.join(map(raw_sql, parts))}), '') as {column_sql(c)}" for c, parts in file.joined.items())
    hidden = [column_sql(c) for c in file.joined if c in table.columns]
    part.connection.execute(f"create temp view joined as select * {'exclude (' + ', '.join(hidden) + ')' if hidden else ''}{joined} from raw")
    inner, outer, checks = _selected(part, mapping)
    part.connection.execute(f"create temp table checked as select {', '.join(outer)}, case {' '.join(checks)} end as _bad from (select {', '.join(inner)} from joined)")
    if file.distinct:
        part.connection.execute("delete from checked where id is null or rowid not in (select arg_min(rowid, _line) from checked group by id)")
    part.n_read = part.connection.sql("select count(*) from checked").fetchall()[0][0] + (sum(f["lost"] for f in part.findings))
    part.connection.execute("""update checked set _bad = 'duplicate_key|stands in line ' || f.first || ' already' from
        (select id, min(_line) as first from checked where _bad is null group by id having count(*) > 1) f where checked.id = f.id and checked._line > f.first and _bad is null""")
    for line, record, bad in part.connection.sql("select _line, id, _bad from checked where _bad is not null order by _line").fetchall():
        rule, detail = bad.split("|", 1)
        part.tell(rule, line, detail, record=record, lost=True)
    part.connection.execute("delete from checked where _bad is not null")
    never = [m for m in part.marks if not part.connection.sql(f"select bool_or({m}) from checked").fetchall()[0][0]]
    part.marks = [m for m in part.marks if m not in never]
    for column in ["_bad", *never]:
        part.connection.execute(f"alter table checked drop column {column}")
    part.connection.execute("alter table checked rename to typed")
    return part


def _selected(part: Part, mapping: Mapping) -> tuple[list[str], list[str], list[str]]:
    """(texts, values, checks) in SQL: texts read from the file, values typed from the texts, and what is wrong with a row."""
    file = part.file
    key = next((t for t in file.targets if t.field == "id"), None)
    inner = [f"{clean_sql(key) if key else '_line::varchar'} as key", "_line"]
    outer, checks = [f"{quoted(mapping.source + ':')} || key as id", "_line"], [f"when key is null then {quoted('missing_key|' + (key.column if key else '') + ' is empty')}"]
    for n, target in enumerate(t for t in file.targets if t.field != "id"):
        raw, text = raw_sql(target.column), f"c{n}"
        inner.append(f"{clean_sql(target)} as {text}")
        typed = typed_sql(text, target, mapping.time_zone)
        outer.append(f"{typed} as {target.field}")
        if target.kind in _BAD:
            inner.append(f"left({raw}, 60) as r{n}")
            checks.append(f"when {text} is not null and ({typed}) is null then {quoted(_BAD[target.kind] + '|' + target.column + ' = ')} || r{n}")
        if target.placeholders and not target.personal and not target.reference:
            shown = among(raw, target.placeholders)
            part.marks.append(MARK.format(target.field.removeprefix("x_")))
            inner.append(f"{shown} as m{n}")
            outer.append(f"m{n} as {part.marks[-1]}")
        if target.values and target.kind == "text":
            _tell_replaced(part, target)
    if file.order_by:
        inner.append(f"{raw_sql(file.order_by)} as _order")
        outer.append("coalesce(try_cast(_order as bigint), row_number() over (order by try_cast(_order as double), _order, _line)) as created_order")
    kinds = schema.entity(file.entity).fields
    outer += [f"{quoted(v)}::{schema.DUCKDB_TYPES[kinds[k].kind]} as {k}" for k, v in file.constants.items()]
    return inner, outer, checks


def _tell_replaced(part: Part, target: Target) -> None:
    raw = raw_sql(target.column)
    line, old, new, n = part.connection.sql(f"""select min(_line), arg_min(old, _line), arg_min(new, _line), count(*) from
        (select _line, {raw} as old, {mapped(raw, target.values)} as new from joined) where new is distinct from old""").fetchall()[0]
    if n:
        part.tell("replaced_value", line, f"{target.column}: e.g. {old!r} read as {new or '(missing)'!r}, as the mapping says", n=n)


def tell_unused(part: Part, table: TextTable, mappings: list[FileMapping]) -> None:
    used = {c for f in mappings for t in f.targets for c in f.joined.get(t.column, [t.column])} | {f.order_by for f in mappings}
    ignored = {c for f in mappings for c in f.ignored}
    for column in table.columns:
        if column not in used:
            part.tell("unused_column", 1, column + (" (ignored by the mapping)" if column in ignored else ""))
    if not table.n_read:
        part.tell("empty_file", 1, "a header and no row")


def refuse_doubles(parts: list[Part]) -> None:
    """A key that stands in an earlier file of the same entity is a duplicate, unless the file is read for its distinct values."""
    for place, part in enumerate(parts):
        for earlier in parts[:place]:
            part.connection.register("others", earlier.connection.sql("select id from typed").to_arrow_table())
            double = part.connection.sql("select _line, id from typed where id in (select id from others) order by _line").fetchall()
            part.connection.execute("delete from typed where id in (select id from others)")
            part.connection.unregister("others")
            if part.file.distinct:
                part.n_read -= len(double)
            for line, record in double if not part.file.distinct else []:
                part.tell("duplicate_key", line, f"stands in {earlier.path.name} already", record=record, lost=True)


def refuse_bad_share(part: Part, share: float) -> None:
    lost = pd.DataFrame([f for f in part.findings if f["lost"]])
    if len(lost) and len(lost) > share * part.n_read:
        often = lost["rule"].value_counts().index[0]
        example = lost[lost["rule"] == often].iloc[0]
        raise WorkbenchError(f"{part.path.name}: {len(lost):,} of {part.n_read:,} rows are bad (more than {share:.0%}); most often {often}, e.g. line "
                             f"{example['line']}: {example['detail']}.", fix="Mend the mapping or the file; nothing was written.")


def tell_dates(part: Part) -> None:
    """Empty the closing date of what is not decided (it is a plan), and count the records that stand nowhere in time."""
    columns = [d[0] for d in part.connection.sql("select * from typed limit 0").description]
    close = [c for c in ("closed_at", "converted_at") if c in columns]
    undecided = [sql for entity, needs, sql in _UNDECIDED if entity == part.file.entity and needs <= set(columns)]
    if close and undecided:
        planned = f"({undecided[0]}) and coalesce({', '.join(close)}) is not null"
        n, line = part.connection.sql(f"select count(*), min(_line) from typed where {planned}").fetchall()[0]
        if n:
            part.tell("planned_close", line, "not decided yet, so its closing date is a plan and is left empty", n=n)
            part.connection.execute(f"update typed set {', '.join(f'{c} = null' for c in close)} where {planned}")
    dates = [c for c in ("created_at", "happened_at", *CLOSES) if c in columns]
    if part.file.entity in EVENTS and dates:
        n, line = part.connection.sql(f"select count(*), min(_line) from typed where coalesce({', '.join(dates)}) is null").fetchall()[0]
        if n:
            part.tell("no_date", line, f"no {' and no '.join(dates)}: stands in time only from the export on", n=n)


