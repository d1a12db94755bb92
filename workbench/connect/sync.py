"""One sync for every CRM: pull, map, spill to disk, compare with the lake, publish all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pandas as pd

from workbench.connect.streams import Connector, CustomField, Stream

__all__ = ["Connector", "CustomField", "Stream", "sync"]


def sync(lake, source: str, connector: Connector, *, now: datetime, full: bool = False, overlap_minutes: float = 15,
         progress: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Bring source `source` of the lake to what the CRM shows: one row a stream.

    stream, entity, rows (pulled), new, changed, deleted (records), calls (HTTP), seconds, cursor (UTC), error ("" = none).
    full: everything is pulled again, whatever the cursors say. Nothing of a sync is seen before all of it is published.
    """
    raise NotImplementedError
