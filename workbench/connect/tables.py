"""Any plain table as text: CSV (any delimiter and encoding, gzip), Excel, Parquet, with its unreadable lines told."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path

import duckdb
import pyarrow as pa

from workbench.errors import WorkbenchError
from workbench.rows import quoted

_DELIMITERS = ",;\t|"
_BATCH, _SHOWN = 20_000, 120
_UNDECODED = re.compile("[\udc80-\udcff]")


@dataclass
class TextTable:
    """Columns of text in `connection`'s table `raw` (with `_line`, the line in the file), and findings about unreadable lines.

    findings: rule, line, detail, lost (True where the line is in no row). n_read counts rows and lost lines.
    """

    connection: duckdb.DuckDBPyConnection
    columns: list[str]
    findings: list[dict]
    n_read: int


def read_text_table(path: str | Path, delimiter: str = "", encoding: str = "", sheet: str = "") -> TextTable:
    """Read one file; ragged or undecodable lines become findings (rule, line, detail), never a crash."""
    path = Path(path)
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    connection.execute("set TimeZone = 'UTC'")
    try:
        if path.suffix.lower() in (".xlsx", ".xlsm"):
            return _from_rows(connection, path.name, _excel_rows(path, sheet), [])
        if path.suffix.lower() in (".parquet", ".pq"):
            return _from_parquet(connection, path)
        return _from_csv(connection, path, delimiter, encoding)
    except LookupError:
        raise WorkbenchError(f"{path.name}: encoding {encoding!r} is unknown.", fix="Write utf-8, cp1252, utf-16 ..., or leave it out.") from None
    except (duckdb.Error, OSError, ValueError, EOFError, KeyError, csv.Error) as error:
        raise WorkbenchError(f"{path.name} cannot be read: {str(error).splitlines()[0]}.", fix="Is it a CSV, gzip CSV, Excel (.xlsx) or Parquet file?") from error
    except Exception as error:  # a damaged Excel file fails in many ways
        if isinstance(error, WorkbenchError) or path.suffix.lower() not in (".xlsx", ".xlsm"):
            raise
        raise WorkbenchError(f"{path.name} is no readable Excel file: {error}.", fix="Save it as .xlsx or CSV again.") from error


def column_sql(column: str) -> str:
    """A column's name quoted for SQL."""
    return '"' + column.replace('"', '""') + '"'


