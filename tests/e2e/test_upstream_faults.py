"""Upstream misbehaves: a table of faults, each in the calls in which it can happen.

    make upstreamfaults        all of it
    make e2e                   each fault once, in one of its calls

A scenario is a file (or a repository) of its own, one fault, one client; then the fault is taken away and the same is asked
for again.  For each: no wrong byte is delivered as complete; what the client sees is what it should (503 with Retry-After for
an outage, never 401 or 404); it comes within the time that a client waits; upstream was asked a sane number of times and sent
a sane number of bytes; and nothing wrong was kept: the right bytes come once upstream is well.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import ssl
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from conftest import COUNTS
from downloads import MIB, Download, forget, fresh, slice_of

from tests.lab import procs
from tests.lab.ca import CA, Cert
from tests.lab.hubctl import HubProcess
from tests.lab.world import World

SETTINGS = {"upstream.stall_timeout": "1s", "upstream.max_transfers": 64, "upstream.connect_timeout": "1s", "limits.wait": "20s"}
ALL = os.environ.get("FAULTS") == "all"
WAIT_S = 60.0                    # what a client waits for an answer at most
PEAK_KB = 300_000 if "HUBGATE_NGINX" not in os.environ else 3_000_000     # of a worker; a sanitizer's shadow is large
CALLS = 40                       # of one scenario: hops and repetitions
ONCE, LASTING = {"times": 1}, {}

# --- what a client may see

# CUT: what came before is right.  UNPROVEN: cut, and what came need not be right: the digest was not yet known to be wrong.
RIGHT, CUT, UNPROVEN, OUTAGE, BAD, BUSY = "right", "cut", "unproven", "outage", "bad", "busy"
STATUS = {OUTAGE: 503, BAD: 502, BUSY: 429}


def complaint(client: Download, is_right: bool, is_prefix: bool, expected: tuple[str, ...]) -> str | None:
    """What is wrong with this answer; None: it is one of the expected ones."""
    if client.status in (200, 206) and client.clean:
        if not is_right:
            return f"WRONG BYTES delivered as complete ({len(client.body)})"
        return None if RIGHT in expected else f"right, and {expected} was expected"
    if client.status in (200, 206):
        if not is_prefix and UNPROVEN not in expected:
            return "wrong bytes before the cut"
        return None if CUT in expected or UNPROVEN in expected else f"cut after {len(client.body)} bytes, and {expected} was expected"
    kind = next((kind for kind, status in STATUS.items() if status == client.status), None)
    if kind not in expected:
        return f"{client.status} {bytes(client.body[:300])!r}, and {expected} was expected"
    if kind != BAD and int(client.headers.get("retry-after", "0")) < 1:
        return f"{client.status} without Retry-After"
    if "x-error-message" not in client.headers or "error" not in json.loads(client.body) or "x-error-code" in client.headers:
        return f"{client.status} with {client.headers} {bytes(client.body[:300])!r}"
    return None


# --- the calls: what is asked for, and where the fault is

@dataclass
class Call:
    """One kind of call to upstream.  `at`: the fault's match and host; `size` of the file (large ones are fills)."""
    size: int
    at: Callable[[dict], dict]
    target: Callable[[dict], str]
    document: bool = False
    name: str = "model.bin"
    warm: bool = False               # the tree is known before the fault begins

    def is_right(self, facts: dict, body: bytes) -> bool:
        if not self.document:
            return body == slice_of(facts, 0, facts["size"])
        try:
            document = json.loads(body)
        except ValueError:
            return False
        if isinstance(document, dict):
            return document.get("sha") == facts["commit"] and document.get("id") == facts["repo"]
        return {entry["path"]: entry["size"] for entry in document}.get(self.name) == facts["size"]


def file_target(facts: dict) -> str:
    return facts["main"]


