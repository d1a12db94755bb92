"""The demo organisation: an invented company that sells to companies, 48 months that end at END, every change of every record, all told at END."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from workbench import schema
from workbench.connect import demo_world as w
from workbench.connect.demo_leaks import planted
from workbench.connect.demo_story import WORTH, Story, chunk_stories, numbers
from workbench.connect.demo_worlds import World, truth_of, write_truth
from workbench.errors import WorkbenchError
from workbench.rows import scratch

END = datetime(2026, 6, 30, 23, 59, 59)
SOURCE = "demo"
# leads, deals, users, activity of deals in relation to the world's rates, and whether activities have texts
SIZES = {"small": (3_000, 1_200, 16, .55, True), "medium": (20_000, 8_000, 60, .6, True), "large": (1_000_000, 1_000_000, 900, .18, False)}
CHUNK = 25_000  # leads or deals made at a time
ENDINGS = ("is_converted", "is_lost", "is_won", "deleted_at", "merged_into")  # what a CRM dates even where it tracks no changes
TRACKED = ("lead", "deal", "account", "contact")  # entities whose changes a CRM may not track
SYNCED = (*TRACKED, "activity", "membership", "deal_product", "deal_contact")
FUTURES = 500_000  # drawn for the truth, over all of its rows; 8 to 64 a row
REVIEW = 1719792000.0  # 2024-07-01: stage probabilities become the win rates seen until then


def make_demo(lake, *, size: str = "small", seed: int = 1, world: World | None = None, truth: Path | None = None, progress: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Write the demo organisation into `lake`, in place of an earlier one; the same rows for the same size, seed and world.

    Returns one row an entity: entity, n_records, n_versions; where a folder for the `truth` is given, `write_truth`'s numbers as attrs["oracle"].
    """
    if size not in SIZES:
        raise WorkbenchError(f"There is no demo of size {size!r}.", fix=f"Sizes: {', '.join(SIZES)}.")
    (n_leads, n_deals, n_users, busy, written), world, told, say = SIZES[size], world or World(), [], progress or (lambda text: None)
    company, n_chunks = w.make_company(np.random.default_rng([seed, 0]), n_users, busy, world), -(-max(n_leads, n_deals) // CHUNK)
    reached, won, sold = np.zeros(4), np.zeros(4), 0.0
    with lake.writer():
        pen = _Pen(lake, seed, written, world)
        for k in range(n_chunks):
            say(f"demo organisation: part {k + 1} of {n_chunks}")
            rng, company.base = np.random.default_rng([seed, k + 1]), k * 1_000_000
            n, m = (total // n_chunks + (k < total % n_chunks) for total in (n_leads, n_deals))
            leads = w.make_leads(company, rng, n)
            accounts, contacts = w.make_accounts(company, rng, leads, max(3, m // 2))
            deals = w.make_deals(company, rng, leads, accounts, m)
            pen.write(chunk_stories(company, rng, leads, accounts, contacts, deals), company.planted)
            past = (deals.close < REVIEW)[:, None] & (deals.enter < w.NEVER)
            if truth:
                told.append(truth_of(leads.life, np.random.default_rng([seed, k + 1, 1]), leads, company.base, int(np.clip(FUTURES // (leads.states.shape[1] * n_chunks + 1), 8, 64))))
            reached, won, sold = reached + past.sum(axis=0), won + (past & deals.won[:, None]).sum(axis=0), sold + deals.offer[deals.won].sum()
        pen.write(_organisation(company, np.random.default_rng([seed, 0, 1]), won / np.maximum(reached, 1), sold))
        lake.set_fields(pen.field_rows())
    made = pd.DataFrame([(e, *pen.counts[e]) for e in schema.ENTITIES if e in pen.counts], columns=["entity", "n_records", "n_versions"])
    if truth:
        sown = {"leaks": [{"field": f.field, "kind": f.sort} for f in planted(world) if f.leak], "clean": [f.field for f in planted(world) if not f.leak]}
        made.attrs["oracle"] = write_truth(truth, world, pd.concat(told), size=size, seed=seed, **sown)
    return made


class _Pen:
    """Puts stories into words (demo.sql) and writes what of them is known in this world; counts records and versions, notes the fields that are filled."""

    def __init__(self, lake, seed: int, written: bool, world: World):
        self.lake, self.connection, self.counts, self.filled, self.world = lake, scratch(), {}, set(), world  # type: ignore[var-annotated]
        self.cut = pd.Timestamp(w.START, unit="s") + pd.DateOffset(months=world.tracked_from_month)
        values = {"seed": int(seed), "written": str(written).lower(), "prices": ", ".join(map(str, w.PRICES)), "missing": world.missing, "step": int(world.sync_days * w.DAY), "end": w.LAST, "cut": f"TIMESTAMP '{self.cut}'"}
        text = resources.files("workbench.connect").joinpath("demo.sql").read_text(encoding="utf-8")
        text = re.sub(r"\{(\w+)\}", lambda m: str(values.get(m[1], m[0])), text)
        self.sections = {part.split(":")[0].split("\n")[0]: part.split("\n", 1)[1] for part in text.split("-- section ")[1:]}
        self.connection.execute(self.sections["macros"])
        self.own = {tuple(row[:2]): row[2:] for row in self.connection.sql(self.sections["fields"]).fetchall()}
        for entity in lake.entities():  # an earlier demo, of whatever size
            lake.store.merge(entity, pa.table({"source": [SOURCE]}), f"t.id >= '{SOURCE}:' and t.id < '{SOURCE};'", lambda merge: merge.when_matched_delete())

    def write(self, stories: dict[str, pa.Table], planted: list[dict] | tuple = ()) -> None:
        """Load the versions of each entity; `planted`: rows of table `field` for fields of leads that demo.sql does not know."""
        self.own |= {("lead", r["field"]): (r["kind"], r["known_at"], r["meaning"], r["personal"]) for r in planted}
        for entity, told in stories.items():
            self.connection.register("told", told)
            self.connection.execute(f"set variable entity = '{entity}'")
            table = self._known(entity, self.sections[entity].replace("{planted}", "".join(f", {c}" for c in told.column_names if c.startswith("x_"))))
            records, versions = self.counts.get(entity, (0, 0))
            n = self.lake.load_versions(entity, table, origin="demo", recorded_at=END)
            self.counts[entity] = (records + len(table["id"].unique()), versions + n)
            self.filled.update((entity, c) for c in table.column_names if c not in ("id", "valid_from") and table[c].null_count < len(table))

    def _known(self, entity: str, sql: str) -> pa.Table:
        """Of an entity's versions those that a CRM of this world lets be known."""
        late = "synced" if self.world.sync_days and entity in SYNCED else "tracked" if self.world.tracked_from_month and entity in TRACKED else ""
        if not late:
            return self.connection.sql(sql).to_arrow_table()
        self.connection.execute(f"create or replace temp table made as {sql}")
        columns = self.connection.table("made").columns
        ended, nulls = ", ".join(c for c in ENDINGS if c in columns), ", ".join(f"null as {c}" for c in columns if c not in ENDINGS and self._field(entity, c)[1] == "historized")
        return self.connection.sql(self.sections[late].replace("{ended}", ended).replace("{nulls}", nulls)).to_arrow_table()

    def _field(self, entity: str, name: str) -> tuple:
        """kind, known_at, meaning, personal."""
        f = schema.entity(entity).fields.get(name)
        return self.own.get((entity, name)) or (f and (f.kind, f.known_at, f.meaning, f.personal)) or ("", "", "", False)

    def field_rows(self) -> list[dict]:
        """How each filled field is known, for table `field`."""
        rows = [{"source": SOURCE, "entity": e, "field": name} | dict(zip(("kind", "known_at", "meaning", "personal"), self._field(e, name), strict=True)) for e, name in sorted(self.filled)]
        return [r | {"history_from": self.cut.to_pydatetime()} if self.world.tracked_from_month and r["entity"] in TRACKED and r["known_at"] == "historized" else r for r in rows]


def _organisation(c: w.Company, rng: np.random.Generator, rates: np.ndarray, sold: float) -> dict[str, pa.Table]:
    """Users, stages (a guess first, from REVIEW on the win rates seen), campaigns, products, month-end exchange rates and quotas."""
    n, story, campaign = len(c.hired), Story(c.left), c.campaigns
    team = np.arange(n) % 4
    story.add(team >= 0, c.hired, final=True, team=team, active=1)
    story.add((rng.random(n) < .2) & (np.arange(n) > 3), c.hired + rng.random(n) * 900 * w.DAY, team=(team + 1) % 4)
    story.add(team >= 0, c.left, final=True, active=0)
    chance, one = np.concatenate([[.1, .25, .5, .75, 1, 0], np.round(rates, 2), [1, 0]]), np.arange(1, len(w.PRICES) + 1)
    return {"user": story.told(0)[0], "stage": numbers(n=np.tile(np.arange(1, 7), 2), t=np.repeat([w.START, REVIEW], 6), probability=chance), "product": numbers(n=one, begins=one * 0 + w.START),
            "campaign": numbers(n=np.arange(1, len(campaign) + 1), starts=campaign, begins=np.full(len(campaign), w.START)), "fx_rate": numbers(money=np.arange(4), worth=WORTH),
            "quota": numbers(n=np.arange(1, n + 1), hired=c.hired, gone=np.where(c.left < w.NEVER, c.left, w.NAN), sold=np.full(n, sold))}
