"""HTTP as it is on the wire: headers, ranges, conditions, hosts, hostile targets; over TLS and HTTP/2 too."""

from __future__ import annotations

import json
import re
import socket
import struct
from pathlib import Path
from typing import Callable
from urllib.parse import quote

import pytest
from clients import curl
from downloads import MIB, Download, forget, fresh, sha256, slice_of, whole

from tests.lab.fetch import connect, fetch, raw, send
from tests.lab.hubctl import HubProcess
from tests.lab.world import World

WORLD = {"workers": 2, "tls": True}
SMALL, LARGE = "/demo/tiny-llm/resolve/main/config.json", "/demo/tiny-llm/resolve/main/model.safetensors"


# headers of a file

@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_headers_of_a_small_file(module_world: World, hub: HubProcess, method: str) -> None:
    facts = hub.file("demo/tiny-llm", "config.json")
    answer = module_world.get(SMALL, "reader", method)
    assert answer.status == 200 and answer["content-length"] == str(facts["size"]) and len(answer.body) == (facts["size"] if method == "GET" else 0)
    assert answer["etag"] == f'"{facts["oid"]}"' and answer["x-repo-commit"] == facts["commit"]
    assert answer["accept-ranges"] == "bytes" and answer["content-type"] == "text/plain; charset=utf-8"
    assert answer["content-disposition"] == "inline; filename*=UTF-8''config.json; filename=\"config.json\";"
    assert answer["x-request-id"] and answer["x-content-type-options"] == "nosniff"
    assert not {"location", "link", "content-encoding", "x-xet-hash", "set-cookie", "x-linked-etag", "ratelimit", "x-powered-by"} & set(answer.headers)


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_headers_of_a_large_file(module_world: World, hub: HubProcess, method: str) -> None:
    facts = hub.file("demo/tiny-llm", "model.safetensors")
    answer = module_world.get(LARGE, "reader", method)
    assert answer.status == 200 and answer["content-length"] == str(facts["size"]) == answer["x-linked-size"]
    assert answer["etag"] == answer["x-linked-etag"] == f'"{facts["sha256"]}"' and answer["x-repo-commit"] == facts["commit"]
    assert answer["content-type"] == "application/octet-stream" and answer["accept-ranges"] == "bytes"
    assert not {"location", "link", "x-xet-hash", "set-cookie"} & set(answer.headers)


def test_get_and_head_have_the_same_headers(module_world: World) -> None:
    for target in (SMALL, LARGE, "/api/models/demo/tiny-llm", "/api/models/demo/tiny-llm/tree/main", "/demo/tiny-llm/resolve/main/nope", "/api/models/demo/none",
                   "/demo/tiny-llm/raw/main/model.safetensors", "/acme/llm/resolve/main/model.safetensors"):
        get, head = module_world.get(target, "reader"), module_world.head(target, "reader")
        for answer in (get, head):
            for name in ("date", "x-request-id", "age", "x-cache", "connection"):
                answer.headers.pop(name, None)
        assert (get.status, get.headers) == (head.status, head.headers) and head.body == b"", target


def test_raw_is_the_pointer_with_its_own_etag(module_world: World, hub: HubProcess) -> None:
    facts = hub.file("demo/tiny-llm", "model.safetensors")
    answer = module_world.get("/demo/tiny-llm/raw/main/model.safetensors", "reader")
    assert answer.body == b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (facts["sha256"].encode(), facts["size"])
    assert answer["etag"] == f'"{facts["oid"]}"' and answer["content-length"] == str(len(answer.body))


def test_names_with_odd_characters(module_world: World, hub: HubProcess) -> None:
    repo = hub.repo("demo/odd-names")
    for path, file in repo["commits"][repo["branches"]["main"]]["files"].items():
        answer = module_world.get(f"/demo/odd-names/resolve/main/{quote(path)}", "reader")
        if "\\" in path:                                    # on Windows it would be a path
            assert answer.status == 400 and "character" in answer.json()["error"]
            continue
        assert answer.status == 200 and sha256(answer.body) == file["sha256"], path
        name = path.rpartition("/")[2]
        shown = str(answer["content-disposition"])
        assert shown.startswith("inline; filename*=UTF-8''") and quote(name, safe="") in shown.replace("~", "%7E") or quote(name) in shown, shown
        assert "\r" not in shown and "\n" not in shown and all(" " <= char < "\x7f" for char in shown)