CALL = {
    "small": Call(200_000, lambda f: {"match": f["sha256"], "host": "cdn"}, file_target, warm=True),
    "regular": Call(60_000, lambda f: {"match": f"resolve-cache/.*{f['repo']}", "host": "hub"}, file_target, name="notes.txt", warm=True),
    "first": Call(6 * MIB + 77, lambda f: {"match": f["sha256"], "host": "cdn"}, file_target, warm=True),
    "later": Call(12 * MIB, lambda f: {"match": f["sha256"], "host": "cdn", "range": "bytes=[1-9]"}, file_target, warm=True),
    "redirect": Call(3 * MIB, lambda f: {"match": f"/{f['repo']}/resolve/", "host": "hub"}, file_target, warm=True),
    "small redirect": Call(100_000, lambda f: {"match": f"/{f['repo']}/resolve/", "host": "hub"}, file_target, warm=True),
    "info": Call(1000, lambda f: {"match": rf"/api/models/{f['repo']}(/revision/[^/]*)?(\?|$)", "host": "hub"},
                 lambda f: f"/api/models/{f['repo']}", document=True),
    "tree": Call(1000, lambda f: {"match": f"/api/models/{f['repo']}/tree/", "host": "hub"},
                 lambda f: f"/api/models/{f['repo']}/tree/main?recursive=true", document=True),
    "paths": Call(1000, lambda f: {"match": f"/api/models/{f['repo']}/(paths-info|tree)/", "host": "hub"}, file_target)}
BYTES, FILL, HEAD, JSON = ("small", "regular", "first", "later"), ("first", "later"), ("redirect", "small redirect"), ("info", "tree", "paths")
ANY = BYTES + HEAD + JSON

# --- the faults

GZIP_BOMB = base64.b64encode(b"\x1f\x8b\x08\x00" + b"\0" * 6 + b"\xec\xc1\x01\x01" * 1000).decode()
BAD_STATUS = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"
INTERIM = "".join(f"HTTP/1.1 103 Early Hints\r\nLink: </{n}>; rel=preload\r\n\r\n" for n in range(3000))


@dataclass
class Fault:
    keys: dict[str, Any]
    calls: tuple[str, ...]
    then: tuple[str, ...]
    per_call: dict[str, tuple[str, ...]] = field(default_factory=dict)
    most: int = 48 * MIB             # bytes from upstream, besides four times the file
    rests: bool = False              # nobody tries again for a minute


def cut(*calls_and_more: str) -> dict[str, tuple[str, ...]]:
    """In a later transfer the client has its header already."""
    return {"later": (CUT,), **{call: (CUT, OUTAGE) for call in calls_and_more}}


# paths-info that cannot be used is made up for by HEAD requests: there are hubs without it.
HEADS = {"paths": (RIGHT,)}
ENTRY = json.dumps({"type": "file", "path": "a", "oid": "0" * 40, "size": 1, "more": "b" * 100_000})

