"""The HTTP client against a server that misbehaves: what is tried again, what is told, what is never told."""

from __future__ import annotations

import threading

import pytest

from tests.servers.base import Reply, Request, Server
from tests.servers.organisation import Organisation
from workbench.connect.http import Allowance, Budget, BudgetSpent, HttpClient, Refused, checked_address
from workbench.errors import WorkbenchError

SECRET = "s3cr3t-canary-token"


class Echo(Server):
    """GET /n gives {"n": "n"}; /secret echoes the credentials; /big gives lines; /closed refuses; /away redirects."""

    crm, token = "Echo", SECRET

    def routes(self):
        return [("GET", r"/v/(\d+)", lambda r, n: self.checked(r) or Reply(200, {"n": n, "q": r.query}, {"X-Left": self.more.get("left", "90")})),
                ("POST", "/v/write", lambda r: self.checked(r) or Reply(201, {"got": r.form()})), ("GET", "/away", lambda r: Reply(302, None, {"Location": "http://127.0.0.1:1/x"})),
                ("GET", "/big", lambda r: Reply(200, "".join(f'{n},"é\u2028\r\n{n}"\n' for n in range(20_000)))),
                ("GET", "/closed", lambda r: Reply(400, {"error": f"<b>no</b>\x1b[31m {r.headers.get('authorization')} {'x' * 900}"}))]

    def checked(self, request: Request) -> Reply | None:
        return None if request.headers.get("authorization") == f"Bearer {self.token}" else self.unauthorized()


@pytest.fixture
def server():
    with Echo(Organisation()) as running:
        yield running


def client(server: Echo, **how) -> HttpClient:
    how = {"crm": "Echo", "headers": lambda: {"Authorization": f"Bearer {SECRET}"}, "wait": lambda s: None, "timeout": (2, 1)} | how
    return HttpClient(server.url, **how)


@pytest.mark.parametrize("fault", ["too_many", "too_many_bare", "server_error", "bad_gateway", "reset", "truncated", "html", "hang"])
def test_a_get_is_tried_again_until_it_works(server, fault):
    server.faults.add(fault, times=2, value=0 if fault == "truncated" else 1.5)
    http = client(server)
    assert http.json("/v/7", {"a": "b c"}) == {"n": "7", "q": {"a": "b c"}}
    assert http.budget.calls == 3


def test_half_a_body_of_the_right_length_is_asked_for_again(server):
    server.faults.add("truncated", value=1)
    assert client(server).json("/v/7")["n"] == "7"


def test_a_slow_answer_is_waited_for_and_one_without_an_end_is_not(server):
    server.faults.add("drip", value=2)
    assert client(server).json("/v/7")["n"] == "7"  # 2 s in drops, none of which keeps us waiting for 1 s
    server.faults.add("drip", value=5)
    with pytest.raises(Refused, match="does not end"):
        client(server, timeout=(2, 0.35), tries=1).json("/v/7", {"pad": "x" * 50})  # a drop each 0.2 s is in time, but not more than ten times 0.35 s of them


def test_after_six_tries_the_vendors_words_are_told(server):
    server.faults.add("server_error", times=0)
    http = client(server)
    with pytest.raises(Refused, match="Echo answered 500 to GET /v/7: Internal Server Error") as told:
        http.json("/v/7")
    assert http.budget.calls == 6 and told.value.status == 500


def test_waiting_doubles_and_what_the_vendor_asks_for_counts(server):
    waits: list[float] = []
    server.faults.add("server_error", times=5)
    client(server, wait=waits.append).json("/v/7")
    assert len(waits) == 5 and all(0.5 * 2**n <= w <= 0.5 * 2**n + 1 for n, w in enumerate(waits))  # tenacity adds up to 1 s of jitter
    waits.clear()
    server.too_many = lambda told: Reply(429, {}, {"Retry-After": "17"})  # type: ignore[method-assign]
    server.faults.add("too_many")
    client(server, wait=waits.append).json("/v/7")
    assert waits == [17]


def test_who_is_told_to_wait_for_hours_does_not(server):
    server.too_many = lambda told: Reply(429, {}, {"Retry-After": "7200"})  # type: ignore[method-assign]
    server.faults.add("too_many")
    with pytest.raises(Refused, match="sync again later"):
        client(server).json("/v/7")


def test_an_expired_token_is_renewed_once(server):
    tokens = ["old-token"]
    http = client(server, headers=lambda: {"Authorization": f"Bearer {tokens[-1]}"}, renew=lambda: tokens.append(SECRET))
    assert http.json("/v/7")["n"] == "7" and tokens == ["old-token", SECRET]
    with pytest.raises(Refused, match="workbench connect") as told:
        client(server, headers=lambda: {"Authorization": "Bearer wrong-token"}, renew=lambda: None).json("/v/7")
    assert told.value.status == 401


