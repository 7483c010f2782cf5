"""deploy/quickstart as a newcomer uses it: the printed lines are pasted, it is stopped, and started again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from clients import HF
from conftest import ROOT, open_folder

from tests.lab import procs
from tests.lab.fetch import fetch

QUICKSTART = ROOT / "deploy" / "quickstart"
pytestmark = pytest.mark.skipif("HUBGATE_MODULE" in os.environ, reason="quickstart builds and uses what a newcomer would")


def quickstart(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([QUICKSTART, "--dir", folder, *arguments], capture_output=True, text=True, timeout=280, stdin=subprocess.DEVNULL)


@pytest.fixture
def folder() -> Iterator[Path]:
    parent = open_folder("hubgate-e2e-quick-")
    yield parent / "quick"
    quickstart(parent / "quick", "--stop")
    assert not procs.living_in(parent)
    shutil.rmtree(parent)


def paste(line: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A printed line, in a shell with hf in PATH."""
    env = {"PATH": f"{HF['hf240'] / 'bin'}:{os.environ['PATH']}", "HOME": str(home), "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
           "no_proxy": "*"}
    return subprocess.run(["bash", "-c", line], env=env, cwd=ROOT, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_the_first_hour(folder: Path, tmp_path: Path) -> None:
    begun = quickstart(folder, "--demo-hub")
    assert begun.returncode == 0, begun.stderr
    lines = begun.stdout.splitlines()
    public, private, refused = [line for line in lines if line.startswith("HF_ENDPOINT=")]
    for line, repo in ((public, "demo/tiny-llm"), (private, "acme/llm")):
        done = paste(line, tmp_path)
        assert done.returncode == 0 and repo in line, done.stdout + done.stderr
    sentence = lines[lines.index(refused) - 1].strip("# ")
    done = paste(refused, tmp_path)
    assert done.returncode != 0 and sentence in done.stdout + done.stderr, done.stdout + done.stderr
    minted = json.loads(paste(next(line for line in lines if line.startswith("curl ")), tmp_path).stdout)
    url = public.split()[0].partition("=")[2]
    cy = {"Authorization": f"Bearer {minted['token']}"}
    assert fetch(url, "/api/whoami-v2", headers=cy).json()["name"] == "cy"
    hidden, absent = (fetch(url, f"/api/models/acme/{name}", headers=cy) for name in ("llm", "nothing"))
    assert hidden.status == absent.status == 404 and hidden.body == absent.body
    explained = paste(next(line for line in lines if " explain " in line), tmp_path)
    assert explained.stdout.startswith("deny: read model:acme/llm") and sentence in explained.stdout

    again = quickstart(folder)
    assert again.returncode == 0 and again.stdout.splitlines()[0] == "It runs already." and public in again.stdout
    rules = folder / "policy.d" / "acme.yaml"
    rules.write_text(rules.read_text().replace("Ask ann@example.org to be added.", "Ask at the desk."))
    reloaded = paste(f"build/hubgate -c {folder}/hubgate.yaml reload --pid-file {folder}/nginx.pid", tmp_path)
    assert reloaded.returncode == 0, reloaded.stderr
    procs.wait_until("the new rules", lambda: "Ask at the desk." in quickstart(folder).stdout)
    stopped = quickstart(folder, "--stop")
    assert stopped.returncode == 0 and not procs.living_in(folder), stopped.stdout
    assert "nothing" in quickstart(folder, "--stop").stdout
    started = quickstart(folder)
    assert started.returncode == 0 and public in started.stdout and "Ask at the desk." in started.stdout, started.stderr
    assert paste(private, tmp_path).returncode == 0


def test_a_folder_of_somebody_else(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("x")
    done = quickstart(folder, "--demo-hub")
    assert done.returncode == 1 and "another --dir" in done.stderr and sorted(folder.iterdir()) == [folder / "thesis.txt"]
    assert quickstart(folder, "--nonsense").returncode == 2
