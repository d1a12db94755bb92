"""Plain exports into the lake: check every row, keep what is sound, tell what is not.

An export shows today's state. A dated record gets a version at its creation with what was fixed or assumed then, and one
at its close (or at the export) with the rest, so that a read as of an earlier day sees no outcome.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from glob import glob
from pathlib import Path

import pandas as pd
import pyarrow as pa

from workbench.connect.checked import CLOSES, EVENTS, TIMES, Intake
from workbench.connect.mapping import Mapping, read_mapping
from workbench.connect.tables import TextTable, read_text_table
from workbench.errors import WorkbenchError
from workbench.rows import of_source, quoted, rows_of
from workbench.schema import NEVER_LEARNED


@dataclass
class ImportReport:
    """counts: one row a file (file, entity, read, loaded, rejected); findings: source, file, line, rule, entity, record_id, detail, n."""

    source: str
    counts: pd.DataFrame
    findings: pd.DataFrame
    exported_at: datetime
    unused: list[str]
    changed: bool

    def message(self) -> str:
        """What happened, in sentences."""
        lines = [f"{file}: {loaded:,} of {read:,} rows loaded as {entity}" + (f", {rejected:,} rejected" if rejected else "")
                 for file, entity, read, loaded, rejected in self.counts.to_numpy().tolist()]
        told = [f"{rule} {n:,}" for rule, n in self.findings.groupby("rule")["n"].sum().items()]
        lines += [f"Findings: {', '.join(told)} (02_data_quality lists them)."] if told else ["No findings."]
        return "\n".join(lines + ([] if self.changed else ["The lake holds all of this already; nothing was written."]))


def import_files(lake, mapping_path: str | Path, data_folder: str | Path | None = None, *, at: datetime,
                 progress: Callable[[str], None] | None = None) -> ImportReport:
    """Import every file that a mapping names from `data_folder` (default: the mapping's own); `at` = now, for an undated export.

    Nothing is written unless every file is within the mapping's bad_share. The same files again change nothing; changed files
    replace their records, and where the mapping's exported_on is later than before, what differs becomes a new version then.
    """
    mapping, say = read_mapping(mapping_path), progress or (lambda text: None)
    intake = _read_parts(mapping, Path(data_folder) if data_folder else Path(mapping_path).parent, say)
    for entity in intake.entities:
        intake.leave_out_bad(entity)
    counts = pd.DataFrame(intake.counts(), columns=["file", "entity", "read", "loaded", "rejected"])
    for entity in intake.entities:
        intake.resolve_references(entity, lake)
        intake.tell_dates(entity)
    exported, first = _dates(lake, intake, at)
    told = intake.database.sql(f"""select {quoted(mapping.source)} as source, file, line, rule, entity, record_id, detail, n
        from finding join part using (part) order by part, finding.rowid""").to_arrow_table()
    findings = told.to_pandas()
    fields = [{"source": mapping.source, "entity": entity, "field": t.field, "known_at": t.known_at, "history_from": None, "kind": t.type,
               "meaning": t.meaning, "personal": t.personal} for entity in intake.entities for t in intake.fields(entity)]
    version = lake.version
    with lake.writer():
        known = rows_of(lake.relation_sql("field"))
        if not all(row in known for row in fields):
            lake.set_fields(fields)
        if told.to_pylist() != rows_of(f"{lake.relation_sql('finding')} where source = {quoted(mapping.source)}"):
            lake.clear_findings(mapping.source)
            lake.add_findings(findings)
        for entity in intake.entities:
            say(f"writing {entity}")
            whole, later = _news(lake, intake, entity, exported, first)
            if later.num_rows:
                lake.upsert(entity, later, at=exported, origin="import")
            if whole.num_rows:
                lake.load_versions(entity, whole, origin="import", recorded_at=exported)
    unused = sorted(findings.loc[findings["rule"] == "unused_column", "detail"])
    return ImportReport(mapping.source, counts, findings, exported, unused, lake.version != version)


def _read_parts(mapping: Mapping, folder: Path, say: Callable[[str], None]) -> Intake:
    intake, found = Intake(mapping), []
    for file in mapping.files:
        literal = [p for p in (folder / file.name, folder / (file.name + ".gz")) if p.is_file()]
        paths = literal[:1] or sorted(p for name in glob(file.name, root_dir=folder) if (p := folder / name).is_file())
        if not paths:
            raise WorkbenchError(f"There is no {file.name} in {folder}.", fix="Name the folder of the export with --data FOLDER.")
        found += [(file, path) for path in paths]
    tables: dict[tuple, TextTable] = {}
    for file, path in found:
        how = (path, file.delimiter, file.encoding, file.sheet)
        if first := how not in tables:
            say(f"reading {path.name}")
            tables[how] = read_text_table(*how, connection=intake.database, name=f"raw_{len(tables)}")
        intake.add(file, path, tables[how])
        if first:
            intake.tell_file(tables[how], [f for f, p in found if p == path])
    return intake


def _dates(lake, intake: Intake, at: datetime) -> tuple[datetime, datetime]:
    """(the instant that the export shows, the first that it tells of); an undated one that tells nothing new is as old as before."""
    times = {e: intake.known(e, f"{', '.join(TIMES)}, null::timestamp") for e in intake.entities}
    spans = [f"select min(least({t})) as a, max(greatest({t})) as b from {e}" for e, t in times.items()]
    first, last = intake.rows(f"select min(a), date_trunc('day', max(b)) + interval 1 day - interval 1 second from ({' union all '.join(spans)})")[0]
    exported = intake.mapping.exported_at or min(last or at, at)
    if not last and not intake.mapping.exported_at:
        sources = lake.sources()
        before = sources.loc[sources["source"] == intake.mapping.source, "last_recorded_at"].max()
        if pd.notna(before) and not any(_news(lake, intake, e, before, before)[0].num_rows for e in intake.entities):
            exported = before.to_pydatetime()
    return exported, min(first or exported, exported)


def _news(lake, intake: Intake, entity: str, exported: datetime, first: datetime) -> tuple[pa.Table, pa.Table]:
    """(versions to replace those of their records, states to add to histories that an earlier dated export began), where the lake differs.

    An undated company, product or user stands from the export's `first` day, or no dated deal could see it.
    """
    types, since, stored = lake.column_types(entity), f"TIMESTAMP '{intake.mapping.exported_at or datetime.min}'", lake.relation_sql(entity)
    intake.database.execute(f"create or replace temp view given as {_versions(intake, entity, exported, exported if entity in EVENTS else first)}")
    began = f"select id from {stored} group by id having min(recorded_at) < {since} and max(valid_from) <= {since}"
    later = intake.database.sql(f"""select * exclude (valid_from) from given where id in ({began})
        qualify row_number() over (partition by id order by valid_from desc) = 1""").to_arrow_table()
    whole, told = f"select * from given where id not in ({began})", [*later.column_names, "valid_from"]
    if not lake.is_empty(entity) and set(told) <= set(types):
        names = [c for c in types if c not in ("valid_to", "recorded_at", "origin")]
        ours = ", ".join(f"{c}::{types[c]}" if c in told else f"null::{types[c]}" for c in names)
        whole += f""" and id in (select id from (select id, hash({ours}) as h, 1 as side from given union all
            select id, hash({', '.join(names)}), -1 from {stored} where {of_source(intake.mapping.source)}) group by id, h having sum(side) <> 0)"""
    return intake.database.sql(whole).to_arrow_table(), later


def _versions(intake: Intake, entity: str, exported: datetime, undated: datetime) -> str:
    """SQL of one or two versions a record: at creation without what came later, and at the close or the export with it."""
    late = [t.field for t in intake.fields(entity) if t.known_at in NEVER_LEARNED]
    told = " or ".join(f"{c} is not null" for c in late) or "false"
    return f"""with timed as (select * exclude (_part, _line), coalesce({intake.known(entity, ', '.join(TIMES))}, TIMESTAMP '{undated}') as born,
            coalesce({intake.known(entity, ', '.join(CLOSES))}, case when {told} then TIMESTAMP '{exported}' end) as ends from {entity})
        select * exclude (born, ends), greatest(born, ends) as valid_from from timed
        union all by name select * exclude ({', '.join(['born', 'ends', *late])}), born as valid_from from timed where ends > born"""
