"""Any plain table as text: CSV (any delimiter and encoding, gzip), Excel, Parquet, with its unreadable lines told."""

import codecs
import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa

from workbench.errors import WorkbenchError
from workbench.rows import quoted, scratch

_BATCH, _SHOWN = 20_000, 120
_UNDECODED = re.compile("[\udc80-\udcff]")


@dataclass
class TextTable:
    """Columns of text in `connection`'s table `name` (with `_line`, the line in the file), and findings about unreadable lines.

    findings: rule, line, detail, lost (True where the line is in no row).
    """

    connection: duckdb.DuckDBPyConnection
    name: str
    columns: list[str]
    findings: list[dict]

    def rows(self, query: str) -> list[tuple]:
        """What a query gives."""
        return self.connection.sql(query).fetchall()


def text_database() -> duckdb.DuckDBPyConnection:
    """An empty database in memory for tables of text, with the macros of values.sql; times are UTC."""
    connection = scratch()
    connection.execute(resources.files("workbench.connect").joinpath("values.sql").read_text(encoding="utf-8"))
    return connection


def read_text_table(path: str | Path, delimiter: str = "", encoding: str = "", sheet: str = "", *,
                    connection: duckdb.DuckDBPyConnection | None = None, name: str = "raw") -> TextTable:
    """Read one file into table `name`; ragged or undecodable lines become findings, never a crash."""
    path, table = Path(path), TextTable(connection or text_database(), name, [], [])
    try:
        if path.suffix.lower() in (".xlsx", ".xlsm"):
            _store(table, path, _excel_rows(path, sheet))
        elif path.suffix.lower() in (".parquet", ".pq"):
            _store_parquet(table, path)
        else:
            _store_csv(table, path, delimiter, encoding)
    except WorkbenchError:
        raise
    except Exception as error:  # damaged files fail in many ways, Excel's most of all
        why = str(error).partition("\n")[0]
        raise WorkbenchError(f"{path.name} cannot be read: {why}.", fix="Is it a CSV, gzip CSV, Excel (.xlsx) or Parquet file?") from error
    return table


def column_sql(column: str) -> str:
    """A column's name quoted for SQL."""
    return '"' + column.replace('"', '""') + '"'


def raw_sql(*columns: str) -> str:
    """SQL: the text of a column, or of several joined by a blank; null where there is nothing but blanks."""
    texts = [f"text_of({column_sql(c)})" for c in columns]
    return texts[0] if len(texts) == 1 else f"nullif(concat_ws(' ', {', '.join(texts)}), '')"


def _literal(path: Path) -> str:
    """The file itself for DuckDB, which reads *, ? and [ in a name as a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", str(path.resolve()))


def _store_parquet(table: TextTable, path: Path) -> None:
    source = f"read_parquet({quoted(_literal(path))})"
    names = [name for name, *_ in table.rows(f"describe select * from {source}")]
    table.columns = unique_names(names)
    chosen = ", ".join(f"cell_text({column_sql(n)}) as {column_sql(c)}" for n, c in zip(names, table.columns, strict=True))
    table.connection.execute(f"create table {table.name} as select {chosen}, row_number() over () + 1 as _line from {source}")


def _excel_rows(path: Path, sheet: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of a sheet, each cell as the text that a CSV export of it would hold: 3 for 3.0, a day without its midnight."""
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True, data_only=True)
    if sheet and sheet not in book.sheetnames:
        raise WorkbenchError(f"{path.name} has no sheet {sheet!r}.", fix=f"Its sheets: {', '.join(book.sheetnames)}.")
    for line, row in enumerate((book[sheet] if sheet else book.worksheets[0]).iter_rows(values_only=True), 1):
        texts = ["" if value is None else str(value) for value in row]
        if any(texts):
            yield line, [t if isinstance(v, str) else re.sub(r"( 00:00:00|\.0)$", "", t) for v, t in zip(row, texts, strict=True)]


def _store_csv(table: TextTable, path: Path, delimiter: str, encoding: str) -> None:
    try:
        encoding = codecs.lookup(encoding or _encoding(path, table.findings)).name
    except LookupError:
        raise WorkbenchError(f"{path.name}: encoding {encoding!r} is unknown.", fix="Write utf-8, cp1252, utf-16 ..., or leave it out.") from None
    if utf_8 := encoding in ("utf-8", "utf-8-sig"):
        encoding = "utf-8-sig"  # whether or not a mark begins it
    delimiter = delimiter or _delimiter(_lines(path, encoding))
    if not (utf_8 and _store_sound_csv(table, path, delimiter)):
        _store(table, path, _records(_lines(path, encoding), delimiter, table.findings))


