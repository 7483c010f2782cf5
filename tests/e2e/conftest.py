"""Fixtures of the end-to-end tests: a Hub and a directory for the session, worlds (nginx with the module) per test or module.

After every test, for every world it touched: no alarm in a log that was not declared (world.expect_log), no word of a
sanitizer, no secret in any log, and no process left when the world has ended.  See README.
"""

from __future__ import annotations

import re
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.lab import procs  # noqa: E402
from tests.lab.hubctl import HubProcess  # noqa: E402
from tests.lab.redis import Redis  # noqa: E402
from tests.lab.slapd import Slapd  # noqa: E402
from tests.lab.world import World  # noqa: E402

LIVE: list[World] = []           # worlds that outlive one test
KEPT_LOGS = ROOT / "build" / "e2e-logs"
COUNTS: Counter[str] = Counter()    # what tests count, printed at the end: COUNTS["upstream faults: scenarios"] += 1


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()            # type: ignore[attr-defined]
    if report.failed:
        item.failed_in = report.when         # type: ignore[attr-defined]


def pytest_sessionstart() -> None:
    shutil.rmtree(KEPT_LOGS, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for what, count in sorted(COUNTS.items()):
        terminalreporter.write_line(f"{what}: {count}")


def open_folder(prefix: str) -> Path:
    """A temporary folder that the workers' user may enter (pytest's own are closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def hub() -> Iterator[HubProcess]:
    """The lab's Hub, shared: add repositories under names of your own.  Faults and counts begin anew in each test."""
    folder = open_folder("hubgate-e2e-hub-")
    with HubProcess(folder, token="hf_" + secrets.token_hex(20)) as process:
        yield process
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slapd() -> Iterator[Slapd]:
    """The directory, shared: who changes people or groups does it on ones of their own, or changes them back."""
    folder = open_folder("hubgate-e2e-slapd-")
    server = Slapd(folder).start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis() -> Iterator[Redis]:
    """Redis for this test alone: make_world(redis=redis) is a node, make_world(node_of=first) another one."""
    folder = open_folder("hubgate-e2e-redis-")
    server = Redis(folder).start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def fresh_hub(request: pytest.FixtureRequest) -> Iterator[None]:
    wanted = {"hub", "world", "make_world", "module_world"} & set(request.fixturenames)
    if not wanted:
        yield
        return
    hub = request.getfixturevalue("hub")
    hub.heal()
    hub.reset_stats()
    yield
    hub.heal()


@pytest.fixture(autouse=True)
def quiet_logs(request: pytest.FixtureRequest) -> Iterator[None]:
    """The check of the worlds that live on after the test."""
    for world in LIVE:
        world.logs.reset()
    yield
    problems = [problem for world in LIVE for problem in complaints(world, request.node)]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def make_world(request: pytest.FixtureRequest, hub: HubProcess) -> Iterator[Callable[..., World]]:
    """make_world(workers=2, settings={"upstream.ttl": "0s"}, ...): the arguments of World; hub and directory are the shared
    ones unless given (`hub=None`, `slapd=None` for ones of its own)."""
    made: list[World] = []

    def make(**keys: Any) -> World:
        world = new_world(request, keys)
        made.append(world)
        return world.start()
    yield make
    problems = [problem for world in reversed(made) for problem in closing(world, request.node)]
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    """A world for this test alone: nothing cached, one worker, people from the directory."""
    return make_world()


@pytest.fixture(scope="module")
def module_world(request: pytest.FixtureRequest, hub: HubProcess) -> Iterator[World]:
    """One world for all tests of a module; a module-level WORLD = dict(workers=2) gives arguments."""
    world = new_world(request, dict(getattr(request.module, "WORLD", {})))
    world.start()
    world.logs.reset()
    LIVE.append(world)
    yield world
    LIVE.remove(world)
    world.logs.reset()
    if problems := closing(world, request.node):
        pytest.fail("\n".join(problems), pytrace=False)


def new_world(request: pytest.FixtureRequest, keys: dict[str, Any]) -> World:
    if "node_of" in keys:
        return World(**keys)
    if "hub" not in keys and "upstream" not in keys:
        keys["hub"] = request.getfixturevalue("hub")
    if "slapd" not in keys and keys.get("people", "ldap") == "ldap":
        keys["slapd"] = request.getfixturevalue("slapd")
    return World(**keys)


def complaints(world: World, node: pytest.Item) -> list[str]:
    problems = world.logs.problems()
    if problems or hasattr(node, "failed_in"):
        keep_logs(world, node)
    return problems


def closing(world: World, node: pytest.Item) -> list[str]:
    """End a world; what is wrong with how it ended, and with its logs."""
    problems = []
    if not world.stop():
        problems.append("nginx did not end within 15 s of SIGTERM")
    try:
        procs.wait_until("the end of all processes", lambda: not procs.living_in(world.folder), 5)
    except procs.LabError:
        problems += [f"left running: {pid} {line}" for pid, line in procs.living_in(world.folder)]
    problems += complaints(world, node)
    world.remove()
    return problems


def keep_logs(world: World, node: pytest.Item) -> None:
    """The logs of a failed test, where a person finds them."""
    folder = KEPT_LOGS / re.sub(r"[^\w.-]+", "_", node.nodeid)[-120:] / world.folder.name
    folder.mkdir(parents=True, exist_ok=True)
    for path in world.logs.files():
        shutil.copy(path, folder / path.name)
    for path in (world.nginx.conf, world.nginx.config_file):
        if path.exists():
            shutil.copy(path, folder / path.name)
    print(f"logs kept in {folder.relative_to(ROOT)}\n{world.nginx.tail()}")