FAULTS = {
    # it ends too early, or does not end
    "cut once": Fault({"cut_after": 300, **ONCE}, BYTES, (RIGHT,)),
    "cut always": Fault({"cut_after": 20}, BYTES + JSON, (OUTAGE,), cut("first")),
    "reset once": Fault({"cut_after": 70_000, "reset": True, **ONCE}, FILL, (RIGHT,)),
    "reset before the headers": Fault({"raw": ""}, ANY, (OUTAGE,), cut()),
    "shorter than it should be": Fault({"wrong_length": -500}, ("small", "regular") + FILL, (OUTAGE, BAD), {**cut("first")}),
    "shorter, once": Fault({"wrong_length": -500, **ONCE}, FILL, (RIGHT,)),
    "shorter than it says": Fault({"wrong_length": 100}, ("small", "regular") + FILL + ("info", "tree", "paths"), (OUTAGE,), cut("first")),
    "longer than it should be": Fault({"also": {"X-Lab": "longer"}, "endless": "too much "}, ("small", "regular"), (BAD,)),
    "endless, not the file": Fault({"endless": "not the file "}, FILL, (UNPROVEN,), rests=True),
    "endless JSON": Fault({"endless": '[{"a": 1}, '}, JSON, (BAD,), HEADS),
    "endless white space": Fault({"endless": " \n"}, JSON, (BAD,)),
    "endless list of entries": Fault({"body": "[", "endless": ENTRY + ","}, ("tree",), (BAD,), most=513 * MIB),
    "endless members": Fault({"body": "{", "endless": '"a":"' + "b" * 1000 + '",'}, ("info",), (BAD,), most=100 * MIB),
    "endless body of a redirect": Fault({"status": 302, "endless": "moved ", "headers": {"Location": "/elsewhere"}}, HEAD, (OUTAGE, BAD)),
    "endless body of a refusal": Fault({"status": 500, "endless": "sorry "}, ANY, (OUTAGE,), cut()),
    # wrong bytes
    "one bit, once": Fault({"wrong_bytes": True, **ONCE}, ("small", "regular"), (RIGHT,)),
    "one bit, once, in a fill": Fault({"wrong_bytes": [5 * MIB], **ONCE}, FILL, (UNPROVEN, RIGHT)),
    "one bit, always": Fault({"wrong_bytes": True}, ("small", "regular"), (BAD,)),
    "one bit, always, in a fill": Fault({"wrong_bytes": [5 * MIB]}, FILL, (UNPROVEN, BAD), rests=True),
    # wrong headers
    "another ETag at the Hub": Fault({"etag_change": True}, ("redirect",), (OUTAGE,)),
    "another size at the Hub": Fault({"headers": {"X-Linked-Size": "4242"}}, ("redirect",), (OUTAGE,)),
    "another ETag in mid-fill": Fault({"etag_change": "e" * 64}, ("later",), (CUT, OUTAGE)),
    "another ETag in mid-fill, once": Fault({"etag_change": "e" * 64, **ONCE}, ("later",), (RIGHT, CUT, OUTAGE)),
    "200 for 206": Fault({"ignore_range": True}, FILL, (RIGHT,)),
    "200 for 206, and cut": Fault({"ignore_range": True, "cut_after": 5 * MIB, **ONCE}, FILL, (RIGHT,)),
    "another start in Content-Range": Fault({"headers": {"Content-Range": f"bytes 7-{MIB}/{12 * MIB}"}}, FILL, (OUTAGE,), cut()),
    "another total in Content-Range": Fault({"headers": {"Content-Range": f"bytes 0-{MIB - 1}/{MIB}"}}, FILL, (OUTAGE,), cut()),
    "another total, once": Fault({"headers": {"Content-Range": f"bytes 0-{MIB - 1}/{MIB}"}, **ONCE}, FILL, (RIGHT,)),
    "nonsense in Content-Range": Fault({"headers": {"Content-Range": "bytes 0-18446744073709551616/*"}}, FILL, (OUTAGE,), cut()),
    "206 without Content-Range": Fault({"headers": {"Content-Range": None}}, FILL, (OUTAGE,), cut()),
    "206 of several parts": Fault({"headers": {"Content-Range": None, "Content-Type": "multipart/byteranges; boundary=x"}}, FILL, (OUTAGE,), cut()),
    "two lengths": Fault({"raw": BAD_STATUS}, BYTES + JSON, (OUTAGE, BAD), {**cut(), **HEADS}),
    # statuses
    "429 with Retry-After, once": Fault({"status": 429, "retry_after": 1, **ONCE}, FILL, (RIGHT,)),
    "429 with Retry-After": Fault({"status": 429, "retry_after": 3}, ("small", "regular", "first", "info", "tree", "paths", "redirect"), (BUSY,)),
    "429 in mid-fill": Fault({"status": 429, "retry_after": 2}, ("later",), (CUT, BUSY)),
    "429 with a date": Fault({"status": 429, "retry_after": "date"}, ("first", "info", "small"), (BUSY,)),
    "503 with Retry-After, once": Fault({"status": 503, "retry_after": 1, **ONCE}, FILL + ("redirect",), (RIGHT,)),
    "503 with Retry-After": Fault({"status": 503, "retry_after": 20}, ANY, (OUTAGE,), cut()),
    "503 with nonsense to retry after": Fault({"status": 503, "retry_after": "-99999999999999999999"}, ("first", "info"), (OUTAGE,)),
    "500": Fault({"status": 500}, ANY, (OUTAGE,), cut()),
    "502, 504 alike": Fault({"status": 504}, ("small", "first", "info"), (OUTAGE,)),
    "408": Fault({"status": 408}, ("small", "first", "info"), (OUTAGE,)),
    "401 of the other host": Fault({"status": 401}, ("small", "first", "later"), (OUTAGE,), cut()),
    "403 of the other host": Fault({"status": 403}, ("small", "first", "later"), (OUTAGE,), cut()),
    "404 of the other host": Fault({"status": 404}, ("small", "first", "later"), (OUTAGE,), cut()),
    "416 in mid-fill": Fault({"status": 416}, FILL, (OUTAGE,), cut()),
    "204": Fault({"status": 204}, BYTES + JSON, (OUTAGE, BAD), {**cut(), **HEADS}),
    "304 that nobody asked for": Fault({"status": 304}, BYTES + JSON, (OUTAGE, BAD), cut()),
    "999": Fault({"status": 999}, ("small", "first", "info"), (OUTAGE,)),
    "an expired signature, once": Fault({"status": 403, "skip": 1, "times": 2}, ("first",), (RIGHT,)),
    "our token is refused": Fault({"status": 401, "message": "Invalid credentials in Authorization header"}, JSON, (OUTAGE,), HEADS),
    # silence
    "silent before the headers": Fault({"hang": "before"}, ANY, (OUTAGE,), cut()),
    "silent before the headers, once": Fault({"hang": "before", **ONCE}, FILL, (RIGHT,)),
    "silent in the headers": Fault({"hang": "headers"}, ANY, (OUTAGE,), cut()),
    "silent in the body": Fault({"hang": "body", "cut_after": 20}, BYTES + JSON, (OUTAGE,), {**cut("first"), "first": (CUT, OUTAGE)}),
    "silent in the body, once": Fault({"hang": "body", "cut_after": 20, **ONCE}, FILL, (RIGHT,)),
    "1 byte/s": Fault({"rate_bytes_per_s": 1}, BYTES + JSON, (OUTAGE,), {**cut("first"), "first": (CUT, OUTAGE)}),
    "headers at 5 bytes/s": Fault({"header_bytes_per_s": 5}, ANY, (OUTAGE,), cut()),
    # bombs
    "a megabyte of headers": Fault({"header_bytes": 1_000_000}, ANY, (OUTAGE, BAD), cut()),
    "one long header": Fault({"also": {"X-Long": "p" * 300_000}}, BYTES + JSON, (OUTAGE, BAD), cut()),
    "3,000 interim answers": Fault({"raw": INTERIM}, ("small", "first", "info"), (OUTAGE, BAD)),
    "deep JSON": Fault({"body": "[" * 2_000_000}, JSON, (BAD,), HEADS),
    "one long JSON string": Fault({"body": '{"sha": "' + "p" * 5_000_000 + '"}'}, ("info", "tree"), (BAD,)),
    "a million JSON members": Fault({"body": "{" + ",".join(f'"{n}": {n}' for n in range(200_000)) + ",\"end\":"}, JSON, (BAD,), HEADS),
    # not what was asked for
    "compressed": Fault({"gzip": True}, ANY[:4] + JSON, (BAD, OUTAGE), {**cut(), **HEADS}),
    "called compressed": Fault({"headers": {"Content-Encoding": "br"}}, BYTES + JSON, (BAD, OUTAGE), {**cut(), **HEADS}),
    "a compression bomb": Fault({"body_base64": GZIP_BOMB, "headers": {"Content-Encoding": "gzip"}}, BYTES + JSON, (BAD, OUTAGE), {**cut(), **HEADS}),
    "compressed on the way": Fault({"headers": {"Transfer-Encoding": "gzip, chunked"}}, ("small", "first", "info"), (BAD, OUTAGE)),
    "not HTTP": Fault({"raw": "SSH-2.0-OpenSSH_9.2\r\n"}, ANY, (BAD, OUTAGE), {**cut(), **HEADS}),
    "an error page for JSON": Fault({"body": "<html>Service</html>", "headers": {"Content-Type": "text/html"}}, JSON, (BAD,), HEADS),
    "JSON cut short": Fault({"body": '[{"type": "file", "path": "a", "si'}, JSON, (BAD,), HEADS),
    "JSON of another kind": Fault({"body": '{"error": "no"}'}, ("tree", "info"), (BAD,)),
    "JSON that is a number": Fault({"body": "42"}, ("tree", "info"), (BAD,)),
    "JSON that is no UTF-8": Fault({"body_base64": base64.b64encode(b'{"sha": "\xff\xfe"}').decode()}, ("info", "tree"), (BAD,)),
    "an empty body": Fault({"body": ""}, BYTES + JSON, (BAD, OUTAGE), {**cut(), **HEADS}),
    "a page of login": Fault({"status": 200, "body": "<html>log in</html>"}, BYTES + HEAD + JSON, (BAD, OUTAGE), {**cut(), **HEADS}),
    # redirects
    "a loop": Fault({"redirect_to": "{target}"}, ANY, (OUTAGE, BAD), cut()),
    "a growing loop": Fault({"redirect_to": "{path}x{n}"}, ("first", "small"), (OUTAGE, BAD)),
    "a redirect without Location": Fault({"status": 302}, ANY, (OUTAGE, BAD), cut()),
    "a redirect of a megabyte": Fault({"redirect_to": "/" + "p" * 100_000}, HEAD + ("info",), (OUTAGE, BAD))}

