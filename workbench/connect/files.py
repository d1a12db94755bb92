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

from workbench.connect.checked import (
    CLOSES,
    EVENTS,
    MARK,
    Part,
    checked_part,
    refuse_bad_share,
    refuse_doubles,
    tell_dates,
    tell_unused,
)
from workbench.connect.mapping import FileMapping, Mapping, read_mapping
from workbench.connect.tables import TextTable, read_text_table
from workbench.errors import WorkbenchError
from workbench.rows import FIELD, FINDING, quoted, rows_of


@dataclass
class ImportReport:
    """counts: one row a file (file, entity, read, loaded, rejected); findings: source, file, line, rule, entity, record_id, detail, n."""

    source: str
    counts: pd.DataFrame
    findings: pd.DataFrame
    exported_at: datetime
    unused: list[str] = field(default_factory=list)
    changed: bool = True

    def message(self) -> str:
        """What happened, in sentences."""
        lines = [f"{file}: {loaded:,} of {read:,} rows loaded as {entity}" + (f", {rejected:,} rejected" if rejected else "")
                 for file, entity, read, loaded, rejected in self.counts.to_numpy().tolist()]
        told = [f"{rule} {self.findings.loc[self.findings['rule'] == rule, 'n'].sum():,}" for rule in sorted(set(self.findings["rule"]))]
        lines += [f"Findings: {', '.join(told)} (02_data_quality lists them)."] if told else ["No findings."]
        return "\n".join(lines + ([] if self.changed else ["The lake holds all of this already; nothing was written."]))


def import_files(lake, mapping_path: str | Path, data_folder: str | Path | None = None, *, at: datetime,
                 progress: Callable[[str], None] | None = None) -> ImportReport:
    """Import every file that a mapping names from `data_folder` (default: the mapping's own); `at` = now, for an undated export.

    Nothing is written unless every file is within the mapping's bad_share. The same files again change nothing; changed files
    replace their records, and where the mapping's exported_on is later than before, what differs becomes a new version then.
    """
    mapping = read_mapping(mapping_path)
    say = progress or (lambda text: None)
    parts = _read_parts(mapping, Path(data_folder) if data_folder else Path(mapping_path).parent, say)
    for entity in dict.fromkeys(p.file.entity for p in parts):
        refuse_doubles([p for p in parts if p.file.entity == entity])
    for part in parts:
        refuse_bad_share(part, mapping.bad_share)
    keys = _keys(lake, parts)
    for part in parts:
        _resolve_references(part, mapping.source, keys)
        tell_dates(part)
    span = _span(parts)
    exported = mapping.exported_at or (min(span[1], at) if span else at)
    before = _imported_before(lake, mapping.source)
    earliest = min(span[0], exported) if span else None
    tables = _tables(parts, exported, earliest)
    if before and not span and not mapping.exported_at and _all_stand(lake, before, _tables(parts, before, earliest), None):
        exported = before  # an undated export that is imported again says nothing new
        tables = _tables(parts, exported, earliest)
    findings = pd.DataFrame([f | {"source": mapping.source} for p in parts for f in p.findings], columns=list(FINDING)).astype({"n": "int64"})
    report = ImportReport(mapping.source, _counts(parts), findings, exported, sorted(findings.loc[findings["rule"] == "unused_column", "detail"]))
    fields = _field_rows(mapping, parts)
    report.changed = not (_same_words(lake, fields, findings, mapping.source) and _all_stand(lake, exported, tables, mapping.exported_at))
    if report.changed:
        with lake.writer():
            lake.clear_findings(mapping.source)
            lake.set_fields(fields)
            for entity, table in tables.items():
                say(f"writing {entity}")
                _write(lake, entity, table, exported, mapping.exported_at)
            lake.add_findings(findings)
    return report


