"""The files of an import as rows of their entities: typed, checked, and a finding for each row that is left out or changed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import duckdb
import pyarrow as pa

from workbench import schema
from workbench.connect.mapping import FileMapping, Mapping, Target
from workbench.connect.tables import TextTable, column_sql, text_database
from workbench.errors import WorkbenchError
from workbench.rows import quoted

EVENTS = ("lead", "deal", "activity")  # what happens at some time; an account or product without a date stands from the first day
CLOSES = ("closed_at", "converted_at", "sold_at")
TIMES = ("created_at", "happened_at", *CLOSES)
_BAD = {"int": "bad_number", "float": "bad_number", "money": "bad_number", "date": "bad_date", "time": "bad_date", "bool": "bad_value"}

_LOCAL = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y/%m/%d")
YES, NO = ("yes", "true", "1", "1.0", "y", "t", "on"), ("no", "false", "0", "0.0", "n", "f", "off")



def mark_of(target: Target) -> str:
    """The flag that keeps of a field with placeholders that it "was shown, not chosen"; "" where there is none."""
    return f"x_{target.field.removeprefix('x_')}_not_chosen" if target.placeholders and not target.personal and not target.reference else ""


class Intake:
    """The files of one import in a database of its own: a table an entity (id, fields, _part, _line), and table `finding`.

    A part is one file read as one entity: `parts` holds (its mapping, its path), and `_part` is the place in it. A finding
    that is `lost` stands for a line that is in no table.
    """

    def __init__(self, mapping: Mapping):
        self.mapping, self.connection = mapping, text_database()
        self.parts: list[tuple[FileMapping, Path]] = []
        self.connection.execute("create table part (part int, file varchar, entity varchar, is_distinct bool)")
        self.connection.execute("create table finding (part int, line bigint, rule varchar, record_id varchar, detail varchar, n bigint, lost bool)")

    def rows(self, query: str) -> list[tuple]:
        """What a query gives."""
        return self.connection.sql(query).fetchall()

    @property
    def entities(self) -> list[str]:
        """The entities of the parts, in their order."""
        return list(dict.fromkeys(file.entity for file, _ in self.parts))

    def targets(self, entity: str) -> dict[str, Target]:
        """Field -> what feeds it; of two files that do, the one that calls it late."""
        told = [t for file, _ in self.parts for t in file.targets if file.entity == entity and t.field != "id"]
        return {t.field: t for t in sorted(told, key=lambda t: t.known_at in schema.NEVER_LEARNED)}

    def columns(self, entity: str) -> list[str]:
        """The columns of an entity's table that are fields."""
        return [d[0] for d in self.connection.sql(f"from {entity} limit 0").description if d[0] not in ("id", "_part", "_line", "_bad")]

    def first_of(self, entity: str, names: tuple[str, ...]) -> str:
        """SQL: the first time among these columns, as far as the entity's table has them."""
        return f"coalesce({', '.join([c for c in names if c in self.columns(entity)] + ['null::timestamp'])})"

    def tell(self, rule: str, source: str, detail: str, *, line: str = "min(_line)", record: str = "min(id)", lost: bool = False) -> None:
        """One finding for all rows of `source` that agree in part, detail, line and record (all of these are SQL)."""
        self.connection.execute(f"""insert into finding select _part, {line}, {rule}, {record}, {detail}, count(*), {lost} {source}
            group by all order by 1, 2, 5""")

    def tell_file(self, table: TextTable, mappings: list[FileMapping]) -> None:
        """What the latest part's file holds beside rows: unreadable lines, columns that none of its mappings uses, nothing at all."""
        used = {c for f in mappings for t in f.targets for c in f.join.get(t.column, [t.column])} | {f.order_by for f in mappings}
        ignored = {c for f in mappings for c in f.ignored}
        told = [("unused_column", c + " (ignored by the mapping)" * (c in ignored)) for c in table.columns if c not in used]
        told += [("empty_file", "a header and no row")] * (not table.findings and not self.rows(f"select 1 from {table.name} limit 1"))
        lines = table.findings + [{"rule": rule, "line": 1, "detail": detail, "lost": False} for rule, detail in told]
        if lines:
            self.connection.register("told", pa.Table.from_pylist(lines))
            self.connection.execute(f"insert into finding select {len(self.parts) - 1}, line, rule, null, detail, 1, lost from told")
            self.connection.unregister("told")

    def add(self, file: FileMapping, path: Path, table: TextTable) -> None:
        """Type the rows of one file into the table of its entity; what is wrong with a row stands in `_bad`."""
        asked = [c for t in file.targets for c in file.join.get(t.column, [t.column])] + [file.order_by] * bool(file.order_by)
        if absent := sorted(set(asked) - set(table.columns)):
            raise WorkbenchError(f"{path.name} has no column {', '.join(map(repr, absent))}.", fix=f"Its columns: {', '.join(table.columns)}.")
        self.connection.execute("insert into part values (?, ?, ?, ?)", [len(self.parts), path.name, file.entity, file.distinct])
        hidden = ", ".join(column_sql(c) for c in file.join if c in table.columns)
        joined = "".join(f", {joined_sql(parts)} as {column_sql(c)}" for c, parts in file.join.items())
        source = f"from (select *{f' exclude ({hidden})' if hidden else ''}{joined}, {len(self.parts)} as _part from {table.name})"
        texts, values, checks = _selected(file, self.mapping)
        select = f"""select {', '.join(values)}, _part, _line, case {' '.join(checks)} end as _bad
            from (select {', '.join(texts)}, _part, _line {source})"""
        if file.distinct:
            select = f"from ({select}) where id is not null qualify row_number() over (partition by id order by _line) = 1"
        earlier = f"from {file.entity} union all by name " * (file.entity in self.entities)
        try:
            self.connection.execute(f"create or replace table {file.entity} as {earlier}({select})")
        except duckdb.Error as error:
            raise WorkbenchError(f"{path.name} cannot be read as {file.entity}: {str(error).splitlines()[0]}.",
                                 fix="Check the mapping's types, formats and constants.") from error
        self.parts.append((file, path))
        for t in file.targets:
            if t.values and t.type == "text" and t.field != "id":
                raw = raw_sql(t.column)
                changed = f"from (select *, {raw} as old, {mapped(raw, t.values)} as new {source}) where new is distinct from old"
                self.tell("'replaced_value'", changed, f"""printf('%s: e.g. ''%s'' read as ''%s'', as the mapping says', {quoted(t.column)},
                    arg_min(old, _line), coalesce(arg_min(new, _line), '(missing)'))""", record="null")

    def leave_out_bad(self, entity: str) -> None:
        """Tell and delete bad rows, and those whose key stands already (rows of distinct values without a word)."""
        self.connection.execute(f"""update {entity} set _bad = case when own.is_distinct then '' else
                'duplicate_key|stands in ' || case when own.part = other.part then 'line ' || line else other.file end || ' already' end
            from (select id, min(rowid) as first, arg_min(_part, rowid) as part, arg_min(_line, rowid) as line from {entity}
                where _bad is null group by id having count(*) > 1) f, part own, part other
            where f.id = {entity}.id and f.first < {entity}.rowid and _bad is null and own.part = _part and other.part = f.part""")
        self.tell("split_part(_bad, '|', 1)", f"from {entity} where _bad <> ''", "substr(_bad, instr(_bad, '|') + 1)",
                  line="_line", record="id", lost=True)
        self.connection.execute(f"delete from {entity} where _bad is not null")
        self.connection.execute(f"alter table {entity} drop column _bad")
        for mark in set(map(mark_of, self.targets(entity).values())) & set(self.columns(entity)):
            if not self.rows(f"select 1 from {entity} where {mark} limit 1"):
                self.connection.execute(f"alter table {entity} drop column {mark}")

    def counts(self) -> list[tuple[str, str, int, int, int]]:
        """(file, entity, rows read, loaded, rejected) of each part; refuses a file with too many bad rows."""
        out = []
        for n, (file, path) in enumerate(self.parts):
            loaded = self.rows(f"select count(*) from {file.entity} where _part = {n}")[0][0]
            lost, often = self.rows(f"select count(*), mode(rule) from finding where lost and part = {n}")[0]
            if lost > self.mapping.bad_share * (loaded + lost):
                line, detail = self.rows(f"select line, detail from finding where lost and part = {n} and rule = '{often}' order by line limit 1")[0]
                raise WorkbenchError(f"{path.name}: {lost:,} of {loaded + lost:,} rows are bad (more than {self.mapping.bad_share:.0%}); "
                                     f"most often {often}, e.g. line {line}: {detail}.", fix="Mend the mapping or the file; nothing was written.")
            out.append((path.name, file.entity, loaded + lost, loaded, lost))
        return out

    def resolve_references(self, entity: str, lake) -> None:
        """Empty and tell keys that lead to no record of these files or the lake."""
        for t in self.targets(entity).values():
            if t.reference:
                known = f"select id from {lake.relation_sql(t.reference)} where valid_to is null and deleted_at is null"
                known += f" union all select id from {t.reference}" if t.reference in self.entities else ""
                lost = f"from {entity} where {t.field} not in ({known})"
                value = f"substr({t.field}, {len(self.mapping.source) + 2})"
                self.tell("'broken_reference'", lost, f"{quoted(t.column + ' = ')} || {value} || ' is no {t.reference}; the link is left empty'")
                self.connection.execute(f"update {entity} set {t.field} = null where rowid in (select rowid {lost})")

    def tell_dates(self, entity: str) -> None:
        """Empty the closing date of what is not decided (it is a plan), and count the records that stand nowhere in time."""
        columns = self.columns(entity)
        won, lost = (re.sub(r"[a-z]+_[a-z]+", lambda m: m[0] if m[0] in columns else "null", told.get(entity, "null"))
                     for told in (schema.WON, schema.LOST))
        close = [c for c in CLOSES if c in columns]
        if close and won != "null":
            plan = f"from {entity} where not coalesce({won}, false) and not coalesce({lost}, false) and {self.first_of(entity, CLOSES)} is not null"
            self.tell("'planned_close'", plan, "'not decided yet, so its closing date is a plan and is left empty'", record="null")
            self.connection.execute(f"update {entity} set {', '.join(f'{c} = null' for c in close)} where rowid in (select rowid {plan})")
        dates = [c for c in TIMES if c in columns]
        if entity in EVENTS and dates:
            self.tell("'no_date'", f"from {entity} where {self.first_of(entity, TIMES)} is null",
                      f"'no {' and no '.join(dates)}: stands in time only from the export on'", record="null")