# Where a redirect must not lead: {port} is a listener's that nobody may come to, {cdn} an allowed address.
FORBIDDEN = {
    "another port": "http://127.0.0.1:{port}/x", "another port of the other host": "http://127.0.0.2:{port}/x", "the metadata service":
    "http://169.254.169.254/latest/meta-data/", "file:": "file:///etc/passwd", "ftp:": "ftp://127.0.0.1:{port}/x", "gopher:":
    "gopher://127.0.0.1:{port}/_x", "a user name": "http://user@{cdn}/x", "user and password": "http://a:b@{cdn}/x", "the host as a user name":
    "http://{cdn}@127.0.0.1:{port}/", "[::1]": "http://[::1]:{port}/x", "a mapped address": "http://[::ffff:127.0.0.1]:{port}/x",
    "a decimal address": "http://2130706433:{port}/x", "a hexadecimal address": "http://0x7f000001:{port}/x", "an octal address":
    "http://0177.0.0.1:{port}/x", "a short address": "http://127.1:{port}/x", "0.0.0.0": "http://0.0.0.0:{port}/x", "localhost":
    "http://localhost:{port}/x", "no scheme": "//127.0.0.1:{port}/x", "a backslash": "http://{cdn}\\@127.0.0.1:{port}/x", "a fragment":
    "http://127.0.0.1:{port}/#@{cdn}/", "a host that begins like ours": "http://127.0.0.2.evil.invalid/x", "a host that is not there":
    "http://nowhere.invalid/x", "javascript:": "javascript:alert(1)", "data:": "data:,x"}