def _read_parts(mapping: Mapping, folder: Path, say: Callable[[str], None]) -> list[Part]:
    found: list[tuple[FileMapping, Path]] = []
    for file in mapping.files:
        literal = [p for p in (folder / file.name, folder / (file.name + ".gz")) if p.is_file()]
        try:
            paths = literal[:1] or sorted(p for p in folder.glob(file.name) if p.is_file())
        except (ValueError, NotImplementedError):
            paths = []
        if not paths:
            raise WorkbenchError(f"There is no {file.name} in {folder}.", fix="Name the folder of the export with --data FOLDER.")
        found += [(file, path) for path in paths]
    tables: dict[tuple, TextTable] = {}
    parts = []
    for file, path in found:
        how = (path, file.delimiter, file.encoding, file.sheet)
        first = how not in tables
        if first:
            say(f"reading {path.name}")
            tables[how] = read_text_table(path, file.delimiter, file.encoding, file.sheet)
        try:
            part = checked_part(file, path, tables[how], mapping, first)
        except duckdb.Error as error:
            raise WorkbenchError(f"{path.name} cannot be read as {file.entity}: {str(error).splitlines()[0]}.", fix="Check the mapping's types, formats and constants.") from error
        if first:
            tell_unused(part, tables[how], [f for f, p in found if p == path])
        parts.append(part)
    return parts


def _span(parts: list[Part]) -> tuple[datetime, datetime] | None:
    """The earliest and latest instants that any creation or close in the files tells of."""
    found: list[datetime] = []
    for part in parts:
        names = {t.field for t in part.file.targets} & {"created_at", "closed_at", "converted_at", "happened_at"}
        found += [x for c in names for x in part.connection.sql(f"select min({c}), max({c}) from typed").fetchall()[0] if x is not None]
    return (min(found), max(found).replace(hour=23, minute=59, second=59, microsecond=0)) if found else None


def _counts(parts: list[Part]) -> pd.DataFrame:
    loaded = [p.count() for p in parts]
    return pd.DataFrame([{"file": p.path.name, "entity": p.file.entity, "read": p.n_read, "loaded": n, "rejected": p.n_read - n} for p, n in zip(parts, loaded, strict=True)])


def _keys(lake, parts: list[Part]) -> dict[str, pa.Table]:
    entities = {t.reference for p in parts for t in p.file.targets if t.reference}
    keys = {}
    for entity in entities:
        tables = [p.connection.sql("select id from typed").to_arrow_table() for p in parts if p.file.entity == entity]
        tables.append(lake.sql(f"select id from {entity}").to_arrow_table())
        keys[entity] = pa.concat_tables(tables)
    return keys


def _resolve_references(part: Part, source: str, keys: dict[str, pa.Table]) -> None:
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
            part.tell("broken_reference", line, detail, n=n, record=record)
        part.connection.execute(f"update typed set {target.field} = null where {target.field} not in (select id from known_ids)")
        part.connection.unregister("known_ids")


def _field_rows(mapping: Mapping, parts: list[Part]) -> list[dict]:
    rows = {}
    for part in parts:
        told = {MARK.format(t.field.removeprefix("x_")): t for t in part.file.targets}
        for t in part.file.targets:
            if t.field != "id":
                rows[part.file.entity, t.field] = {"known_at": t.known_at, "kind": t.kind, "meaning": t.meaning, "personal": t.personal}
        for mark in part.marks:
            rows[part.file.entity, mark] = {"known_at": told[mark].known_at, "kind": "bool", "meaning": f"{told[mark].column!r} was shown, not chosen", "personal": False}
    return [{"source": mapping.source, "entity": entity, "field": name} | row for (entity, name), row in rows.items()]


def _tables(parts: list[Part], exported: datetime, earliest: datetime | None) -> dict[str, pa.Table]:
    """Entity -> its versions. An undated company, product or user stands from the export's first day, or no dated deal could see it."""
    tables: dict[str, list[pa.Table]] = {}
    for p in parts:
        undated = exported if p.file.entity in EVENTS or earliest is None else earliest
        tables.setdefault(p.file.entity, []).append(_versions(p, exported, undated))
    return {entity: pa.concat_tables(some, promote_options="permissive") for entity, some in tables.items()}