# ranges

def ranges(facts: dict) -> list[tuple[str, int, tuple[int, int] | None]]:
    size = facts["size"]
    return [("bytes=0-0", 206, (0, 1)), ("bytes=10-19", 206, (10, 20)), ("bytes=0-", 206, (0, size)), (f"bytes={size - 1}-", 206, (size - 1, size)),
            ("bytes=-5", 206, (size - 5, size)), (f"bytes=5-{size + 100}", 206, (5, size)), (f"bytes=-{size + 9}", 206, (0, size)),
            (f"bytes={size}-", 416, None), (f"bytes={size + 5}-{size + 9}", 416, None), ("bytes=-0", 416, None),
            ("bytes=9-5", 200, (0, size)), ("bytes=a-b", 200, (0, size)), ("lines=1-2", 200, (0, size)), ("bytes", 200, (0, size)), ("bytes=", 200, (0, size)),
            ("bytes=99999999999999999999999-", 416, None)]


@pytest.mark.parametrize("kind", ["whole", "filling"])
def test_ranges(module_world: World, hub: HubProcess, kind: str) -> None:
    """The same answers while the file is on its way and when it is held."""
    facts = fresh(hub, 5 * MIB + 11)
    if kind == "whole":
        assert module_world.get(facts["main"], "reader").status == 200
        whole(module_world, facts)
    else:
        hub.fault(facts["sha256"], rate_bytes_per_s=2 * MIB)
        Download(module_world, facts["main"]).has(1)
    for header, status, span in ranges(facts):
        client = Download(module_world, facts["main"], headers={"Range": header}).done()
        if status == 416 or (header in ("bytes=9-5", "bytes=a-b", "bytes", "bytes=", "bytes=99999999999999999999999-") and client.status in (200, 416)):
            if client.status == 416:
                assert client.headers["content-range"] == f"bytes */{facts['size']}", header
            continue
        assert client.status == status, (header, client.status)
        assert span and bytes(client.body) == slice_of(facts, *span), header
        if status == 206:
            assert client.headers["content-range"] == f"bytes {span[0]}-{span[1] - 1}/{facts['size']}"
            assert client.headers["etag"] == f'"{facts["sha256"]}"' and client.headers["x-repo-commit"] == facts["commit"]
            assert client.headers["content-length"] == str(span[1] - span[0])
    many = Download(module_world, facts["main"], headers={"Range": "bytes=0-9,20-29,100-"}).done()
    assert many.status in (200, 206) and (many.status != 200 or many.sha256 == facts["sha256"])
    lots = Download(module_world, facts["main"], headers={"Range": "bytes=" + ",".join(f"{at}-{at}" for at in range(0, 1500, 2))}).done()
    assert lots.status in (200, 206, 416) and len(lots.body) <= facts["size"] + 200_000


def test_conditions(module_world: World) -> None:
    for target in (SMALL, LARGE):
        etag = str(module_world.head(target, "reader")["etag"])
        for method in ("GET", "HEAD"):
            same = module_world.get(target, "reader", method, {"If-None-Match": etag})
            assert same.status == 304 and same["etag"] == etag and same["x-repo-commit"] and same.body == b""
            assert module_world.get(target, "reader", method, {"If-None-Match": f'"other", {etag}'}).status == 304
            assert module_world.get(target, "reader", method, {"If-None-Match": '"other"'}).status == 200
        assert module_world.get(target, "reader", headers={"If-Range": etag, "Range": "bytes=0-3"}).status == 206
        assert module_world.get(target, "reader", headers={"If-Range": '"other"', "Range": "bytes=0-3"}).status == 200
        assert module_world.get(target, "reader", headers={"If-Match": '"other"'}).status in (412, 200)