@dataclass
class Scenario:
    call: str
    name: str
    keys: dict[str, Any]
    then: tuple[str, ...]
    most: int = 48 * MIB

    @property
    def id(self) -> str:
        return f"{self.call}: {self.name}"


def table() -> list[Scenario]:
    rows = []
    for turn, (name, fault) in enumerate(FAULTS.items()):
        rows += [Scenario(call, name, fault.keys, fault.per_call.get(call, fault.then), fault.most) for number, call in enumerate(fault.calls)
                 if ALL or (number == turn % len(fault.calls) and not fault.rests)]
    for number, (name, where) in enumerate(FORBIDDEN.items()):
        calls = ("redirect", "first", "small redirect", "info")
        rows += [Scenario(call, f"redirect to {name}", {"redirect_to": where}, (OUTAGE, BAD)) for at, call in enumerate(calls)
                 if ALL or at == number % len(calls)]
    return rows


SCENARIOS = {scenario.id: scenario for scenario in table()}


# --- running them: those of fills side by side, the others one after the other (a row of failures opens the breaker)

class Canary:
    """A listener that nobody may come to."""

    def __init__(self) -> None:
        self.visits = 0
        self.listener = socket.create_server(("0.0.0.0", 0))
        self.port = self.listener.getsockname()[1]
        self.sixth = None
        try:
            self.sixth = socket.create_server(("::1", self.port), family=socket.AF_INET6)
        except OSError:                                   # no IPv6 here
            pass
        for each in filter(None, (self.listener, self.sixth)):
            threading.Thread(target=self.accept, args=(each,), daemon=True).start()

    def accept(self, listener: socket.socket) -> None:
        try:
            while True:
                listener.accept()[0].close()
                self.visits += 1
        except OSError:
            pass

    def close(self) -> None:
        for each in filter(None, (self.listener, self.sixth)):
            each.shutdown(socket.SHUT_RDWR)
            each.close()


