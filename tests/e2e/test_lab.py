"""The lab itself: its Hub says what huggingface.co says, to the real clients; its faults are what they are called.

The gateway has no part in this: when one of these fails, the failures of other tests mean little.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from clients import HF, python

from tests.lab.fetch import fetch
from tests.lab.hubctl import HubProcess
from tests.lab.slapd import Slapd, person_dn

MODEL = "/demo/medium/resolve/main/model.safetensors"


def client_env(hub: HubProcess, home: Path, token: str | None) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    return {**env, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1", **({"HF_TOKEN": token} if token else {})}


READ = """
import json, hashlib, os, sys
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
sha = lambda path: hashlib.sha256(open(path, "rb").read()).hexdigest()
api, out = HfApi(), {}
out["small"] = sha(hf_hub_download("demo/tiny-llm", "config.json"))
out["large"] = sha(hf_hub_download("demo/tiny-llm", "model.safetensors"))
out["alias"] = sha(hf_hub_download("gpt2", "config.json"))
folder = snapshot_download("demo/odd-names")
out["odd"] = {os.path.relpath(os.path.join(at, name), folder): sha(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names}
out["pr"] = os.path.exists(os.path.join(snapshot_download("demo/tiny-llm", revision="refs/pr/1"), "proposal.txt"))
info = api.model_info("demo/tiny-llm", files_metadata=True)
out["sha"] = info.sha
out["tree"] = len(list(api.list_repo_tree("demo/huge-tree", repo_type="dataset", recursive=True)))
out["branches"] = sorted(ref.name for ref in api.list_repo_refs("demo/tiny-llm").branches)
out["paths"] = [entry.path for entry in api.get_paths_info("demo/tiny-llm", ["config.json", "nope", "model.safetensors"])]
with HfFileSystem().open("demo/tiny-llm/model.safetensors") as file:
    file.seek(1000)
    out["range"] = file.read(16).hex()
def failure(call):
    try:
        call()
        return "none"
    except Exception as error:
        return type(error).__name__
out["errors"] = [failure(lambda: hf_hub_download("demo/tiny-llm", "nope.json")), failure(lambda: hf_hub_download("demo/none", "x")),
                 failure(lambda: hf_hub_download("demo/gated", "config.json")), failure(lambda: hf_hub_download("demo/tiny-llm", "x", revision="nope")),
                 failure(lambda: api.model_info("demo/disabled"))]
print(json.dumps(out))
"""


@pytest.mark.parametrize("client", list(HF))
def test_real_clients_read(hub: HubProcess, tmp_path: Path, client: str) -> None:
    done = python(client, READ, client_env(hub, tmp_path, hub.token))
    assert done.status == 0, done.text
    out = done.json
    small, large = hub.file("demo/tiny-llm", "config.json"), hub.file("demo/tiny-llm", "model.safetensors")
    assert (out["small"], out["large"], out["sha"]) == (small["sha256"], large["sha256"], small["commit"])
    assert out["alias"] == hub.file("openai-community/gpt2", "config.json")["sha256"]
    odd = hub.repo("demo/odd-names")
    assert out["odd"] == {path: file["sha256"] for path, file in odd["commits"][odd["branches"]["main"]]["files"].items()}
    assert out["pr"] and out["tree"] == 50_050 and out["branches"] == ["dev", "feature/x", "main"]
    assert out["paths"] == ["config.json", "model.safetensors"]
    gone = "EntryNotFoundError" if client in ("hf0203", "hf0302", "hf0362") else "RemoteEntryNotFoundError"
    disabled = "HfHubHTTPError" if client == "hf0203" else "DisabledRepoError"
    assert out["errors"] == [gone, "RepositoryNotFoundError", "GatedRepoError", "RevisionNotFoundError", disabled]
    kinds = {record["status"] for record in hub.requests("resolve", "/demo/tiny-llm/resolve/")}
    assert {302, 307} <= kinds
    assert all("authorization" not in {name.lower() for name in record["headers"]} for record in hub.requests("cdn"))


def test_answers_of_resolve(hub: HubProcess) -> None:
    small = fetch(hub.url, "/demo/tiny-llm/resolve/main/config.json", "HEAD")
    facts = hub.file("demo/tiny-llm", "config.json")
    assert small.status == 307 and str(small["location"]).startswith(f"/api/resolve-cache/models/demo/tiny-llm/{facts['commit']}/config.json?")
    assert small["x-repo-commit"] == facts["commit"]
    then = fetch(hub.url, str(small["location"]))
    assert then.status == 200 and then["etag"] == f'"{facts["oid"]}"' and len(then.body) == facts["size"]
    large = fetch(hub.url, MODEL, "HEAD")
    facts = hub.file("demo/medium", "model.safetensors")
    assert large.status == 302 and str(large["location"]).startswith(hub.cdn_url) and hub.cdn_url != hub.url
    assert large["x-linked-etag"] == f'"{facts["sha256"]}"' and large["x-linked-size"] == str(facts["size"]) and large["x-xet-hash"]
    pointer = fetch(hub.url, "/demo/medium/raw/main/model.safetensors")
    assert pointer.body == b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (facts["sha256"].encode(), facts["size"])


@pytest.mark.parametrize("target, token, status, code, message", [
    ("/api/models/demo/none", False, 401, None, "Invalid username or password."),
    ("/api/models/demo/none", True, 404, "RepoNotFound", "Repository not found"),
    ("/demo/gated/resolve/main/config.json", False, 401, "GatedRepo", "Access to model demo/gated is restricted."),
    ("/demo/gated/resolve/main/config.json", True, 403, "GatedRepo", "Access to model demo/gated is restricted and you are not"),
    ("/demo/gated-granted/resolve/main/model.safetensors", True, 302, None, ""),
    ("/demo/tiny-llm/resolve/nope/config.json", True, 404, "RevisionNotFound", "Invalid rev id: nope"),
    ("/demo/tiny-llm/resolve/main/nope", True, 404, "EntryNotFound", "Entry not found"),
    ("/api/models/demo/tiny-llm/tree/main/additional_chat_templates?recursive=false&expand=false", True, 404, "EntryNotFound", ""),
    ("/api/models/demo/disabled", True, 403, None, "Access to this resource is disabled."),
    ("/api/models/gpt2", True, 307, None, ""), ("/api/models/Demo/Tiny-LLM/revision/main", True, 307, None, ""),
    ("/old-org/old-name/resolve/main/config.json", True, 307, None, "")])
def test_refusals(hub: HubProcess, target: str, token: bool, status: int, code: str | None, message: str) -> None:
    answer = fetch(hub.url, target, headers={"Authorization": f"Bearer {hub.token}"} if token else {})
    assert (answer.status, answer["x-error-code"]) == (status, code)
    assert (answer["x-error-message"] or "").startswith(message)


def test_a_bad_token_is_refused_even_for_what_is_public(hub: HubProcess) -> None:
    answer = fetch(hub.url, "/api/models/demo/tiny-llm", headers={"Authorization": "Bearer hf_nobody"})
    assert (answer.status, answer["x-error-message"], answer["x-error-code"]) == (401, "Invalid credentials in Authorization header", None)


def cdn_target(hub: HubProcess) -> str:
    return str(fetch(hub.url, MODEL, "HEAD")["location"]).removeprefix(hub.cdn_url)


@pytest.mark.parametrize("fault, what", [
    ({"cut_after": 1000}, "18"), ({"cut_after": 1000, "reset": True}, "56"), ({"wrong_length": 7}, "18"), ({"hang": "body"}, "28"),
    ({"hang": "headers"}, "28"), ({"hang": "before"}, "28"), ({"status": 503, "retry_after": 3}, "503"), ({"header_bytes": 1_000_000}, "56"),
    ({"redirect_to": "{path}"}, "302"), ({"header_bytes_per_s": 20}, "28"), ({"endless": "x"}, "28"), ({"raw": ""}, "52"),
    ({"raw": "SSH-2.0-x\r\n"}, "1"), ({}, "200")])
def test_faults_seen_by_curl(hub: HubProcess, fault: dict, what: str) -> None:
    target = cdn_target(hub)
    if fault:
        hub.fault("xet-bridge", **fault)
    done = subprocess.run(["curl", "-q", "-s", "--noproxy", "*", "-m", "2", "--limit-rate", "100M", "-o", "/dev/null", "-w", "%{http_code}", hub.cdn_url + target],
                          capture_output=True, text=True)
    assert what == (str(done.returncode) if done.returncode else done.stdout)


def test_wrong_bytes_times_and_counts(hub: HubProcess) -> None:
    target, facts = cdn_target(hub), hub.file("demo/medium", "model.safetensors")
    hub.reset_stats()
    hub.fault("xet-bridge", wrong_bytes=[5_000_000], times=1)
    wrong, right = fetch(hub.cdn_url, target), fetch(hub.cdn_url, target)
    assert [index for index in (4_999_999, 5_000_000, 5_000_001) if wrong.body[index] != right.body[index]] == [5_000_000]
    assert hashlib.sha256(right.body).hexdigest() == facts["sha256"]
    part = fetch(hub.cdn_url, target, headers={"Range": "bytes=4999999-5000001"})
    assert part.status == 206 and part.body == right.body[4_999_999:5_000_002]
    assert part["content-range"] == f"bytes 4999999-5000001/{facts['size']}"
    beyond = fetch(hub.cdn_url, target, headers={"Range": f"bytes={facts['size']}-"})
    assert (beyond.status, beyond["content-range"]) == (416, f"bytes */{facts['size']}")
    hub.wait_idle()
    assert hub.content_bytes() == 2 * facts["size"] + 3 and len(hub.requests("cdn")) == 4


def test_git_gives_the_same_ids(hub: HubProcess, tmp_path: Path) -> None:
    for repo_id in ("demo/odd-names", "demo/tiny-llm"):
        repo = hub.repo(repo_id)
        main = repo["commits"][repo["branches"]["main"]]
        index = ""
        for path, file in main["files"].items():
            index += f"100644 {file['oid']}\t{path}\0"
        git = ["git", "-C", str(tmp_path)]
        subprocess.run([*git, "init", "-q"], check=True)
        subprocess.run([*git, "read-tree", "--empty"], check=True)
        subprocess.run([*git, "update-index", "-z", "--index-info"], input=index.encode(), check=True)
        tree = subprocess.run([*git, "write-tree", "--missing-ok"], capture_output=True, text=True, check=True).stdout.strip()
        assert tree == main["tree"]
    raw = fetch(hub.url, "/demo/tiny-llm/raw/main/config.json").body
    assert hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest() == hub.file("demo/tiny-llm", "config.json")["oid"]


def test_branches_move(hub: HubProcess) -> None:
    first = hub.add("lab/moving", {"a.txt": "one"})
    second = hub.commit("lab/moving", {"a.txt": "two"})
    assert fetch(hub.url, "/api/models/lab/moving").json()["sha"] == second
    hub.move("lab/moving", "main", first)
    assert fetch(hub.url, "/lab/moving/raw/main/a.txt").body == b"one"


def ldap(slapd: Slapd, name: str, password: str, url: str | None = None, *more: str) -> tuple[int, str]:
    done = subprocess.run(["ldapsearch", "-x", "-LLL", "-H", url or slapd.url, "-D", person_dn(name), "-w", password, "-b", person_dn(name), *more,
                           "memberOf"], capture_output=True, text=True, env={**os.environ, "LDAPTLS_CACERT": str(slapd.ca.file)})
    return done.returncode, done.stdout


def test_the_directory(slapd: Slapd) -> None:
    slapd.add_person("lab-kim", "secret of kim")
    slapd.join("lab-kim", "staff")
    status, out = ldap(slapd, "lab-kim", "secret of kim")
    assert status == 0 and "cn=staff,ou=groups" in out
    assert ldap(slapd, "lab-kim", "secret of kim", None, "-ZZ")[0] == 0 and ldap(slapd, "lab-kim", "secret of kim", slapd.tls_url)[0] == 0
    assert ldap(slapd, "lab-kim", "wrong")[0] == 49
    slapd.lock("lab-kim")
    assert ldap(slapd, "lab-kim", "secret of kim")[0] == 49
    slapd.lock("lab-kim", False)
    slapd.leave("lab-kim", "staff")
    status, out = ldap(slapd, "lab-kim", "secret of kim")
    assert status == 0 and "cn=staff" not in out
    slapd.remove(person_dn("lab-kim"))