def test_an_empty_file(module_world: World) -> None:
    for headers, statuses in (({}, (200,)), ({"Range": "bytes=0-0"}, (200, 416)), ({"Range": "bytes=0-"}, (200, 416))):
        answer = module_world.get("/demo/odd-names/resolve/main/empty.txt", "reader", headers=headers)
        assert answer.status in statuses and (answer.status == 416 or answer.body == b"")
        assert not headers or answer["content-range"] == "bytes */0"


def test_curl_resumes(module_world: World, hub: HubProcess, tmp_path: Path) -> None:
    facts = fresh(hub, 6 * MIB + 5)
    target, auth = tmp_path / "model.bin", ["-H", f"Authorization: Bearer {module_world.tokens['reader']}"]
    for have in (0, 1, 4 * MIB, facts["size"] - 1):
        target.write_bytes(slice_of(facts, 0, have))
        done = curl("-f", "-C", "-", *auth, "-o", str(target), module_world.url + facts["main"])
        assert done.status == 0 and sha256(target.read_bytes()) == facts["sha256"], (have, done.err)
    again = curl("-C", "-", *auth, "-o", str(target), "-w", "%{http_code}", module_world.url + facts["main"])
    assert again.out in ("416", "206") or again.status == 33
    assert sha256(target.read_bytes()[:facts["size"]]) == facts["sha256"]
    forget(facts)


def test_compression_is_never_used_for_bytes(make_world: Callable[..., World]) -> None:
    """Not even where the administrator has switched gzip on: lengths and strong tags hold."""
    world = make_world(http_extra="gzip on; gzip_types *; gzip_min_length 1;", roles=["reader"])
    for target in (SMALL, LARGE, "/acme/llm/resolve/main/config.json"):
        for method in ("GET", "HEAD"):
            answer = world.get(target, "reader", method, {"Accept-Encoding": "gzip, deflate, br"})
            assert answer["content-encoding"] is None and answer["content-length"] and not str(answer["etag"]).startswith("W/")
        part = world.get(target, "reader", headers={"Accept-Encoding": "gzip", "Range": "bytes=0-0"})
        assert part.status == 206 and len(part.body) == 1


# TLS and HTTP/2

def test_over_tls(module_world: World, hub: HubProcess) -> None:
    facts = hub.file("demo/tiny-llm", "model.safetensors")
    answer = fetch(module_world.tls_url or "", LARGE, headers=module_world.headers("reader"), ca_file=module_world.ca.file)
    assert answer.status == 200 and sha256(answer.body) == facts["sha256"]
    tree = fetch(module_world.tls_url or "", "/api/datasets/demo/huge-tree/tree/main?recursive=true", headers=module_world.headers("reader"), ca_file=module_world.ca.file)
    assert str(tree["link"]).startswith(f"<{module_world.tls_url}/api/datasets/demo/huge-tree/tree/main?") and '; rel="next"' in str(tree["link"])


def test_over_http2(make_world: Callable[..., World], hub: HubProcess, tmp_path: Path) -> None:
    """Small, large, filling and ranged answers, many at once on one connection."""
    world = make_world(tls=True, roles=["reader"])
    world.nginx.write_conf()
    world.nginx.conf.write_text(world.nginx.conf.read_text().replace(" ssl reuseport;", " ssl http2 reuseport;"))
    world.nginx.reload()
    facts = fresh(hub, 4 * MIB)
    hub.fault(facts["sha256"], rate_bytes_per_s=8 * MIB)
    common = ["--http2", "--cacert", str(world.ca.file), "-H", f"Authorization: Bearer {world.tokens['reader']}", "-f", "--parallel"]
    wanted = {"a": facts["main"], "b": SMALL, "c": LARGE, "d": "/api/models/demo/tiny-llm", "e": "/acme/llm/resolve/main/model.safetensors", "f": facts["main"]}
    words = [word for name, target in wanted.items() for word in ("-o", str(tmp_path / name), f"{world.tls_url}{target}")]
    done = curl(*common, "-w", "%{http_version} %{http_code}\n", *words)
    assert done.status == 0 and done.out.split("\n")[:6] == ["2 200"] * 6, done.text
    assert sha256((tmp_path / "a").read_bytes()) == sha256((tmp_path / "f").read_bytes()) == facts["sha256"]
    assert sha256((tmp_path / "c").read_bytes()) == hub.file("demo/tiny-llm", "model.safetensors")["sha256"]
    assert json.loads((tmp_path / "d").read_text())["id"] == "demo/tiny-llm"
    part = curl(*common[:-1], "-r", "5-9", "-D", str(tmp_path / "head"), "-o", str(tmp_path / "g"), f"{world.tls_url}{facts['main']}")
    assert part.status == 0 and (tmp_path / "g").read_bytes() == (tmp_path / "a").read_bytes()[5:10] and "HTTP/2 206" in (tmp_path / "head").read_text()


