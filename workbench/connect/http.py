"""One HTTP client for every CRM: timeouts, retries, one budget of calls, and no secret in any error."""

from __future__ import annotations

import codecs
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from requests import Response

LOOPBACK = ("127.0.0.1", "::1", "localhost")
AGAIN = (429, 500, 502, 503, 504)
PATIENCE = 300  # seconds: who is told to wait longer is told to come back


class BudgetSpent(WorkbenchError):
    """The share of the daily allowance is used up; nothing is asked any more in this sync."""


class Refused(WorkbenchError):
    """The CRM said no, or nothing (status 0): status (HTTP), body as it came (hostile; may hold what was sent), exhausted (it was asked again and again)."""

    exhausted = False

    def __init__(self, what: str, *, fix: str = "", status: int = 0, body: str = ""):
        super().__init__(what, fix=fix)
        self.status, self.body = status, body


class _Again(Exception):
    """Worth another try, after so many seconds where the vendor named them; `error` if it was the last."""

    def __init__(self, error: WorkbenchError, after: float | None = None):
        self.error, self.after = error, after


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
        self.share, self.daily, self.spent = share, daily, spent
        self.left: float | None = None
        self.calls, self.free_at = 0, 0.0  # free_at: monotonic instant of the next call
        self._lock = threading.Lock()

    def spend(self, cost: float = 1, *, pace: float = 0) -> float:
        """Book one call before it is sent, and take its turn: the seconds to wait. BudgetSpent when the share, or what is left, does not cover it."""
        with self._lock:
            if self.daily is not None and self.spent + cost > self.share * self.daily:
                raise BudgetSpent(f"{self.spent:,.0f} of the day's allowance of {self.daily:,.0f} are used, and the share of this workbench is {self.share:.0%}.",
                                  fix="The next sync goes on from here; `share` under [sources.NAME] sets it.")
            if self.left is not None and self.left < cost:
                raise BudgetSpent(f"The CRM's allowance for today is used up ({self.left:,.0f} left).", fix="The next sync goes on from here, once the allowance is renewed.")
            self.calls, self.spent = self.calls + 1, self.spent + cost
            self.left = None if self.left is None else self.left - cost
            turn = max(self.free_at, time.monotonic())
            self.free_at = turn + pace
            return turn - time.monotonic()

    def learn(self, told: Allowance) -> None:
        """Take over what an answer told of the allowance."""
        with self._lock:
            self.daily = self.daily if told.daily is None else told.daily
            self.left = self.left if told.left is None else told.left
            if told.wait:
                self.free_at = max(self.free_at, time.monotonic() + min(told.wait, PATIENCE))