def _selected(file: FileMapping, mapping: Mapping) -> tuple[list[str], list[str], list[str]]:
    """(texts, values, checks) in SQL: texts read from the file, values typed from the texts, and what is wrong with a row."""
    prefix = quoted(mapping.source + ":")
    key = next((t for t in file.targets if t.field == "id"), None)
    texts = [f"{clean_sql(key) if key else '_line::varchar'} as key"]
    values, checks = [f"{prefix} || key as id"], [f"when key is null then {quoted(f'missing_key|{key.column if key else key} is empty')}"]
    for n, target in enumerate(t for t in file.targets if t.field != "id"):
        raw, typed = raw_sql(target.column), typed_sql(f"c{n}", target, mapping.time_zone)
        texts.append(f"{clean_sql(target)} as c{n}")
        values.append(f"{f'{prefix} || ' if target.reference else ''}{typed} as {target.field}")
        if target.type in _BAD:
            texts.append(f"left({raw}, 60) as r{n}")
            checks.append(f"when c{n} is not null and ({typed}) is null then {quoted(f'{_BAD[target.type]}|{target.column} = ')} || r{n}")
        if mark := mark_of(target):
            texts.append(f"{among(raw, target.placeholders)} as m{n}")
            values.append(f"m{n} as {mark}")
    if file.order_by:
        texts.append(f"{raw_sql(file.order_by)} as _order")
        values.append("coalesce(try_cast(_order as bigint), row_number() over (order by try_cast(_order as double), _order, _line)) as created_order")
    kinds = schema.entity(file.entity).fields
    return texts, values + [f"{quoted(v)}::{schema.DUCKDB_TYPES[kinds[k].kind]} as {k}" for k, v in file.constants.items()], checks