def test_many_requests_on_one_connection(module_world: World) -> None:
    connection = connect(module_world.url)
    for number in range(60):
        target, status = ((SMALL, 200), ("/demo/tiny-llm/resolve/main/nope", 404), ("/api/whoami-v2", 200), (LARGE, 200))[number % 4]
        answer = send(connection, target, headers=module_world.headers("reader"))
        assert answer.status == status and len(answer.body) == int(str(answer["content-length"]))
    connection.close()


def test_pages_of_a_tree_lead_back_here(module_world: World) -> None:
    target, pages = "/api/datasets/demo/huge-tree/tree/main?recursive=true&expand=false", 0
    seen: set[str] = set()
    while target:
        answer = module_world.get(target, "reader")
        assert answer.status == 200
        paths = {entry["path"] for entry in answer.json()}
        assert not seen & paths and len(answer.json()) <= 1000
        seen |= paths
        pages += 1
        link = str(answer["link"] or "")
        assert not link or link.startswith(f"<{module_world.url}/api/datasets/") and link.endswith('>; rel="next"') and "," not in link
        target = link[1:link.index(">")].removeprefix(module_world.url) if link else ""
    assert len(seen) == 50_050 and pages == 51
    for cursor in ("x", "0" * 40, "0" * 40 + ".9.x", "%00", "a" * 3000):
        assert module_world.get(f"/api/datasets/demo/huge-tree/tree/main?cursor={cursor}", "reader").status in (400, 404, 502), cursor


# who is asked, and by what

def test_another_host_is_421(module_world: World) -> None:
    for host in ("evil.example", "127.0.0.1", "127.0.0.1:1", f"x.{module_world.url[7:]}", module_world.url[7:] + ".evil"):
        answer = module_world.get("/api/whoami-v2", "reader", headers={"Host": host})
        assert answer.status == 421 and "host name" in answer.json()["error"], host
    assert module_world.get("/-/healthz", headers={"Host": "anything"}).json()["status"] == "ok"


def test_a_request_that_came_round_is_508(module_world: World) -> None:
    assert module_world.get(SMALL, "reader", headers={"Via": "1.1 hubgate"}).status == 508
    assert module_world.get(SMALL, "reader", headers={"Via": "1.1 squid"}).status == 200


def test_two_authorizations_are_400(module_world: World) -> None:
    token = "hf_gwp" + "b" * 48                            # not one in use: at its level info nginx writes both headers to its own log
    for one, two in ((f"Bearer {token}", f"Bearer {token}"), (f"Bearer {token}", "Basic eDp5"), ("", f"Bearer {token}")):
        out = raw(module_world.url, f"GET {SMALL} HTTP/1.1\r\nHost: {module_world.url[7:]}\r\nAuthorization: {one}\r\nAuthorization: {two}\r\nConnection: close\r\n\r\n".encode())
        assert out.startswith(b"HTTP/1.1 400 ") and b"model_type" not in out


