"""`make bench`: how fast, how large, beside the plainest way to the same result; ratios within one run, medians of 3.

Each measurement runs in a process of its own (python -m tests.bench CASE), ours and the plain way in turn, so that a busy machine
slows both and the peak of memory belongs to one of them. The lake of 1M deals in 5M versions and 10M activities is made once and
kept in the folder for temporary files.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median

import duckdb
import numpy as np
import pandas as pd

ROUNDS = 3
N_DEALS = int(os.environ.get("BENCH_DEALS", 1_000_000))
HOME = Path(tempfile.gettempdir()) / f"crm-workbench-bench-{N_DEALS}"
LAKE, SPINE, LEADS = HOME / "lake", HOME / "spine.parquet", HOME / "leads"

DEALS = """with d as (select i, 'b:d' || i as id, timestamp '2020-01-01' + to_seconds((hash(i) % 112320000)::bigint) as created_at from range({n}) r(i))
    select id, created_at + to_days((k * 12)::int) as valid_from, created_at, 'b:a' || (hash(i + 7) % ({n} // 10)) as account_id, 'b:u' || (hash(i + 3) % 200) as owner_id,
    'b:p' || (hash(i + 5) % 50) as product_id, 'Sales' as pipeline, (['New', 'Qualified', 'Proposal', 'Negotiation', 'Closed'])[k + 1] as stage, 'Deal ' || i as name,
    (['web', 'fair', 'referral'])[(1 + hash(i) % 3)::int] as source, (100 + hash(i * 10 + k) % 100000)::decimal(18,2) as amount, 'USD' as currency,
    (created_at + to_days((60 + k * 5)::int))::date as close_on, case when k > 1 then 'call on ' || k end as next_step,
    case when k = 4 then hash(i) % 3 = 0 end as is_won, case when k = 4 then created_at + to_days(48) end as closed_at from d, range(5) s(k)"""
ACCOUNTS = """select 'b:a' || i as id, timestamp '2019-01-01' + to_days((700 * k)::int) as valid_from, 'Account ' || i as name, 'Industry ' || ((i + k) % 12) as industry,
    'Country ' || (i % 30) as country, (i % 500 + k)::bigint as employees, (i * 10)::decimal(18,2) as annual_revenue from range({n} // 10) r(i), range(2) s(k)"""
PRODUCTS = "select 'b:p' || i as id, timestamp '2019-01-01' as valid_from, 'P' || i as name, 'F' || (i % 5) as family, (i * 10)::decimal(18,2) as list_price from range(50) r(i)"
ACTIVITIES = """select 'b:t' || i as id, seen as valid_from, seen as created_at, 'b:d' || d as deal_id, (['call', 'email', 'meeting', 'note'])[(1 + hash(i + 2) % 4)::int] as kind,
    (['in', 'out'])[(1 + hash(i + 4) % 2)::int] as direction, i % 10 > 0 as is_done, case when i % 10 > 0 then seen - to_minutes((hash(i + 1) % 600)::int) else seen + to_days(5) end
    as happened_at from (select i, d, timestamp '2020-01-01' + to_seconds((hash(d) % 112320000)::bigint) + to_seconds((hash(i + 9) % 5184000)::bigint) as seen
    from (select i, (hash(i) % {n})::bigint as d from range({n} * 10) r(i)))"""

# What an analyst who knows this lake would write: current files, no masks, no migrated batches, the same columns.
HAND = """
with d as (select s.n, v.* from spine s join {deal} v on v.id = s.id where v.valid_from <= s.as_of and (v.valid_to is null or s.as_of < v.valid_to)),
a as (select s.n,
        count(*) filter (where is_done) as n_activities,
        count(*) filter (where is_done and seen > s.as_of - interval 7 day) as n_activities_7_days,
        count(*) filter (where is_done and seen > s.as_of - interval 28 day) as n_activities_28_days,
        count(*) filter (where is_done and direction = 'in') as n_inbound,
        count(*) filter (where is_done and direction = 'in' and seen > s.as_of - interval 28 day) as n_inbound_28_days,
        count(*) filter (where is_done and kind = 'meeting') as n_meetings,
        count(*) filter (where is_done and kind = 'call') as n_calls,
        count(*) filter (where is_done and kind = 'email') as n_emails,
        count(*) filter (where not is_done and happened_at > s.as_of) as n_planned,
        max(seen) filter (where is_done) as last_activity_at
    from spine s join (select *, case when is_done then greatest(created_at, happened_at) else created_at end as seen from {activity}) v on v.deal_id = s.id
    where v.valid_from <= s.as_of and (v.valid_to is null or s.as_of < v.valid_to) and seen <= s.as_of group by s.n)
select d.source, d.kind, d.pipeline, d.stage, d.owner_id, d.product_id, d.campaign_id, d.competitor, d.currency, d.amount::double as amount,
    d.contact_id is not null as has_contact, d.next_step is not null as has_next_step, c.industry as account_industry, c.country as account_country,
    c.employees::double as account_employees, c.annual_revenue::double as account_annual_revenue, c.founded_year::double as account_founded_year,
    p.family as product_family, p.list_price::double as product_list_price, date_diff('second', d.created_at, s.as_of) / 86400.0 as age_days,
    date_diff('second', d.valid_from, s.as_of) / 86400.0 as days_since_change, date_diff('day', s.as_of, d.close_on::timestamp)::double as days_to_close,
    coalesce(a.n_activities, 0)::double as n_activities, coalesce(a.n_activities_7_days, 0)::double as n_activities_7_days,
    coalesce(a.n_activities_28_days, 0)::double as n_activities_28_days, coalesce(a.n_inbound, 0)::double as n_inbound,
    coalesce(a.n_inbound_28_days, 0)::double as n_inbound_28_days, coalesce(a.n_meetings, 0)::double as n_meetings, coalesce(a.n_calls, 0)::double as n_calls,
    coalesce(a.n_emails, 0)::double as n_emails, coalesce(a.n_planned, 0)::double as n_planned,
    date_diff('second', a.last_activity_at, s.as_of) / 86400.0 as days_since_activity, false as has_migrated_activities
from spine s left join d on d.n = s.n
left join {account} c on c.id = d.account_id and c.valid_from <= s.as_of and (c.valid_to is null or s.as_of < c.valid_to)
left join {product} p on p.id = d.product_id and p.valid_from <= s.as_of and (p.valid_to is null or s.as_of < p.valid_to)
left join a on a.n = s.n order by s.n"""

MAPPING = """source = "bench"
exported_on = 2024-01-01
[[file]]
name = "leads.csv"
entity = "lead"
[file.columns]
"Id" = { field = "id" }
"Created" = { field = "created_at" }
"Closed" = { field = "closed_at" }
"Outcome" = { field = "is_converted", values = { won = true, lost = false, open = "" } }
"Source" = { field = "source" }
"Country" = { field = "country", known_at = "fixed" }
"Employees" = { field = "employees", known_at = "fixed" }
"E-mail" = { field = "email", known_at = "fixed" }
"""
CSV = """select 'L' || i as "Id", strftime(timestamp '2022-01-01' + to_minutes((i % 1000000)::int), '%Y-%m-%d %H:%M:%S') as "Created",
    case when i % 3 < 2 then strftime(timestamp '2022-01-11' + to_minutes((i % 1000000)::int), '%Y-%m-%d %H:%M:%S') end as "Closed",
    (['won', 'lost', 'open'])[(i % 3 + 1)::int] as "Outcome", 'Channel ' || (i % 9) as "Source", 'Country ' || (i % 40) as "Country", i % 900 as "Employees",
    'p' || i || '@example.com' as "E-mail" from range({n}) r(i)"""

CELLS = [("markdown", "# Is the demo in order?", ""), ("code", 'as_of = ""  # a date\nsource = ""  # a source', "parameters"),
         ("code", "from workbench.plots import quality as plots\nfrom workbench.quality import rules\nfrom workbench.record import begin, record\n"
                  "from workbench.report.tables import Table\nsession = begin(as_of, source)", "setup"),
         ("code", "findings = rules.quality_findings(session.lake, session.as_of, session.source)\nTable(findings)", ""),
         ("code", "plots.plot_findings(findings)", ""), ("code", 'record({"n": len(findings)}, [("Rules", str(len(findings)), "")], session=session)', "record")]


def files(entity: str) -> str:
    """The entity's Parquet files as an SQL source."""
    from workbench.lake import open_lake

    return f"read_parquet({open_lake(LAKE).store.files(entity)})"


def make_lake() -> None:
    """Make the large lake and a spine of one instant a deal, 30 days after its creation."""
    from workbench.lake import open_lake

    shutil.rmtree(HOME, ignore_errors=True)
    with open_lake(LAKE, create=True).writer() as lake:
        for entity, sql in (("deal", DEALS), ("account", ACCOUNTS), ("product", PRODUCTS), ("activity", ACTIVITIES)):
            lake.load_versions(entity, duckdb.sql(sql.format(n=N_DEALS)).to_arrow_table(), origin="demo")
    duckdb.sql(f"copy (select id, created_at + to_days(30) as as_of from {files('deal')} where valid_to is null order by hash(id)) to '{SPINE}'")


def timed(work) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def features() -> float:
    """The public call."""
    from workbench.features.as_of import as_of_features
    from workbench.lake import open_lake

    lake, spine = open_lake(LAKE), pd.read_parquet(SPINE)
    return timed(lambda: as_of_features(lake, "deal", spine))


def by_hand(spine: pd.DataFrame) -> pd.DataFrame:
    """The same columns by one hand-written query."""
    connection = duckdb.connect()
    connection.register("given", spine.reset_index(names="n"))
    connection.execute("create table spine as from given")
    return connection.sql(HAND.format(**{e: files(e) for e in ("deal", "account", "product", "activity")})).to_arrow_table().to_pandas()


def features_by_hand() -> float:
    """One hand-written query."""
    spine = pd.read_parquet(SPINE)
    return timed(lambda: by_hand(spine))


def features_equal() -> float:
    """Ours and the hand-written query give the same columns and values."""
    from workbench.features.as_of import as_of_features
    from workbench.lake import open_lake

    spine = pd.read_parquet(SPINE).head(N_DEALS // 10)
    pd.testing.assert_frame_equal(as_of_features(open_lake(LAKE), "deal", spine), by_hand(spine), check_dtype=False)
    return 0.0


def bare_scan() -> float:
    """Read the columns of deals and activities that features need, and do nothing with them."""
    columns = {"deal": ["id", "valid_from", "valid_to", "created_at", "account_id", "product_id", "owner_id", "stage", "source", "amount", "close_on", "next_step"],
               "activity": ["deal_id", "valid_from", "valid_to", "created_at", "happened_at", "kind", "direction", "is_done"]}
    return timed(lambda: [duckdb.sql(f"select {', '.join(f'max({c})' for c in names)} from {files(e)}").fetchall() for e, names in columns.items()])


def features_by_merge_asof() -> float:
    """Seven of the columns by pandas: merge_asof for what stood, and for running counts of activities."""
    def work() -> None:
        spine = pd.read_parquet(SPINE).sort_values("as_of", ignore_index=True)
        deal = duckdb.sql(f"select id, valid_from, stage, owner_id, amount::double as amount, account_id from {files('deal')} order by valid_from").to_arrow_table().to_pandas()
        out = pd.merge_asof(spine, deal, left_on="as_of", right_on="valid_from", by="id")
        told = duckdb.sql(f"select deal_id as id, greatest(created_at, happened_at) as seen from {files('activity')} where is_done order by seen").to_arrow_table().to_pandas()
        told["n"] = told.groupby("id", sort=False).cumcount() + 1
        for days in (0, 28):
            edge = spine.assign(as_of=spine["as_of"] - timedelta(days=days))
            out[f"n_{days}"] = pd.merge_asof(edge, told, left_on="as_of", right_on="seen", by="id")["n"].fillna(0)
        out["n_28"] = out["n_0"] - out["n_28"]

    return timed(work)


def upsert() -> float:
    """A tenth of the deals changes its stage, in a copy of the large lake."""
    from workbench.lake import open_lake

    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        shutil.copytree(LAKE, f"{folder}/lake", copy_function=os.link)
        lake = open_lake(f"{folder}/lake")
        frame = duckdb.sql(f"select 'b:d' || (i * 10) as id, 'Moved' as stage, 1.5 as amount from range({N_DEALS} // 10) r(i)").df()
        seconds = timed(lambda: lake.upsert("deal", frame, at=datetime(2025, 1, 1)))
        assert lake.sql("select count(*) from deal where stage = 'Moved'").fetchall()[0][0] == N_DEALS // 10
        return seconds


def upsert_by_rewrite() -> float:
    """The same by reading every version and writing all of them again."""
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        return timed(lambda: duckdb.sql(f"""copy (with new as (select 'b:d' || (i * 10) as id from range({N_DEALS} // 10) r(i))
            select v.* replace (case when n.id is not null and valid_to is null then timestamp '2025-01-01' else valid_to end as valid_to) from {files('deal')} v left join new n using (id)
            union all select v.* replace (timestamp '2025-01-01' as valid_from, 'Moved' as stage) from {files('deal')} v join new n using (id) where valid_to is null)
            to '{folder}/deal.parquet'"""))


def import_csv() -> float:
    """Import leads from CSV through a mapping."""
    from workbench.connect.files import import_files
    from workbench.lake import open_lake

    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        lake = open_lake(folder, create=True)
        seconds = timed(lambda: import_files(lake, LEADS / "mapping.toml", at=datetime(2024, 1, 1)))
        assert lake.sql("select count(*) from lead").fetchall()[0][0] == N_DEALS
        return seconds


def import_by_copy() -> float:
    """The same file from CSV to Parquet, types guessed, nothing checked."""
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        return timed(lambda: duckdb.sql(f"copy (from read_csv('{LEADS}/leads.csv')) to '{folder}/leads.parquet'"))


def notebooks() -> dict[str, list[float]]:
    """Seconds of: one notebook by nbclient alone, by our runner, four of them one after the other, and two at a time."""
    import nbformat
    from nbclient import NotebookClient

    from workbench.connect.demo import make_demo
    from workbench.lake import open_lake
    from workbench.runs import run_notebooks

    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        os.environ |= {"WORKBENCH_LAKE": f"{folder}/lake", "WORKBENCH_RUNS": f"{folder}/runs", "WORKBENCH_REPORTS": f"{folder}/reports", "PYTHONWARNINGS": "ignore"}
        make_demo(open_lake(create=True))
        names = [f"9{k}_bench" for k in range(4)]
        os.mkdir(f"{folder}/notebooks")
        for name in names:
            made = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
            cells = [made[kind](text, metadata={"tags": [tag] if tag else []}) for kind, text, tag in CELLS]
            nbformat.write(nbformat.v4.new_notebook(cells=cells), f"{folder}/notebooks/{name}.ipynb")

        def run(chosen: list[str], jobs: int) -> None:
            assert {r["status"] for r in run_notebooks(chosen, jobs=jobs, folder=f"{folder}/notebooks")} == {"ok"}

        def bare() -> None:
            NotebookClient(nbformat.read(f"{folder}/notebooks/{names[0]}.ipynb", as_version=4), kernel_name="python3").execute(cwd=folder)

        bare(), run(names[:1], 1)  # imports and caches
        took: dict[str, list[float]] = {"bare": [], "one": [], "serial": [], "parallel": []}
        for _ in range(ROUNDS):
            took["bare"].append(timed(bare))
            took["one"].append(timed(lambda: run(names[:1], 1)))
            took["serial"].append(sum(timed(lambda name=name: run([name], 1)) for name in names))
            took["parallel"].append(timed(lambda: run(names, 2)))
        return took


def model_rows() -> tuple[pd.DataFrame, list[str]]:
    """1M snapshots of 250,000 records with 60 features: 42 numbers, 14 categories, 4 flags; a sixth have the event."""
    rng, n = np.random.default_rng(0), N_DEALS
    frame = pd.DataFrame({f"n_{i}": rng.normal(size=n) if i % 2 else rng.poisson(2, n).astype(float) for i in range(42)})
    for i in range(14):
        frame[f"c_{i}"] = pd.array(np.array([f"level {k}" for k in range(5 + i)], dtype=object)[rng.integers(0, 5 + i, n)], dtype="string")
    for i in range(4):
        frame[f"b_{i}"] = pd.array(rng.random(n) < 0.2, dtype="boolean")
    z = 0.5 * frame["n_1"] - 0.4 * frame["n_3"] + 0.3 * (frame["n_5"] > 0) + 0.4 * (frame["c_3"] == "level 2").astype(float) - 2.2
    record = np.arange(n) // 4
    event = rng.random(n) < 1 / (1 + np.exp(-z))
    return frame.assign(event=pd.array(event, dtype="boolean"), days_to_win=np.where(event, 90 * rng.random(n), np.nan), group=np.char.add("b:", record.astype(str)),
                        as_of=pd.Timestamp("2025-01-01") + pd.to_timedelta(28 * (np.arange(n) % 4) + 7 * (record % 52), "D")), [c for c in frame if c[1] == "_"]


def train() -> float:
    """Judge the ladder out of sample, fit what it chose and learn its map and interval, on 1M snapshots x 60 features."""
    from workbench.features.snapshots import Snapshots
    from workbench.models.horizons import fitted_scorer
    from workbench.models.ladder import evaluate
    from workbench.models.leads import thinned

    frame, features = model_rows()

    def work() -> None:
        told = thinned(frame, 7)
        judged = evaluate(told, features, evaluation="time")
        spine = Snapshots("lead", "b", (told["as_of"].max() + pd.Timedelta(days=90)).to_pydatetime(), 90, "grid", "time", told, told.head(0), features, [], pd.DataFrame())
        fitted_scorer(told, spine, judged, judged.model, horizon_days=90, seed=7)

    return timed(work)


def plain_trees(frame: pd.DataFrame, features: list[str]):
    """An untuned LightGBM, all its cores, and the frame as it wants it."""
    from lightgbm import LGBMClassifier

    X = frame[features].assign(**{c: frame[c].astype("category") for c in features if c[0] == "c"}, **{c: frame[c].astype(float) for c in features if c[0] == "b"})
    return LGBMClassifier(verbose=-1), X, frame["event"].to_numpy(int)


def train_plain() -> float:
    """An untuned LightGBM on the same rows, judged once: five folds."""
    model, X, y = plain_trees(*model_rows())
    fold = np.arange(len(y)) // 4 % 5
    return timed(lambda: [model.fit(X[fold != f], y[fold != f]).predict_proba(X[fold == f]) for f in range(5)])


def score() -> float:
    """Chances with intervals of 1M open records and the reasons of 10,000, by the blend."""
    from workbench.models.calibration import Interval, Platt
    from workbench.models.learners import Blend
    from workbench.models.reasons import Scorer, reason_sentences

    frame, features = model_rows()
    part, y, groups = frame[features].head(50_000), frame["event"].to_numpy(int)[:50_000], frame["group"].to_numpy(object).astype(str)[:50_000]
    rung = Blend().fit(part, y, groups)
    map = Platt().fit(parts := rung.parts(part), y)
    scorer = Scorer(rung, map, Interval().fit(map, parts, y, groups, np.arange(len(y)) // 4 % 5))

    def work() -> None:
        scorer.scored(frame[features])
        points, _ = scorer.points(best := frame[features].head(10_000))
        reason_sentences(points, best.astype(str))

    return timed(work)


def score_plain() -> float:
    """An untuned LightGBM's chances of the same, and its SHAP values."""
    frame, features = model_rows()
    model, X, y = plain_trees(frame, features)
    model.fit(X.head(50_000), y[:50_000])
    return timed(lambda: (model.predict_proba(X), model.predict(X.head(10_000), pred_contrib=True)))


def measured(case: str):
    """What `case` returns and the peak of its memory in MB, run in a process of its own."""
    print(f"  {case.replace('_', ' ')}", end=" ", flush=True)
    done = subprocess.run([sys.executable, "-m", "tests.bench", case], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"failed:\n{done.stderr[-3000:]}")
    result, peak = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"{result:.2f} s" if isinstance(result, float) and result else "done", flush=True)
    return result, peak


def compared(*cases: str) -> dict[str, tuple[float, float]]:
    """Median seconds and largest peak of each case, the cases taken in turn."""
    found = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case in cases:
            found[case].append(measured(case))
    return {case: (median(s for s, _ in runs), max(p for _, p in runs)) for case, runs in found.items()}


def main() -> None:
    """Measure everything and print the table."""
    start = time.perf_counter()
    if not SPINE.exists():
        print(f"making a lake of {N_DEALS:,} deals in {5 * N_DEALS:,} versions and {10 * N_DEALS:,} activities in {HOME}", flush=True)
        measured("make_lake")
    LEADS.mkdir(exist_ok=True)
    (LEADS / "mapping.toml").write_text(MAPPING, encoding="utf-8")
    duckdb.sql(f"copy ({CSV.format(n=N_DEALS)}) to '{LEADS}/leads.csv' (header)")
    measured("features_equal")
    rows = []

    def row(what: str, ours: float, plain: str, other: float, mark: float | None, peak: float | None = None) -> None:
        ratio = ours / other
        rows.append((what, f"{ours:.2f}", f"{peak / 1000:.1f}" if peak else "", plain, f"{other:.2f}", f"{ratio:.2f}",
                     "" if mark is None else f"<= {mark:g} " + ("ok" if ratio <= mark else "MISSED")))

    found = compared("features", "features_by_hand", "bare_scan", "features_by_merge_asof")
    seconds, peak = found["features"]
    row(f"features as of, {N_DEALS:,} deals", seconds, f"hand-written SQL ({found['features_by_hand'][1] / 1000:.1f} GB)", found["features_by_hand"][0], 1.3, peak)
    row("", seconds, "bare scan", found["bare_scan"][0], None)
    row("", seconds, f"pandas merge_asof, 7 of 33 columns ({found['features_by_merge_asof'][1] / 1000:.1f} GB)", found["features_by_merge_asof"][0], None)
    for what, ours, plain, other in ((f"import of {N_DEALS:,} CSV rows", "import_csv", "CSV to Parquet, unchecked", "import_by_copy"),
                                     (f"upsert of {N_DEALS // 10:,} into {5 * N_DEALS:,} versions", "upsert", "rewrite of the table", "upsert_by_rewrite")):
        found = compared(ours, other)
        row(what, found[ours][0], plain, found[other][0], None, found[ours][1])
    for what, ours, plain, other in ((f"train: ladder judged and fitted, {N_DEALS:,} x 60", "train", "untuned LightGBM, five folds", "train_plain"),
                                     (f"score {N_DEALS:,} with intervals, explain 10,000", "score", "untuned LightGBM, no intervals", "score_plain")):
        found = compared(ours, other)
        row(what, found[ours][0], plain, found[other][0], None, found[ours][1])
    took = {case: median(seconds) for case, seconds in measured("notebooks")[0].items()}
    row("one notebook run with its report", took["one"], "bare nbclient", took["bare"], 1.3)
    row("four runs, two at a time", took["parallel"], "one after the other", took["serial"], .6)
    table = pd.DataFrame(rows, columns=["what", "seconds", "peak GB", "beside", "its seconds", "ratio", "mark"])
    print(f"\n{table.to_string(index=False)}\n\nmedians of {ROUNDS}, {os.cpu_count()} cores, {time.perf_counter() - start:.0f} s in all; the lake stays in {HOME}")


if __name__ == "__main__":
    if sys.argv[1:]:
        outcome = globals()[sys.argv[1]]()
        print("\n" + json.dumps((outcome, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)))
    else:
        main()
