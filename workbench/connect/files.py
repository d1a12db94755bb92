"""Plain exports into the lake: check every row, keep what is sound, tell what is not.

An export shows today's state. A dated record gets a version at its creation with what was fixed or assumed then, and one
at its close (or at the export) with the rest, so that a read as of an earlier day sees no outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa

from workbench import schema
from workbench.connect.mapping import FileMapping, Mapping, Target, read_mapping
from workbench.connect.tables import read_text_table
from workbench.errors import WorkbenchError
from workbench.rows import quoted

DATE_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ",
                "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y/%m/%d")
_YES, _NO = ("yes", "true", "1", "y", "t", "on"), ("no", "false", "0", "n", "f", "off")
_BAD = {"int": "bad_number", "float": "bad_number", "money": "bad_number", "date": "bad_date", "time": "bad_date", "bool": "bad_value"}
_MARK = "x_{}_not_chosen"


@dataclass
class ImportReport:
    """counts: one row a file (file, entity, read, loaded, rejected); findings: source, file, line, rule, entity, record_id, detail, n."""

    source: str
    counts: pd.DataFrame
    findings: pd.DataFrame
    exported_at: datetime
    unused: list[str] = field(default_factory=list)

    def message(self) -> str:
        """What happened, in sentences."""
        lines = [f"{r.file}: {r.loaded:,} of {r.read:,} rows loaded as {r.entity}" + (f", {r.rejected:,} rejected" if r.rejected else "") for r in self.counts.itertuples()]
        rules = self.findings.groupby("rule")["n"].sum()
        told = [f"{rule} {n:,}" for rule, n in rules.items()]
        return "\n".join(lines + ([f"Findings: {', '.join(told)} (02_data_quality lists them)."] if told else ["No findings."]))


@dataclass
class _Part:
    """One file, read and checked: `typed` is its table on `connection`."""

    file: FileMapping
    path: Path
    connection: duckdb.DuckDBPyConnection
    findings: list[dict]
    n_read: int
    n_rejected: int
    marks: list[str]
    frame: pa.Table | None = None


def import_files(lake, mapping_path: str | Path, data_folder: str | Path | None = None, *, at: datetime,
                 progress: Callable[[str], None] | None = None) -> ImportReport:
    """Import every file that a mapping names from `data_folder` (default: the mapping's own); `at` = now, for an undated export.

    Nothing is written unless every file is within the mapping's bad_share. Idempotent: importing again replaces the same records.
    """
    mapping = read_mapping(mapping_path)
    folder = Path(data_folder) if data_folder else Path(mapping_path).parent
    say = progress or (lambda text: None)
    parts = []
    for file in mapping.files:
        paths = sorted(folder.glob(file.name)) or sorted(folder.glob(file.name + ".gz"))
        if not paths:
            raise WorkbenchError(f"There is no {file.name} in {folder}.", fix="Name the folder of the export with --data FOLDER.")
        for path in paths:
            say(f"reading {path.name}")
            parts.append(_checked(file, path, mapping))
    for part in parts:
        if part.n_read and part.n_rejected / part.n_read > mapping.bad_share:
            why = pd.Series([f["rule"] for f in part.findings]).value_counts()
            first = next(f for f in part.findings if f["rule"] == why.index[0])
            raise WorkbenchError(f"{part.path.name}: {part.n_rejected:,} of {part.n_read:,} rows are bad (more than {mapping.bad_share:.0%}); most often "
                                 f"{why.index[0]}, e.g. line {first['line']}: {first['detail']}.", fix="Mend the mapping or the file; nothing was written.")
    span = _span(parts)
    exported = mapping.exported_at or (span[1] if span else at)
    # An undated company, product or user stands from the export's first day: else no dated deal could ever see it.
    earliest = min(span[0], exported) if span else exported
    keys = _keys(lake, parts)
    for part in parts:
        _resolve_references(part, mapping.source, keys)
    findings = pd.DataFrame([f | {"source": mapping.source, "file": p.path.name, "entity": p.file.entity} for p in parts for f in p.findings],
                            columns=["source", "file", "line", "rule", "entity", "record_id", "detail", "n"])
    findings["n"] = findings["n"].fillna(1).astype("int64")
    with lake.writer():
        lake.clear_findings(mapping.source)
        lake.set_fields(_field_rows(mapping, parts))
        for entity in dict.fromkeys(p.file.entity for p in parts):
            say(f"writing {entity}")
            tables = [_versions(p, exported, exported if p.file.entity in ("lead", "deal", "activity") else earliest) for p in parts if p.file.entity == entity]
            lake.load_versions(entity, pa.concat_tables(tables, promote_options="permissive"), origin="import", recorded_at=exported)
        lake.add_findings(findings)
    counts = pd.DataFrame([{"file": p.path.name, "entity": p.file.entity, "read": p.n_read, "loaded": p.n_read - p.n_rejected,
                            "rejected": p.n_rejected} for p in parts])
    return ImportReport(mapping.source, counts, findings, exported, sorted(findings.loc[findings["rule"] == "unused_column", "detail"]))


def _column(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _checked(file: FileMapping, path: Path, mapping: Mapping) -> _Part:
    """Read a file as text and type it: table `typed` (id, fields, _line) of sound rows; findings for the others."""
    table = read_text_table(path, file.delimiter, file.encoding, file.sheet)
    connection, findings = table.connection, [f | {"n": 1} for f in table.findings]
    connection.execute("set TimeZone = 'UTC'")
    absent = [t.column for t in file.targets if t.column not in table.columns] + [c for c in [file.order_by] if c and c not in table.columns]
    if absent:
        raise WorkbenchError(f"{path.name} has no column {', '.join(map(repr, sorted(set(absent))))}.", fix=f"Its columns: {', '.join(table.columns)}.")
    mapped = {t.column for t in file.targets} | {file.order_by}
    for column in table.columns:
        if column not in mapped:
            findings.append({"rule": "unused_column", "line": 1, "detail": f"{column}" + (" (ignored by the mapping)" if column in file.ignored else ""), "n": 1})
    key = next((t for t in file.targets if t.field == "id"), None)
    identity = f"nullif(trim({_column(key.column)}), '')" if key else "_line::varchar"
    identity = _mapped(identity, key.values) if key else identity
    chosen = [f"{quoted(mapping.source + ':')} || ({identity}) as id", "_line"]
    checks, marks = [f"when ({identity}) is null then 'missing_key|{key.column if key else ''} is empty'"], []
    for target in file.targets:
        if target.field == "id":
            continue
        raw = f"nullif(trim({_column(target.column)}), '')"
        clean = _mapped(f"case when {raw} in ({', '.join(map(quoted, target.placeholders))}) then null else {raw} end" if target.placeholders else raw, target.values)
        typed = _typed(clean, target, mapping.time_zone)
        chosen.append(f"{typed} as {target.field}")
        if target.kind in _BAD:
            shown = f"left({raw}, 60)"
            checks.append(f"when ({clean}) is not null and ({typed}) is null then '{_BAD[target.kind]}|' || {quoted(target.column + ' = ')} || {shown}")
        if target.placeholders and connection.sql(f"select count(*) from raw where {raw} in ({', '.join(map(quoted, target.placeholders))})").fetchall()[0][0]:
            mark = _MARK.format(target.field.removeprefix("x_"))
            marks.append(mark)
            chosen.append(f"coalesce({raw} in ({', '.join(map(quoted, target.placeholders))}), false) as {mark}")
    if file.order_by:
        chosen.append(f"row_number() over (order by try_cast({_column(file.order_by)} as double), {_column(file.order_by)}, _line) as created_order")
    chosen += [f"{quoted(v)}::{schema.DUCKDB_TYPES[schema.entity(file.entity).fields[k].kind]} as {k}" for k, v in file.constants.items()]
    connection.execute(f"create table checked as select {', '.join(chosen)}, case {' '.join(checks)} end as _bad from raw")
    connection.execute("""update checked set _bad = 'duplicate_key|stands in line ' || f.first || ' already' from
        (select id, min(_line) as first from checked where _bad is null group by id having count(*) > 1) f where checked.id = f.id and checked._line > f.first and _bad is null""")
    for line, record, bad in connection.sql("select _line, id, _bad from checked where _bad is not null order by _line").fetchall():
        rule, detail = bad.split("|", 1)
        findings.append({"rule": rule, "line": line, "record_id": record, "detail": detail, "n": 1})
    connection.execute("create table typed as select * exclude (_bad) from checked where _bad is null")
    n_loaded = connection.sql("select count(*) from typed").fetchall()[0][0]
    return _Part(file, path, connection, findings, table.n_read, table.n_read - n_loaded, marks)


def _mapped(expression: str, values: dict) -> str:
    if not values:
        return expression
    cases = " ".join(f"when {quoted(k)} then {'null' if v == '' else quoted(str(v).lower() if isinstance(v, bool) else v)}" for k, v in values.items() if k != "*")
    other = quoted(str(values["*"]).lower() if isinstance(values.get("*"), bool) else values["*"]) if values.get("*", "") != "" else None
    rest = f"case when ({expression}) is null then null else {other} end" if other else ("null" if "*" in values else f"({expression})")
    return f"(case ({expression}) {cases} else {rest} end)"


def _typed(clean: str, target: Target, zone: str) -> str:
    if target.kind == "text":
        return clean
    if target.kind == "bool":
        return f"case when lower({clean}) in {_YES} then true when lower({clean}) in {_NO} then false end"
    if target.kind in ("date", "time"):
        formats = ", ".join(map(quoted, target.format or DATE_FORMATS))
        parsed = f"try_strptime({clean}, [{formats}])::timestamp"
        if target.kind == "date":
            return f"{parsed}::date"
        return parsed if zone == "UTC" else f"timezone('UTC', timezone({quoted(zone)}, {parsed}))"
    number = f"try_cast(regexp_replace({clean}, '[,$€£\\s]', '', 'g') as double)"
    return {"int": f"try_cast(round({number}) as bigint)", "float": number, "money": f"try_cast({number} as decimal(18,2))"}[target.kind]


def _span(parts: list[_Part]) -> tuple[datetime, datetime] | None:
    """The earliest and latest instants that any creation or close in the files tells of."""
    found: list[datetime] = []
    for part in parts:
        names = {t.field for t in part.file.targets} & {"created_at", "closed_at", "converted_at", "happened_at"}
        found += [x for c in names for x in part.connection.sql(f"select min({c}), max({c}) from typed").fetchall()[0] if x is not None]
    return (min(found), max(found).replace(hour=23, minute=59, second=59, microsecond=0)) if found else None


def _keys(lake, parts: list[_Part]) -> dict[str, pa.Table]:
    entities = {t.reference for p in parts for t in p.file.targets if t.reference}
    keys = {}
    for entity in entities:
        tables = [p.connection.sql("select id from typed").to_arrow_table() for p in parts if p.file.entity == entity]
        tables.append(lake.sql(f"select id from {entity}").to_arrow_table())
        keys[entity] = pa.concat_tables(tables)
    return keys


def _resolve_references(part: _Part, source: str, keys: dict[str, pa.Table]) -> None:
    """Turn native keys into ids; one that leads nowhere becomes null and a finding."""
    for target in part.file.targets:
        if not target.reference:
            continue
        part.connection.register("known_ids", keys[target.reference])
        part.connection.execute(f"update typed set {target.field} = {quoted(source + ':')} || {target.field}")
        broken = part.connection.sql(f"""select {target.field}, min(_line), count(*), min(id) from typed where {target.field} is not null
            and {target.field} not in (select id from known_ids) group by 1 order by 1""").fetchall()
        for value, line, n, record in broken:
            detail = f"{target.column} = {value.removeprefix(source + ':')} is no {target.reference}; the link is left empty"
            part.findings.append({"rule": "broken_reference", "line": line, "record_id": record, "detail": detail, "n": n})
        part.connection.execute(f"update typed set {target.field} = null where {target.field} not in (select id from known_ids)")
        part.connection.unregister("known_ids")


def _field_rows(mapping: Mapping, parts: list[_Part]) -> list[dict]:
    rows = {}
    for part in parts:
        told = {_MARK.format(t.field.removeprefix("x_")): t for t in part.file.targets}
        for t in part.file.targets:
            if t.field != "id":
                rows[part.file.entity, t.field] = {"known_at": t.known_at, "kind": t.kind, "meaning": t.meaning, "personal": t.personal}
        for mark in part.marks:
            rows[part.file.entity, mark] = {"known_at": told[mark].known_at, "kind": "bool", "meaning": f"{told[mark].column!r} was shown, not chosen", "personal": False}
    return [{"source": mapping.source, "entity": entity, "field": name} | row for (entity, name), row in rows.items()]


def _versions(part: _Part, exported: datetime, undated: datetime) -> pa.Table:
    """One or two versions a record: at creation without what came later, and at the close or the export with it."""
    targets = {t.field: t.known_at for t in part.file.targets if t.field != "id"}
    late = [f for f, known in targets.items() if known in ("outcome", "current_only")]
    late += [m for m in part.marks if any(_MARK.format(f.removeprefix("x_")) == m for f in late)]
    columns = [d[0] for d in part.connection.sql("select * exclude (_line) from typed limit 0").description]
    first = "created_at" if "created_at" in columns else "null::timestamp"
    closed = [c for c in ("closed_at", "converted_at", "sold_at") if c in columns]
    close = f"coalesce({', '.join(closed)})" if closed else "null::timestamp"
    if part.file.entity == "activity" and "created_at" not in columns and "happened_at" in columns:
        first = "happened_at"
    told = " or ".join(f"{c} is not null" for c in late) or "false"
    part.connection.execute(f"""create or replace view timed as select * exclude (_line), coalesce({first}, {close}, TIMESTAMP '{undated}') as born,
        case when {close} is not null then {close} when {told} then TIMESTAMP '{exported}' end as ends from typed""")
    hidden = f"* exclude (born, ends{''.join(', ' + c for c in late)})"
    return part.connection.sql(f"""select * exclude (born, ends), born as valid_from from timed where ends is null or ends <= born
        union all by name select * exclude (born, ends), ends as valid_from from timed where ends > born
        union all by name select {hidden}, born as valid_from from timed where ends > born""").to_arrow_table()
