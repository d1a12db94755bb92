"""What a column of text seems to hold: kind, date order, decimal sign, placeholders, persons; and what it tells of an outcome."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from workbench.connect.mapping import Target
from workbench.connect.tables import TextTable
from workbench.connect.typed import among, raw_sql, typed_sql
from workbench.rows import quoted

SAMPLE = 100_000
SURE = 0.99  # share of values that must parse; the rest would be rejected, and a file may lose 5 %
WORDS = {"yes": True, "no": False, "true": True, "false": False, "1": True, "0": False, "y": True, "n": False, "t": True, "f": False, "ja": True, "nein": False,
         "oui": True, "non": False, "si": True, "sí": True, "sim": True, "não": False, "on": True, "off": False, "1.0": True, "0.0": False}
PLAIN = {"yes", "no", "true", "false", "1", "0", "y", "n", "t", "f", "on", "off", "1.0", "0.0"}
_PLACEHOLDER = re.compile(r"[-–—_.?*#/\\]+|[-(\[<* ]*((please )?(select|choose)( (one|an? \w+|\w+))?|none|n/?a|#n/a|null|nil|nan|not (specified|provided|available|applicable|set|given|stated)|"
                          r"undefined|blank|empty|unknown|tbd|tba|keine angabe|k\.? ?a\.?|(bitte )?(aus)?w(ä|ae)hlen|s(é|e)lectionner|seleccion(e|ar))[-)\]>* .:…]*", re.IGNORECASE)
_DATES = {"dmy": ("%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y", "%d.%m.%y", "%d/%m/%y", "%d-%m-%y"), "mdy": ("%m/%d/%Y", "%m-%d-%Y", "%m.%d.%Y", "%m/%d/%y", "%m-%d-%y"),
          "named": ("%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%d-%b-%y", "%d %B %Y", "%B %d, %Y", "%a %b %d %Y"), "ymd": ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d")}
_TIMES = ("", " %H:%M", " %H:%M:%S", "T%H:%M:%S", "T%H:%M", ", %H:%M", " %I:%M %p", " %I:%M:%S %p", ", %I:%M %p", ", %I:%M:%S %p", " %H:%M:%S %z")


@dataclass
class Column:
    """One column: rows n, filled (placeholders aside), different values, the most frequent of them with their counts."""

    name: str
    n: int
    filled: int = 0
    distinct: int = 0
    values: list[tuple[str, int]] = field(default_factory=list)
    placeholders: list[str] = field(default_factory=list)
    kind: str = "text"
    formats: tuple[str, ...] = ()
    other: tuple[str, ...] = ()  # the formats that fit as well: day and month cannot be told apart
    decimal: str = ""  # "." or "," where only this one fits
    personal: str = ""

    @property
    def unique(self) -> bool:
        return self.distinct == self.filled == self.n > 0


def profiled(table: TextTable) -> dict[str, Column]:
    """Every column of a table, by name."""
    n = table.connection.sql("select count(*) from raw").fetchall()[0][0]
    return {name: _profile(table.connection.cursor(), Column(name, n)) for name in table.columns}


def _profile(connection: duckdb.DuckDBPyConnection, c: Column) -> Column:
    connection.execute("set TimeZone = 'UTC'")
    connection.execute(f"create temp table v as select {raw_sql(c.name)} as v, count(*) as n from raw where {raw_sql(c.name)} is not null group by 1")
    top = connection.sql("select v, n from v order by n desc, v limit 300").fetchall()
    codes = sum(n for v, n in top if re.fullmatch("[A-Z]{2,3}", v)) > 0.5 * sum(n for _, n in top)  # NA among country codes is Namibia
    c.placeholders = [v for v, n in top if _PLACEHOLDER.fullmatch(v) and not (codes and v.isalpha())]
    if c.placeholders:
        connection.execute(f"delete from v where {among('v', tuple(c.placeholders))}")
    c.values = [(v, n) for v, n in top if v not in c.placeholders]
    c.filled, c.distinct = connection.sql("select coalesce(sum(n), 0)::bigint, count(*) from v").fetchall()[0]
    # Kind and persons are told by a sample of at most some 100,000 different values.
    connection.execute(f"create temp view s as select * from v where hash(v) % {max(1, c.distinct // SAMPLE)} = 0")
    if c.filled:
        _find_kind(connection, c)
        _find_person(connection, c)
    return c


def _fit(connection: duckdb.DuckDBPyConnection, c: Column, kind: str, formats: tuple[str, ...] = (), decimal: str = ".") -> float:
    typed = typed_sql("v", Target(c.name, "x", kind, "fixed", formats, decimal), "UTC")
    return connection.sql(f"select coalesce(sum(n) filter (where ({typed}) is not null), 0) / sum(n) from s").fetchall()[0][0]


def _find_kind(connection: duckdb.DuckDBPyConnection, c: Column) -> None:
    texts = [v for v, _ in c.values]
    if c.distinct <= 2 and all(v.lower() in WORDS for v in texts):
        c.kind = "bool"
        return
    if any(re.search(r"\d", v) for v in texts[:50]):
        clock = "time" if any(":" in v for v in texts) else "date"
        if _fit(connection, c, "time") >= SURE:
            c.kind = clock
            return
        found = _date_formats(connection, c)
        if found:
            c.kind, c.formats, c.other = clock, found[0], found[1] if len(found) > 1 else ()
            return
        fits = {d: _fit(connection, c, "float", decimal=d) for d in ".,"}
        if max(fits.values()) >= SURE and not any(re.match(r"[+-]?0\d|\+\d", v) for v in texts):  # 00123 and +49 are codes
            c.decimal = "" if min(fits.values()) >= SURE else max(fits, key=lambda d: fits[d])
            c.kind = "int" if _fit(connection, c, "int", decimal=c.decimal or ".") >= max(fits.values()) else "float"


def _date_formats(connection: duckdb.DuckDBPyConnection, c: Column) -> list[tuple[str, ...]]:
    """The formats that fit; a second entry where the order of day and month cannot be told."""
    if not re.search(r"\d\D+\d|\d{8}", c.values[0][0]):
        return []
    shown = [v for v, _ in c.values[:: max(1, len(c.values) // 30)]]
    formats = [(order, date, date + time) for order, dates in _DATES.items() for date in dates for time in _TIMES if any(_is_date(v, date + time) for v in shown)]
    if not formats:
        return []
    sane = "count(*) filter (where year(try_strptime(v, [{0}])::timestamp) between 1900 and 2200)"
    hits = connection.sql(f"select {', '.join(sane.format(quoted(f)) for *_, f in formats)} from (select v from s order by hash(v) limit 500)").fetchall()[0]
    families: dict[tuple, list[tuple[int, str]]] = {}
    for (order, date, f), n in zip(formats, hits, strict=True):
        if n:
            families.setdefault((order, date), []).append((n, f))
    fitting = {}
    for (order, _), some in families.items():
        told = tuple(f for _, f in sorted(some, reverse=True))
        if order not in fitting and _fit(connection, c, "time", told) >= SURE:
            fitting[order] = told
    if {"dmy", "mdy"} <= set(fitting):
        first = "dmy" if "." in fitting["dmy"][0] else "mdy"
        return [fitting[first], fitting["mdy" if first == "dmy" else "dmy"]]
    return list(fitting.values())[:1]


def _is_date(value: str, form: str) -> bool:
    try:
        return 1900 <= datetime.strptime(value, form).year <= 2200
    except ValueError:
        return False


def _find_person(connection: duckdb.DuckDBPyConnection, c: Column) -> None:
    def share(pattern: str) -> float:
        return connection.sql(f"select coalesce(sum(n) filter (where regexp_full_match(v, '{pattern}')), 0) / sum(n) from s").fetchall()[0][0]

    if share(r"[^@\s]+@[^@\s]+\.[^@\s.]+") > 0.5:
        c.personal = "e-mail addresses"
    elif c.kind in ("text", "int") and c.distinct > 0.5 * c.filled and share(r"(\+|00|\()?[0-9][0-9 ()./-]{6,}[0-9](\s*(x|ext\.?)\s*[0-9]+)?") > 0.8 and (
            share(r"[0-9]+") < 0.5 or re.search("phone|mobile|tel|cell|fax", c.name.lower())):
        c.personal = "phone numbers"
    elif c.kind == "text" and c.distinct > 20 and re.search(r"name|person|contact", c.name.lower()) and share(r"\p{Lu}[\p{L}''.-]+( \p{L}\.)?( \p{Lu}[\p{L}''.-]+){1,2}") > 0.7:
        c.personal = "person names"


def outcome_evidence(connection: duckdb.DuckDBPyConnection, c: Column, won: str) -> dict[str, float]:
    """What a column alone tells of `won` (SQL; null = open), for the decided rows: n, base, auc, pure, and where it is empty.

    auc: each value's rate of winning (numbers in 20 bins), learned on the odd rows and judged on the even ones and the other way
    round. pure: share of rows whose value has one outcome in 98 % of 30 rows or more. filled_rate, empty_rate: share won;
    filled_open, filled_decided: share of the open and of the decided rows that are filled.
    """
    raw = raw_sql(c.name)
    raw = f"case when {among(raw, tuple(c.placeholders))} then null else {raw} end" if c.placeholders else raw
    typed = typed_sql("t", Target(c.name, "x", "float", "fixed", decimal=c.decimal or "."), "UTC") if c.kind in ("int", "float") and c.distinct > 20 else "null::double"
    connection.execute(f"""create or replace temp table told as select t, {typed} as num, w, _line % 2 as half
        from (select {raw} as t, {won} as w, _line from raw where hash(_line) % {max(1, c.n // SAMPLE)} = 0)""")
    connection.execute("""create or replace temp table coded as select coalesce(case when num is null then t else 'bin ' || ntile(20) over (partition by num is null order by num) end, '(none)')
        as level, w::int as y, half from told where w is not null""")
    row = connection.sql("""with rates as (select level, half, sum(y) as s, count(*) as n from coded group by all), base as (select avg(y) as b from coded),
        scored as (select c.y, (coalesce(r.s, 0) + 5 * b) / (coalesce(r.n, 0) + 5) as p from coded c cross join base left join rates r on r.level = c.level and r.half = 1 - c.half),
        ranked as (select y, rank() over (order by p) + (count(*) over (partition by p) - 1) / 2.0 as r from scored),
        levels as (select level, avg(y) as m, count(*) as n from coded group by level)
        select count(*), avg(y), (sum(r) filter (where y = 1) - sum(y) * (sum(y) + 1) / 2.0) / nullif(sum(y) * (count(*) - sum(y)), 0),
        (select coalesce(sum(n) filter (where n >= 30 and (m >= 0.98 and b <= 0.9 or m <= 0.02 and b >= 0.1)), 0) from levels cross join base) / count(*) from ranked""").fetchall()[0]
    more = connection.sql("""select avg(w::int) filter (where t is not null), avg(w::int) filter (where t is null), count(*) filter (where t is null and w is not null),
        avg((t is not null)::int) filter (where w is null), avg((t is not null)::int) filter (where w is not null) from told""").fetchall()[0]
    names = ("n", "base", "auc", "pure", "filled_rate", "empty_rate", "n_empty", "filled_open", "filled_decided")
    return {name: float(v) if v is not None else float("nan") for name, v in zip(names, (*row, *more), strict=True)}
