"""The folder of Delta tables under a lake: one writer, published versions, roll-back of what was never published.

A publish is one row of table `_versions`: {table: Delta version}. Readers resolve it once and so see all of a sync or
none. A writer first restores every table to its published version: what a killed sync left behind is never shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from os.path import exists
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake
from deltalake.table import TableMerger
from filelock import FileLock, Timeout

from workbench.errors import WorkbenchError

PUBLISHES = "_versions"
_COMMIT = CommitProperties(max_commit_retries=200)
# Delta drops commits older than 30 days at a checkpoint; a published version may be older, and must stay readable.
_KEEP_LOG = {"delta.enableExpiredLogCleanup": "false", "delta.checkpointInterval": "10"}


class Store:
    """Tables by name in `path`; `version` pins a publish."""

    def __init__(self, path: Path, version: int | None = None):
        self.path, self.pinned = path, version
        self.lock = FileLock(path / ".writer.lock")
        self._opened: dict[str, DeltaTable] = {}
        self.refresh()

    def refresh(self) -> None:
        """Resolve the published versions (again)."""
        self.version, self.heads = self._published()

    def _published(self) -> tuple[int, dict[str, int]]:
        if self.pinned == -1 or not DeltaTable.is_deltatable(str(self.path / PUBLISHES)):
            return -1, {}
        delta = DeltaTable(self.path / PUBLISHES)
        latest = pa.table(delta.get_add_actions(flatten=True))["max.publish"].to_pylist()  # from the log; one small file a publish
        if not latest:
            return -1, {}
        wanted = max(latest) if self.pinned is None else self.pinned
        row = next(iter(delta.to_pyarrow_table(filters=[("publish", "=", wanted)]).to_pylist()), None)
        if row is None:
            raise WorkbenchError(f"The lake {self.path} has no version {wanted}.", fix="`workbench lake versions` lists them.")
        return wanted, json.loads(row["tables"])

    def files(self, table: str) -> list[str]:
        """The Parquet files of a table as published; [] when it has none."""
        files = self.open(table).file_uris() if table in self.heads else []
        if self.pinned is not None and not all(map(exists, files)):
            raise WorkbenchError(f"Version {self.pinned} of the lake {self.path} was vacuumed.", fix="`workbench lake versions` lists later ones.")
        return files

    def open(self, table: str) -> DeltaTable:
        """The table at its published version (inside a writer: at its latest)."""
        known = self._opened.get(table)
        if known is not None and known.version() == self.heads[table]:
            return known
        try:
            self._opened[table] = DeltaTable(self.path / table, version=self.heads[table])
            return self._opened[table]
        except Exception as error:
            raise WorkbenchError(f"Table {table} of {self.path} cannot be read at version {self.heads[table]}: {error}",
                                 fix="Was the folder changed by hand, or a pinned version vacuumed?") from error

    @contextmanager
    def writer(self, timeout: float) -> Iterator[None]:
        """Hold the one-writer lock; publish at the end, or leave the last publish standing when anything is raised."""
        if self.pinned is not None:
            raise WorkbenchError(f"Version {self.pinned} of the lake is pinned, so it cannot be written.", fix="Open it without a version.")
        try:
            self.lock.acquire(timeout=timeout)
        except Timeout:
            raise WorkbenchError(f"Another process is writing the lake {self.path}.", fix="Wait until it has finished.") from None
        try:
            self.refresh()
            self._roll_back()
            before = dict(self.heads)
            try:
                yield
            except BaseException:
                self.heads = before
                raise
            if self.heads != before:
                self._publish()
        finally:
            self.lock.release()

    def _roll_back(self) -> None:
        restored = False
        for folder in sorted(self.path.iterdir()):
            if folder.name.startswith(("_", ".")) or not DeltaTable.is_deltatable(str(folder)):
                continue
            head = self.heads.get(folder.name)
            if head is not None and not (folder / "_delta_log" / f"{head + 1:020}.json").exists():
                continue  # commits are numbered without a gap: nothing follows the published one
            table = DeltaTable(folder)
            if folder.name in self.heads:
                if table.version() != self.heads[folder.name]:
                    table.restore(self.heads[folder.name])
                    self.heads[folder.name], restored = table.version(), True
            elif table.version() > 0:  # version 0 is the bare creation
                table.delete()
        if restored:
            self._publish()

    def _publish(self) -> None:
        number = self.version + 1
        row = pa.table({"publish": pa.array([number], pa.int64()), "tables": [json.dumps(self.heads, sort_keys=True)]})
        if number == 0 and not DeltaTable.is_deltatable(str(self.path / PUBLISHES)):
            DeltaTable.create(self.path / PUBLISHES, schema=row.schema, configuration=_KEEP_LOG)
        write_deltalake(self.path / PUBLISHES, row, mode="append", commit_properties=_COMMIT)
        self.version = number

    def publishes(self) -> list[tuple[int, datetime, dict[str, int]]]:
        """Every publish: number, instant (UTC), tables with their Delta versions."""
        if self.version < 0:
            return []
        delta = DeltaTable(self.path / PUBLISHES)
        rows = sorted((r["publish"], json.loads(r["tables"])) for r in delta.to_pyarrow_table().to_pylist())
        commits = sorted(c["timestamp"] for c in delta.history())[1:]  # the first commit only makes the table
        return [(n, datetime.fromtimestamp(ms / 1000, UTC).replace(tzinfo=None), t) for (n, t), ms in zip(rows, commits, strict=True)]

    def create(self, table: str, schema: pa.Schema) -> None:
        """Make an empty table unless it stands already."""
        if table not in self.heads:
            if not DeltaTable.is_deltatable(str(self.path / table)):
                DeltaTable.create(self.path / table, schema=schema, configuration=_KEEP_LOG)
            self._note(table, DeltaTable(self.path / table))

    def _note(self, table: str, delta: DeltaTable) -> None:
        """Take the state of `delta` as the table's latest, to be published at the end."""
        self.heads[table], self._opened[table] = delta.version(), delta

    def append(self, table: str, rows: pa.Table | pa.RecordBatchReader, *, add_columns: bool = False) -> None:
        """Append rows; columns by name."""
        delta = self.open(table)
        write_deltalake(delta, rows, mode="append", schema_mode="merge" if add_columns else None, commit_properties=_COMMIT)
        self._note(table, delta)

    def overwrite(self, table: str, rows: pa.Table) -> None:
        """Replace every row (small tables only)."""
        delta = self.open(table)
        write_deltalake(delta, rows, mode="overwrite", schema_mode="overwrite", commit_properties=_COMMIT)
        self._note(table, delta)

    def add_columns(self, table: str, fields: list[pa.Field]) -> None:
        """Add nullable columns."""
        delta = self.open(table)
        delta.alter.add_columns(list(Schema.from_arrow(pa.schema(fields)).fields))
        self._note(table, delta)

    def merge(self, table: str, source: pa.Table, predicate: str, clauses: Callable[[TableMerger], TableMerger]) -> None:
        """MERGE `source` (alias s) into `table` (alias t); `clauses` says what becomes of the rows."""
        delta = self.open(table)
        clauses(delta.merge(source, predicate, source_alias="s", target_alias="t", commit_properties=_COMMIT)).execute()
        self._note(table, delta)

    def compact(self) -> None:
        """Join small files; a new publish, same content."""
        for name in list(self.heads):
            delta = self.open(name)
            delta.optimize.compact()
            self._note(name, delta)

    def vacuum(self, now: datetime, keep_days: int = 90) -> int:
        """Delete files that no publish of the last `keep_days` needs; the number of files deleted."""
        kept = [tables for number, at, tables in self.publishes() if at >= now - timedelta(days=keep_days) or number == self.version]
        count = 0
        for name in self.heads:
            versions = sorted({tables[name] for tables in kept if name in tables})
            count += len(DeltaTable(self.path / name).vacuum(0, dry_run=False, enforce_retention_duration=False, keep_versions=versions))
        return count
