"""Any plain table as text: CSV (any delimiter, UTF-8 or Latin-1, gzip), Excel, Parquet, with its unreadable lines told."""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from workbench.errors import WorkbenchError

_DELIMITERS = ",;\t|"


@dataclass
class TextTable:
    """Columns of text in `connection`'s table `raw` (with `_line`, the line in the file), and findings about unreadable lines."""

    connection: duckdb.DuckDBPyConnection
    columns: list[str]
    findings: list[dict]
    n_read: int


def read_text_table(path: str | Path, delimiter: str = "", encoding: str = "", sheet: str = "") -> TextTable:
    """Read one file; ragged or undecodable lines become findings (rule, line, detail), never a crash."""
    path = Path(path)
    kind = "".join(path.suffixes[-2:]).lower()
    connection = duckdb.connect()
    try:
        if kind.endswith((".xlsx", ".xlsm", ".xls")):
            frame = pd.read_excel(path, dtype=str, sheet_name=sheet or 0)
            return _from_frame(connection, frame)
        if kind.endswith((".parquet", ".pq")):
            connection.execute("create table source as select * from read_parquet(?)", [str(path)])
            columns = [c[0] for c in connection.sql("select * from source limit 0").description]
            chosen = ", ".join(f"{_name(c)}::varchar as {_name(c)}" for c in columns)
            connection.execute(f"create table raw as select {chosen}, row_number() over () + 1 as _line from source")
            return TextTable(connection, columns, [], _count(connection, "raw"))
        return _from_csv(connection, path, delimiter, encoding)
    except (duckdb.Error, OSError, ValueError, ImportError, EOFError) as error:
        if isinstance(error, WorkbenchError):
            raise
        raise WorkbenchError(f"{path.name} cannot be read: {str(error).splitlines()[0]}", fix="Is it a CSV, gzip CSV, Excel or Parquet file?") from error


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _count(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    return connection.sql(f"select count(*) from {table}").fetchall()[0][0]


def _from_frame(connection: duckdb.DuckDBPyConnection, frame: pd.DataFrame) -> TextTable:
    frame.columns = _unique([str(c) for c in frame.columns])
    connection.register("given", frame.astype("str").where(frame.notna(), None).assign(_line=range(2, len(frame) + 2)))
    connection.execute("create table raw as select * from given")
    return TextTable(connection, list(frame.columns), [], len(frame))


def _from_csv(connection: duckdb.DuckDBPyConnection, path: Path, delimiter: str, encoding: str) -> TextTable:
    findings = []
    if not encoding:
        encoding = "utf-8" if _is_utf8(path) else "latin-1"
        if encoding == "latin-1":
            findings.append({"rule": "encoding", "line": 0, "detail": "not UTF-8; read as Latin-1"})
    with _opened(path) as binary:
        text = io.TextIOWrapper(binary, encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="")
        first = text.readline()
        delimiter = delimiter or max(_DELIMITERS, key=lambda d: len(next(csv.reader([first], delimiter=d), [])))
        text.seek(0)
        header = next(csv.reader(text, delimiter=delimiter), None)
    if not header or not any(h.strip() for h in header):
        raise WorkbenchError(f"{path.name} has no header line.", fix="The first line must name the columns.")
    columns = _unique([h.strip() for h in header])
    # Delimiter, quote and header are settled above, so that a ragged line can't change how the whole file is read.
    connection.execute("""create table raw as select *, row_number() over () as _row from read_csv(?, auto_detect = false, header = true, delim = ?, quote = '"',
        escape = '"', columns = ?, encoding = ?, store_rejects = true, rejects_limit = 0, null_padding = false, max_line_size = 10000000)""",
                       [str(path), delimiter, {c: "VARCHAR" for c in columns}, encoding])
    rejects = connection.sql("select line, any_value(error_type::varchar) as kind, any_value(csv_line) as text from reject_errors group by line order by line").fetchall()
    for line, why, text_line in rejects:
        rule = "encoding" if "UNICODE" in why else "ragged_line"
        findings.append({"rule": rule, "line": int(line), "detail": f"{why.lower()}: {(text_line or '')[:120]}"})
    # A row's line = header + its place + the rejected lines before it (exact unless a quoted value spans lines).
    lines = pd.DataFrame({"bad": [int(r[0]) for r in rejects]}, dtype="int64")
    connection.register("rejected", lines.assign(before=lines["bad"] - 1 - lines.index))
    connection.execute("create or replace table raw as select * exclude (_row), _row + 1 + (select count(*) from rejected where before <= _row) as _line from raw"
                       if len(lines) else "create or replace table raw as select * exclude (_row), _row + 1 as _line from raw")
    return TextTable(connection, columns, findings, _count(connection, "raw") + len(rejects))


def _opened(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _is_utf8(path: Path) -> bool:
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()
    with _opened(path) as binary:
        try:
            while chunk := binary.read(1 << 20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _unique(names: list[str]) -> list[str]:
    """Column names made unique and non-empty.

    >>> _unique(["a", "", "a"])
    ['a', 'column_2', 'a_3']
    """
    seen: set[str] = set()
    out = []
    for place, name in enumerate(names, 1):
        name = name or f"column_{place}"
        name = f"{name}_{place}" if name.lower() in seen else name
        seen.add(name.lower())
        out.append(name)
    return out
