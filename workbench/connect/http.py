"""One HTTP client for every CRM: timeouts, retries, one budget of calls, and no secret in any error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from requests import Response


class BudgetSpent(WorkbenchError):
    """The share of the daily allowance is used up; nothing is asked any more in this sync."""


@dataclass(frozen=True)
class Allowance:
    """What a vendor's headers tell: daily limit, what is left of it, and seconds to wait before the next call; None = not told.

    daily and left are in the vendor's unit (calls, tokens), as are the costs that `Budget.spend` is given. On an answer of status 400 or more,
    left <= 0 means that the day's allowance is spent (no retry), and else a wait that is told means: refused for the moment, try again.
    """

    daily: float | None = None
    left: float | None = None
    wait: float | None = None


class Budget:
    """How much may be asked of one CRM, counted over all threads: `share` of the daily allowance that the vendor's headers tell.

    calls: HTTP requests sent; spent: their cost in the vendor's unit, with what earlier syncs of the same day spent.
    """

    def __init__(self, share: float = 0.5, *, daily: float | None = None, spent: float = 0):
        raise NotImplementedError

    def spend(self, cost: float = 1) -> None:
        """Book one call before it is sent; BudgetSpent when the share, or what is left, does not cover it."""
        raise NotImplementedError

    def learn(self, told: Allowance) -> None:
        """Take over what an answer told of the allowance."""
        raise NotImplementedError


class HttpClient:
    """GET and POST against one CRM, on one `requests` session a thread.

    base: scheme, host and port, perhaps a path; http:// only on the loopback. crm: its name, for errors. headers: gives the current
    authentication headers. renew: called once on a 401, then the request is repeated once. timeout: (connect, read) seconds. budget: shared by all
    that ask the same CRM (default: one of its own with `share`). limit: reads an answer's headers into an Allowance. wait: sleeps.
    secrets: texts that are struck out of errors. pace: at least so many seconds between two calls.

    429, 500, 502, 503, 504, resets, timeouts, truncated and non-JSON bodies of GETs are tried again (exponential, with jitter; Retry-After and
    Allowance.wait are honoured); a POST only where `again=True`. Everything else raises WorkbenchError with the vendor's words.
    """

    def __init__(self, base: str, *, crm: str = "", headers: Callable[[], dict[str, str]] | None = None, renew: Callable[[], None] | None = None,
                 timeout: tuple[float, float] = (10, 60), share: float = 0.5, budget: Budget | None = None,
                 limit: Callable[[Response], Allowance | None] | None = None, wait: Callable[[float], None] = time.sleep,
                 secrets: Callable[[], list[str]] | None = None, pace: float = 0, tries: int = 6):
        raise NotImplementedError

    def get(self, path: str, params: dict | None = None, *, headers: dict | None = None, cost: float = 1) -> Response:
        """The answer (status below 300) to GET base + path, or to an absolute address on the same host; the body is read whole."""
        raise NotImplementedError

    def json(self, path: str, params: dict | None = None, *, headers: dict | None = None, cost: float = 1) -> Any:
        """The JSON body of a GET; a body that is no JSON (an HTML page, half an answer) is asked for again, then refused."""
        raise NotImplementedError

    def post(self, path: str, data: Any = None, *, json: Any = None, headers: dict | None = None, cost: float = 1, again: bool = False,
             method: str = "POST") -> Response:
        """The answer to a POST (or PATCH, DELETE by `method`); never repeated after it may have had an effect, unless `again` says it has none."""
        raise NotImplementedError

    def lines(self, path: str, params: dict | None = None, *, headers: dict | None = None, cost: float = 1) -> Iterator[str]:
        """The lines of a large text body (CSV) as they arrive; an answer that breaks off raises, and is asked for again as a whole by the caller."""
        raise NotImplementedError


class Refused(WorkbenchError):
    """The CRM said no: status (HTTP), code and words as the vendor puts them."""

    def __init__(self, what: str, *, fix: str = "", status: int = 0, body: str = ""):
        super().__init__(what, fix=fix)
        self.status, self.body = status, body
