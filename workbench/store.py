"""The folder of Delta tables under a lake: one writer, published versions, roll-back of what was never published.

A publish is one row of table `_versions`: {table: Delta version}. Readers resolve it once and so see all of a sync or
none. A writer first restores every table to its published version: what a killed sync left behind is never shown.
"""

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
        self.version, self.heads = -1, dict[str, int]()
        if self.pinned == -1 or not DeltaTable.is_deltatable(str(self.path / PUBLISHES)):
            return
        delta = DeltaTable(self.path / PUBLISHES)
        numbers = pa.table(delta.get_add_actions(flatten=True))["max.publish"].to_pylist()  # from the log; one small file a publish
        if numbers:
            wanted = max(numbers) if self.pinned is None else self.pinned
            rows = delta.to_pyarrow_table(filters=[("publish", "=", wanted)]).to_pylist()
            if not rows:
                raise WorkbenchError(f"The lake {self.path} has no version {wanted}.", fix="`workbench lake versions` lists them.")
            self.version, self.heads = wanted, json.loads(rows[0]["tables"])

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

    def schema(self, table: str) -> pa.Schema:
        """The columns of a table as they are stored."""
        return pa.schema(self.open(table).schema().to_arrow())

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
        for folder in self.path.glob("[!_.]*"):
            head = self.heads.get(folder.name, 0)  # version 0 is the bare creation
            if not (folder / "_delta_log" / f"{head + 1:020}.json").exists():
                continue  # commits are numbered without a gap: nothing follows the published one
            table = DeltaTable(folder)
            if folder.name in self.heads:
                table.restore(head)
                self.heads[folder.name], restored = table.version(), True
            else:
                table.delete()
        if restored:
            self._publish()

    def _publish(self) -> None:
        number = self.version + 1
        row = pa.table({"publish": pa.array([number], pa.int64()), "tables": [json.dumps(self.heads, sort_keys=True)]})
        DeltaTable.create(self.path / PUBLISHES, schema=row.schema, mode="ignore", configuration=_KEEP_LOG)
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
            DeltaTable.create(self.path / table, schema=schema, mode="ignore", configuration=_KEEP_LOG)
            self.heads[table] = DeltaTable(self.path / table).version()

    @contextmanager
    def _changed(self, table: str) -> Iterator[DeltaTable]:
        """The table, to be changed; its state afterwards is what the end of the writer publishes."""
        delta = self.open(table)
        yield delta
        self.heads[table] = delta.version()

    def append(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Append rows; columns by name."""
        with self._changed(table) as delta:
            write_deltalake(delta, rows, mode="append", commit_properties=_COMMIT)

    def overwrite(self, table: str, rows: pa.Table) -> None:
        """Replace every row (small tables only)."""
        with self._changed(table) as delta:
            write_deltalake(delta, rows, mode="overwrite", schema_mode="overwrite", commit_properties=_COMMIT)

    def add_columns(self, table: str, fields: list[pa.Field]) -> None:
        """Add nullable columns."""
        with self._changed(table) as delta:
            delta.alter.add_columns(list(Schema.from_arrow(pa.schema(fields)).fields))

    def merge(self, table: str, source: pa.Table, predicate: str, clauses: Callable[[TableMerger], TableMerger]) -> None:
        """MERGE `source` (alias s) into `table` (alias t); `clauses` says what becomes of the rows."""
        with self._changed(table) as delta:
            clauses(delta.merge(source, predicate, source_alias="s", target_alias="t", commit_properties=_COMMIT)).execute()

    def delete(self, table: str, predicate: str) -> None:
        """Delete the rows for which SQL `predicate` holds; half the memory of a MERGE that does the same."""
        with self._changed(table) as delta:
            delta.delete(predicate, commit_properties=_COMMIT)

    def compact(self) -> None:
        """Join small files; a new publish, same content."""
        for name in list(self.heads):
            with self._changed(name) as delta:
                delta.optimize.compact()

    def vacuum(self, now: datetime, keep_days: int = 90) -> int:
        """Delete files that no publish of the last `keep_days` needs; the number of files deleted."""
        kept = [tables for number, at, tables in self.publishes() if at >= now - timedelta(days=keep_days) or number == self.version]
        count = 0
        for name in self.heads:
            versions = sorted({tables[name] for tables in kept if name in tables})
            count += len(DeltaTable(self.path / name).vacuum(0, dry_run=False, enforce_retention_duration=False, keep_versions=versions))
        return count
