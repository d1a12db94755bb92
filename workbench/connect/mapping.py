"""A mapping: which column of which file is which field, when it became known, and which values mean what (docs/mapping.md)."""

import difflib
import re
import tomllib
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from types import SimpleNamespace

from workbench import schema
from workbench.connect.tables import raw_sql
from workbench.errors import WorkbenchError
from workbench.rows import quoted
from workbench.settings import instant

# The keys of a mapping, of each [[file]] and of each column, with the value of one that is left out. A value is of that type, or of TYPES.
KEYS: dict = {"source": "", "exported_on": None, "time_zone": "UTC", "bad_share": 0.05, "file": []}
FILE_KEYS = {"name": "", "entity": "", "columns": {}, "join": {}, "placeholders": [], "constants": {}, "order_by": "", "distinct": False,
             "decimal": ".", "delimiter": "", "encoding": "", "sheet": ""}
COLUMN_KEYS = {"field": "", "type": "text", "format": [], "decimal": ".", "known_at": "assumed", "values": {}, "placeholders": [],
               "reference": "", "personal": False, "ignore": False, "meaning": ""}
TYPES = {"exported_on": date, "bad_share": (int, float), "format": (str, list)}
_WORDS = {str: "text", list: "list", dict: "table", bool: "true/false", int: "number", date: "date"}
YES, NO = ("yes", "true", "1", "1.0", "y", "t", "on"), ("no", "false", "0", "0.0", "n", "f", "off")
_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y/%m/%d")


class Target(SimpleNamespace):
    """One field that a column feeds: its keys, `column`, `parts` (the columns of the file that it joins), the `zone` of its times.

    A `mark` is no field of the mapping's but keeps of one whether a placeholder "was shown, not chosen".
    """

    def __init__(self, column: str = "", **keys: object):
        super().__init__(**{"column": column, "parts": [column], "zone": "UTC", "mark": False} | COLUMN_KEYS | keys)

    @property
    def clean(self) -> str:
        """SQL: the column's text, placeholders as missing, values replaced by those that the mapping tells."""
        return mapped(raw_sql(*self.parts), self.values | dict.fromkeys(self.placeholders, self.values.get("", "")))

    def typed(self, text: str) -> str:
        """SQL: a text as a value of the type, null where it is none (see values.sql)."""
        if self.type == "bool":
            return f"case when lower({text}) in {YES} then true when lower({text}) in {NO} then false end"
        if self.type not in ("date", "time"):
            return f"as_{self.type}({text}, '{self.decimal}')"
        exact = [f for f in self.format if "%z" in f or f.endswith("Z")]
        local = [f for f in self.format or _FORMATS if f not in exact]
        found = [f"try_strptime({text}, [{', '.join(map(quoted, some))}])::timestamp" for some in (local, exact) if some]
        if local and self.type == "time" and self.zone != "UTC":
            found[0] = f"in_utc({found[0]}, {quoted(self.zone)})"
        found += [] if self.format else [f"instant_of({text})"]
        return f"sane(coalesce({', '.join(found)}))::{schema.DUCKDB_TYPES[self.type]}"


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


class FileMapping(SimpleNamespace):
    """One file (a glob is allowed) that holds records of one entity: its keys, `targets`, and the columns that are `ignored`."""


class Mapping(SimpleNamespace):
    """All files of one source: its keys, `files`, and the instant `exported_at` (UTC, or None)."""