def _literal(path: Path) -> str:
    """The file itself for DuckDB, which reads *, ? and [ in a name as a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", str(path.resolve()))


def _from_parquet(connection: duckdb.DuckDBPyConnection, path: Path) -> TextTable:
    connection.execute(f"create view source as select * from read_parquet({quoted(_literal(path))})")
    described = connection.sql("describe source").fetchall()
    text = {name: f"regexp_replace({column_sql(name)}::varchar, '\\.0$', '')" if kind in ("DOUBLE", "FLOAT") else f"{column_sql(name)}::varchar"
            for name, kind, *_ in described}
    columns = unique_names([name.strip() for name in text])
    chosen = ", ".join(f"nullif({expression}, '') as {column_sql(c)}" for c, expression in zip(columns, text.values(), strict=True))
    connection.execute(f"create table raw as select {chosen}, row_number() over () + 1 as _line from source")
    return TextTable(connection, columns, [], connection.sql("select count(*) from raw").fetchall()[0][0])


def _excel_rows(path: Path, sheet: str) -> Iterator[tuple[int, list[str]]]:
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True, data_only=True)
    if sheet and sheet not in book.sheetnames:
        raise WorkbenchError(f"{path.name} has no sheet {sheet!r}.", fix=f"Its sheets: {', '.join(book.sheetnames)}.")
    rows = (book[sheet] if sheet else book.worksheets[0]).iter_rows(values_only=True)
    for line, row in enumerate(rows, 1):
        yield line, [_cell(value) for value in row]


def _cell(value: object) -> str:
    """An Excel cell as the text that a CSV export of it would hold.

    >>> _cell(3.0), _cell(True), _cell(datetime(2024, 1, 5)), _cell(None)
    ('3', 'true', '2024-01-05', '')
    """
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime):
        return str(value.date()) if value.time() == time(0) else value.isoformat(sep=" ")
    return value.isoformat() if isinstance(value, date) else str(value)


def _from_csv(connection: duckdb.DuckDBPyConnection, path: Path, delimiter: str, encoding: str) -> TextTable:
    encoding, n_lines, clean, findings = _decoding(path, encoding)
    delimiter = delimiter or _delimiter(path, encoding)
    if clean:  # the fast way, for files in which each line is a row; whatever else there is goes line by line
        header = next(_records(_lines(path, encoding), delimiter, path.name), (0, []))[1]
        columns = _header(header, path.name)
        try:
            connection.execute("""create table raw as select *, row_number() over () + 1 as _line from read_csv(?, auto_detect = false, header = true,
                delim = ?, quote = '"', escape = '"', columns = ?, max_line_size = 10000000)""", [_literal(path), delimiter, {c: "VARCHAR" for c in columns}])
            n = connection.sql("select count(*) from raw").fetchall()[0][0]
            if n + 1 == n_lines:
                return TextTable(connection, columns, findings, n)
        except duckdb.Error:
            pass
        connection.execute("drop table if exists raw")
    return _from_rows(connection, path.name, _records(_lines(path, encoding), delimiter, path.name, findings), findings)


def _opened(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _lines(path: Path, encoding: str) -> Iterator[str]:
    with _opened(path) as binary:
        yield from io.TextIOWrapper(binary, encoding=encoding, errors="surrogateescape", newline="")  # type: ignore[type-var]


def _decoding(path: Path, encoding: str) -> tuple[str, int, bool, list[dict]]:
    """(encoding, lines, whether all are sound UTF-8, findings): UTF-8 unless most lines with accents are something else."""
    with _opened(path) as binary:
        if not encoding and binary.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16", 0, False, []
    told = codecs.lookup(encoding).name if encoding else "utf-8"
    n = good = bad = 0
    for line in _lines(path, "utf-8-sig" if told == "utf-8" else encoding):
        n += 1
        if not line.isascii():
            broken = bool(_UNDECODED.search(line))
            bad, good = bad + broken, good + (not broken)
    if told != "utf-8":
        return encoding, n, False, []
    if bad > good and not encoding:
        return "cp1252", n, False, [{"rule": "encoding", "line": 0, "detail": "not UTF-8; read as Windows-1252 (Latin-1)", "lost": False}]
    return "utf-8-sig", n, bad == 0, []


def _delimiter(path: Path, encoding: str) -> str:
    """The delimiter that splits the header and the first lines alike into the most columns."""
    lines = [line for line, _ in zip(_lines(path, encoding), range(50), strict=False)]

    def columns(delimiter: str) -> float:
        widths = [len(row) for row in csv.reader(lines, delimiter=delimiter) if row]
        return widths[0] * sum(w == widths[0] for w in widths) / len(widths) if widths else 0

    return max(_DELIMITERS, key=columns)


class _Source:
    """Lines for csv.reader that remembers those of the current record, so that what an unclosed quote swallowed is read again."""

    def __init__(self, lines: Iterator[str]):
        self.lines, self.again, self.taken, self.number = lines, list[str](), list[str](), 0

    def __iter__(self) -> _Source:
        return self

    def __next__(self) -> str:
        line = self.again.pop() if self.again else next(self.lines)
        self.taken.append(line)
        self.number += 1
        return line


def _records(lines: Iterator[str], delimiter: str, name: str, findings: list[dict] | None = None) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each sound record; a line that is ragged or cannot be decoded becomes a finding and is left out."""
    csv.field_size_limit(1 << 27)
    source, width = _Source(lines), 0
    reader = csv.reader(source, delimiter=delimiter)
    while True:
        source.taken = []
        row = next(reader, None)
        if row is None:
            return
        line, taken, why = source.number - len(source.taken) + 1, source.taken, ""
        if not row or (len(row) == 1 and width > 1 and not row[0].strip()):
            continue
        width = width or len(row)
        if _UNDECODED.search("".join(taken)):
            why = "encoding"
        elif len(row) != width:
            why = f"{len(row)} columns instead of {width}"
        elif len(taken) > 1 and not _closes(taken, delimiter):
            why = "a quote is never closed"
        if why and len(taken) > 1:  # only the first line is at fault, as far as we know
            source.again += reversed(taken[1:])
            source.number -= len(taken) - 1
        if why and findings is not None:
            shown = taken[0].strip()[:_SHOWN].encode("utf-8", "backslashreplace").decode()
            findings.append({"rule": "encoding" if why == "encoding" else "ragged_line", "line": line, "lost": True,
                             "detail": f"cannot be decoded: {shown}" if why == "encoding" else f"{why}: {shown}"})
        elif not why:
            yield line, row


def _closes(taken: list[str], delimiter: str) -> bool:
    try:
        return len(list(csv.reader(taken, delimiter=delimiter, strict=True))) == 1
    except csv.Error:
        return False


def _header(cells: list[str], name: str) -> list[str]:
    if not any(h.strip() for h in cells):
        raise WorkbenchError(f"{name} has no header line.", fix="The first line must name the columns.")
    return unique_names([h.strip() for h in cells])


def _from_rows(connection: duckdb.DuckDBPyConnection, name: str, rows: Iterator[tuple[int, list[str]]], findings: list[dict]) -> TextTable:
    columns = _header(next(rows, (0, []))[1], name)
    schema = pa.schema([(c, pa.string()) for c in columns] + [("_line", pa.int64())])
    connection.execute(f"create table raw ({', '.join(column_sql(c) + ' varchar' for c in columns)}, _line bigint)")
    batch: list[tuple] = []

    def store() -> None:
        arrays = [pa.array([v or None for v in values], pa.string()) for values in list(zip(*batch, strict=True))[:-1]]
        connection.register("batch", pa.table([*arrays, pa.array([b[-1] for b in batch], pa.int64())], schema=schema))
        connection.execute("insert into raw select * from batch")
        connection.unregister("batch")
        batch.clear()

    n = 0
    for line, cells in rows:
        if not any(cells):
            continue
        n += 1
        batch.append((*cells[: len(columns)], *[""] * (len(columns) - len(cells)), line))
        if len(batch) == _BATCH:
            store()
    if batch:
        store()
    return TextTable(connection, columns, findings, n + sum(f["lost"] for f in findings))


def unique_names(names: list[str]) -> list[str]:
    """Column names made unique (case aside) and non-empty.

    >>> unique_names(["a", "", "A", "_line"])
    ['a', 'column_2', 'A_3', '_line_4']
    """
    seen: set[str] = {"_line"}
    out = []
    for place, name in enumerate(names, 1):
        name = name or f"column_{place}"
        while name.lower() in seen:
            name = f"{name}_{place}"
        seen.add(name.lower())
        out.append(name)
    return out
