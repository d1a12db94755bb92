"""Draft a mapping from the files themselves: each line says why it stands, and each open question is marked."""

import difflib
import re
from pathlib import Path

from workbench import schema
from workbench.connect.drafted import Draft, mapping_text, toml
from workbench.connect.mapping import NO, YES
from workbench.connect.profile import ANSWERS, FIELDS, NAMES, WORD, Column, canonical_field, entity_of, plain
from workbench.connect.tables import read_text_table, text_database
from workbench.errors import WorkbenchError

_NAMED = ("user", "product", "account", "campaign")  # known by their names, which may serve as keys
_DATES, _NUMBERS = ("date", "time"), ("int", "float")
_FITS = {"text": ("text", "bool", *_NUMBERS, *_DATES), "int": ("int",), "float": _NUMBERS, "money": _NUMBERS, "bool": ("bool",),
         "date": _DATES, "time": _DATES}


def draft_mapping(paths: list[Path] | list[str]) -> str:
    """A mapping (TOML text that `read_mapping` takes) for plain exports, drafted from names and content.

    Every line says why; what the files cannot tell is marked `# QUESTION:`. Files of which no entity can be told are left out, with a note.
    """
    if not paths:
        raise WorkbenchError("No file is named.", fix="Run `workbench mapping FILE...`.")
    files, connection = list[Draft](), text_database()
    for path in map(Path, paths):
        if not path.is_file():
            raise WorkbenchError(f"There is no file {path}.", fix="Name the files of the export.")
        table = read_text_table(path, connection=connection, name=f"raw_{len(files)}")
        columns = {name: Column(table, name) for name in table.columns}
        entity, sure = entity_of(path.name, columns, any(c.kind == "bool" and WORD["lead_outcome"].search(plain(c.name)) for c in columns.values()))
        f = Draft(path, table, columns, entity or "lead" * (len(paths) == 1))
        files.append(f)
        if f.entity and not sure:
            f.ask(f"is a row a {f.entity}? Little in the names of the file and its columns tells.")
    known = [f for f in files if f.entity]
    for f in known:
        f.key = _key(f)
    for f in known:
        _draft_file(f, known)
    return mapping_text(files)


def _key(f: Draft) -> str:
    """The column that identifies a row: unique and called so, or unique text; "" where there is none."""
    unique = [c.name for c in f.columns.values() if c.unique and c.kind in ("text", "int")]
    own = NAMES["entities"][f.entity]
    others = "|".join(w for words in NAMES["entities"].values() for w in words if w not in own)
    found = [c for c in unique if WORD["key"].search(plain(c)) and not re.search(rf"\b({others})\b", plain(c))]
    found += [c for c in unique if plain(c) in own or canonical_field(c, f.entity) == "name" and f.entity in _NAMED]
    found += [c for c in unique if WORD["number"].search(plain(c))]
    found += [c.name for c in f.columns.values() if re.fullmatch(r"(\w+ )?id", plain(c.name)) and c.distinct > 0.9 * c.n]
    return next(iter(found + [c for c in unique if f.columns[c].kind == "text"]), "")


def _draft_file(f: Draft, files: list[Draft]) -> None:
    story = f.entity in ("deal", "lead")
    if f.key:
        c = f.columns[f.key]
        repeats = f"QUESTION: the key? {c.n - c.distinct:,} rows repeat another's or have none, and will be rejected"
        f.put(f.key, "id", "unique and never empty" if c.unique else repeats)
    else:
        f.ask("which column identifies a row? None is unique; the line number stands in, so another export cannot update this one.")
    _join_columns(f)
    if story:
        _find_outcome(f)
        for column in [c for c in f.lines if f.lines[c] and c != f.key and c not in f.joins and f.columns[c].kind == "text"][-1:]:
            f.put(column, {"deal": "stage", "lead": "status"}[f.entity], "as a step: today's value", known_at="current_only")
    _claim_references(f, files)
    _claim_names(f)
    for c in f.columns.values():
        if c.name not in f.lines or c.name in f.claims:
            _draft_column(f, c, *f.claims.pop(c.name, ("", "", {})))
    if story and not f.has("created_at"):
        runs = [c.name for c in f.columns.values() if c.unique and c.kind == "int" and c.name != f.key and WORD["running"].search(plain(c.name))]
        if runs:
            f.head.append(f"order_by = {toml(runs[0])}  # QUESTION: a running number; is larger later?")
            f.lines[runs[0]] = []
        else:
            f.ask("no column tells when a record was created, so it is scored without time; is there one to export?")
    money = next((c for c in f.columns.values() if {e.get("field") for e, _ in f.lines.get(c.name, [])} & {"amount", "sold_amount"}), None)
    if money and not f.has("currency"):
        if found := WORD["currency"].search(" ".join([money.name, *(v for v, _ in money.values[:5])])):
            f.head.append(f"constants = {toml({'currency': NAMES['signs'].get(found[0], found[0])})}  # as the amounts say")
        else:
            f.ask('in which currency are the amounts?  constants = { currency = "USD" }')


