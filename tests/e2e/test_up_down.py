"""`python3 -m tests.lab up` and `down`, as a bench or a person uses them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, open_folder

from tests.lab import procs
from tests.lab.fetch import fetch
from tests.lab.hubctl import HubProcess


def lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.lab", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)


def as_role(up: dict, role: str, target: str, method: str = "GET"):
    return fetch(up["gateway"], target, method, {"Authorization": f"Bearer {up['tokens'][role]}"})


@pytest.mark.parametrize("people", ["ldap", "file"])
def test_up_answers_and_down_leaves_nothing(people: str) -> None:
    folder = open_folder("hubgate-e2e-up-")
    done = lab("up", "--json", "--workers", "2", "--people", people, "--set", "upstream.ttl=1s", "--dir", str(folder))
    assert done.returncode == 0, done.stderr
    up = json.loads(done.stdout)
    try:
        assert set(up) == {"gateway", "gateways", "hub", "ldap", "redis", "dir", "org", "pids", "tokens", "passwords"}
        assert up["gateways"] == [up["gateway"]] and up["org"] == "acme" and up["redis"] is None and up["dir"] == str(folder)
        assert set(up["pids"]) == {"nginx", "workers", "hub", "slapd", "redis"} and len(up["pids"]["workers"]) == 2
        assert (up["ldap"] is None) == (people == "file")
        assert set(up["tokens"]) == set(up["passwords"]) == {"reader", "writer", "admin", "stranger"}
        for role in up["tokens"]:
            assert as_role(up, role, "/api/whoami-v2").json()["name"] == role
        assert as_role(up, "stranger", "/demo/tiny-llm/resolve/main/config.json").status == 200
        assert as_role(up, "reader", "/acme/llm/resolve/main/config.json").status == 200
        assert as_role(up, "stranger", "/acme/llm/resolve/main/config.json").status in (403, 404)
        again = lab("up", "--dir", str(folder))
        assert again.returncode == 2 and "already" in again.stderr
    finally:
        down = lab("down", "--dir", str(folder))
    assert down.returncode == 0 and not procs.living_in(folder), down.stdout
    pids = [up["pids"][name] for name in ("nginx", "hub", "slapd") if up["pids"][name]] + up["pids"]["workers"]
    assert not [pid for pid in pids if str(folder) in procs.command_line(pid)]


def test_up_in_front_of_another_hub(hub: HubProcess, tmp_path: Path) -> None:
    folder = open_folder("hubgate-e2e-up-")
    other = HubProcess(tmp_path).start()             # any token is good there, none is needed
    done = lab("up", "--json", "--upstream", other.url, "--dir", str(folder))
    try:
        assert done.returncode == 0, done.stderr
        up = json.loads(done.stdout)
        assert up["hub"] == other.url and up["pids"]["hub"] is None
        for name in ("config.json", "model.safetensors"):
            answer = as_role(up, "reader", f"/demo/second-llm/resolve/main/{name}")
            assert answer.status == 200 and len(answer.body) == other.file("demo/second-llm", name)["size"]
    finally:
        lab("down", "--dir", str(folder))
        other.stop()


def test_what_up_refuses() -> None:
    assert lab("up", "--set", "nonsense").returncode == 2
    wrong = lab("up", "--set", "upstream.tll=1s")
    assert wrong.returncode == 1 and "tll" in wrong.stderr
    folder = Path(wrong.stderr.rpartition("stays in ")[2].strip().rstrip(")"))
    assert folder.exists() and not procs.living_in(folder)
    shutil.rmtree(folder)