def _imported_before(lake, source: str) -> datetime | None:
    found = lake.sources()
    found = found[found["source"] == source]
    return None if found.empty else found["last_recorded_at"].max().to_pydatetime()


def _split(lake, entity: str, table: pa.Table, since: datetime | None) -> tuple[duckdb.DuckDBPyConnection, int, int]:
    """Views `whole` (versions that replace a record's) and `last` (states to add to a history that an export before `since` began), with their rows."""
    connection = lake.connection().cursor()
    connection.register("given", table)
    stood = f"select id from {entity}_versions group by id having min(recorded_at) < TIMESTAMP '{since}' and max(valid_from) <= TIMESTAMP '{since}'" if since else "select null where false"
    connection.execute(f"create temp table stood as {stood}")
    connection.execute("create temp view whole as select * from given where id not in (select id from stood)")
    connection.execute("create temp view last as select * exclude (valid_from) from given where id in (select id from stood) qualify row_number() over (partition by id order by valid_from desc) = 1")
    n = connection.sql("select count(*) filter (where id not in (select id from stood)), count(distinct id) filter (where id in (select id from stood)) from given").fetchall()[0]
    return connection, n[0], n[1]


def _all_stand(lake, exported: datetime, tables: dict[str, pa.Table], since: datetime | None) -> bool:
    """The lake holds exactly these versions of these records already."""
    for entity, table in tables.items():
        names = [c for c in lake.columns(entity) if c not in ("valid_to", "recorded_at", "origin")]
        if set(table.column_names) - set(names):
            return False
        connection, n_whole, _ = _split(lake, entity, table, since)
        stored = f"from {entity}_versions where id in (select id from whole)"
        given = ", ".join(c if c in table.column_names else f"null as {c}" for c in names)
        told = ", ".join(c for c in table.column_names if c != "valid_from")
        if connection.sql(f"select count(*) {stored}").fetchall()[0][0] != n_whole or connection.sql(
                f"""select 1 from (select {given} from whole except select {', '.join(names)} {stored} and recorded_at = TIMESTAMP '{exported}' and origin = 'import') union all
                select 1 from (select {told} from last except select {told} from {entity}_versions where valid_to is null) limit 1""").fetchall():
            return False
    return True


def _same_words(lake, fields: list[dict], findings: pd.DataFrame, source: str) -> bool:
    """Tables `field` and `finding` say of the source what this import would say."""
    known = rows_of(lake.relation_sql("field"))
    told = rows_of(f"{lake.relation_sql('finding')} where source = {quoted(source)}")
    new = findings.astype(object).where(findings.notna(), None).to_dict("records")
    return all({c: row.get(c) for c in FIELD} in known for row in fields) and sorted(map(str, told)) == sorted(str({c: r[c] for c in FINDING}) for r in new)


def _write(lake, entity: str, table: pa.Table, exported: datetime, since: datetime | None) -> None:
    """Replace the records' versions; where an earlier dated export began their history, add what differs at this one's date."""
    connection, n_whole, n_last = _split(lake, entity, table, since)
    if n_last:
        lake.upsert(entity, connection.sql(f"select {', '.join(c for c in table.column_names if c != 'valid_from')} from last").to_arrow_table(), at=exported, origin="import")
    if n_whole:
        lake.load_versions(entity, connection.sql("select * from whole").to_arrow_table() if n_last else table, origin="import", recorded_at=exported)


def _versions(part: Part, exported: datetime, undated: datetime) -> pa.Table:
    """One or two versions a record: at creation without what came later, and at the close or the export with it."""
    targets = {t.field: t.known_at for t in part.file.targets if t.field != "id"}
    late = [f for f, known in targets.items() if known in ("outcome", "current_only")]
    late += [m for m in part.marks if any(MARK.format(f.removeprefix("x_")) == m for f in late)]
    columns = [d[0] for d in part.connection.sql("select * exclude (_line) from typed limit 0").description]
    first = "created_at" if "created_at" in columns else "null::timestamp"
    closed = [c for c in CLOSES if c in columns]
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
