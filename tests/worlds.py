"""`make worlds`: every claim about lead scores against worlds whose truth is known: `python -m tests.worlds [WORLD.toml ...] [--size medium] [--seeds 1] [--grown]`.

For each world and seed: make it, score it as of its last day, and compare with the truth that the generator left in a folder of its own.
--grown: also the second oracle, the best gain that the same ladder reaches on the same world with six times the leads and rows to learn from.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

os.environ.setdefault("OMP_NUM_THREADS", "1")
WORLDS = Path(__file__).resolve().parent.parent / "data/worlds"
GROWN = (120_000, 6_000, 60, .6, True)  # leads, deals, users, activity, texts: see SIZES of the demo
LEADING = ("p_30", "p_90", "p_180", "p_ever")


def scored(path: Path, size: str, seed: int, folder: Path):
    """(scores, truth of the leads open on the last day, world.json) of one world."""
    from workbench.connect.demo import make_demo
    from workbench.connect.demo_worlds import read_world
    from workbench.lake import open_lake
    from workbench.models.leads import lead_scores

    lake = open_lake(folder / "lake", create=True)
    make_demo(lake, size=size, seed=seed, world=read_world(path), truth=folder / "truth")
    s = lead_scores(lake, as_of=lake.latest_event("demo"), source="demo")
    truth = pd.read_parquet(next(folder.rglob("lead.parquet")))
    return s, truth[truth["as_of"] == truth["as_of"].max()].set_index("id"), json.loads(next(folder.rglob("world.json")).read_text())


def row_of(path: Path, size: str, seed: int, grown: bool) -> dict:
    """What was claimed and what was true, for one world and seed."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        s, truth, world = scored(path, size, seed, Path(folder))
    r, planted = s.results(), {f["field"] if isinstance(f, dict) else f for f in world["leaks"]}
    base = r["baselines"].get("base rate", {}).get("log_loss")
    out = {"world": path.stem, "seed": seed, "verdict": r["verdict"], "model": r["model"], "n": r["n"], "events": r["n_events"], "auc": r["auc"], "gain": base and r["log_loss"] and base - r["log_loss"],
           "ece": r["ece"], "perfect": r["ece_perfect"], "leaks": f"{len(planted & set(r['suspects']))}/{len(planted)}" if planted else "",
           "accused": f"{len(set(world['clean']) & set(r['suspects']))}/{len(world['clean'])}" if world["clean"] else "",
           "others": ",".join(sorted(set(r["suspects"]) - planted - set(world["clean"]) - {"x_call_grade"})),
           "half_life": s.half_life and f"{s.half_life.days:.0f} ({s.half_life.low:.0f}-{s.half_life.high:.0f})/{world['half_life_days']:.0f}"}
    if s.usable and len(s.scores):
        told = s.scores.set_index("id").join(truth.drop(columns="as_of").add_suffix("_true"), how="inner")
        bands = told.groupby("band")["p_90_true"].mean()
        held = [bool(b.p_open_low <= bands[b.band] <= b.p_open_high) for b in s.bands.itertuples() if b.n_open >= 20 and b.band in bands]
        own = told[[c for c in LEADING if c in s.scores]].dropna()
        out |= {"held": sum(held), "bands": len(held), "said": told["p_convert"].mean(), "true": told["p_90_true"].mean(), "rank": told["p_convert"].corr(told["p_90_true"], method="spearman"),
                "each": float(((told["p_low"] <= told["p_90_true"]) & (told["p_90_true"] <= told["p_high"])).mean()), "steady": bool((own.diff(axis=1).iloc[:, 1:] >= -1e-9).all(axis=None))}
    if grown:
        out["best"] = grown_gain(path, seed)
    return out | {"seconds": time.perf_counter() - start}


def grown_gain(path: Path, seed: int) -> float | None:
    """The second oracle: the ladder's gain over the base rate with six times the leads, learning from six times the rows."""
    from workbench.connect import demo
    from workbench.models import ladder, leads

    kept = ladder.MOST_ROWS, leads.MOST_JUDGED
    ladder.MOST_ROWS, leads.MOST_JUDGED, demo.SIZES["grown"] = 6 * kept[0], 6 * kept[1], GROWN
    try:
        with tempfile.TemporaryDirectory() as folder:
            s, _, _ = scored(path, "grown", seed + 100, Path(folder))
    finally:
        (ladder.MOST_ROWS, leads.MOST_JUDGED), _ = kept, demo.SIZES.pop("grown")
    return float(s.ladder["gain"].max()) if len(s.ladder) else None


def main() -> None:
    """Print a row a world and seed, then the share of band intervals that held the truth, with its own interval (clusters = worlds and seeds)."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("worlds", nargs="*", type=Path)
    asked.add_argument("--size", default="medium")
    asked.add_argument("--seeds", type=int, default=1)
    asked.add_argument("--grown", action="store_true")
    told, rows = asked.parse_args(), []
    for path in told.worlds or sorted(WORLDS.glob("*.toml")):
        for seed in range(1, told.seeds + 1):
            rows.append(row_of(path, told.size, seed, told.grown))
            print({k: round(float(v), 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    table = pd.DataFrame(rows)
    print(table.round(4).to_string())
    if "held" in table and (known := table.dropna(subset=["held"])).bands.sum():
        rng = np.random.default_rng(7)
        drawn = [(part := known.iloc[rng.integers(0, len(known), len(known))]).held.sum() / part.bands.sum() for _ in range(2000)]
        print(f"band intervals (80 %) that held the true rate: {known.held.sum() / known.bands.sum():.3f} of {known.bands.sum():.0f}, 95 % interval {np.quantile(drawn, .025):.3f} to {np.quantile(drawn, .975):.3f}")


if __name__ == "__main__":
    sys.exit(main())
