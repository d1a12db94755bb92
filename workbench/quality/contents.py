"""What a lake holds: records and versions of each source, how fresh they are, and what happened in which month."""

from datetime import datetime

import pandas as pd

from workbench.rows import of_source


def lake_contents(lake, as_of: datetime, source: str | None = None) -> pd.DataFrame:
    """One row a source and entity, as of `as_of`: n_records standing then, n_versions up to then, first and last event, days_old.

    n_changes = versions after a record's first that a history told (an import's own do not count). days_old = days from the
    last event (view `version`, column valid_from) to `as_of`.
    """
    t = f"TIMESTAMP '{as_of}'"
    rows = lake.sql(f"""select source, entity, count(*) filter ((valid_to is null or valid_to > {t}) and (deleted_at is null or deleted_at > {t}))
        as n_records, count(*) as n_versions, count(*) filter (origin <> 'import') - count(distinct id) filter (origin <> 'import') as n_changes,
        min(valid_from) as first_event_at, max(valid_from) as last_event_at from version where valid_from <= {t} and {of_source(source)}
        group by all order by source, entity""").df()
    return rows.assign(days_old=(pd.Timestamp(as_of) - rows["last_event_at"]).dt.days)


def events_by_month(lake, as_of: datetime, source: str | None = None) -> pd.DataFrame:
    """One row a month and entity: n versions that began in it up to `as_of` (the last month may be unfinished)."""
    return lake.sql(f"""select date_trunc('month', valid_from)::date as month_on, entity, count(*) as n from version
        where valid_from <= TIMESTAMP '{as_of}' and {of_source(source)} group by all order by month_on, entity""").df()


def contents_sentence(contents: pd.DataFrame) -> str:
    """How much there is and how fresh it is, as Markdown.

    >>> contents_sentence(pd.DataFrame())
    'Nothing was recorded up to this instant.'
    """
    if contents.empty:
        return "Nothing was recorded up to this instant."
    n, kinds, sources = int(contents["n_records"].sum()), contents["entity"].nunique(), contents["source"].nunique()
    changes, days = int(contents["n_changes"].sum()), int(contents["days_old"].min())
    what = f"**{n:,} records** of {kinds} kind{'s' * (kinds != 1)} from {sources} source{'s' * (sources != 1)}"
    if contents["first_event_at"].min() == contents["last_event_at"].max():
        return f"{what}, without any date: all that is known is how they stood at {contents['last_event_at'].max():%Y-%m-%d}."
    story = f"with {changes:,} recorded changes, so much of the past can be told" if changes else "without a history of changes: how a field stood earlier is not known"
    return f"{what}, {story}. The latest event happened {'on the day of this report' if days == 0 else f'{days:,} day' + 's' * (days != 1) + ' before it'}."
