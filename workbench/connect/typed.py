"""A column's text as the value of its field, in SQL: trimmed, placeholders out, values mapped, typed; null where it can't be."""

from __future__ import annotations

from workbench.connect.mapping import Target
from workbench.connect.tables import column_sql
from workbench.rows import quoted

_LOCAL = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y/%m/%d")
_OFFSET = r"[0-9]:[0-9.]+\s*(Z|UTC|[+-][0-9]{2}(:?[0-9]{2})?)$"  # 2024-01-05T10:00:00+01:00 is an instant, whatever the mapping's time zone
YES, NO = ("yes", "true", "1", "1.0", "y", "t", "on"), ("no", "false", "0", "0.0", "n", "f", "off")
_NUMBER = r"^[+-]?([0-9]{1,3}(,[0-9]{2,3})*,[0-9]{3}|[0-9]+)?(\.[0-9]*)?([eE][+-]?[0-9]+)?$"


def raw_sql(column: str) -> str:
    """The text of a column, null where there is nothing but blanks."""
    return f"nullif(trim({column_sql(column)}, ' \t\r\n\u00a0\ufeff'), '')"


def joined_sql(columns: list[str]) -> str:
    """The texts of several columns joined by a blank."""
    return f"nullif(concat_ws(' ', {', '.join(map(raw_sql, columns))}), '')"


def among(raw: str, values: tuple[str, ...]) -> str:
    """Whether a text is one of `values`."""
    return f"coalesce({raw} in ({', '.join(map(quoted, values))}), false)"


def clean_sql(target: Target) -> str:
    """The text of a target: placeholders as null, values replaced by those that the mapping tells."""
    raw = raw_sql(target.column)
    return mapped(f"case when {among(raw, target.placeholders)} then null else {raw} end" if target.placeholders else raw, target.values)


def mapped(expression: str, values: dict) -> str:
    """An expression with `values` replaced; key "*" stands for every other value, key "" for missing, value "" is missing.

    >>> mapped("x", {"Won": True, "*": ""})
    "(case when (x) is null then null when (x) = 'Won' then 'true' else null end)"
    """
    if not values:
        return expression
    told = {k: "null" if v == "" else quoted(str(v).lower() if isinstance(v, bool) else v) for k, v in values.items()}
    cases = " ".join(f"when ({expression}) = {quoted(k)} then {v}" for k, v in told.items() if k not in ("*", ""))
    return f"(case when ({expression}) is null then {told.get('', 'null')} {cases} else {told.get('*', f'({expression})')} end)"


def typed_sql(clean: str, target: Target, zone: str) -> str:
    """`clean` as a value of the target's type: dates and times from its formats, numbers by its decimal sign."""
    if target.type == "text":
        return clean
    if target.type == "bool":
        return f"case when lower({clean}) in {YES} then true when lower({clean}) in {NO} then false end"
    if target.type in ("date", "time"):
        return _time(clean, target, zone)
    # 1,234.50 · (1,234.50) · 1 234,50 € · USD 1'234: what is no digit, sign or separator goes; the rest must be a number.
    text = f"regexp_replace({clean}, '[\\s\\x{{00A0}}\\x{{202F}}''\\x{{2019}}]|^[A-Z]{{3}}|[A-Z]{{3}}$|[A-Z]{{0,2}}[$€£¥₹]', '', 'g')"
    text = f"regexp_replace({text}, '^\\((.*)\\)$', '-\\1')"
    text = f"translate({text}, ',.', '.,')" if target.decimal == "," else text
    bare = f"regexp_replace({text}, '%$', '')"
    bare = f"case when regexp_matches({bare}, '{_NUMBER}') then replace({bare}, ',', '') end"
    if target.type == "int":
        return f"try_cast(regexp_extract({bare}, '^([+-]?[0-9]+)(\\.0*)?$', 1) as bigint)"
    if target.type == "money":
        return f"try_cast({bare} as decimal(18,2))"
    return f"try_cast({bare} as double) / case when {text} like '%\\%' escape '\\' then 100 else 1 end"


def _time(clean: str, target: Target, zone: str) -> str:
    exact = [f for f in target.format if "%z" in f or f.endswith("Z")]
    local = [f for f in target.format or _LOCAL if f not in exact]
    found = [f"try_strptime({clean}, [{', '.join(map(quoted, some))}])::timestamp" for some in (local, exact) if some]
    if local and target.type == "time" and zone != "UTC":
        found[0] = f"timezone('UTC', timezone({quoted(zone)}, {found[0]}))"
    if not target.format:
        found.append(f"case when regexp_matches({clean}, '{_OFFSET}') then try_cast(replace({clean}, ' UTC', 'Z') as timestamptz) end::timestamp")
    value = f"coalesce({', '.join(found)})"
    sane = f"case when year({value}) between 1900 and 2200 then {value} end"  # 1/5/24 read as year 24 is no date
    return f"({sane})::date" if target.type == "date" else sane