def filled(value: Any, hub: HubProcess, port: int) -> Any:
    """{port} and {cdn} of a redirect."""
    if isinstance(value, str):
        return value.replace("{port}", str(port)).replace("{cdn}", hub.cdn_url.split("//")[1])
    return value


def run(scenario: Scenario, world: World, hub: HubProcess, port: int) -> list[str]:
    """All that is wrong in this scenario."""
    call, problems = CALL[scenario.call], []
    facts = fresh(hub, call.size, call.name, lfs=scenario.call != "regular")
    if call.warm:                                          # the fault is of the bytes, not of what is known about them
        assert world.get(f"/api/models/{facts['repo']}/tree/main?recursive=true", "reader").status == 200
    keys = {key: filled(value, hub, port) if key == "redirect_to" else value for key, value in scenario.keys.items()}
    if keys.get("retry_after") == "date":
        keys["retry_after"] = formatdate(time.time() + 4, usegmt=True)
    fault = hub.fault(**{**call.at(facts), **keys})
    try:
        client = Download(world, call.target(facts)).done(WAIT_S)
    except AssertionError as error:
        return [str(error)]
    body = bytes(client.body)
    prefix = call.document or body == slice_of(facts, 0, len(body))
    if problem := complaint(client, call.is_right(facts, body), prefix, scenario.then):
        problems.append(problem)
    if not next(each for each in hub.faults() if each["id"] == fault)["applied"]:
        problems.append("the fault was never met")
    hub.heal(fault)
    # what is known of the repository may not be wrong, and the file must come

    def healed() -> bool:
        again = Download(world, call.target(facts)).done(WAIT_S)
        if again.status in (401, 403, 404):
            problems.append(f"{again.status} after the outage")
            return True
        if again.status == 200 and again.clean and not call.is_right(facts, bytes(again.body)):
            problems.append("WRONG BYTES were kept")
            return True
        return again.status == 200 and again.clean
    try:
        procs.wait_until("the right bytes", healed, 100, every=0.3)
    except (procs.LabError, AssertionError) as error:
        problems.append(str(error))
    seen = [each for each in hub.requests() if facts["repo"] in each["target"] or facts["sha256"] in each["target"]]
    if len(seen) > CALLS:
        problems.append(f"{len(seen)} calls to upstream")
    if (count := sum(each["bytes"] for each in seen)) > 4 * facts["size"] + scenario.most:
        problems.append(f"{count} bytes from upstream for a file of {facts['size']}")
    forget(facts)
    return problems


@pytest.fixture(scope="module")
def outcomes(module_world: World, hub: HubProcess, request: pytest.FixtureRequest) -> Iterator[dict[str, list[str]]]:
    chosen = {item.callspec.params["name"] for item in request.session.items
              if item.module is request.module and hasattr(item, "callspec") and "name" in item.callspec.params}
    rows = [scenario for name, scenario in SCENARIOS.items() if name in chosen or not chosen]
    fills = [scenario for scenario in rows if CALL[scenario.call].size > MIB]
    others = [scenario for scenario in rows if CALL[scenario.call].size <= MIB]
    canary, out = Canary(), {}
    limits = [scenario for scenario in rows if scenario.keys.get("status") == 429]
    fills = [scenario for scenario in fills if scenario not in limits]
    others = [scenario for scenario in others if scenario not in limits]

    def one(scenario: Scenario, world: World = module_world) -> None:
        try:
            out[scenario.id] = run(scenario, world, hub, canary.port)
        except Exception as error:
            out[scenario.id] = [repr(error)]
    try:
        with ThreadPoolExecutor(32) as pool:
            pool.submit(lambda: [one(scenario) for scenario in others])
            for scenario in fills:
                pool.submit(one, scenario)
        for scenario in limits:                              # a limit holds for all of a node: one world each
            with World(workers=1, people="file", hub=hub, private={}, settings=SETTINGS) as world:
                one(scenario, world)
        out["visits"] = [f"{canary.visits} connections to where nobody may go"] if canary.visits else []
        out["requests"] = hub.requests()                    # type: ignore[assignment]
        yield out
    finally:
        canary.close()