def _join_columns(f: Draft) -> None:
    """Make one column of first and last name, of won and lost time, of closed and won; the parts need no line any more."""
    for rule in NAMES["join"]:
        known = [c for c in f.columns.values() if f.entity in rule["entities"].split() and c.kind in rule["kinds"].split()]
        parts = [next((c.name for c in known if re.fullmatch(p, plain(c.name, f.entity))), "") for p in rule["parts"]]
        whole = [c for c in f.columns if c not in parts and canonical_field(c, f.entity) == rule["unless"] != ""]
        if all(parts) and not whole:
            f.joins[rule["name"]] = parts
            f.lines |= {part: [] for part in parts}
            f.columns[rule["name"]] = Column(f.table, rule["name"], parts)


def _meaning(value: str) -> bool | str:
    """Won (True), lost (False) or open (""), by words; of two answers the second counts where the first is yes.

    >>> _meaning("Closed Won"), _meaning("Junk"), _meaning("Demo"), _meaning("no"), _meaning("1 0"), _meaning("0 0")
    (True, False, '', False, False, '')
    """
    answers = [ANSWERS.get(word) for word in value.lower().split()]
    if None not in answers:
        return bool(answers[-1]) if all(answers[:-1]) else ""
    return False if WORD["lost"].search(plain(value)) else True if WORD["won"].search(plain(value)) else ""


def _find_outcome(f: Draft) -> None:
    """Which column tells won and lost (deal) or converted and given up (lead); sets f.won."""
    lead = f.entity == "lead"
    told = {c: {v: _meaning(v) for v, _ in c.values} for c in f.columns.values() if c.filled and (
        c.kind == "bool" and WORD[f"{f.entity}_outcome"].search(plain(c.name)) or
        (c.kind == "text" or c.name in f.joins) and 1 < c.distinct <= 60 and WORD["outcome"].search(plain(c.name)))}
    clearest = sorted(told, key=lambda c: ((c.kind == "bool") != lead, list(told[c].values()).count("")))
    c = next((c for c in clearest if c.kind == "bool" or ({True} if lead else {True, False}) <= set(told[c].values())), None)
    ended = next((c for c in f.columns.values() if c.kind in _DATES and not lead and plain(c.name, f.entity).startswith("won ")), None)
    if c and c.kind == "bool":
        asked = "QUESTION: does a no mean lost, or may it still be open? Map open ones to missing"
        f.put_won(c.name, "the outcome, by its name and its two values" if lead else asked, _foreign_answers(c))
    elif c:
        known = "which values mean won and lost, by their words; the others are open"
        f.put_won(c.name, "QUESTION: which values mean converted? Read by their words" if lead else known,
                  {v: w for v, w in told[c].items() if w != "" and (w or not lead)} | {"*": False if lead else ""})
    elif ended:
        f.put_won(ended.name, "QUESTION: a deal with this date is won; which are lost?", {"*": True})
    else:
        what = "a lead became a customer" if lead else "a deal was won or lost"
        f.ask(f"which column tells whether {what}? Map it to {schema.WON[f.entity]}; without it nothing can be learned.")
    lost = {c: {v: True for v, w in told[c].items() if w is False} for c in clearest if WORD["step"].search(plain(c.name))}
    if f.won and lead and lost:
        step = max(lost, key=lambda c: len(lost[c]))
        known = "these values mean given up, by their words; the others may still convert"
        f.put(step.name, "is_lost", known if lost[step] else "QUESTION: does one of its values mean given up?",
              values=lost[step] | {"*": False} | ({"": False} if step.filled < step.n else {}))
    elif f.won and lead:
        f.ask('may a lead that has not converted still do so? As it stands, "no" counts as decided.')


