"""The files of an import as rows of their entities: typed, checked, and a finding for each row that is left out or changed."""

import re
from pathlib import Path

import duckdb
import pyarrow as pa

from workbench import schema
from workbench.connect.mapping import FileMapping, Mapping, Target, mapped
from workbench.connect.tables import TextTable, raw_sql, text_database
from workbench.errors import WorkbenchError
from workbench.rows import quoted

EVENTS = ("lead", "deal", "activity")  # what happens at some time; an account or product without a date stands from the first day
CLOSES = ("closed_at", "converted_at", "sold_at")
TIMES = ("created_at", "happened_at", *CLOSES)
_BAD = {"int": "bad_number", "float": "bad_number", "money": "bad_number", "date": "bad_date", "time": "bad_date", "bool": "bad_value"}


class Intake:
    """The files of one import in a database of its own: a table an entity (id, fields, _part, _line), and table `finding`.

    A part is one file read as one entity: `parts` holds (its mapping, its path), and `_part` is the place in it. A finding
    that is `lost` stands for a line that is in no table.
    """

    def __init__(self, mapping: Mapping):
        self.mapping, self.database = mapping, text_database()
        self.parts: list[tuple[FileMapping, Path]] = []
        self.database.execute("create table part (part int, file varchar, entity varchar, is_distinct bool)")
        self.database.execute("create table finding (part int, line bigint, rule varchar, record_id varchar, detail varchar, n bigint, lost bool)")

    def rows(self, query: str) -> list[tuple]:
        """What a query gives."""
        return self.database.sql(query).fetchall()

    @property
    def entities(self) -> list[str]:
        """The entities of the parts, in their order."""
        return list(dict.fromkeys(file.entity for file, _ in self.parts))

    def fields(self, entity: str) -> list[Target]:
        """What feeds each field of an entity's table; of two files that do, the one that calls it late."""
        told = sorted((t for file, _ in self.parts for t in file.targets if file.entity == entity), key=lambda t: t.known_at in schema.NEVER_LEARNED)
        return [t for name, t in {t.field: t for t in told}.items() if name in self.columns(entity)]

    def columns(self, entity: str) -> list[str]:
        """The columns of an entity's table that are fields."""
        return [d[0] for d in self.database.sql(f"from {entity} limit 0").description if d[0] not in ("id", "_part", "_line", "_bad")]

    def known(self, entity: str, expression: str) -> str:
        """SQL: an expression of fields, in which those that the entity's table lacks are null."""
        columns = self.columns(entity)
        return re.sub(r"\b[a-z]+_[a-z]+\b", lambda name: name[0] if name[0] in columns else "null", expression)

    def tell(self, rule: str, source: str, detail: str, *, line: str = "min(_line)", record: str = "min(id)", lost: bool = False) -> None:
        """One finding for all rows of `source` that agree in part, detail, line and record (all of these are SQL)."""
        self.database.execute(f"""insert into finding select _part, {line}, {rule}, {record}, {detail}, count(*), {lost} {source}
            group by all order by 1, 2, 5""")

    def empty(self, entity: str, columns: list[str], where: str, rule: str, detail: str, *, record: str = "min(id)") -> None:
        """Tell the rows for which `where` holds, and set these columns of theirs to null."""
        self.tell(rule, f"from {entity} where {where}", detail, record=record)
        self.database.execute(f"update {entity} set {', '.join(f'{c} = null' for c in columns)} where {where}")

    def tell_file(self, table: TextTable, mappings: list[FileMapping]) -> None:
        """What the latest part's file holds beside rows: unreadable lines, columns that none of its mappings uses, nothing at all."""
        used = {c for f in mappings for t in f.targets for c in t.parts} | {f.order_by for f in mappings}
        ignored = {c for f in mappings for c in f.ignored}
        told = [("unused_column", c + " (ignored by the mapping)" * (c in ignored)) for c in table.columns if c not in used]
        told += [("empty_file", "a header and no row")] * (not table.findings and not self.rows(f"select 1 from {table.name} limit 1"))
        lines = table.findings + [{"rule": rule, "line": 1, "detail": detail, "lost": False} for rule, detail in told]
        if lines:
            self.database.register("told", pa.Table.from_pylist(lines))
            self.database.execute(f"insert into finding select {len(self.parts) - 1}, line, rule, null, detail, 1, lost from told")

    def add(self, file: FileMapping, path: Path, table: TextTable) -> None:
        """Type the rows of one file into the table of its entity; what is wrong with a row stands in `_bad`."""
        asked = [c for t in file.targets for c in t.parts] + [file.order_by] * bool(file.order_by)
        if absent := sorted(set(asked) - set(table.columns)):
            raise WorkbenchError(f"{path.name} has no column {', '.join(map(repr, absent))}.", fix=f"Its columns: {', '.join(table.columns)}.")
        part = len(self.parts)
        self.database.execute("insert into part values (?, ?, ?, ?)", [part, path.name, file.entity, file.distinct])
        select = f"select *, {part} as _part from ({_typed(file, self.mapping.source, table.name)})"
        if file.distinct:
            select = f"from ({select}) where id is not null qualify row_number() over (partition by id order by _line) = 1"
        earlier = f"from {file.entity} union all by name " * (file.entity in self.entities)
        try:
            self.database.execute(f"create or replace table {file.entity} as {earlier}({select})")
        except duckdb.Error as error:
            raise WorkbenchError(f"{path.name} cannot be read as {file.entity}: {str(error).splitlines()[0]}.",
                                 fix="Check the mapping's types, formats and constants.") from error
        self.parts.append((file, path))
        for t in file.targets:
            if t.values and t.type == "text" and t.field != "id":
                raw = raw_sql(*t.parts)
                read = f"select {part} as _part, _line, {raw} as old, {mapped(raw, t.values)} as new from {table.name}"
                told = f"""printf('%s: e.g. ''%s'' read as ''%s'', as the mapping says', {quoted(t.column)}, arg_min(old, _line),
                    coalesce(arg_min(new, _line), '(missing)'))"""
                self.tell("'replaced_value'", f"from ({read}) where new is distinct from old", told, record="null")

    def leave_out_bad(self, entity: str) -> None:
        """Tell and delete bad rows, and those whose key stands already (rows of distinct values without a word)."""
        self.database.execute(f"""update {entity} set _bad = case when own.is_distinct then '' else
                'duplicate_key|stands in ' || case when own.part = other.part then 'line ' || line else other.file end || ' already' end
            from (select id, min(rowid) as first, arg_min(_part, rowid) as part, arg_min(_line, rowid) as line from {entity}
                where _bad is null group by id having count(*) > 1) f, part own, part other
            where f.id = {entity}.id and f.first < {entity}.rowid and _bad is null and own.part = _part and other.part = f.part""")
        detail = "substr(_bad, instr(_bad, '|') + 1)"
        self.tell("split_part(_bad, '|', 1)", f"from {entity} where _bad <> ''", detail, line="_line", record="id", lost=True)
        self.database.execute(f"delete from {entity} where _bad is not null")
        never = [t.field for t in self.fields(entity) if t.mark and not self.rows(f"select 1 from {entity} where {t.field} limit 1")]
        for column in ["_bad", *never]:
            self.database.execute(f"alter table {entity} drop column {column}")

    def counts(self) -> list[tuple[str, str, int, int, int]]:
        """(file, entity, rows read, loaded, rejected) of each part; refuses a file with too many bad rows."""
        out = []
        for n, (file, path) in enumerate(self.parts):
            loaded = self.rows(f"select count(*) from {file.entity} where _part = {n}")[0][0]
            worst = self.rows(f"""select count(*) as n, rule, min(line), arg_min(detail, line) from finding where lost and part = {n}
                group by rule order by n desc, rule""")
            lost = sum(found[0] for found in worst)
            if lost > self.mapping.bad_share * (loaded + lost):
                _, rule, line, detail = worst[0]
                raise WorkbenchError(f"{path.name}: {lost:,} of {loaded + lost:,} rows are bad (more than {self.mapping.bad_share:.0%}); "
                                     f"most often {rule}, e.g. line {line}: {detail}.", fix="Mend the mapping or the file; nothing was written.")
            out.append((path.name, file.entity, loaded + lost, loaded, lost))
        return out

    def resolve_references(self, entity: str, lake) -> None:
        """Empty and tell keys that lead to no record of these files or the lake."""
        for t in self.fields(entity):
            if t.reference:
                known = f"select id from {lake.relation_sql(t.reference)} where valid_to is null and deleted_at is null"
                known += f" union all select id from {t.reference}" if t.reference in self.entities else ""
                value = f"substr({t.field}, {len(self.mapping.source) + 2})"
                self.empty(entity, [t.field], f"{t.field} not in ({known})", "'broken_reference'",
                           f"{quoted(t.column + ' = ')} || {value} || ' is no {t.reference}; the link is left empty'")

    def tell_dates(self, entity: str) -> None:
        """Empty the closing date of what is not decided (it is a plan), and count the records that stand nowhere in time."""
        columns = self.columns(entity)
        close, dates = [c for c in CLOSES if c in columns], [c for c in TIMES if c in columns]
        if close and schema.WON.get(entity) in columns:
            decided = self.known(entity, f"coalesce({schema.WON[entity]}, false) or coalesce({schema.LOST[entity]}, false)")
            self.empty(entity, close, f"not ({decided}) and coalesce({', '.join(close)}) is not null", "'planned_close'",
                       "'not decided yet, so its closing date is a plan and is left empty'", record="null")
        if entity in EVENTS and dates:
            self.tell("'no_date'", f"from {entity} where coalesce({', '.join(dates)}) is null",
                      f"'no {' and no '.join(dates)}: stands in time only from the export on'", record="null")


