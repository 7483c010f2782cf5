"""Bytes from upstream that do not have their digest, as real clients meet them: none ends with a whole file that is wrong.

The flipped bit is in the last share of the first fetch, so a whole GET has nearly all of its bytes before it is cut.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from clients import HF, aria2c, curl, python
from downloads import MIB, Download, blob, forget, fresh, sha256, slice_of, whole

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.world import World, sample_policy

WORLD = {"workers": 2, "private": {}}
SIZE = 40 * MIB + 77
SENTENCE = "the file changed while it was fetched: delete the partial file and retry"

DOWNLOAD = """
import hashlib, sys
from huggingface_hub import hf_hub_download
print(hashlib.sha256(open(hf_hub_download(sys.argv[1], sys.argv[2]), "rb").read()).hexdigest())
"""


def spoilt(hub: HubProcess, size: int = SIZE, **keys: Any) -> dict[str, Any]:
    """A file of which the first fetch gets one bit wrong, a few bytes before the end."""
    facts = fresh(hub, size)
    hub.fault(facts["sha256"], host="cdn", range=rf"-({size - 1})?$", wrong_bytes=[size - 50], **{"times": 1, **keys})
    return facts


def noticed(world: World, facts: dict[str, Any]) -> None:
    world.nginx.wait_log(f"{facts['sha256'][:12]}.*do not have this digest")


def files_of(home: Path) -> list[Path]:
    """The large files that a client keeps as whole."""
    return [path for path in home.rglob("*") if path.is_file() and not path.is_symlink() and path.suffix not in (".incomplete", ".lock")
            and path.stat().st_size >= SIZE]


@pytest.mark.parametrize("client", ["hf0362", "hf133", "hf240-noxet", "hf240"])
def test_huggingface_hub_starts_anew(module_world: World, hub: HubProcess, client: str) -> None:
    """Cut a MiB before the end, it asks for the rest, is given the whole, and ends with the right file.  0.36.2 does not ask by itself
    after such a cut; its next run does."""
    facts, env = spoilt(hub), module_world.env("reader")
    done = python(client, DOWNLOAD, env, facts["repo"], "model.bin")
    noticed(module_world, facts)
    if client == "hf0362":
        assert done.status != 0 and "IncompleteRead" in done.err
        done = python(client, DOWNLOAD, env, facts["repo"], "model.bin")
    assert done.status == 0 and done.out.split()[-1] == facts["sha256"], done.text
    whole(module_world, facts)
    forget(facts)


def test_huggingface_hub_that_was_killed_starts_anew(module_world: World, hub: HubProcess, tmp_path: Path) -> None:
    """0.36.2 resumes what an earlier process left: bytes of the first fetch are not joined with the second."""
    facts = spoilt(hub)
    slow = hub.fault(facts["sha256"], host="cdn", rate_bytes_per_s=8 * MIB)
    env = module_world.env("reader", tmp_path)
    process = subprocess.Popen([str(HF["hf0362"] / "bin" / "python"), "-c", DOWNLOAD, facts["repo"], "model.bin"], env=env,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        procs.wait_until("a partial file", lambda: any(path.stat().st_size >= 10 * MIB for path in tmp_path.rglob("*.incomplete")), 60)
    finally:
        process.kill()
        process.wait()
    hub.heal(slow)
    noticed(module_world, facts)
    done = python("hf0362", DOWNLOAD, env, facts["repo"], "model.bin")
    assert done.status == 0 and done.out.split()[-1] == facts["sha256"], done.text
    forget(facts)


@pytest.mark.parametrize("client", ["hf0362", "hf133", "hf240"])
def test_huggingface_hub_keeps_nothing_wrong(module_world: World, hub: HubProcess, tmp_path: Path, client: str) -> None:
    """Wrong every time: it fails, and nothing of that size is in its cache."""
    facts = spoilt(hub, times=None)
    done = python(client, DOWNLOAD, module_world.env("reader", tmp_path), facts["repo"], "model.bin")
    assert done.status != 0 and not files_of(tmp_path), done.text
    assert not blob(module_world, facts["sha256"]).exists()
    forget(facts)


@pytest.mark.parametrize("connections", [1, 16])
def test_aria2(module_world: World, hub: HubProcess, tmp_path: Path, connections: int) -> None:
    """It puts the file together from pieces, also of both fetches, and finds by the header Digest that it is wrong."""
    facts, out = spoilt(hub), tmp_path / "model.bin"
    env, parts = module_world.env("reader"), [f"-x{connections}", f"-s{connections}", "-k1M"]
    first = aria2c(env, module_world.url + facts["main"], out, *parts)
    assert (first.status == 0) == (out.exists() and sha256(out.read_bytes()) == facts["sha256"]), first.text
    if first.status:                                           # it keeps the file, with a note that it is not done
        assert not out.exists() or out.with_name("model.bin.aria2").exists()
        assert connections == 1 or "Checksum error detected" in first.text
        whole(module_world, facts)
        for path in tmp_path.iterdir():
            path.unlink()
        again = aria2c(env, module_world.url + facts["main"], out, *parts)
        assert again.status == 0 and sha256(out.read_bytes()) == facts["sha256"], again.text
    forget(facts)


def test_curl(module_world: World, hub: HubProcess, tmp_path: Path) -> None:
    """`curl -C -` gets 416 for an hour, and adds nothing to the partial file; the sentence says what to do."""
    facts, out = spoilt(hub), tmp_path / "model.bin"
    ask = ["-H", f"Authorization: Bearer {module_world.tokens['reader']}", module_world.url + facts["main"]]
    assert curl("-C", "-", "-o", str(out), *ask).status == 18                                     # cut
    have = out.read_bytes()
    assert 0 < len(have) < SIZE
    for _ in range(2):
        resumed = curl("-C", "-", "-o", str(out), "-D", "-", "--fail", *ask)
        assert resumed.status == 22 and "416" in resumed.err and f"x-error-message: {SENTENCE}" in resumed.out.lower(), resumed.text
        assert curl("-C", "-", "-o", str(out), *ask).status == 0                                  # without --fail: curl's own view of 416
        assert out.read_bytes() == have
        assert SENTENCE in curl("-r", f"{len(have)}-", *ask).out
        whole(module_world, facts)                                                                # also when it is whole again
    out.unlink()
    assert curl("-C", "-", "-o", str(out), *ask).status == 0 and sha256(out.read_bytes()) == facts["sha256"]
    forget(facts)


# verify: before, as a key of a rule

def waiting_policy() -> dict[str, Any]:
    policy = sample_policy()
    policy["rules"].append({"id": "whole-first", "allow": ["read"], "to": ["authenticated"], "verify": "before",
                            "where": {"hub": "public", "files": ["careful/**"]}})
    return policy


@pytest.fixture(scope="module")
def careful(hub: HubProcess, request: pytest.FixtureRequest) -> Any:
    from conftest import closing, new_world
    world = new_world(request, {**WORLD, "policy": waiting_policy()}).start()
    yield world
    assert not closing(world, request.node)


def test_a_rule_says_verify_before(careful: World, hub: HubProcess) -> None:
    """What it matches is sent once it is whole, ranges too; what it does not match is sent as it comes."""
    facts, other = fresh(hub, 8 * MIB, "careful/model.bin"), fresh(hub, 8 * MIB)
    stuck = [hub.fault(each["sha256"], range=rf"-({8 * MIB - 1})?$", host="cdn", hang="body", cut_after=0) for each in (facts, other)]
    clients = [Download(careful, facts["main"]), Download(careful, facts["main"], headers={"Range": "bytes=0-99"})]
    Download(careful, other["main"]).has(MIB).leave()
    procs.wait_until("what upstream gives", lambda: hub.content_bytes() >= 8 * MIB)
    assert [(client.status, len(client.body)) for client in clients] == [(0, 0)] * 2
    assert careful.head(facts["main"], "reader").status == 200             # size and digest are known, so nobody waits for them
    for each in stuck:
        hub.heal(each)
    assert clients[0].done().clean and clients[0].sha256 == facts["sha256"]
    assert clients[1].done().status == 206 and bytes(clients[1].body) == slice_of(facts, 0, 100)
    for each in (facts, other):
        forget(each)


def test_nothing_wrong_leaves_when_a_rule_says_so(careful: World, hub: HubProcess, tmp_path: Path) -> None:
    """Not even to who loads in parallel pieces and checks nothing: they wait for the first fetch, and get the second."""
    facts = fresh(hub, SIZE, "careful/model.bin")
    hub.fault(facts["sha256"], host="cdn", wrong_bytes=[5 * MIB], times=1, range="bytes=0-")
    clients = [Download(careful, facts["main"]), Download(careful, facts["main"], headers={"Range": "bytes=100-199"})]
    done = python("hf0362", DOWNLOAD, careful.env("reader", HF_HUB_ENABLE_HF_TRANSFER="1"), facts["repo"], "careful/model.bin")
    noticed(careful, facts)
    assert done.status == 0 and done.out.split()[-1] == facts["sha256"], done.text
    assert clients[0].done().clean and clients[0].sha256 == facts["sha256"]
    assert bytes(clients[1].done().body) == slice_of(facts, 100, 200) and clients[1].status == 206
    wrong = fresh(hub, SIZE, "careful/model.bin")
    hub.fault(wrong["sha256"], host="cdn", wrong_bytes=[5 * MIB])
    refused = Download(careful, wrong["main"]).done()                      # wrong twice
    assert refused.status == 502 and b"do not have this digest" in refused.body
    forget(facts)
    forget(wrong)


@pytest.mark.parametrize("client", ["hf0362", "hf133", "hf240"])
def test_a_client_that_will_not_wait_joins_the_same_fill(careful: World, hub: HubProcess, client: str) -> None:
    """Its read timeout ends one GET after the other; each joins the fill that the first began, and one of them gets the file."""
    facts = fresh(hub, 24 * MIB, "careful/model.bin")
    stuck = hub.fault(facts["sha256"], host="cdn", range=rf"-({24 * MIB - 1})?$", hang="body", cut_after=0)
    process = subprocess.Popen([str(HF[client] / "bin" / "python"), "-c", DOWNLOAD, facts["repo"], "careful/model.bin"],
                               env=careful.env("reader", HF_HUB_DOWNLOAD_TIMEOUT="1"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)

    def gave_up() -> int:
        return sum(record["method"] == "GET" and record.get("resource", {}).get("name") == facts["repo"].partition("/")[2]
                   and not record["complete"] for record in careful.audit())
    try:
        procs.wait_until("two GETs that gave up", lambda: gave_up() >= 2, 60)
        hub.heal(stuck)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and out.split()[-1] == facts["sha256"], err
    hub.wait_idle()
    assert hub.content_bytes() == facts["size"]
    forget(facts)