def test_threads_that_meet_the_same_old_token_renew_it_once(server):
    tokens = ["old-token"]
    http = client(server, headers=lambda: {"Authorization": f"Bearer {tokens[-1]}"}, renew=lambda: tokens.append(SECRET))
    threads = [threading.Thread(target=http.json, args=("/v/7",)) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert tokens == ["old-token", SECRET]


def test_a_post_is_not_repeated_after_it_may_have_worked(server):
    server.faults.add("reset")
    http = client(server)
    with pytest.raises(Refused):
        http.post("/v/write", {"a": "1"})
    assert http.budget.calls == 1
    server.faults.add("reset")
    server.faults.add("too_many", 2)
    assert client(server).post("/v/write", {"a": "1"}, again=True).json() == {"got": {"a": "1"}}
    server.faults.clear()
    server.faults.add("too_many")  # refused before it did anything
    assert client(server).post("/v/write", {"a": "1"}).status_code == 201


def test_no_secret_and_no_control_character_reaches_an_error(server):
    with pytest.raises(Refused) as told:
        client(server).get("/closed", {"q": "Anna Smith"})
    words = str(told.value)
    assert SECRET not in words and "***" in words and "\x1b" not in words and "<b>" not in words and "Anna" not in words and len(words) < 500
    server.faults.add("reset", times=0)
    with pytest.raises(Refused) as told:
        client(server, tries=2).get("/v/7", {"token": SECRET})
    assert SECRET not in str(told.value) and told.value.__cause__ is None and told.value.__suppress_context__


def test_the_client_never_leaves_its_host(server):
    with pytest.raises(WorkbenchError, match="another host"):
        client(server).get("https://evil.example/v/7")
    with pytest.raises(WorkbenchError, match="another host"):
        client(server).get("http://127.0.0.1:1/v/7")
    with pytest.raises(Refused, match="answered 302"):
        client(server).get("/away")
    assert client(server).get(server.url + "/v/7").json()["n"] == "7"


@pytest.mark.parametrize("url", ["http://example.com", "http://127.0.0.1.example.com", "http://127.0.0.1@example.com", "https://user:pw@example.com", "ftp://127.0.0.1", "https://", "example.com",
                                 "http://10.0.0.1", "https://example.com?x=1", "http://localhost\\@example.com", "https://exa mple.com"])
def test_an_address_that_is_not_https_or_hides_something_is_refused(url):
    with pytest.raises(WorkbenchError, match="is no address for a CRM") as told:
        checked_address(url)
    assert "pw" not in str(told.value)


@pytest.mark.parametrize("url", ["https://acme.example.com", "http://127.0.0.1:8101", "http://localhost:1/", "http://[::1]:80/path"])
def test_https_and_the_loopback_are_accepted(url):
    assert checked_address(url) == url.rstrip("/")


def test_lines_come_one_by_one_with_their_own_ends_only(server):
    import csv

    rows = list(csv.reader(client(server).lines("/big")))
    assert len(rows) == 20_000 and rows[3] == ["3", "é\u2028\r\n3"]
    server.faults.add("truncated")
    with pytest.raises(Refused, match="broke"):
        list(client(server).lines("/big"))


def test_the_budget_stops_before_the_share_of_the_day_is_exceeded():
    budget = Budget(0.5)
    budget.spend()
    budget.learn(Allowance(daily=10, left=9))
    for _ in range(4):
        budget.spend()
    with pytest.raises(BudgetSpent, match="5 of the day's allowance of 10 are used"):
        budget.spend()
    assert budget.calls == 5


def test_what_others_left_of_the_day_counts_too():
    budget = Budget(1)
    budget.learn(Allowance(daily=100, left=3))
    budget.spend(2)
    with pytest.raises(BudgetSpent, match="1 left"):
        budget.spend(2)


def test_a_spent_day_is_not_waited_for(server):
    server.faults.add("limit", times=0)
    http = client(server, limit=lambda response: Allowance(left=0) if response.status_code == 429 else None)
    with pytest.raises(BudgetSpent):
        http.json("/v/7")
    assert http.budget.calls == 1


def test_all_threads_wait_when_one_is_told_to():
    budget = Budget(1)
    budget.learn(Allowance(wait=2))
    assert 1.5 < budget.spend() <= 2 and 1.5 < budget.spend(pace=1) <= 2 and 2.5 < budget.spend() <= 3