def read_mapping(path: str | Path) -> Mapping:
    """Read and check a mapping file; errors name the key and the nearest right one."""
    path = Path(path)
    if not path.is_file():
        raise WorkbenchError(f"There is no mapping {path}.", fix="Draft one: `workbench mapping FILE... > mapping.toml`.")
    try:
        return parse_mapping(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError:
        raise WorkbenchError(f"{path} is not UTF-8 text.", fix="A mapping is a TOML file; the data files go with --data FOLDER.") from None


def parse_mapping(text: str, name: str = "mapping") -> Mapping:
    """A mapping from TOML text.

    >>> m = parse_mapping('source="s"\\n[[file]]\\nname="a.csv"\\nentity="lead"\\n[file.columns]\\nId={field="id"}')
    >>> m.files[0].targets[0].field
    'id'
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WorkbenchError(f"{name} is not valid TOML: {error}.", fix="Mend the line that it names.") from None
    m = Mapping(**_filled(raw, KEYS, name))
    _refuse(name, (
        (not re.fullmatch(r"[a-z0-9_]+", m.source), f"source {m.source!r} is no source name", "Use a-z, 0-9 and _."),
        (not m.file or not all(isinstance(f, dict) for f in m.file), "it names no [[file]]", "Draft one: `workbench mapping FILE...`."),
        (not 0 <= m.bad_share <= 1, f"bad_share = {m.bad_share} is no share", "Write 0.05 for 5 %.")))
    instant("2000-01-01", m.time_zone)  # refuses an unknown time zone
    m.exported_at = instant(m.exported_on, m.time_zone)
    m.files = [_file(f, m.time_zone, f"{name}, file {f.get('name')!r}") for f in m.file]
    return m


def _refuse(where: str, checks: Iterable[tuple[object, str, str]]) -> None:
    """Raise the first of (wrong, what, fix) that is wrong."""
    for wrong, what, fix in checks:
        if wrong:
            raise WorkbenchError(f"{where}: {what}.", fix=fix)


def _near(name: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


def _filled(given: object, keys: dict, where: str) -> dict:
    """A table of `keys`, checked, with those that are left out."""
    if not isinstance(given, dict):
        raise WorkbenchError(f"{where}: {given!r} is no table of keys.", fix='Write { field = "..." }.')
    for key, value in given.items():
        kind = TYPES.get(key, type(keys.get(key)))
        kinds = kind if isinstance(kind, tuple) else (kind,)
        fits = isinstance(value, kinds) and isinstance(value, bool) <= (kind is bool)  # true is a number to Python
        told = " or ".join(_WORDS[k] for k in kinds if k in _WORDS)
        _refuse(where, ((key not in keys, f"key {key!r} is unknown", _near(key, keys, f"Keys: {', '.join(keys)}.")),
                        (not fits, f"{key} = {value!r} is not of type {told}", "See docs/mapping.md.")))
    return keys | given


def _file(raw: dict, zone: str, where: str) -> FileMapping:
    f = FileMapping(**_filled(raw, FILE_KEYS, where), zone=zone, ignored=[])
    _refuse(where, ((not f.name or not f.entity, "name and entity are needed", "See docs/mapping.md."),))
    fields, targets = schema.entity(f.entity).fields, list[Target]()
    for column, told in f.columns.items():
        for one in told if isinstance(told, list) else [told]:
            here = f"{where}, column {column!r}"
            if _filled(one, COLUMN_KEYS, here)["ignore"]:
                f.ignored.append(column)
            else:
                targets.append(_target(column, one, f, here))
    names = [t.field for t in targets] + [*f.constants]
    twice, unknown = sorted({n for n in names if names.count(n) > 1}), [c for c in f.constants if c not in fields]
    empty = [c for c, parts in f.join.items() if not (isinstance(parts, list) and parts and all(isinstance(p, str) for p in parts))]
    _refuse(where, (
        (empty, f"join {', '.join(map(repr, empty))} names no columns", 'Write e.g. "Full name" = ["First Name", "Last Name"].'),
        (unknown, f"{f.entity} has no field {', '.join(map(repr, unknown))} for a constant", f"Fields: {', '.join(fields)}."),
        (twice, f"{', '.join(twice)} is fed by two columns", "Map each field once; join = { ... } makes one column of several."),
        (f.distinct and "id" not in names, "distinct needs a key", 'Map one column to { field = "id" }.')))
    f.targets = list(({t.field: t for target in targets for t in [target, *_marks(target)]} | {t.field: t for t in targets}).values())
    return f


def _target(column: str, one: dict, file: FileMapping, where: str) -> Target:
    """What a column feeds; keys that do not stand there are as the schema and the file have them."""
    name, fields = one.get("field", ""), schema.entity(file.entity).fields
    kind = "text" if name == "id" else one.get("type", "text")
    known = fields.get(name, schema.Field(name, kind, "assumed", f"column {column!r} of the export"))
    told = {"type": known.kind, "known_at": "assumed" if known.known_at == "historized" else known.known_at, "meaning": known.meaning,
            "reference": known.references, "personal": known.personal, "decimal": file.decimal, "placeholders": file.placeholders}
    t = Target(column, **told | one, parts=file.join.get(column, [column]), zone=file.zone)
    _refuse(where, (
        (name != "id" and name not in fields and not re.fullmatch(r"x_[a-z0-9_]+", name), f"{file.entity} has no field {name!r}",
         _near(name, fields, "") + " A field of your own is called x_..."),
        (t.type != known.kind, f"{name} is {known.kind}, not {t.type}", "Leave type out, or feed a field of your own (x_...)."),
        (t.known_at == "historized", "an export has no history", "Use fixed or assumed (as at creation), current_only or outcome."),
        (t.type not in schema.DUCKDB_TYPES or t.known_at not in schema.KNOWN_AT, f"type {t.type!r} or known_at {t.known_at!r} is unknown",
         f"Types: {', '.join(schema.DUCKDB_TYPES)}; known_at: fixed, assumed, current_only, outcome."),
        (t.decimal not in (".", ","), f"decimal = {t.decimal!r} is no decimal sign", 'Use "." or ",".')))
    if t.reference:
        schema.entity(t.reference)
    t.format, t.placeholders = [t.format] if isinstance(t.format, str) else t.format, list(map(str, t.placeholders))
    return t


def _marks(t: Target) -> list[Target]:
    """The flag of a field with placeholders that one "was shown, not chosen"; none of a key or of personal data."""
    if not t.placeholders or t.personal or t.reference or t.field == "id":
        return []
    return [Target(t.column, parts=t.parts, mark=True, field=f"x_{t.field.removeprefix('x_')}_not_chosen", type="bool", known_at=t.known_at,
                   values=dict.fromkeys(t.placeholders, True) | {"*": False, "": False}, meaning=f"{t.column!r} was shown, not chosen")]