def _store_sound_csv(table: TextTable, path: Path, delimiter: str) -> bool:
    """The fast way, which DuckDB refuses for lines that are ragged or no UTF-8; False where it does, or where a line is not a row."""
    try:
        table.columns = unique_names(next(csv.reader(_lines(path, "utf-8-sig"), delimiter=delimiter), []))
        "".join(table.columns).encode()  # bytes that are no UTF-8 cannot be written as such
        table.connection.execute(f"""create or replace table {table.name} as select *, row_number() over () + 1 as _line from read_csv(?,
            auto_detect = false, header = true, delim = ?, quote = '"', escape = '"', columns = ?, max_line_size = 10000000)""",
            [_literal(path), delimiter, dict.fromkeys(table.columns, "VARCHAR")])
    except (duckdb.Error, csv.Error, UnicodeError):
        return False
    with _opened(path) as binary:
        return table.rows(f"select count(*) + 1 from {table.name}")[0][0] == sum(1 for _ in binary)


def _opened(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _lines(path: Path, encoding: str) -> Iterator[str]:
    with _opened(path) as binary:
        yield from io.TextIOWrapper(binary, encoding=encoding, errors="surrogateescape", newline="")  # type: ignore[type-var]


def _encoding(path: Path, findings: list[dict]) -> str:
    """UTF-8, unless the file says that it is UTF-16, or most lines with accents are something else: a guess, which is told."""
    with _opened(path) as binary:
        if binary.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
    broken = [bool(_UNDECODED.search(line)) for line in _lines(path, "utf-8-sig") if not line.isascii()]
    if 2 * sum(broken) <= len(broken):
        return "utf-8"
    findings.append({"rule": "encoding", "line": 0, "detail": "not UTF-8; read as Windows-1252 (Latin-1)", "lost": False})
    return "cp1252"


def _delimiter(lines: Iterable[str]) -> str:
    """The delimiter that splits the header and the first lines alike into the most columns."""
    first = list(islice(lines, 50))
    widths = {d: [len(row) for row in csv.reader(first, delimiter=d) if row] or [0] for d in ",;\t|"}
    return max(widths, key=lambda d: widths[d][0] * widths[d].count(widths[d][0]) / len(widths[d]))


def _records(lines: Iterable[str], delimiter: str, findings: list[dict]) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each sound record; a line that is ragged or cannot be decoded becomes a finding and is left out.

    An unclosed quote swallows the lines up to the next one: only the first is at fault, and the others are read again.
    """
    csv.field_size_limit(1 << 27)
    numbered, width = enumerate(lines, 1), 0
    again: list[tuple[int, str]] = []
    taken: list[tuple[int, str]] = []  # the lines of the current record

    def source() -> Iterator[str]:
        while pair := again.pop() if again else next(numbered, None):
            taken.append(pair)
            yield pair[1]

    reader = csv.reader(source(), delimiter=delimiter)
    while (row := next(reader, None)) is not None:
        texts, why = [text for _, text in taken], ""
        if len(row) > 1 or "".join(row).strip():  # else a blank line
            width = width or len(row)
            if _UNDECODED.search("".join(texts)):
                why = "cannot be decoded"
            elif len(row) != width:
                why = f"{len(row)} columns instead of {width}"
            elif len(texts) > 1 and not _closes(texts, delimiter):
                why = "a quote is never closed"
            elif any(row):
                yield taken[0][0], row
        if why:
            shown = texts[0].strip()[:_SHOWN].encode("utf-8", "backslashreplace").decode()
            rule = "encoding" if why == "cannot be decoded" else "ragged_line"
            findings.append({"rule": rule, "line": taken[0][0], "detail": f"{why}: {shown}", "lost": True})
            again += reversed(taken[1:])
            reader = csv.reader(source(), delimiter=delimiter)
        taken.clear()


def _closes(texts: list[str], delimiter: str) -> bool:
    try:
        return len(list(csv.reader(texts, delimiter=delimiter, strict=True))) == 1
    except csv.Error:
        return False


def _store(table: TextTable, path: Path, rows: Iterator[tuple[int, list[str]]]) -> None:
    table.columns = unique_names(next(rows, (0, []))[1])
    if not table.columns:
        raise WorkbenchError(f"{path.name} has no header line.", fix="The first line must name the columns.")
    columns = pa.schema([(c, pa.string()) for c in table.columns] + [("_line", pa.int64())])
    table.connection.register("batch", columns.empty_table())
    table.connection.execute(f"create or replace table {table.name} as from batch")
    while batch := list(islice(rows, _BATCH)):
        told = [dict(zip(table.columns, [c or None for c in cells], strict=False)) | {"_line": line} for line, cells in batch]
        table.connection.register("batch", pa.Table.from_pylist(told, columns))
        table.connection.execute(f"insert into {table.name} from batch")


def unique_names(names: list[str]) -> list[str]:
    """Column names trimmed, made unique (case aside) and non-empty.

    >>> unique_names(["a", "", " A", "_line"])
    ['a', 'column_2', 'A_3', '_line_4']
    """
    seen: set[str] = {"_line"}
    out = []
    for place, name in enumerate(map(str.strip, names), 1):
        name = name or f"column_{place}"
        while name.lower() in seen:
            name = f"{name}_{place}"
        seen.add(name.lower())
        out.append(name)
    return out
