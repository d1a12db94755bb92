"""The two ends of every notebook: `begin` opens the lake at one instant, `record` leaves the headline numbers for the run's record."""

from dataclasses import dataclass
from datetime import datetime
from os import environ

from workbench.errors import WorkbenchError
from workbench.lake import Lake, open_lake
from workbench.settings import instant, settings

RESULTS_MIME = "application/vnd.workbench.results+json"


@dataclass(frozen=True)
class Session:
    """What a notebook reads: `lake` as of `as_of` (naive UTC), of `source` (None = every source); `note` says it in a sentence."""

    lake: Lake
    as_of: datetime
    source: str | None
    note: str


def begin(as_of: str = "", source: str = "", *, every: bool = False) -> Session:
    """Open the lake for one notebook.

    as_of: a date (its end in the organization's time zone) or an instant; "" = the source's latest recorded event. source: a name; "" = the
    one that WORKBENCH_SOURCE names, else the lake's only source, the demo not counted beside others (`every`: all sources together).
    """
    lake, source = open_lake(), source or environ.get("WORKBENCH_SOURCE", "")
    held = lake.sources()
    names = sorted(set(held["source"]))
    if source and names and source not in names:
        raise WorkbenchError(f"The lake {lake.path} has no source {source!r}.", fix=f"Its sources: {', '.join(names)}.")
    own = [n for n in names if n != "demo"] or names
    if not source and not every and len(own) > 1:
        raise WorkbenchError(f"The lake {lake.path} holds several sources: {', '.join(names)}.", fix="Name one with --source (parameter `source`).")
    chosen = source or (own[0] if own and not every else None)
    latest = lake.latest_event(chosen)
    at = instant(as_of, settings().time_zone) or latest
    if latest is None or at is None:
        return Session(lake, at or datetime(1970, 1, 1), chosen, "**This lake is empty.** Run `workbench demo` or `workbench import MAPPING.toml`, then run this again.")
    about = f"Source: {chosen}" if chosen else f"Sources: {', '.join(names)}"
    gap = (at - latest).days
    if gap > 3660:
        raise WorkbenchError(f"{at:%Y-%m-%d} is {gap / 365:,.0f} years after the latest event in the data, of {latest:%Y-%m-%d}.", fix="Choose an earlier as_of.")
    late = f" The latest event in the data is {gap:,} days older: {latest:%Y-%m-%d}." if gap > 1 else ""
    first = held.loc[held["source"].eq(chosen) | (chosen is None), "first_valid_from"].min()
    early = f" **That is before any data**: the first event is of {first:%Y-%m-%d}." if at < first else ""
    return Session(lake, at, chosen, f"{about}. Everything below is as it was known at {at:%Y-%m-%d %H:%M} UTC.{late}{early}")


def record(results: dict, cards: list[tuple[str, str, str]] | None = None, *, session: Session | None = None) -> None:
    """Leave `results` (plain JSON values) for the run's record and `cards` (label, value, note) for the head of the report.

    The last call of a notebook. It shows one output of type RESULTS_MIME; a notebook that leaves none has failed.
    """
    from IPython.display import display

    data: dict = {"results": results, "cards": [list(card) for card in cards or []]}
    if session is not None:
        data |= {"as_of": None if session.lake.version < 0 else session.as_of.isoformat(), "source": session.source, "lake_version": session.lake.version}
    text = "\n".join(f"{label}: {value}" for label, value, _ in cards or [])
    display({RESULTS_MIME: data, "text/plain": text or f"{len(results)} results recorded"}, raw=True)
