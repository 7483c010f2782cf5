"""nginx with the module: starts and refusals to start, reloads under load, ends; and the audit record."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from pathlib import Path
from typing import Any, Callable

import pytest
from downloads import MIB, Download, forget, fresh, whole

from tests.lab import procs
from tests.lab.fetch import connect, fetch, send
from tests.lab.hubctl import HubProcess
from tests.lab.nginx import Nginx, give
from tests.lab.world import REASON, World

WORLD = {"workers": 2}


# a configuration that is wrong

@pytest.fixture
def still(make_world: Callable[..., World]) -> World:
    """A world whose configuration may be spoiled; it is put right at the end."""
    return make_world(private={}, roles=[])


CONFIG: dict[str, tuple[Callable[[dict], Any], list[str]]] = {
    "an unknown key": (lambda c: c.update(publicc_urls=["http://x"]), [r"hubgate\.yaml:\d+:\d+", "publicc_urls", "public_urls"]),
    "a required key is missing": (lambda c: c.pop("data"), ["hubgate.yaml", "data"]),
    "a wrong time": (lambda c: c["upstream"].update(ttl="soon"), [r"hubgate\.yaml:\d+:\d+", "ttl"]),
    "a time out of range": (lambda c: c["upstream"].update(stall_timeout="1ms"), [r"hubgate\.yaml:\d+:\d+", "stall_timeout"]),
    "a file that is missing": (lambda c: c["upstream"].update(token_file="/nonexistent/token"), ["/nonexistent/token"]),
    "a folder that is missing": (lambda c: c.update(data="/nonexistent/data"), ["/nonexistent/data"]),
    "rules that are missing": (lambda c: c.update(policy_dir="/nonexistent/policy"), ["/nonexistent/policy"]),
    "an URL that is none": (lambda c: c.update(public_urls=["models.example"]), [r"hubgate\.yaml:\d+:\d+", "public_urls"]),
    "a list for a word": (lambda c: c.update(data=["a", "b"]), [r"hubgate\.yaml:\d+:\d+", "data"]),
    "cache in data": (lambda c: c["cache"].update(dir=c["data"]), ["cache"]),
}


@pytest.mark.parametrize("name", list(CONFIG))
def test_a_wrong_configuration(still: World, name: str) -> None:
    """[emerg] at `nginx -t` with file, line and a hint; `hubgate check` says the same."""
    spoil, words = CONFIG[name]
    config = still.config()
    spoil(config)
    still.nginx.write_config(config)
    still.expect_log(r"\[emerg\]", min=0)
    run = still.nginx.test()
    assert run.returncode != 0 and "[emerg]" in run.stderr
    for word in words:
        assert re.search(word, run.stderr), (word, run.stderr)
    check = still.cli("check", "--offline", check=False)
    assert check.returncode != 0 and re.search(words[-1], check.stderr + check.stdout), check


@pytest.mark.parametrize("text, word", [
    ("", "public_urls"), ("public_urls: [http://x\n", "hubgate.yaml:"), ("- a\n- b\n", "hubgate.yaml:"), ("\t\n", ""), ("a: *b\n", ""), ("%YAML 9\n---\n", ""),
    ("\0\1\2", ""), ("public_urls: " + "[" * 5000, "hubgate.yaml:"), ("data: x\ndata: y\n", "data"), ("x" * 3_000_000, "")],
    ids=["empty", "open", "list", "tab", "alias", "version", "binary", "deep", "twice", "huge"])
def test_what_is_no_configuration_at_all(still: World, text: str, word: str) -> None:
    still.expect_log(r"\[emerg\]", min=0)
    still.nginx.config_file.write_text(text)
    run = still.nginx.test()
    assert run.returncode == 1 and word in run.stderr, run.stderr[-500:]


def test_a_secret_that_others_can_read(still: World) -> None:
    path = still.folder / "secrets" / "upstream-token"
    path.chmod(0o644)
    still.expect_log(r"\[emerg\].*upstream-token", min=1)
    run = still.nginx.test()
    assert run.returncode != 0 and "upstream-token" in run.stderr and "chmod" in run.stderr
    path.chmod(0o600)
    assert still.nginx.test().returncode == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
@pytest.mark.parametrize("which", ["data", "cache"])
def test_a_folder_of_another_user(still: World, which: str) -> None:
    path: Path = getattr(still.nginx, which)
    os.chown(path, 12345, 12345)
    still.expect_log(r"\[emerg\]", min=1)
    run = still.nginx.test()
    assert run.returncode != 0 and str(path) in run.stderr, run.stderr
    give(path)
    assert still.nginx.test().returncode == 0


@pytest.mark.parametrize("extra, word", [
    ("http_extra:hubgate_config /nonexistent.yaml;", "duplicate"), ("server:location /x { hubgate maybe; }", "on"), ("server:location /y { hubgate on; hubgate on; }", "duplicate"),
    ("server:location /z { proxy_pass http://127.0.0.1:1; hubgate on; }", "another handler"), ("server:hubgate on;", "not allowed here")])
def test_wrong_directives(still: World, extra: str, word: str) -> None:
    where, _, text = extra.partition(":")
    if where == "server":
        still.nginx.server_extra = text
    else:
        still.nginx.http_extra = text
    still.nginx.write_conf()
    still.expect_log(r"\[emerg\]", min=1)
    run = still.nginx.test()
    assert run.returncode != 0 and word in run.stderr, run.stderr


def test_hubgate_on_needs_a_configuration(tmp_path: Path, still: World) -> None:
    text = still.nginx.conf.read_text()
    still.nginx.conf.write_text("\n".join(line for line in text.splitlines() if "hubgate_config" not in line))
    still.expect_log(r"\[emerg\].*hubgate_config", min=1)
    run = still.nginx.test()
    assert run.returncode != 0 and "hubgate_config" in run.stderr


def test_other_locations_are_nginxs_own(make_world: Callable[..., World]) -> None:
    world = make_world(private={}, roles=["reader"], server_extra="location = /robots.txt { return 200 hello; }")
    assert fetch(world.url, "/robots.txt").body == b"hello"
    assert world.get("/api/whoami-v2", "reader").status == 200


# reloads and ends

class Load(threading.Thread):
    """Requests on keep-alive connections until told to stop; every answer that is not right is kept."""

    def __init__(self, world: World, targets: list[tuple[str, bytes]]) -> None:
        super().__init__(daemon=True)
        self.world, self.targets, self.ended = world, targets, threading.Event()
        self.count, self.wrong = 0, []                                             # type: ignore[var-annotated]
        self.start()

    def run(self) -> None:
        connection = connect(self.world.url)
        headers = self.world.headers("reader")
        while not self.ended.is_set():
            for target, body in self.targets:
                for attempt in (1, 2):
                    try:
                        answer = send(connection, target, headers=headers)
                        break
                    except OSError as error:         # a kept connection that the old worker closed while idle: asked again, once, on a new one
                        connection.close()
                        connection = connect(self.world.url)
                        if attempt == 2:
                            self.wrong.append(repr(error))
                            return
                    except Exception as error:       # noqa: BLE001  a cut body is never right
                        self.wrong.append(repr(error))
                        connection.close()
                        connection = connect(self.world.url)
                        break
                else:
                    continue
                self.count += 1
                if "answer" in locals() and (answer.status != 200 or answer.body != body):
                    self.wrong.append(f"{target}: {answer.status}, {len(answer.body)} bytes")
        connection.close()

    def end(self) -> list[str]:
        self.ended.set()
        self.join(60)
        return self.wrong


def test_twenty_reloads_under_load(make_world: Callable[..., World], hub: HubProcess) -> None:
    """No request is lost, no alarm is written, nothing of the old cycles stays."""
    world = make_world(workers=2)
    facts = fresh(hub, 2 * MIB)
    targets = [(target, world.get(target, "reader").body) for target in (
        facts["main"], "/acme/llm/resolve/main/config.json", "/acme/llm/resolve/main/model.safetensors", "/api/models/acme/llm", "/api/models/demo/tiny-llm",
        "/api/models/demo/tiny-llm/tree/main")]
    whole(world, facts)
    loads = [Load(world, targets) for _ in range(4)]
    for number in range(20):
        before = sum(load.count for load in loads)
        world.nginx.reload()
        procs.wait_until("some requests", lambda: sum(load.count for load in loads) >= before + 8 or any(load.wrong for load in loads))
    wrong = [word for load in loads for word in load.end()]
    assert not wrong, wrong[:5]
    assert sum(load.count for load in loads) >= 160
    procs.wait_until("the end of the old workers", lambda: not world.nginx.workers(leaving=True), 40)
    assert len(world.nginx.workers()) == 2


def test_quit_lets_a_download_end(make_world: Callable[..., World], hub: HubProcess) -> None:
    world = make_world(workers=2, private={}, roles=["reader"])
    facts = fresh(hub, 12 * MIB)
    hub.fault(facts["sha256"], rate_bytes_per_s=12 * MIB)
    clients = [Download(world, facts["main"]) for _ in range(3)]
    clients[0].has(MIB)
    assert world.nginx.quit(60)
    for client in clients:
        assert client.done().clean and client.sha256 == facts["sha256"]
    forget(facts)


def test_stop_is_quick_whatever_is_under_way(make_world: Callable[..., World], hub: HubProcess) -> None:
    """SIGTERM while fills run, requests wait for a silent Hub and a directory hangs: within seconds, without an alarm."""
    world = make_world(workers=2, private={}, slapd=None, roles=["reader"])
    world.expect_log(r"\[alert\].*(open socket|aborting)", min=0)
    facts, silent = fresh(hub, 12 * MIB), fresh(hub, 3 * MIB)
    hub.fault(facts["sha256"], rate_bytes_per_s=MIB)
    hub.fault(silent["repo"], hang="before")
    Download(world, facts["main"]).has(1000)
    waiting = Download(world, silent["main"])
    procs.wait_until("a call that hangs", lambda: any(silent["repo"] in each["target"] for each in hub.stats()["recent"]))
    assert world.slapd
    world.slapd.pause()
    assert world.nginx.stop(8)
    world.slapd.resume()
    waiting.done()
    assert waiting.status in (0, 503)
    forget(facts)


def test_kill_of_the_master_and_a_new_start(make_world: Callable[..., World]) -> None:
    """kill -9 of master and workers at once; the next start answers, tokens hold."""
    world = make_world(workers=2)
    for _ in range(3):
        world.nginx.kill()
        assert not procs.children(world.nginx.pid)
        world.nginx.start()
        assert world.get("/acme/llm/resolve/main/config.json", "reader").status == 200


def test_a_worker_that_dies_takes_nobody_else_down(make_world: Callable[..., World]) -> None:
    world = make_world(workers=2)
    world.expect_log(r"\[alert\].*exited on signal", min=6, max=6)
    for number in range(6):
        world.nginx.kill_worker(sig=signal.SIGKILL if number % 2 else signal.SIGABRT)  # not SEGV: a sanitizer takes that for its own
        for _ in range(6):
            assert world.get("/acme/llm/resolve/main/config.json", "reader").status == 200


def test_more_workers_at_a_reload(make_world: Callable[..., World]) -> None:
    world = make_world(workers=1)
    for count in (4, 2):
        world.nginx.workers_wanted = count
        world.nginx.write_conf()
        world.nginx.reload()
        procs.wait_until(f"{count} workers", lambda: len(world.nginx.workers()) == count)
        for _ in range(8):
            assert world.get("/acme/llm/resolve/main/config.json", "reader").status == 200


# the audit record

def records(world: World, count: int, **like: Any) -> list[dict]:
    """The records that have these fields, when there are so many."""
    def found() -> list[dict]:
        return [each for each in world.audit() if all(each.get(key) == value for key, value in like.items())]
    procs.wait_until(f"{count} audit records {like}", lambda: len(found()) >= count, 20)
    return found()


def test_one_record_per_request(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 300_000)
    requests = {}
    for name, (target, role, method, headers) in {
        "miss": (facts["main"], "reader", "GET", {}), "hit": (facts["main"], "reader", "GET", {}), "head": (facts["main"], "reader", "HEAD", {}),
        "range": (facts["main"], "reader", "GET", {"Range": "bytes=10-19"}), "private": ("/acme/llm/resolve/main/config.json", "writer", "GET", {}),
        "denied": ("/acme/llm/resolve/main/config.json", "stranger", "GET", {}), "blocked": ("/api/models/evil/pickles", "stranger", "GET", {}),
        "nobody": ("/acme/llm/resolve/main/config.json", None, "GET", {}), "bad": ("/api/whoami-v2", "hf_gwp" + "a" * 48, "GET", {}),
        "nonsense": ("/%zz/..%2f", "reader", "GET", {}), "who": ("/api/whoami-v2", "reader", "GET", {"User-Agent": "x\"\\\x01\x7f é" + "y" * 1000})}.items():
        answer = module_world.get(target, role, method, headers)
        requests[name] = (answer, str(answer["x-request-id"]))
    procs.wait_until("all records", lambda: {number for _, number in requests.values()} - {"None"} <= {each["request"] for each in module_world.audit()}, 20)
    by_id: dict[str, list[dict]] = {}
    for each in module_world.audit():
        by_id.setdefault(each["request"], []).append(each)
    assert all(len(found) == 1 for found in by_id.values())
    got = {name: by_id[number][0] for name, (_, number) in requests.items() if number != "None"}
    for name, (answer, _) in requests.items():
        if name in got:
            assert got[name]["status"] == answer.status and got[name]["v"] == 1 and got[name]["ip"] == "127.0.0.1", name
    hit = got["hit"]
    assert hit["subject"]["kind"] == "user" and hit["subject"]["name"] == "reader" and hit["subject"]["realm"] == "lab" and len(hit["subject"]["token"]) == 10
    repo = hit["resource"]
    assert (repo["hub"], repo["type"], f"{repo['namespace']}/{repo['name']}") == ("public", "model", facts["repo"])
    assert (repo["revision"], repo["commit"], repo["path"]) == ("main", facts["commit"], "model.bin")
    assert repo["digest"] == facts["sha256"] and hit["policy"] == {"result": "allow", "rule": "public-read"}
    assert (hit["bytes"], hit["complete"], hit["cache"], hit["method"], hit["event"]) == (facts["size"], True, "hit", "GET", "resolve")
    assert got["miss"]["cache"] in ("miss", "fill") and got["range"]["bytes"] == 10 and got["range"]["status"] == 206 and got["head"]["bytes"] == 0
    assert got["private"]["resource"]["hub"] == "private" and got["private"]["policy"]["rule"] == "staff-read"
    assert got["denied"]["policy"] == {"result": "deny", "rule": "(default)"} and got["denied"]["refused"] == "repo_not_found"
    assert got["denied"]["subject"]["name"] == "stranger" and got["denied"]["resource"]["name"] == "llm"
    assert got["blocked"]["policy"] == {"result": "deny", "rule": "no-evil"} and got["blocked"]["refused"] == "blocked"
    assert got["nobody"]["subject"]["kind"] == "anonymous" and got["nobody"]["refused"] == "login_needed"
    assert got["bad"]["refused"] == "bad_credential"
    assert REASON not in json.dumps(got["denied"])


def test_a_cut_download_is_not_complete(module_world: World, hub: HubProcess) -> None:
    facts = fresh(hub, 40 * MIB)
    slow = hub.fault(facts["sha256"], rate_bytes_per_s=16 * MIB)
    Download(module_world, facts["main"]).has(2 * MIB).leave()
    hub.heal(slow)
    found = records(module_world, 1, complete=False)
    mine = [each for each in found if f"fresh/{each.get('resource', {}).get('name')}" == facts["repo"]]
    assert len(mine) == 1 and MIB < mine[0]["bytes"] < facts["size"] and mine[0]["cache"] == "fill"
    whole(module_world, facts)
    forget(facts)


def test_records_survive_a_rotation_and_a_stop(make_world: Callable[..., World]) -> None:
    """The file may be moved away at any time; what is buffered at the end is written."""
    world = make_world(private={}, roles=["reader"])
    log = world.nginx.audit_log
    ids = {str(world.get("/api/whoami-v2", "reader")["x-request-id"])}
    procs.wait_until("a record", lambda: ids <= {each["request"] for each in world.audit()})
    log.rename(log.with_suffix(".1.jsonl"))
    later = {str(world.get("/api/whoami-v2", "reader")["x-request-id"]) for _ in range(30)}
    world.nginx.stop()
    assert later <= {each["request"] for each in world.audit()}
    assert log.stat().st_mode & 0o007 == 0