def raw_sql(column: str) -> str:
    """The text of a column, null where there is nothing but blanks."""
    return f"text_of({column_sql(column)})"


def joined_sql(columns: list[str]) -> str:
    """The texts of several columns joined by a blank."""
    return f"nullif(concat_ws(' ', {', '.join(map(raw_sql, columns))}), '')"


def among(raw: str, values: Iterable[str]) -> str:
    """Whether a text is one of `values`."""
    return f"coalesce({raw} in ({', '.join(map(quoted, values))}), false)"


def clean_sql(target: Target) -> str:
    """The text of a target: placeholders as null, values replaced by those that the mapping tells."""
    raw = raw_sql(target.column)
    return mapped(f"case when {among(raw, target.placeholders)} then null else {raw} end" if target.placeholders else raw, target.values)


def mapped(expression: str, values: dict) -> str:
    """An expression with `values` replaced; key "*" stands for every other value, key "" for missing, value "" is missing.

    >>> mapped("x", {"Won": True, "*": ""})
    "(case when (x) is null then null when (x) = 'Won' then 'true' else null end)"
    """
    if not values:
        return expression
    told = {k: "null" if v == "" else quoted(str(v).lower() if isinstance(v, bool) else v) for k, v in values.items()}
    cases = " ".join(f"when ({expression}) = {quoted(k)} then {v}" for k, v in told.items() if k not in ("*", ""))
    return f"(case when ({expression}) is null then {told.get('', 'null')} {cases} else {told.get('*', f'({expression})')} end)"


def typed_sql(clean: str, target: Target, zone: str) -> str:
    """`clean` as a value of the target's type: dates and times from its formats, numbers by its decimal sign (see values.sql)."""
    if target.type == "text":
        return clean
    if target.type == "bool":
        return f"case when lower({clean}) in {YES} then true when lower({clean}) in {NO} then false end"
    if target.type not in ("date", "time"):
        return f"as_{target.type}({clean}, '{target.decimal}')"
    exact = [f for f in target.format if "%z" in f or f.endswith("Z")]
    local = [f for f in target.format or _LOCAL if f not in exact]
    found = [f"try_strptime({clean}, [{', '.join(map(quoted, some))}])::timestamp" for some in (local, exact) if some]
    if local and target.type == "time" and zone != "UTC":
        found[0] = f"in_utc({found[0]}, {quoted(zone)})"
    found += [] if target.format else [f"instant_of({clean})"]
    return f"sane(coalesce({', '.join(found)}))::{schema.DUCKDB_TYPES[target.type]}"