def test_cors(module_world: World) -> None:
    """A preflight reveals nothing of what exists; answers may be read by pages."""
    answers = [module_world.get(target, None, "OPTIONS", {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"})
               for target in (SMALL, "/acme/llm/resolve/main/config.json", "/demo/none/resolve/main/x", "/api/whoami-v2")]
    for answer in answers:
        assert answer.status == 204 and "Authorization" in str(answer["access-control-allow-headers"]) and answer["access-control-allow-origin"] == "*"
        answer.headers.pop("x-request-id"), answer.headers.pop("date")
    assert len({str(answer.headers) for answer in answers}) == 1
    got = module_world.get(SMALL, "reader", headers={"Origin": "https://app.example"})
    assert got["access-control-allow-origin"] == "*" and "X-Repo-Commit" in str(got["access-control-expose-headers"])


@pytest.mark.parametrize("method, target, allow", [
    ("PUT", SMALL, "GET"), ("DELETE", SMALL, "GET"), ("POST", SMALL, "GET"), ("PATCH", "/api/models/demo/tiny-llm", "GET"), ("GET", "/api/models/demo/tiny-llm/paths-info/main", "POST"),
    ("GET", "/api/gateway/tokens", "POST"), ("FOO", SMALL, "GET"), ("DELETE", "/api/models/acme/llm", "GET")])
def test_other_methods(module_world: World, method: str, target: str, allow: str) -> None:
    answer = module_world.get(target, "admin", method)
    assert answer.status in (405, 400, 404) and (answer.status != 405 or allow in str(answer["allow"]))
    for header in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        assert module_world.get(SMALL, "reader", headers={header: "DELETE"}).status == 200


def test_quick_answers_for_calls_that_every_client_makes(module_world: World) -> None:
    assert module_world.get("/api/agent-harnesses").json() == {"standardEnvVars": [], "harnesses": {}}
    assert module_world.get("/api/telemetry/x/y", method="HEAD").status in (200, 204)
    assert module_world.get("/v1/telemetry", method="POST", body=b"{}").status in (200, 204)
    assert module_world.get("/api/models-tags-by-type").status == 200
    token = module_world.get("/api/models/demo/tiny-llm/xet-read-token/main", "reader")
    assert token.status == 404 and "HF_HUB_DISABLE_XET=1" in token.json()["error"]


def test_bodies_that_are_too_large_or_wrong(module_world: World) -> None:
    target, form = "/api/models/demo/tiny-llm/paths-info/main", {"Content-Type": "application/x-www-form-urlencoded"}
    for headers, body, statuses in (
            (form, b"paths=" + b"a" * (5 << 20), (413,)), ({"Content-Type": "application/json"}, b"{", (400,)), ({"Content-Type": "application/json"}, b"[]", (400,)),
            ({"Content-Type": "application/json"}, b'{"paths": 5}', (400,)), (form, b"paths=..%2F..%2Fetc", (400,)), (form, b"paths=a%00b", (400,)),
            ({"Content-Type": "application/json"}, b'{"paths":' + b"[" * 100_000, (400,)), ({"Content-Type": "text/plain"}, b"x", (400, 415, 200)),
            (form, b"&".join(b"paths=f%d" % number for number in range(3000)), (413, 400))):
        answer = module_world.get(target, "reader", "POST", headers, body)
        assert answer.status in statuses, (answer.status, body[:40])
    chunked = raw(module_world.url, (f"POST {target} HTTP/1.1\r\nHost: {module_world.url[7:]}\r\nAuthorization: Bearer {module_world.tokens['reader']}\r\n"
                                     "Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                                     "11\r\npaths=config.json\r\n0\r\n\r\n").encode())
    assert b" 200 OK" in chunked and b"config.json" in chunked


# hostile targets

def spellings() -> list[str]:
    """Ways to lead a parser out of the repository it thinks of (paths only; each is asked of a repository that is denied)."""
    out = []
    for dots in ("..", "%2e%2e", ".%2e", "%2e.", "%2E%2E", "..%00", "..;", "%252e%252e", "..%5c", "%c0%ae%c0%ae", "%uff0e%uff0e", ".", "%2e", ""):
        out += [f"/demo/tiny-llm/{dots}/{dots}/acme/llm/resolve/main/config.json", f"/demo/tiny-llm/resolve/main/{dots}/{dots}/{dots}/{dots}/acme/llm/resolve/main/config.json",
                f"/demo/tiny-llm/resolve/{dots}/{dots}/acme/llm/config.json", f"/{dots}/acme/llm/resolve/main/config.json", f"/acme/{dots}/llm/resolve/main/config.json",
                f"/api/models/demo/{dots}/{dots}/acme/llm", f"/api/models/demo/tiny-llm/tree/main/{dots}/{dots}/{dots}/acme"]
    for name in ("acme%2Fllm", "acme%2fllm", "acme%252Fllm", "acme%5Cllm", "acme/llm%00", "acme/llm%20", "acme/llm.", "acme/llm.git", "acme/%6Clm", "%61cme/llm", "acme//llm",
                 "acme/./llm", "acme/llm;x=1", "acme/llm%0d%0aX-Evil:1", "acme/llm%7f", "acme/llm%e2%80%ae", "acme/llm%e2%80%8b", "ACME/LLM", "acme/l%ff", "acme/l%c0%afm",
                 "datasets/acme/llm", "models/acme/llm", "acme/llm/", "a" * 9000, "acme/" + "l" * 300, "acme/llm%ef%bc%8f", "/acme/llm", "http://evil/acme/llm"):
        out += [f"/{name}/resolve/main/config.json", f"/api/models/{name}", f"/api/models/{name}/tree/main", f"/{name}/raw/main/config.json", f"/api/resolve-cache/models/{name}/main/config.json",
                f"/{name}/resolve/refs%2Fpr%2F1/config.json", f"/{name}/resolve/main%2F..%2F../config.json"]
    return out


def test_hostile_targets_get_no_byte_and_no_5xx(module_world: World, hub: HubProcess) -> None:
    """As somebody without a right on acme/llm: never 5xx, never one of its bytes, never a header made of the path; the Hub hears no `acme`."""
    denied = module_world.get("/acme/llm/resolve/main/config.json", "reader").body
    assert b"vocab_size" in denied
    hub.reset_stats()
    host, token = module_world.url[7:], module_world.tokens["stranger"]
    for target in spellings():
        for method in ("GET", "HEAD"):
            out = raw(module_world.url, f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n".encode("latin-1", "replace"))
            head, _, body = out.partition(b"\r\n\r\n")
            status = int(head.split()[1])
            assert 200 <= status < 500 or status == 501, (target, status)      # 501: no such route of the API
            assert denied not in body and b"vocab_size" not in body and b"\nx-evil" not in head.lower(), target
            if status == 200:                               # what nginx or the parser reads as the public repository's own
                assert "acme" not in target.split("?")[0].lower().replace("%61", "a") or b"acme" not in body.lower(), target
    assert not [record["target"] for record in hub.requests() if re.match(r"/(api/(resolve-cache/)?)?((models|datasets|spaces)/)?acme", record["target"].lower())]


@pytest.mark.parametrize("data", [
    b"GET / HTTP/0.9\r\n\r\n", b"GET\r\n\r\n", b"\0\0\0\0", b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"POST /v1/telemetry HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /%00 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", b"GET * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: {host}\r\n\r\n", b"TRACE / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", b"GET http://evil.example/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n",
    b"GET /api/whoami-v2 HTTP/1.1\r\nHost: {host}\r\nAuthorization: " + b"x" * 20_000 + b"\r\nConnection: close\r\n\r\n", b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: {host}\r\n\r\n",
    b"GET /x HTTP/1.1\r\nHost: {host}\r\nRange: bytes=" + b"0-0," * 5000 + b"\r\nConnection: close\r\n\r\n"], ids=lambda data: repr(data[:24]))
def test_hostile_requests(module_world: World, data: bytes) -> None:
    out = raw(module_world.url, data.replace(b"{host}", module_world.url[7:].encode()), timeout=10)
    assert not out or b" 50" not in out[:14] or out.split()[1] in (b"501", b"505"), out[:200]
    assert module_world.get("/-/healthz").status == 200


def test_a_slow_reader_and_one_that_resets_disturb_nobody(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 8 * MIB)
    host, port = module_world.url[7:].split(":")
    request = f"GET {facts['main']} HTTP/1.1\r\nHost: {module_world.url[7:]}\r\nAuthorization: Bearer {module_world.tokens['reader']}\r\n\r\n".encode()
    slow = socket.create_connection((host, int(port)))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.sendall(request)
    for _ in range(10):
        sock = socket.create_connection((host, int(port)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(request)
        sock.recv(1000)
        sock.close()
    assert Download(module_world, facts["main"]).done().sha256 == facts["sha256"]
    whole(module_world, facts)
    slow.close()
    assert hub.content_bytes() == facts["size"]
    forget(facts)