def _foreign_answers(c: Column) -> dict:
    """What yes and no mean where the import does not know the words."""
    return {v: ANSWERS[v.lower()] for v, _ in c.values if v.lower() not in YES + NO}


def _claim_references(f: Draft, files: list[Draft]) -> None:
    """Let columns whose values are keys of another file (or of this one) claim its records, with near spellings repaired."""
    for c in [c for c in f.columns.values() if c.filled and c.name not in f.lines]:
        if c.kind != "text" and (c.kind != "int" or not WORD["id"].search(plain(c.name))):
            continue  # a count is within any range of running numbers
        for other in [o for o in files if o.key and o.columns[o.key].distinct > 2]:
            known = next((k.name for k in schema.entity(f.entity).fields.values() if k.references == other.entity and not k.outcome), "")
            if not known or f.has(known):
                continue
            keys = f"select {other.columns[other.key].raw} as k from {other.table.name} where k is not null"
            broken = f.table.rows(f"""select {c.raw} as v, count(*) from {f.table.name} where v is not null and v not in ({keys})
                group by 1 order by 2 desc, 1""")
            near = _alike([v for v, _ in broken[:200]], [k for k, in f.table.rows(keys)], close=True) if broken else {}
            left = sum(n for v, n in broken if v not in near and v not in c.placeholders)
            if left <= 0.4 * c.filled:
                asked = f"; QUESTION: {', '.join(f'{a!r} meant as {b!r}' for a, b in list(near.items())[:3])}?" if near else ""
                f.claims[c.name] = known, f"{1 - left / c.filled:.1%} of its values are keys of {other.path.name}{asked}", near
                break


def _alike(values: list[str], keys: list[str], *, close: bool = False) -> dict[str, str]:
    """value -> the first other of `keys` that has the same letters and digits, or (`close`, and not too many keys) nearly.

    >>> _alike(["GTXPro", "web", "Shop"], ["GTX Pro", "Web", "Shop"]), _alike(["Philipines"], ["Philippines"], close=True)
    ({'GTXPro': 'GTX Pro', 'web': 'Web'}, {'Philipines': 'Philippines'})
    """
    def bare(text: str) -> str:
        return re.sub(r"[\W_]", "", text).lower() or text

    same, few = {bare(k): k for k in reversed(keys)}, keys if close and len(keys) < 5000 else []
    found = {v: same.get(bare(v)) or next(iter(difflib.get_close_matches(v, few, 1, 0.88)), v) for v in values}
    return {v: k for v, k in found.items() if k != v}


def _claim_names(f: Draft) -> None:
    """Let columns claim fields by name and kind; the surest column of a field has it."""
    fields, free = schema.entity(f.entity).fields, [c for c in f.columns.values() if c.name not in f.claims]
    free = [c for c in free if c.name not in f.lines or f.lines[c.name] and (c.name == f.key or c.kind in _DATES)]
    for entities, name, pattern in FIELDS:
        if f.entity not in entities.split() or name not in fields or f.has(name):
            continue
        known = fields[name]
        for c in free:
            fits = c.kind in _FITS[known.kind] and (c.name != f.key or name == "name" and f.entity in _NAMED)
            if known.references:  # its values become records of their own, so it must name them
                fits = fits and known.references in _NAMED and (c.kind == "text" or "id" in plain(c.name))
            if fits and any(re.fullmatch(pattern, plain(c.name, own)) for own in (f.entity, "")):
                f.claims[c.name] = name, f"its {c.distinct:,} values become records of their own below" if known.references else "by its name", {}
                f.derived += [(known.references, c.name)] if known.references else []
                free.remove(c)
                break
    dates = [c for c in free if c.kind in _DATES]
    doubt = len(dates) != 1 or any(WORD[word].search(plain(dates[0].name)) for word in ("late", "personal"))
    if "created_at" in fields and not f.has("created_at") and not doubt:
        f.claims[dates[0].name] = "created_at", "QUESTION: the creation? It is the only date left", {}
    plan = next((f.columns[c] for c, (name, *_) in f.claims.items() if name == "closed_at"), None)
    if plan and f.won and f.entity == "deal" and not f.has("close_on") and (opened := plan.evidence(f.won)[0]) > 0.2:
        why = f"filled in {opened:.0%} of the open ones: a plan until they close"
        f.put(plan.name, "close_on", why, known_at="current_only", format=_format(f, plan)[0])