def checked_address(url: str) -> str:
    """`url` without a final slash; refused unless https://, or http:// on the loopback, and when it holds a user, a query or anything odd.

    >>> checked_address("https://acme.example.com/")
    'https://acme.example.com'
    """
    parts = urlsplit(url)
    odd = re.search(r"[\s\\@?#\x00-\x1f]", url) or not parts.hostname
    if odd or not (parts.scheme == "https" or parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise WorkbenchError(f"{printable(url.rpartition('@')[2])!r} is no address for a CRM.", fix="Write https://HOST; http:// is accepted for 127.0.0.1, ::1 and localhost only.")
    return url.rstrip("/")


def printable(text: str, size: int = 300) -> str:
    """Text of unknown origin on one line for a terminal or log: tags, control and direction characters gone, shortened.

    >>> printable("<h1>Bad\\x1b[31m</h1> gate\\nway")
    'Bad [31m gate way'
    """
    text = re.sub(r"<(script|style)\b.*?</\1\s*>|<[^<>]*>", " ", text[:20_000], flags=re.DOTALL | re.IGNORECASE)
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words if len(words) <= size else words[: size - 3] + "..."


class HttpClient:
    """GET and POST against one CRM, on one `requests` session a thread.

    base: scheme, host and port, perhaps a path; http:// only on the loopback. crm: its name, for errors. headers: gives the current
    authentication headers. renew: called once on a 401, then the request is repeated once. timeout: (connect, read) seconds. budget: shared by all
    that ask the same CRM (default: one of its own with `share`). limit: reads an answer's headers into an Allowance. wait: sleeps.
    secrets: texts that are struck out of errors. pace: at least so many seconds between two calls.

    429, 500, 502, 503, 504, resets, timeouts, truncated and non-JSON bodies of GETs are tried again (exponential, with jitter; Retry-After and
    Allowance.wait are honoured); a POST only where `again=True`. Everything else raises Refused with the vendor's words. Redirects are refused.
    """

    def __init__(self, base: str, *, crm: str = "", headers: Callable[[], dict[str, str]] | None = None, renew: Callable[[], Any] | None = None,
                 timeout: tuple[float, float] = (10, 60), share: float = 0.5, budget: Budget | None = None,
                 limit: Callable[[Response], Allowance | None] | None = None, wait: Callable[[float], None] = time.sleep,
                 secrets: Callable[[], list[str]] | None = None, pace: float = 0, tries: int = 6):
        self.base, self.crm, self.timeout, self.wait, self.pace, self.tries = checked_address(base), crm or "The CRM", timeout, wait, pace, tries
        self.budget = budget or Budget(share)
        self._headers, self._renew, self._limit, self._secrets = headers or dict, renew, limit or (lambda response: None), secrets or list
        self._local, self._renewing = threading.local(), threading.Lock()

    def get(self, path: str, params: dict | None = None, *, headers: dict | None = None, cost: float = 1) -> Response:
        """The answer (status below 300) to GET base + path, or to an absolute address on the same host; the body is read whole."""
        return self._tried("GET", path, cost, True, params=params, headers=headers)

    def json(self, path: str, params: dict | None = None, *, headers: dict | None = None, cost: float = 1) -> Any:
        """The JSON body of a GET; a body that is no JSON (an HTML page, half an answer) is asked for again, then refused."""
        return self._tried("GET", path, cost, True, params=params, headers=headers, check=_parsed).parsed  # type: ignore[attr-defined]

    def post(self, path: str, data: Any = None, *, json: Any = None, headers: dict | None = None, cost: float = 1, again: bool = False,
             method: str = "POST") -> Response:
        """The answer to a POST (or PATCH, DELETE by `method`); never repeated after it may have had an effect, unless `again` says it has none."""
        return self._tried(method, path, cost, again, data=data, json=json, headers=headers)

    def lines(self, path: str, params: dict | None = None, *, headers: dict | None = None, cost: float = 1,
              seen: Callable[[Response], None] = lambda response: None) -> Iterator[str]:
        """The lines (with their ends) of a large text body as they arrive, for csv.reader; `seen` gets the answer, with its headers, first.

        An answer that breaks off raises Refused with status 0, and is asked for again as a whole by the caller.
        """
        response = self._tried("GET", path, cost, True, params=params, headers=headers, whole=False)
        seen(response)
        decode, rest = codecs.getincrementaldecoder("utf-8")("replace").decode, ""
        try:
            for chunk in response.iter_content(1 << 16):
                *done, rest = re.split(r"(?<=\n)", rest + decode(chunk))
                yield from done
        except OSError as error:  # requests' own errors are
            raise self._broken("GET", path, error).error from None
        finally:
            response.close()
        if rest:
            yield rest

    # ---- one request, tried until it works
    def _tried(self, method: str, path: str, cost: float, again: bool, **how: Any) -> Response:
        import tenacity

        def seconds(state: tenacity.RetryCallState) -> float:
            told = state.outcome and state.outcome.exception()
            return told.after if isinstance(told, _Again) and told.after is not None else tenacity.wait_exponential_jitter(0.5, 60)(state)

        try:
            return tenacity.Retrying(stop=tenacity.stop_after_attempt(self.tries), wait=seconds, sleep=self.wait, reraise=True,
                                     retry=tenacity.retry_if_exception_type(_Again))(self._once, method, path, cost, again, **how)
        except _Again as last:
            if isinstance(last.error, Refused):
                last.error.exhausted = True
            raise last.error from None

    def _once(self, method: str, path: str, cost: float, again: bool, check: Callable[[Response], None] | None = None, **how: Any) -> Response:
        used = self._headers()
        response = self._sent(method, path, cost, again, used, **how)
        if response.status_code == 401 and self._renew:
            with self._renewing:  # of several threads that meet the same old token, the first renews it
                if self._headers() == used:
                    self._renew()
            response = self._sent(method, path, cost, again, self._headers(), **how)
        told, status = self._limit(response) or Allowance(), response.status_code
        self.budget.learn(told)
        if status < 300:
            try:
                if check:
                    check(response)
                return response
            except ValueError:
                raise _Again(self._refused(method, path, response, "an answer that is no JSON")) from None
        error = self._refused(method, path, response)
        if status >= 400 and told.left is not None and told.left <= 0:
            raise BudgetSpent(f"The CRM's allowance for today is used up. {error.what}", fix="The next sync goes on from here, once the allowance is renewed.")
        after = told.wait if told.wait is not None else _retry_after(response)
        if (status == 429 or again and (status in AGAIN or told.wait is not None)) and (after or 0) <= PATIENCE:
            raise _Again(error, after)
        raise error

    def _sent(self, method: str, path: str, cost: float, again: bool, auth: dict[str, str], headers: dict | None = None, whole: bool = True, **how: Any) -> Response:
        """One request; its body read whole, within ten read timeouts however slowly it drips."""
        from urllib3.exceptions import HTTPError

        url = path if "://" in path else self.base + path
        if _origin(url) != _origin(self.base):
            raise WorkbenchError(f"{self.crm} points to another host, {printable(urlsplit(url).hostname or '', 80)}; it was not followed.", fix="Is `url` under [sources.NAME] right?")
        if (pause := self.budget.spend(cost, pace=self.pace)) > 0:
            self.wait(pause)
        try:
            response = self._session().request(method, url, headers={**auth, **(headers or {})}, timeout=self.timeout, allow_redirects=False, stream=True, **how)
            if whole or response.status_code >= 300:
                end, parts = time.monotonic() + 10 * self.timeout[1], []
                while part := response.raw.read1(1 << 16, decode_content=True):  # what has arrived, however little
                    parts.append(part)
                    if time.monotonic() > end:
                        raise TimeoutError("an answer that does not end")
                response._content = b"".join(parts)  # what .content would have read, without a limit of time
            return response
        except (OSError, HTTPError) as error:  # requests' own errors are the one, urllib3's the other
            broken = self._broken(method, path, error)
            if again:
                raise broken from None
            raise broken.error from None

    def _session(self) -> Any:
        if not hasattr(self._local, "session"):
            import requests

            self._local.session = session = requests.Session()
            session.auth = lambda request: request  # no .netrc gets into our headers
            session.trust_env = urlsplit(self.base).hostname not in LOOPBACK  # a company's proxy is not for the loopback
            session.headers["User-Agent"] = "crm-workbench"
        return self._local.session

    # ---- words
    def _broken(self, method: str, path: str, error: Exception) -> _Again:
        kinds = {"SSLError": "a certificate that is not trusted", "ProxyError": "a proxy that refuses", "ConnectTimeout": f"no connection within {self.timeout[0]:g} s",
                 "ReadTimeout": f"no answer within {self.timeout[1]:g} s", "TimeoutError": "an answer that does not end", "ChunkedEncodingError": "an answer that broke off",
                 "IncompleteRead": "an answer that broke off", "ContentDecodingError": "a damaged answer", "DecodeError": "a damaged answer", "ReadTimeoutError": f"no answer within {self.timeout[1]:g} s"}
        said = next((kinds[t.__name__] for t in type(error).__mro__ if t.__name__ in kinds), "no connection, or one that broke")
        return _Again(Refused(f"{self.crm}, {method} {self._shown(path)}: {said}.", fix="Is the address right, and the network up?"))

    def _refused(self, method: str, path: str, response: Response, said: str = "") -> Refused:
        text = response.content.decode("utf-8", "replace") if response._content_consumed or response._content else ""  # type: ignore[attr-defined]
        words = f" ({said})" if said else ""
        return Refused(f"{self.crm} answered {response.status_code}{words} to {method} {self._shown(path)}: {self._shown(text) or 'nothing'}.",
                       fix=_REMEDIES.get(response.status_code, ""), status=response.status_code, body=text)

    def _shown(self, text: str) -> str:
        """Words of the vendor without secrets; of an address no query, which may tell names."""
        for hidden in sorted({*self._secrets(), *(v.removeprefix("Bearer ").removeprefix("Basic ") for v in self._headers().values())}, key=len, reverse=True):
            if len(hidden) >= 4:
                text = text.replace(hidden, "***")
        return printable(text.partition("?")[0] if text.startswith("/") or "://" in text[:9] else text)


_REMEDIES = {401: "Run `workbench connect` again: the credentials are refused.", 403: "The user behind the credentials may not read this; see `workbench connect`.",
             429: "Too much was asked; sync again later."}


def _origin(url: str) -> tuple:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443}.get(parts.scheme, 80)


def _parsed(response: Response) -> None:
    response.parsed = response.json()  # type: ignore[attr-defined]


def _retry_after(response: Response) -> float | None:
    """Seconds of Retry-After, also where it names an instant (beside the answer's own Date)."""
    told = response.headers.get("Retry-After", "")
    if re.fullmatch(r"\d{1,7}(\.\d+)?", told):
        return float(told)
    try:
        return max(0.0, (parsedate_to_datetime(told) - parsedate_to_datetime(response.headers["Date"])).total_seconds())
    except (KeyError, ValueError, TypeError):
        return None