def _typed(file: FileMapping, source: str, table: str) -> str:
    """SQL: id, the fields, _line and _bad (`rule|detail` of what is wrong, or null) of the rows of a table of text."""
    prefix, key = quoted(source + ":"), next((t for t in file.targets if t.field == "id"), None)
    texts = [f"{key.clean if key else '_line::varchar'} as key"]
    values, checks = [f"{prefix} || key as id"], [f"when key is null then {quoted(f'missing_key|{key.column if key else key} is empty')}"]
    for n, t in enumerate(t for t in file.targets if t.field != "id"):
        value = t.typed(f"c{n}")
        texts += [f"{t.clean} as c{n}", f"{raw_sql(*t.parts)} as r{n}"]
        values.append(f"{f'{prefix} || ' if t.reference else ''}{value} as {t.field}")
        if t.type in _BAD and not t.mark:
            checks.append(f"when c{n} is not null and ({value}) is null then {quoted(f'{_BAD[t.type]}|{t.column} = ')} || left(r{n}, 60)")
    if file.order_by:
        texts.append(f"{raw_sql(file.order_by)} as _order")
        values.append("coalesce(try_cast(_order as bigint), row_number() over (order by try_cast(_order as double), _order, _line)) as created_order")
    kinds = schema.entity(file.entity).fields
    values += [f"{quoted(v)}::{schema.DUCKDB_TYPES[kinds[k].kind]} as {k}" for k, v in file.constants.items()]
    return f"select {', '.join(values)}, _line, case {' '.join(checks)} end as _bad from (select {', '.join(texts)}, _line from {table})"
