"""Files of the cache and of data/, damaged: served right, or refused with a sentence, and nobody else is harmed."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Callable

import pytest
from downloads import MIB, Download, blob, forget, fresh, sha256, whole

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.nginx import give
from tests.lab.world import World


def flip(path: Path, *offsets: int) -> None:
    """One bit each, in place."""
    with open(path, "r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)
            file.seek(offset)
            file.write(bytes([byte[0] ^ 0x10]) if byte else b"\xff")


def half_filled(world: World, hub: HubProcess, size: int = 24 * MIB) -> dict:
    """A file that is partly in the cache, and nobody is at it: nginx was killed."""
    facts = fresh(hub, size)
    slow = hub.fault(facts["sha256"], rate_bytes_per_s=4 * MIB)         # of each of its transfers
    client = Download(world, facts["main"]).has(size // 6)
    world.nginx.kill()
    hub.heal(slow)
    client.done()
    assert not client.clean
    return facts


def files_of(world: World, facts: dict) -> tuple[Path, Path]:
    parts = world.nginx.cache / "parts"
    return parts / f"{facts['sha256']}.part", parts / f"{facts['sha256']}.map"


DAMAGES: dict[str, Callable[[Path, Path, random.Random], None]] = {
    "bytes of the part": lambda part, _map, _: flip(part, 5, MIB + 100, 3 * MIB),
    "the part cut short": lambda part, _map, _: os.truncate(part, 2 * MIB),
    "the part gone": lambda part, _map, _: part.unlink(),
    "the map gone": lambda _, map, __: map.unlink(),
    "the map empty": lambda _, map, __: os.truncate(map, 0),
    "the map cut short": lambda _, map, __: os.truncate(map, map.stat().st_size // 2),
    "the map's magic": lambda _, map, __: flip(map, 0),
    "the map's header": lambda _, map, dice: flip(map, *(dice.randrange(8, 4096) for _ in range(40))),
    "the map's granules": lambda _, map, dice: flip(map, *(dice.randrange(map.stat().st_size) for _ in range(60))),
    "noise for a map": lambda _, map, dice: map.write_bytes(dice.randbytes(map.stat().st_size)),
    "the map of another file": lambda part, map, dice: map.rename(map.with_name("0" * 64 + ".map")),
    "a folder for a part": lambda part, _map, __: (part.unlink(), part.mkdir(), give(part)),    # type: ignore[dict-item, return-value]
}


WORLD = {"workers": 2, "private": {}}


@pytest.mark.parametrize("name", list(DAMAGES))
def test_a_damaged_part_or_map(module_world: World, hub: HubProcess, name: str) -> None:
    """After a restart the file is right, whatever was left of its fill; no worker dies of it."""
    facts = half_filled(module_world, hub, 12 * MIB)
    DAMAGES[name](*files_of(module_world, facts), random.Random(name))
    module_world.nginx.start()
    client = Download(module_world, facts["main"]).done()  # bytes that are wrong on disk are found by the digest: cut, and fetched anew
    assert client.status in (200, 502, 503) and (not client.clean or client.status != 200 or client.sha256 == facts["sha256"])
    procs.wait_until("the file", lambda: Download(module_world, facts["main"]).done().sha256 == facts["sha256"], 60, every=0.2)
    whole(module_world, facts)
    forget(facts)


def test_a_blob_cut_short_or_emptied_is_fetched_again(module_world: World, hub: HubProcess) -> None:
    for size in (0, 1000):
        facts = fresh(hub, 2 * MIB)
        assert sha256(module_world.get(facts["main"], "reader").body) == facts["sha256"]
        path = whole(module_world, facts)
        os.chmod(path, 0o600)
        os.truncate(path, size)
        procs.wait_until("the right bytes", lambda: sha256(module_world.get(facts["main"], "reader").body) == facts["sha256"])


INDEX: dict[str, Callable[[Path], None]] = {
    "noise": lambda data: data.write_bytes(os.urandom(data.stat().st_size)),
    "flipped bytes": lambda data: flip(data, *random.Random(3).sample(range(data.stat().st_size), 400)),
    "meta pages": lambda data: flip(data, *range(16, 200, 3), *range(4112, 4300, 3)),
    "cut short": lambda data: os.truncate(data, 8192 + 100),
    "empty": lambda data: os.truncate(data, 0),
    "gone": lambda data: data.unlink(),
}


@pytest.mark.parametrize("name", list(INDEX))
def test_a_damaged_index(make_world: Callable[..., World], hub: HubProcess, name: str) -> None:
    """It grows anew; what was held as blobs is still right, tokens are read from data/ again, the gateway comes up by itself."""
    world = make_world(workers=2, private={})
    world.expect_log(r"\[alert\].*(exited on signal|left in connection|aborting)", min=0)
    facts = fresh(hub, 2 * MIB)
    assert world.get(facts["main"], "reader").status == 200
    whole(world, facts)
    world.nginx.stop()
    data = next((world.nginx.cache / "index").rglob("data.mdb"))
    INDEX[name](data)
    world.nginx.start()

    def right() -> bool:
        try:
            answer = world.get(facts["main"], "reader")
            return answer.status == 200 and sha256(answer.body) == facts["sha256"]
        except OSError:                                     # a worker that met the damage is replaced
            return False
    procs.wait_until("the file", right, 40)
    for _ in range(20):
        assert right()
        assert world.get("/api/whoami-v2", "reader").json()["name"] == "reader"
        assert world.get("/api/whoami-v2", "hf_gwp" + "a" * 48).status == 401


def test_an_index_damaged_while_it_is_used(make_world: Callable[..., World], hub: HubProcess) -> None:
    """Pages overwritten under running workers: at most those that touch them die, once, and the index is set aside."""
    world = make_world(workers=2, private={})
    world.expect_log(r"\[alert\].*(exited on signal|left in connection|aborting)", min=0)
    facts = fresh(hub, 2 * MIB)
    assert world.get(facts["main"], "reader").status == 200
    whole(world, facts)
    hub.wait_idle()
    data = next((world.nginx.cache / "index").rglob("data.mdb"))
    flip(data, *range(8192, data.stat().st_size, 97))

    def right() -> bool:
        try:
            answer = world.get(facts["main"], "reader")
            return answer.status == 200 and sha256(answer.body) == facts["sha256"]
        except OSError:
            return False
    procs.wait_until("the file again", right, 40)
    for _ in range(20):
        assert right()


@pytest.mark.parametrize("kind", ["tokens", "subjects"])
def test_a_damaged_token_or_subject_file_is_refused_and_logged(make_world: Callable[..., World], kind: str) -> None:
    world = make_world(private={})
    stranger = world.mint("stranger")
    assert world.get("/api/whoami-v2", stranger).status == 200
    folder = world.nginx.data / kind
    world.nginx.stop()
    world.nginx.drop_cache()                                # what the index remembers would hold for 30 s
    for path in folder.iterdir():
        flip(path, path.stat().st_size // 2)
    world.nginx.start()
    answer = world.get("/api/whoami-v2", "reader")
    assert answer.status == 401 and answer["x-error-message"] == "Invalid credentials in Authorization header"
    world.nginx.wait_log(rf"\[error\].*{kind[:-1]} file")
    again = world.mint("reader")                            # a new login mends it
    assert world.get("/api/whoami-v2", again).json()["name"] == "reader"


def test_an_edited_token_file_gives_no_rights(make_world: Callable[..., World]) -> None:
    """Role or expiry changed by hand: the MAC does not match, the token is refused."""
    world = make_world(private={})
    world.nginx.stop()
    world.nginx.drop_cache()
    for path in (world.nginx.data / "tokens").iterdir():
        text = path.read_text()
        assert '"role":"read"' in text or '"role":"write"' in text
        path.write_text(text.replace('"role":"read"', '"role":"write"').replace('"revoked":false', '"revoked":true'))
        give(path)
    world.nginx.start()
    assert world.get("/api/whoami-v2", "reader").status == 401
    world.nginx.wait_log(r"\[error\].*token file")


def test_a_newer_format_of_data_is_refused_with_a_sentence(make_world: Callable[..., World]) -> None:
    world = make_world(private={}, roles=["reader"])
    world.nginx.stop()
    version = world.nginx.data / "VERSION"
    old = version.read_text()
    version.write_text("999\n")
    refused = world.cli("token", "list", check=False)
    assert refused.returncode == 2 and "data format 999" in refused.stderr and "newer" in refused.stderr
    version.write_text(old)
    world.nginx.start()
    assert world.get("/api/whoami-v2", "reader").status == 200


def test_an_index_of_another_version_is_set_aside(make_world: Callable[..., World], hub: HubProcess) -> None:
    world = make_world(private={}, roles=["reader"])
    facts = fresh(hub, 1000)
    assert world.get(facts["main"], "reader").status == 200
    world.nginx.stop()
    versions = [path for path in world.nginx.cache.rglob("VERSION")]
    assert versions, list(world.nginx.cache.iterdir())
    for path in versions:
        path.write_text("999\n")
    world.nginx.start()
    world.nginx.wait_log(r"written by another version; set aside")
    assert sha256(world.get(facts["main"], "reader").body) == facts["sha256"]
