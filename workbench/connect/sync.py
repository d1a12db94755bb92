"""One sync for every CRM: pull, compare with the lake, publish all of it or nothing."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
from filelock import FileLock, Timeout

from workbench import ledger, schema
from workbench.connect.pull import Part, Pulled, Puller, ids_in
from workbench.connect.streams import Connector, CustomField, Stream
from workbench.connect.versions import new_versions
from workbench.errors import WorkbenchError
from workbench.rows import quoted, rows_of

__all__ = ["Connector", "CustomField", "Stream", "sync", "sync_sources"]
COMMIT = 60_000  # versions that are written to a table at once
COMMON = {f.name for f in schema.COMMON}
GONE = pa.schema([("id", pa.string()), ("moment", pa.timestamp("us")), ("merged_into", pa.string())])


def sync(lake, source: str, connector: Connector, *, now: datetime, full: bool = False, overlap_minutes: float = 15,
         progress: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Bring source `source` of the lake to what the CRM shows: one row a stream.

    stream, entity, rows (pulled), new, changed, deleted (records), calls (HTTP), seconds, cursor (UTC), error ("" = none).
    full: everything is pulled again, whatever the cursors say. Nothing of a sync is seen before all of it is published; a stream that fails
    keeps its cursor, and the others are written.
    """
    if not re.fullmatch(r"[a-z0-9_]+", source):
        raise WorkbenchError(f"Source {source!r} is no source name.", fix="Use a-z, 0-9 and _.")
    spill, lock = lake.path / f".sync-{source}", FileLock(lake.path / f".sync-{source}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise WorkbenchError(f"Another sync of {source} is running.", fix="Wait until it has finished.") from None
    try:
        shutil.rmtree(spill, ignore_errors=True)  # what a killed sync left
        spill.mkdir()
        return Sync(lake, source, connector, now, full, timedelta(minutes=overlap_minutes), spill, progress or (lambda text: None)).run()
    finally:
        shutil.rmtree(spill, ignore_errors=True)
        lock.release()


def sync_sources(lake, sources: list[str], *, now: datetime, full: bool = False, progress: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Sync sources of workbench.toml one after the other, each whether or not another fails: the rows of `sync`, with `source` in front."""
    from workbench.connect.credentials import open_connector

    if not sources:
        raise WorkbenchError("workbench.toml names no source.", fix="Write [sources.NAME] with crm and url, and run `workbench connect NAME`.")
    reports = []
    for source in sources:
        try:
            report = sync(lake, source, open_connector(source), now=now, full=full, progress=progress)
        except WorkbenchError as error:
            if len(sources) == 1:
                raise
            report = pd.DataFrame([{"stream": "", "error": f"{source}: {error}"}])
        report.insert(0, "source", source)
        reports.append(report)
    return pd.concat(reports, ignore_index=True)


class Sync(Puller):
    """One run; see `sync`."""

    def run(self) -> pd.DataFrame:
        """Read every stream, then write and publish what came."""
        pulled: list[Pulled] = []
        for stream in self.connector.streams:
            state = {"source": self.source, "stream": stream.name, "entity": stream.entity} | self.states.get(stream.name, {})
            pulled.append(one := Pulled(stream, {**state, "tried_at": self.now}))
            calls, begun = self.connector.budget.calls, time.perf_counter()
            if (failed := pulled[-2:-1]) and failed[0].stops > 1:
                one.error, one.stops = "Not asked, after what went before.", failed[0].stops
            else:
                self.read(one, failed[0].stops if failed else 0)
            one.state["n_calls"], one.seconds = self.connector.budget.calls - calls, time.perf_counter() - begun
        with self.lake.writer(timeout=600):
            if self.full:
                self.lake.clear_findings(self.source)
            for one in pulled:
                self.write(one)
            day = {"source": self.source, "stream": "", "tried_at": self.day, "spent": self.connector.budget.spent}
            self.lake.put_rows("sync_state", [*(p.state for p in pulled), day], ("source", "stream"))
        pulled[-1].error = pulled[-1].error or self.rated(getattr(self.connector, "scores", None))
        return pd.DataFrame([{"stream": p.stream.name, "entity": p.stream.entity, "rows": p.n, **p.counts, "calls": p.state["n_calls"], "seconds": p.seconds,
                              "cursor": p.state.get("mark"), "error": p.error} for p in pulled])

    def rated(self, scores: Callable[[], Iterator[list[dict]]] | None) -> str:
        """Add to the ledger (purpose crm) what the CRM's own scores of leads (id, p) say anew, to be judged beside ours; what went wrong."""
        try:
            told = pd.DataFrame([r | {"id": f"{self.source}:{r['id']}"} for batch in (scores or list)() for r in batch], columns=["id", "p"]).drop_duplicates("id", keep="last")
        except WorkbenchError as error:
            return f"{self.connector.name}, its own scores: {error}"
        said = ledger.scores(self.lake, purpose="crm", source=self.source).drop_duplicates("id", keep="last").set_index("id")["p"]
        if len(told := told[told["p"].to_numpy() != said.reindex(told["id"]).to_numpy()]):
            ledger.write_scores(self.lake, told, purpose="crm", model=getattr(self.connector, "scored_by", self.connector.name), as_of=self.now, made_at=self.now,
                                lake_version=self.lake.version, source=self.source, run="sync", horizon_days=None)
        return ""

    def write(self, one: Pulled) -> None:
        """Bring the tables of a stream and its parts to what it told."""
        mine: dict[str, Any] = {"source": self.source, "entity": one.stream.entity}
        for part in one.parts:
            if part.stream.within and one.parts[0] is not part:
                self.orphans(part, one.parts[0])
            part.heard.gone = pa.Table.from_pylist(part.gone, GONE) if part.gone else None
            self.tell_fields(one, part)
            self.say(f"writing {part.heard.entity}")
            waiting: list[pa.Table] = []
            for versions, counts in new_versions(self.db, self.lake, part.heard, now=self.now):
                waiting.append(versions)
                for name, n in counts.items() if part is one.parts[0] else ():
                    one.counts[name] += n
                if sum(v.num_rows for v in waiting) >= COMMIT:
                    self.lake.load_versions(part.heard.entity, pa.concat_tables(waiting))
                    waiting.clear()
            if waiting:
                self.lake.load_versions(part.heard.entity, pa.concat_tables(waiting))
            bad = [{"source": self.source, "file": one.stream.name, "rule": "unreadable_value", "entity": part.heard.entity, "record_id": i, "detail": c, "n": n} for c, (n, i) in part.mapper.bad.items()]
            if part.heard.historized:
                self.tell_fields(one, part)
            self.lake.put_rows("finding", bad, ("source", "file", "rule", "entity", "detail"))
        here = {(c.native, c.kind) for c in one.custom.values()}
        rows = [{**mine, "field": n, "native": c.native, "label": c.label, "kind": c.kind, "options": json.dumps(c.options) if c.options else None} for n, c in one.custom.items()]
        rows += [{**r, "dropped_at": r["dropped_at"] or self.now} for r in self.custom if r["entity"] == one.stream.entity and (r["native"], r["kind"]) not in here and not one.error]
        self.lake.put_rows("custom_field", rows, ("source", "entity", "field"))
        one.state.update(error=one.error or None, n_rows=one.n, n_changed=one.counts["new"] + one.counts["changed"], n_deleted=one.counts["deleted"])

    def orphans(self, part: Part, parent: Part) -> None:
        """Items that their row, pulled anew or deleted, does not have any more."""
        parents = f"select id from {ids_in(parent.heard.rows)} union all select unnest({[g['id'] for g in parent.gone]}::varchar[])"
        gone = self.db.sql(f"select id from ({self.living(part, 'id, ' + part.stream.within + ' as up')}) where up in ({parents}) and id not in (select id from {ids_in(part.heard.rows)})")
        part.gone += [{"id": i, "moment": self.now, "merged_into": None} for i, in gone.fetchall()]

    def tell_fields(self, one: Pulled, part: Part) -> None:
        """Say in table `field` how each field is known: since the CRM's history, since the first sync, or assumed from creation on."""
        entity, fields = part.heard.entity, schema.entity(part.heard.entity).fields
        known = {r["field"]: r for r in rows_of(f"{self.lake.relation_sql('field')} where source = {quoted(self.source)} and entity = {quoted(entity)}")}
        rows: list[dict[str, Any]] = []
        untold = f"id not in (select id from {self.lake.relation_sql(entity)} where origin = 'crm_history')"
        n, n_untold = self.db.sql(f"select count(*), count(*) filter ({untold}) from ({self.living(part)})").fetchall()[0] if part.heard.historized else (0, 0)
        all_told = n_untold < n / 100  # history that is fetched record by record counts once it is nearly complete: who has one is no accident
        for name, kind in part.heard.kinds.items():
            if name in COMMON or name in fields and fields[name].known_at in ("fixed", "outcome") and name not in part.heard.assumed or name not in fields and not name.startswith("x_"):
                continue
            first = known.get(name, {}).get("history_from") or (one.state.get("loaded_at") if name in fields else None) or self.now
            since = None if name in part.heard.assumed or name in part.heard.historized and all_told else part.heard.tracked.get(name, first)
            custom = {"kind": kind, "meaning": one.custom[name].label} if name in one.custom else {}
            rows.append({"source": self.source, "entity": entity, "field": name, "known_at": "assumed" if name in part.heard.assumed else "historized", "history_from": since, **custom})
        self.lake.set_fields(rows)
