"""Public models, datasets and spaces, as the real clients of huggingface_hub read them through the gateway."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Callable, Iterator

import pytest
from clients import HF, OLDEST, WITH_COMMAND, curl, hf, python, terminal

from tests.lab.hubctl import HubProcess
from tests.lab.world import ORG, REASON, World

WORLD = {"workers": 2}
DOTTED = ("x-xet-hash", "xethash", "xetenabled", "x-xet-cas-url", "xet-auth", "reconstruction")
LOGIN = "Log in: hf auth login, or set HF_TOKEN"

READ = r"""
import hashlib, json, os
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
api, fs, out = HfApi(), HfFileSystem(), {}

def sha(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()

def folder(path):
    return {os.path.relpath(os.path.join(at, name), path): sha(os.path.join(at, name)) for at, _, names in os.walk(path) for name in names}

def op(run):
    try:
        out[run.__name__] = run()
    except Exception as error:
        out[run.__name__] = f"{type(error).__name__}: {error}"

@op
def small(): return sha(hf_hub_download("demo/tiny-llm", "config.json"))
@op
def large(): return sha(hf_hub_download("demo/tiny-llm", "model.safetensors"))
@op
def medium(): return sha(hf_hub_download("demo/medium", "model.safetensors"))
@op
def single_segment(): return [sha(hf_hub_download("gpt2", name)) for name in ("config.json", "model.safetensors")]
@op
def renamed(): return sha(hf_hub_download("old-org/old-name", "config.json"))
@op
def other_case(): return sha(hf_hub_download("Demo/Second-LLM", "config.json"))
@op
def at_tag(): return sha(hf_hub_download("demo/tiny-llm", "config.json", revision="v1.0"))
@op
def at_branch(): return sha(hf_hub_download("demo/tiny-llm", "notes.txt", revision="feature/x"))
@op
def snapshot(): return folder(snapshot_download("demo/sharded"))
@op
def snapshot_at_sha(): return folder(snapshot_download("demo/tiny-llm", revision=api.model_info("demo/tiny-llm", revision="v1.0").sha))
@op
def snapshot_of_pr(): return folder(snapshot_download("demo/tiny-llm", revision="refs/pr/1"))
@op
def odd_names(): return folder(snapshot_download("demo/odd-names", ignore_patterns=["quote*"]))
@op
def to_local_dir(): return sha(hf_hub_download("demo/second-llm", "model.safetensors", local_dir=os.environ["HOME"] + "/local"))
@op
def dataset(): return folder(snapshot_download("demo/tiny-data", repo_type="dataset"))
@op
def converted(): return sha(hf_hub_download("demo/tiny-data", "default/train/0000.parquet", repo_type="dataset", revision="refs/convert/parquet"))
@op
def space(): return folder(snapshot_download("demo/app", repo_type="space"))
@op
def info():
    it = api.model_info("demo/tiny-llm", files_metadata=True)
    return {"id": it.id, "sha": it.sha, "files": {each.rfilename: [each.size, each.blob_id, each.lfs and each.lfs["sha256"]] for each in it.siblings}}
@op
def infos(): return [api.dataset_info("demo/tiny-data").id, api.space_info("demo/app").id, api.model_info("gpt2").id]
@op
def info_by_keys(): return api.model_info("demo/tiny-llm", expand=["downloads", "sha"]).downloads
@op
def tree():
    return {each.path: [each.size, each.blob_id, each.lfs and each.lfs["sha256"], bool(getattr(each, "xet_hash", None))]
            for each in api.list_repo_tree("demo/sharded", recursive=True) if hasattr(each, "size")}
@op
def folders(): return sorted(each.path for each in api.list_repo_tree("demo/sharded"))
@op
def huge_tree(): return hashlib.sha256("\n".join(sorted(
    each.path for each in api.list_repo_tree("demo/huge-tree", repo_type="dataset", recursive=True) if hasattr(each, "size"))).encode()).hexdigest()
@op
def paths():
    found = api.get_paths_info("demo/tiny-llm", ["config.json", "nope", "model.safetensors"])
    return {each.path: [each.size, each.lfs and each.lfs["sha256"]] for each in found}
@op
def refs():
    it = api.list_repo_refs("demo/tiny-llm", include_pull_requests=True)
    return [sorted(each.name for each in group) for group in (it.branches, it.tags, it.pull_requests)]
@op
def commits(): return [each.title for each in api.list_repo_commits("demo/tiny-llm")]
@op
def exists(): return [api.file_exists("demo/tiny-llm", "config.json"), api.file_exists("demo/tiny-llm", "nope"), api.repo_exists("demo/none"),
                      api.revision_exists("demo/tiny-llm", "v1.0"), api.revision_exists("demo/tiny-llm", "nope")]
@op
def auth_check(): return api.auth_check("demo/tiny-llm")
@op
def whoami():
    it = api.whoami()
    return [it["name"], it["auth"]["accessToken"]["role"], [org["name"] for org in it["orgs"]]]
@op
def ranges():
    with fs.open("demo/medium/model.safetensors", block_size=1 << 16) as file:
        parts = []
        for at, n in ((0, 16), (5_000_001, 1000), (67_000_000, 70_000)):
            file.seek(at)
            parts.append(hashlib.sha256(file.read(n)).hexdigest())
    return parts
@op
def get_file():
    fs.get_file("demo/second-llm/model.safetensors", os.environ["HOME"] + "/got")
    return sha(os.environ["HOME"] + "/got")
@op
def listing(): return sorted(each["name"] for each in fs.ls("datasets/demo/tiny-data/data"))
print(json.dumps(out))
"""

FAIL = r"""
import json, sys
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
api, out = HfApi(), {}
CASES = {
    "entry": lambda: hf_hub_download("demo/tiny-llm", "nope.json"),
    "revision": lambda: hf_hub_download("demo/tiny-llm", "config.json", revision="nope"),
    "repo": lambda: hf_hub_download("demo/none", "config.json"),
    "snapshot of no repo": lambda: snapshot_download("demo/none"),
    "blocked": lambda: hf_hub_download("evil/pickles", "config.json"),
    "blocked snapshot": lambda: snapshot_download("evil/pickles"),
    "blocked info": lambda: api.model_info("evil/pickles"),
    "blocked tree": lambda: list(api.list_repo_tree("evil/pickles")),
    "gated": lambda: hf_hub_download("demo/gated", "model.safetensors"),
    "private": lambda: hf_hub_download("acme/llm", "config.json"),
    "private snapshot": lambda: snapshot_download("acme/llm"),
    "whoami": lambda: api.whoami()["name"],
    "xet token": lambda: api._build_hf_headers() and __import__("huggingface_hub").utils.hf_raise_for_status(
        __import__("huggingface_hub").utils.get_session().get(api.endpoint + "/api/models/demo/tiny-llm/xet-read-token/main", headers=api._build_hf_headers())),
}
for name, run in CASES.items():
    try:
        out[name] = ["", str(run())]
    except Exception as error:
        out[name] = [type(error).__name__, str(error), str(error.__cause__)]
print(json.dumps(out))
"""


@dataclass
class Reads:
    client: str
    out: dict[str, Any]
    text: str
    requests: list[dict]


@pytest.fixture(scope="module", params=[name for name in HF if name != OLDEST])
def reads(request: pytest.FixtureRequest, module_world: World, hub: HubProcess) -> Iterator[Reads]:
    """Everything one client reads, in one process of it; the tests say what is right about it."""
    hub.reset_stats()
    done = python(request.param, READ, module_world.env("reader"), timeout=240)
    assert done.status == 0, done.text
    hub.wait_idle()
    yield Reads(request.param, done.json, done.text, hub.requests())


def truth(hub: HubProcess, repo: str, revision: str = "main", type: str = "model") -> dict[str, dict]:
    """The files of a commit, as the Hub knows them."""
    it = hub.repo(repo, type)
    sha = it["branches"].get(revision) or it["tags"].get(revision) or it["converts"].get(revision.rpartition("/")[2]) \
        or it["prs"].get(revision.rpartition("/")[2])
    return it["commits"][sha]["files"]


def digests(files: dict[str, dict]) -> dict[str, str]:
    return {path: file["sha256"] for path, file in files.items()}


def test_single_files_are_the_hubs_bytes(reads: Reads, hub: HubProcess) -> None:
    out, tiny = reads.out, truth(hub, "demo/tiny-llm")
    assert out["small"] == tiny["config.json"]["sha256"]
    assert out["large"] == tiny["model.safetensors"]["sha256"]
    assert out["medium"] == truth(hub, "demo/medium")["model.safetensors"]["sha256"]
    assert out["to_local_dir"] == out["get_file"] == truth(hub, "demo/second-llm")["model.safetensors"]["sha256"]


def test_other_names_of_a_repository(reads: Reads, hub: HubProcess) -> None:
    gpt2 = truth(hub, "openai-community/gpt2")
    assert reads.out["single_segment"] == [gpt2["config.json"]["sha256"], gpt2["model.safetensors"]["sha256"]]
    assert reads.out["renamed"] == truth(hub, "demo/renamed")["config.json"]["sha256"]
    assert reads.out["other_case"] == truth(hub, "demo/second-llm")["config.json"]["sha256"]


def test_revisions(reads: Reads, hub: HubProcess) -> None:
    out = reads.out
    assert out["at_tag"] == truth(hub, "demo/tiny-llm", "v1.0")["config.json"]["sha256"] != out["small"]
    assert out["at_branch"] == truth(hub, "demo/tiny-llm", "feature/x")["notes.txt"]["sha256"]
    assert out["snapshot_at_sha"] == digests(truth(hub, "demo/tiny-llm", "v1.0"))
    assert out["snapshot_of_pr"] == digests(truth(hub, "demo/tiny-llm", "refs/pr/1")) and "proposal.txt" in out["snapshot_of_pr"]


def test_snapshots_are_whole(reads: Reads, hub: HubProcess) -> None:
    assert reads.out["snapshot"] == digests(truth(hub, "demo/sharded"))
    odd = digests(truth(hub, "demo/odd-names"))
    assert reads.out["odd_names"] == {path: sha for path, sha in odd.items() if "\\" not in path}      # a path on Windows: refused, see test_http
    empty = hashlib.sha256(b"").hexdigest()
    assert reads.out["odd_names"]["empty.txt"] == reads.out["odd_names"]["empty.bin"] == empty


def test_datasets_and_spaces(reads: Reads, hub: HubProcess) -> None:
    assert reads.out["dataset"] == digests(truth(hub, "demo/tiny-data", type="dataset"))
    assert reads.out["converted"] == truth(hub, "demo/tiny-data", "refs/convert/parquet", "dataset")["default/train/0000.parquet"]["sha256"]
    assert reads.out["space"] == digests(truth(hub, "demo/app", type="space"))
    assert reads.out["infos"] == ["demo/tiny-data", "demo/app", "openai-community/gpt2"]
    assert reads.out["listing"] == ["datasets/demo/tiny-data/data/blob.bin", "datasets/demo/tiny-data/data/train.csv"]


def test_info_says_what_the_hub_says(reads: Reads, hub: HubProcess) -> None:
    files = truth(hub, "demo/tiny-llm")
    info = reads.out["info"]
    assert (info["id"], info["sha"]) == ("demo/tiny-llm", hub.file("demo/tiny-llm", "config.json")["commit"])
    assert info["files"] == {path: [file["size"], file["oid"], file["sha256"] if file["lfs"] else None] for path, file in files.items()}
    assert reads.out["info_by_keys"] == 1200


def test_trees_and_paths(reads: Reads, hub: HubProcess) -> None:
    files = truth(hub, "demo/sharded")
    assert reads.out["tree"] == {path: [file["size"], file["oid"], file["sha256"] if file["lfs"] else None, False] for path, file in files.items()}
    assert reads.out["folders"] == sorted({path.partition("/")[0] for path in files})
    tiny = truth(hub, "demo/tiny-llm")
    assert reads.out["paths"] == {path: [tiny[path]["size"], tiny[path]["sha256"] if tiny[path]["lfs"] else None]
                                  for path in ("config.json", "model.safetensors")}


def test_a_tree_of_fifty_thousand_files_comes_in_pages(reads: Reads, hub: HubProcess) -> None:
    paths = sorted(truth(hub, "demo/huge-tree", type="dataset"))
    assert len(paths) == 50_000 and reads.out["huge_tree"] == hashlib.sha256("\n".join(paths).encode()).hexdigest()


def test_refs_commits_and_what_exists(reads: Reads) -> None:
    assert reads.out["refs"] == [["dev", "feature/x", "main"], ["v1.0"], ["1"]]
    assert reads.out["commits"] == ["Better config", "First version"]
    assert reads.out["exists"] == [True, False, False, True, False]
    assert reads.out["auth_check"] is None


def test_whoami(reads: Reads) -> None:
    assert reads.out["whoami"] == ["reader", "read", [ORG]]


def test_a_file_system_reads_ranges(reads: Reads, hub: HubProcess) -> None:
    with open(hub.file("demo/medium", "model.safetensors")["path"], "rb") as file:
        expected = []
        for at, n in ((0, 16), (5_000_001, 1000), (67_000_000, 70_000)):
            file.seek(at)
            expected.append(hashlib.sha256(file.read(n)).hexdigest())
    assert reads.out["ranges"] == expected


def test_clients_never_reach_the_hub_themselves(reads: Reads, hub: HubProcess, module_world: World) -> None:
    """Everything that arrives there is the gateway's own, with the organization's token to the Hub and none to the other host."""
    assert len(reads.requests) > 10 or reads.client != list(HF)[1]
    for record in reads.requests:
        headers = {name.lower(): value for name, value in record["headers"].items()}
        assert "hubgate" in headers.get("via", ""), record
        assert headers.get("authorization") == (f"Bearer {hub.token}" if record["host"] == "hub" else None), record
        assert not any(token in str(headers) for token in module_world.tokens.values())
        assert "xet-read-token" not in record["target"]


def test_no_client_is_led_to_xet(reads: Reads) -> None:
    assert "xet" not in reads.text.lower().replace("hf_xet", "").replace("[f", ""), reads.text[-500:]


@pytest.mark.parametrize("target, method", [
    ("/demo/tiny-llm/resolve/main/model.safetensors", "HEAD"), ("/demo/tiny-llm/resolve/main/model.safetensors", "GET"),
    ("/api/models/demo/tiny-llm?blobs=true", "GET"), ("/api/models/demo/tiny-llm/revision/main?blobs=true", "GET"),
    ("/api/models/demo/tiny-llm?expand=siblings&expand=xetEnabled&expand=sha", "GET"), ("/api/models/demo/tiny-llm/tree/main", "GET"),
    ("/api/models/demo/tiny-llm/tree/main?recursive=true&expand=true", "GET"), ("/api/models/demo/tiny-llm/paths-info/main", "POST")])
def test_no_answer_names_xet(module_world: World, target: str, method: str) -> None:
    body = b"paths=model.safetensors&paths=config.json&expand=true" if method == "POST" else None
    answer = module_world.get(target, "reader", method, headers={"Accept": "application/vnd.xet-fileinfo+json, */*",
                                                                 **({"Content-Type": "application/x-www-form-urlencoded"} if body else {})}, body=body)
    assert answer.status == 200 and (method != "HEAD" or answer["content-length"] != "0")
    seen = str(answer.headers).lower() + ("" if "resolve" in target else answer.text.lower())
    assert not [word for word in DOTTED if word in seen], seen[:600]


def test_both_spellings_of_a_pull_request(module_world: World, hub: HubProcess) -> None:
    proposal = truth(hub, "demo/tiny-llm", "refs/pr/1")["proposal.txt"]
    for ref in ("refs%2Fpr%2F1", "refs/pr/1"):
        done = curl("-f", "-H", f"Authorization: Bearer {module_world.tokens['reader']}", f"{module_world.url}/demo/tiny-llm/resolve/{ref}/proposal.txt")
        assert done.status == 0 and hashlib.sha256(done.out.encode()).hexdigest() == proposal["sha256"]
        tree = module_world.get(f"/api/models/demo/tiny-llm/tree/{ref}", "reader")
        assert tree.status == 200 and "proposal.txt" in {entry["path"] for entry in tree.json()}
        assert module_world.get(f"/api/models/demo/tiny-llm/revision/{ref}", "reader").json()["id"] == "demo/tiny-llm"


@pytest.fixture(scope="module", params=list(HF))
def failures(request: pytest.FixtureRequest, module_world: World) -> Callable[[str | None], dict]:
    """What the user of one client reads when something is refused, as one of the people or as nobody (None)."""
    known: dict[str | None, dict] = {}

    def run(role: str | None) -> dict:
        if role not in known:
            done = python(request.param, FAIL, module_world.env(role), timeout=240)
            assert done.status == 0, done.text
            known[role] = {**done.json, "printed": done.text}
        return known[role]
    return run


def test_what_is_missing_is_said_so(failures: Callable[[str | None], dict]) -> None:
    seen = failures("stranger")
    assert seen["entry"][0].endswith("EntryNotFoundError") and "404" in seen["entry"][1]
    assert seen["revision"][0] == "RevisionNotFoundError" and "Invalid rev id: nope" in seen["revision"][1]
    for name in ("repo", "snapshot of no repo", "private", "private snapshot"):
        assert seen[name][0] == "RepositoryNotFoundError" and "repository not found" in seen[name][1].lower(), seen[name]
    assert seen["whoami"] == ["", "stranger"]


def test_the_reason_of_a_rule_is_shown(failures: Callable[[str | None], dict]) -> None:
    seen = failures("stranger")
    for name in ("blocked", "blocked snapshot", "blocked info", "blocked tree"):
        assert seen[name][0] == "GatedRepoError" and REASON in seen[name][1], seen[name]


def test_what_upstream_restricts_is_said_so(failures: Callable[[str | None], dict]) -> None:
    seen = failures("stranger")["gated"]
    assert seen[0] == "GatedRepoError" and "this gateway's account has no access to it" in seen[1]


def test_who_is_not_logged_in_is_told_to(failures: Callable[[str | None], dict]) -> None:
    seen = failures(None)
    for name in ("entry", "repo", "snapshot of no repo", "private", "private snapshot"):
        assert seen[name][0] == "GatedRepoError" and LOGIN in seen[name][1], seen[name]


def test_a_token_that_is_not_known_is_said_so(failures: Callable[[str | None], dict]) -> None:
    for token in ("hf_" + "x" * 34, "hf_gwp" + "a" * 48):
        seen = failures(token)
        for name in ("entry", "snapshot of no repo"):
            assert "Invalid credentials in Authorization header" in " ".join(seen[name]), seen[name]
        assert seen["whoami"][0] and "Invalid" in " ".join(seen["whoami"])


def test_an_old_xet_id_is_answered_with_what_to_do(failures: Callable[[str | None], dict]) -> None:
    assert "HF_HUB_DISABLE_XET=1" in failures("stranger")["xet token"][1]


@pytest.mark.parametrize("client", WITH_COMMAND)
def test_hf_in_a_terminal(module_world: World, hub: HubProcess, client: str) -> None:
    env = module_world.env("reader")
    done = terminal(client, env, "download", "demo/sharded", "--local-dir", env["HOME"] + "/model")
    assert done.status == 0, done.text
    for path, sha in digests(truth(hub, "demo/sharded")).items():
        with open(f"{env['HOME']}/model/{path}", "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == sha
    who = terminal(client, env, "auth", "whoami")
    assert who.status == 0 and "reader" in who.out and ORG in who.out
    refused = terminal(client, env, "download", "evil/pickles")
    assert refused.status != 0 and REASON in " ".join(refused.text.split()), refused.text
    gone = hf(client, env, "download", "demo/none")
    assert gone.status != 0 and "not found" in gone.text.lower()
    nobody = terminal(client, module_world.env(None), "download", "demo/sharded", "config.json")
    assert nobody.status != 0 and LOGIN in " ".join(nobody.text.split()), nobody.text
