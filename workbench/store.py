"""The folder of Delta tables under a lake: one writer, published versions, roll-back of what was never published.

A publish is one row of table `_versions`: {table: Delta version}. Readers resolve it once and so see all of a sync or
none. A writer first restores every table to its published version: what a killed sync left behind is never shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from filelock import FileLock, Timeout

from workbench.errors import WorkbenchError

PUBLISHES = "_versions"
_COMMIT = CommitProperties(max_commit_retries=200)


class Store:
    """Tables by name in `path`; `version` pins a publish."""

    def __init__(self, path: Path, version: int | None = None):
        self.path, self.pinned = path, version
        self.lock = FileLock(path / ".writer.lock")
        self.refresh()

    def refresh(self) -> None:
        """Resolve the published versions (again)."""
        self.version, self.heads = self._published()

    def _published(self) -> tuple[int, dict[str, int]]:
        if not DeltaTable.is_deltatable(str(self.path / PUBLISHES)):
            return -1, {}
        rows = DeltaTable(self.path / PUBLISHES).to_pyarrow_table().to_pylist()
        wanted = max(r["publish"] for r in rows) if self.pinned is None else self.pinned
        row = next((r for r in rows if r["publish"] == wanted), None)
        if row is None:
            raise WorkbenchError(f"The lake {self.path} has no version {wanted}.", fix="`workbench lake versions` lists them.")
        return wanted, json.loads(row["tables"])

    def files(self, table: str) -> list[str]:
        """The Parquet files of a table as published; [] when it has none."""
        return self.open(table).file_uris() if table in self.heads else []

    def open(self, table: str) -> DeltaTable:
        """The table at its published version (inside a writer: at its latest)."""
        try:
            return DeltaTable(self.path / table, version=self.heads[table])
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
        write_deltalake(self.path / PUBLISHES, row, mode="append", commit_properties=_COMMIT)
        self.version = number

    def create(self, table: str, schema: pa.Schema) -> None:
        """Make an empty table unless it stands already."""
        if table not in self.heads:
            if not DeltaTable.is_deltatable(str(self.path / table)):
                DeltaTable.create(self.path / table, schema=schema)
            self.heads[table] = DeltaTable(self.path / table).version()

    def append(self, table: str, rows: pa.Table | pa.RecordBatchReader, *, add_columns: bool = False) -> None:
        """Append rows; columns by name."""
        write_deltalake(self.path / table, rows, mode="append", schema_mode="merge" if add_columns else None, commit_properties=_COMMIT)
        self.heads[table] = DeltaTable(self.path / table).version()

    def overwrite(self, table: str, rows: pa.Table) -> None:
        """Replace every row (small tables only)."""
        write_deltalake(self.path / table, rows, mode="overwrite", schema_mode="overwrite", commit_properties=_COMMIT)
        self.heads[table] = DeltaTable(self.path / table).version()

    def add_columns(self, table: str, fields: list[pa.Field]) -> None:
        """Add nullable columns."""
        delta = DeltaTable(self.path / table)
        delta.alter.add_columns([_delta_field(f) for f in fields])
        self.heads[table] = delta.version()

    def merge(self, table: str, source: pa.Table, predicate: str) -> "Merge":
        """Begin a MERGE of `source` (alias s) into `table` (alias t)."""
        return Merge(self, table, DeltaTable(self.path / table).merge(source, predicate, source_alias="s", target_alias="t",
                                                                      commit_properties=_COMMIT))

    def compact(self) -> None:
        """Join small files; a new publish, same content."""
        for name in list(self.heads):
            delta = DeltaTable(self.path / name)
            delta.optimize.compact()
            self.heads[name] = delta.version()

    def vacuum(self, now: datetime, keep_days: int = 90) -> int:
        """Delete files that no publish of the last `keep_days` needs; the number of files deleted."""
        delta = DeltaTable(self.path / PUBLISHES)
        since = (now - timedelta(days=keep_days)).timestamp() * 1000
        rows = {r["publish"]: json.loads(r["tables"]) for r in delta.to_pyarrow_table().to_pylist()}
        recent = sum(commit.get("timestamp", 0) >= since for commit in delta.history()) or 1
        kept = [rows[number] for number in sorted(rows)[-recent:]]
        count = 0
        for name in self.heads:
            versions = sorted({tables[name] for tables in kept if name in tables})
            count += len(DeltaTable(self.path / name).vacuum(0, dry_run=False, enforce_retention_duration=False, keep_versions=versions))
        return count


class Merge:
    """A MERGE that notes the table's new version in its store."""

    def __init__(self, store: Store, table: str, merger):
        self.store, self.table, self.merger = store, table, merger

    def run(self) -> dict:
        """Carry it out; Delta's metrics."""
        metrics = self.merger.execute()
        self.store.heads[self.table] = DeltaTable(self.store.path / self.table).version()
        return metrics


def _delta_field(field: pa.Field):
    from deltalake import Field, Schema

    converted: Field = Schema.from_arrow(pa.schema([field])).fields[0]
    return converted