WORLD = {"private": {}, "settings": SETTINGS}


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_scenario(outcomes: dict[str, list[str]], name: str) -> None:
    COUNTS["upstream faults: scenarios"] += 1
    assert not outcomes[name]


def test_nobody_went_where_nobody_may(outcomes: dict[str, list[str]]) -> None:
    assert not outcomes["visits"]


def test_no_cookie_came_back_and_no_token_went_astray(outcomes: dict[str, list[str]], module_world: World, hub: HubProcess) -> None:
    """The Hub sets a cookie with every answer."""
    requests: list[dict] = outcomes["requests"]             # type: ignore[assignment]
    assert requests
    for request in requests:
        names = {name.lower() for name in request["headers"]}
        assert "cookie" not in names
        assert "authorization" not in names or request["host"] == "hub"
        assert request["headers"].get("Accept-Encoding") == "identity"
        assert module_world.tokens["reader"] not in str(request)


def test_memory_stayed_bounded(outcomes: dict[str, list[str]], module_world: World) -> None:
    for pid in module_world.nginx.workers():
        with open(f"/proc/{pid}/status") as status:
            peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        COUNTS["upstream faults: peak of a worker's memory, MB"] = max(peak // 1000, COUNTS["upstream faults: peak of a worker's memory, MB"])
        assert peak < PEAK_KB, f"{peak} kB"


# --- what needs a world of its own

def seen(world: World, target: str, status: int) -> Download:
    client = Download(world, target).done(WAIT_S)
    assert client.status == status, (client.status, bytes(client.body[:300]))
    assert status != 503 or int(client.headers["retry-after"]) >= 1
    return client


@contextlib.contextmanager
def listener(serve: Callable[[socket.socket], None] | None) -> Iterator[int]:
    """A port on 127.0.0.1 whose connections are given to `serve`; None: the kernel does not even take them."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as held:
        port = server.getsockname()[1]
        if serve is None:                                     # the queue of who is not accepted yet is full
            for _ in range(4):
                sock = held.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
            yield port
            return

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=attempt, args=(server.accept()[0],), daemon=True).start()

        def attempt(sock: socket.socket) -> None:
            with contextlib.suppress(OSError, ssl.SSLError), sock:
                serve(sock)
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield port
        finally:
            server.shutdown(socket.SHUT_RDWR)


def silent(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def tls(cert: Cert, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong", oldest: bool = False) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert.cert, cert.key)
    if oldest:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as peer:
            peer.recv(65536)
            peer.sendall(answer)
    return serve


HANDSHAKES: dict[str, Callable[[CA, CA], Callable[[socket.socket], None] | None]] = {
    "the kernel takes no connection": lambda ca, other: None,
    "closed in the TLS handshake": lambda ca, other: lambda sock: None,
    "no TLS at all": lambda ca, other: lambda sock: sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"),
    "silent in the TLS handshake": lambda ca, other: silent,
    "a certificate of another CA": lambda ca, other: tls(other.cert("wrong-ca")),
    "an expired certificate": lambda ca, other: tls(ca.cert("expired", expired=True)),
    "a certificate of another host": lambda ca, other: tls(ca.cert("other-host", "elsewhere.example")),
    "TLS 1.1": lambda ca, other: tls(ca.cert("old"), oldest=True)}


def test_no_connection(make_world: Callable[..., World], tmp_path: Path) -> None:
    """At the Hub itself, and at the host that it leads to: an outage, in the time of connect_timeout, and no byte taken."""
    ca, other = CA(tmp_path / "ca"), CA(tmp_path / "other")
    ca.folder.chmod(0o755)
    with contextlib.ExitStack() as held:
        hub = held.enter_context(HubProcess(tmp_path / "hub"))
        ports = {name: held.enter_context(listener(make(ca, other))) for name, make in list(HANDSHAKES.items())[::1 if ALL else 4]}
        (world_ca := Path(tempfile.mkdtemp(prefix="hubgate-e2e-ca-")) / "ca.pem").write_bytes(ca.file.read_bytes())
        held.callback(shutil.rmtree, world_ca.parent)
        world_ca.parent.chmod(0o755)
        world = make_world(hub=hub, private={}, people="file", settings={
            **SETTINGS, "upstream.ca_file": str(world_ca),
            "upstream.redirect_hosts": [hub.cdn_url.split("//")[1], *(f"127.0.0.1:{port}" for port in ports.values())]})

        def redirected(name: str, size: int) -> None:
            facts = fresh(hub, size)
            assert world.get(f"/api/models/{facts['repo']}/tree/main?recursive=true", "reader").status == 200
            fault = hub.fault(f"{facts['repo']}/resolve", host="hub", redirect_to=f"https://127.0.0.1:{ports[name]}/file")
            seen(world, facts["main"], 503)
            COUNTS["upstream faults: scenarios"] += 1
            hub.heal(fault)
            procs.wait_until("the right bytes", lambda: Download(world, facts["main"]).done().sha256 == facts["sha256"], 60, every=0.3)
            forget(facts)
        with ThreadPoolExecutor(len(ports)) as pool:
            fills = [pool.submit(redirected, name, 3 * MIB) for name in ports]
            for name in ports:
                redirected(name, 100_000)
            for each in fills:
                each.result()
        facts = fresh(hub, 1000)
        for name, port in ports.items():
            world.configure(settings={"upstream.url": f"https://127.0.0.1:{port}"})
            seen(world, f"/api/models/{facts['repo']}", 503)
            seen(world, facts["main"], 503)
            COUNTS["upstream faults: scenarios"] += 2
        world.configure(settings={"upstream.url": hub.url})
        procs.wait_until("the file", lambda: Download(world, facts["main"]).done().sha256 == facts["sha256"], 60, every=0.3)


def test_no_way_down_to_plain_http(make_world: Callable[..., World]) -> None:
    """A Hub over TLS leads to http: nobody goes there, whoever is listed."""
    canary = Canary()
    world = make_world(private={}, upstream_tls=True, settings={**SETTINGS, "upstream.redirect_hosts": ["127.0.0.1:*", "127.0.0.2:*"]})
    hub = world.hub
    assert hub
    for size in (100_000, 3 * MIB) if ALL else (100_000,):
        for where in (f"http://127.0.0.1:{canary.port}/x", hub.url.replace("https:", "http:") + "/x", hub.cdn_url.replace("https:", "http:") + "/x"):
            facts = fresh(hub, size)
            fault = hub.fault(f"{facts['repo']}/resolve", host="hub", redirect_to=where)
            client = Download(world, facts["main"]).done(WAIT_S)
            assert client.status in (502, 503) and b"redirect" in client.body
            COUNTS["upstream faults: scenarios"] += 1
            hub.heal(fault)
            procs.wait_until("the right bytes", lambda: Download(world, facts["main"]).done().sha256 == facts["sha256"], 60, every=0.3)
            forget(facts)
    assert not canary.visits
    canary.close()


def test_an_expired_signature_is_asked_for_again(module_world: World, hub: HubProcess) -> None:
    """In mid-fill the signed URL ends to be good: back to the Hub's URL, and on from where it was."""
    facts = fresh(hub, 40 * MIB)
    slow = hub.fault(facts["sha256"], host="cdn", rate_bytes_per_s=8 * MIB)
    client = Download(module_world, facts["main"]).has(2 * MIB)
    signature = hub.requests("cdn", facts["sha256"])[0]["target"].rpartition("X-Amz-Signature=")[2]
    hub.fault(signature, host="cdn", status=403)
    hub.heal(slow)
    assert client.done().clean and client.sha256 == facts["sha256"]
    COUNTS["upstream faults: scenarios"] += 1
    assert len(hub.requests("resolve", facts["repo"])) >= 2
    assert len({each["target"] for each in hub.requests("cdn", facts["sha256"])}) >= 2
    hub.wait_idle()
    assert hub.content_bytes() <= facts["size"] + 8 * MIB
    forget(facts)