def _format(f: Draft, c: Column) -> tuple[str | tuple[str, ...], str]:
    """(format, why) of a column of dates."""
    formats, why = c.formats, f"only {c.formats[0]} fits" if c.formats and c.formats[0][1] in "dm" else ""
    if c.other:
        sure = {d.formats[0][:2] for d in f.columns.values() if d.formats and not d.other}
        fitting = [told for told in (c.formats, c.other) if told[0][:2] in sure]
        why = f"QUESTION: is the day or the month first? Each date fits {c.formats[0]} and {c.other[0]}"
        if len(fitting) == 1:
            formats, why = fitting[0], "day and month as in the file's other dates"
    return formats[0] if len(formats) == 1 else formats, why


def _late(f: Draft, c: Column) -> tuple[str, str]:
    """(known_at, why) where a column seems to be written after creation: by its name, or by what it tells of the outcome."""
    _, late, why = c.evidence(f.won) if f.won else (0, "", "")
    if late:
        return late, why
    if plain(c.name) == "age" and all(re.fullmatch(r"1[4-9]|[2-9]\d|10\d", v) for v, _ in c.values):
        return "", "a person's age, by its values"
    if WORD["late"].search(plain(c.name)):
        return "current_only", "by its name today's value, or somebody's judgement of unknown date"
    return ("current_only", "a date that may be written later") if c.kind in _DATES else ("", "")


def _draft_column(f: Draft, c: Column, name: str, why: str, values: dict) -> None:
    """Write the line of a column: of the field that it claims, or of one of its own."""
    known = schema.entity(f.entity).fields.get(name)
    kind, known_at, decimal = known.kind if known else c.kind, known.known_at if known else "historized", c.decimal or f.decimal
    sure = kind in _DATES and known_at != "historized"
    if c.filled == 0 or c.distinct == 1 and c.filled == c.n > 1 and not sure:
        f.lines[c.name] = [({"ignore": True}, f"always {c.values[0][0]!r}: tells nothing" if c.filled else "always empty")]
        return
    late, reason = ("", "") if sure or c.name == f.key else _late(f, c)
    notes = [why, f"{c.distinct:,} values", reason]
    options: dict = {"known_at": late or ("" if known_at in ("fixed", "outcome") else "assumed"), "values": values}
    personal = bool(known and known.personal or c.personal or WORD["personal"].search(plain(c.name)) and not known)
    if not known:
        name = "x_" + (plain(c.name).replace(" ", "_")[:48] or f"column_{list(f.columns).index(c.name) + 1}")
        while f.has(name):
            name += "_2"
        options |= {"type": c.kind if c.kind != "text" else "", "personal": personal}
    if kind in ("int", "float", "money") and decimal == ",":
        options["decimal"] = decimal
        notes.append("decimal comma")
    if kind == "bool":
        options["values"] = _foreign_answers(c)
    if kind == "text" and not values and c.distinct <= 300 and not c.personal and (same := _alike(*[[v for v, _ in c.values]] * 2)):
        options["values"] = same
        notes.append(f"QUESTION: one thing in several spellings, e.g. {next(iter(same))!r}?")
    if kind in _DATES:
        options["format"], reason = _format(f, c)
        notes.append(reason)
    f.put(c.name, name, "; ".join(filter(None, [*notes, f"personal{': ' * bool(c.personal)}{c.personal}" if personal else ""])), **options)
