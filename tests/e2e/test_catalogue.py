"""Lists of repositories: private ones in front of the Hub's, by the real clients; who sees what; pages; what happens without the Hub."""

from __future__ import annotations

import json
import shutil
from typing import Any, Callable
from urllib.parse import quote

import pytest
from clients import python
from test_js import node

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.fetch import Response
from tests.lab.world import World, sample_policy


def card(**fields: Any) -> str:
    return "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in fields.items()) + "---\n# It\n"


PRIVATE = {
    "acme/bert-law": {"README.md": card(license="mit", pipeline_tag="fill-mask", library_name="transformers", tags=["law"], language=["en", "de"],
                                        base_model="google-bert/bert-base-uncased", datasets=["acme/cases"]),
                      "config.json": "{}", "model.safetensors": "weights"},
    "acme/bert-small": {"README.md": card(tags=["law"], base_model="acme/bert-law", base_model_relation="quantized"), "model.gguf": "q"},
    "acme/odd": {"README.md": "---\nlicense: [mit\n---\n", "config.json": "{}"},
    "acme/hidden": {"README.md": card(tags=["law"]), "config.json": "{}"},
}
POLICY = sample_policy()
POLICY["rules"] += [
    {"id": "hidden", "deny": ["discover"], "to": ["group:staff"], "where": {"hub": "private", "repo": "acme/hidden"}},
    {"id": "writers-delete", "allow": ["delete"], "to": ["group:writers"], "where": {"hub": "private", "repo": "acme/*"}}]
WORLD: dict = {"workers": 2, "policy": POLICY, "private": PRIVATE, "settings": {"upstream.ttl": "1s"}}
PUBLIC = [f"me/bert-{n}" for n in range(7)]


@pytest.fixture(autouse=True)
def listed(module_world: World) -> None:
    assert module_world.hub
    for n, name in enumerate(PUBLIC):
        module_world.hub.add(name, {"config.json": "{}"}, downloads=100 - n)
    whole(module_world)


def whole(world: World) -> None:
    """The catalogue was swept: no list says that it is being built."""
    procs.wait_until("the catalogue is whole", lambda: "being built" not in str(world.get("/api/models?limit=1", "reader").headers))


def ids(got: Response) -> list[str]:
    assert got.status == 200, (got.status, got.body)
    return [each["id"] for each in json.loads(got.body)]


def pages(world: World, target: str, who: str, between: Callable[[], None] = lambda: None) -> list[list[str]]:
    """All pages, by their links."""
    out: list[list[str]] = []
    while target:
        got = world.get(target, who)
        out.append(ids(got))
        link = got.headers.get("link")
        if not link:
            break
        url, _, rel = link.partition(">")
        assert url.startswith("<" + world.url + "/api/") and rel == '; rel="next"' and "," not in link, link
        target = url[1 + len(world.url):]
        between()
    return out


LIST = r"""
import json, sys
from huggingface_hub import HfApi
api, out = HfApi(), {}
many = dict(author="acme")
out["author"] = [each.id for each in api.list_models(**many)]
out["search"] = [each.id for each in api.list_models(search="bert", limit=6)]
out["filter"] = [each.id for each in api.list_models(filter="law")]
out["two"] = [each.id for each in api.list_models(filter=["law", "fill-mask"])]
out["base"] = [each.id for each in api.list_models(filter="base_model:quantized:acme/bert-law")]
first = next(iter(api.list_models(author="acme", full=True, filter="fill-mask", cardData=True)))
out["info"] = {"private": first.private, "tags": first.tags, "pipeline": first.pipeline_tag, "library": first.library_name, "sha": first.sha,
               "files": sorted(each.rfilename for each in first.siblings or []), "downloads": first.downloads,
               "card": (first.card_data or {}).get("license"), "created": str(first.created_at)}
out["sorted"] = [each.id for each in api.list_models(author="acme", sort="created_at")]
out["datasets"] = [each.id for each in api.list_datasets(author="acme")]
out["spaces"] = [each.id for each in api.list_spaces(author="acme")]
out["expand"] = [each.downloads for each in api.list_models(author="acme", expand=["downloads"])]
print(json.dumps(out))
"""


@pytest.mark.parametrize("client", ["hf0362", "hf133", "hf240"])
def test_clients(module_world: World, client: str) -> None:
    done = python(client, LIST, module_world.env("reader"))
    assert done.status == 0, done.text
    out = done.json
    assert sorted(out["author"]) == ["acme/bert-law", "acme/bert-small", "acme/odd"]
    assert set(out["search"][:2]) == {"acme/bert-law", "acme/bert-small"} and out["search"][2:] == PUBLIC[:4]
    assert set(out["filter"]) == {"acme/bert-law", "acme/bert-small"} and out["two"] == ["acme/bert-law"] and out["base"] == ["acme/bert-small"]
    info = out["info"]
    assert info["private"] and info["pipeline"] == "fill-mask" and info["library"] == "transformers" and len(info["sha"]) == 40 and info["card"] == "mit"
    assert {"law", "en", "de", "license:mit", "dataset:acme/cases", "safetensors", "base_model:google-bert/bert-base-uncased",
            "base_model:finetune:google-bert/bert-base-uncased"} <= set(info["tags"])
    assert info["files"] == [".gitattributes", "README.md", "config.json", "model.safetensors"] and info["created"].startswith("20")
    assert sorted(out["sorted"]) == sorted(out["author"]) and out["datasets"] == out["spaces"] == [] and len(out["expand"]) == 3


LIST_JS = r"""
const hub = await import("@huggingface/hub");
const keys = { hubUrl: process.env.HF_ENDPOINT, accessToken: process.env.HF_TOKEN }, out = {};
const all = async (rows) => { const found = []; for await (const row of rows) found.push(row); return found; };
const models = await all(hub.listModels({ ...keys, search: { query: "bert" }, limit: 5, additionalFields: ["tags", "library_name"] }));
out.names = models.map((each) => each.name);
out.first = models.filter((each) => each.name === "acme/bert-law").map((each) => [each.private, each.task, each.library_name, each.tags.includes("law")]);
out.owner = (await all(hub.listModels({ ...keys, search: { owner: "acme", tags: ["law", "fill-mask"] } }))).map((each) => each.name);
out.datasets = (await all(hub.listDatasets({ ...keys, search: { owner: "acme" } }))).length;
console.log(JSON.stringify(out));
"""


def test_javascript(module_world: World) -> None:
    done = node(module_world.env("reader"), LIST_JS)
    assert done.status == 0, done.text
    assert sorted(done.json["names"][:2]) == ["acme/bert-law", "acme/bert-small"] and done.json["names"][2:] == PUBLIC[:3]
    assert done.json["first"] == [[True, "fill-mask", "transformers", True]] and done.json["owner"] == ["acme/bert-law"] and done.json["datasets"] == 0


def test_pages_are_exact(module_world: World) -> None:
    for limit in (1, 2, 3, 5, 100):
        got = pages(module_world, f"/api/models?search=bert&limit={limit}", "reader")
        assert [each for page in got for each in page][2:] == PUBLIC and all(len(page) <= limit for page in got), got
        assert set(got[0][:2]) <= {"acme/bert-law", "acme/bert-small"}
    ours = [each for page in pages(module_world, "/api/models?author=acme&limit=1&sort=createdAt", "reader") for each in page]
    back = [each for page in pages(module_world, "/api/models?author=acme&limit=1&sort=createdAt&direction=1", "reader") for each in page]
    assert back == ours[::-1] and len(ours) == 3


def test_cursor(module_world: World) -> None:
    link = module_world.get("/api/models?search=bert&limit=1", "reader").headers["link"]
    cursor = link.partition("cursor=")[2].partition(">")[0]
    assert module_world.get(f"/api/models?search=bert&limit=1&cursor={cursor}", "reader").status == 200
    for other in (f"search=bert&limit=1&cursor={cursor[:-1]}0x", f"search=other&limit=1&cursor={cursor}", "cursor=x", "cursor=" + "a" * 24 + ".u0.",
                  "cursor=" + "0" * 24 + ".p1." + "0" * 32):
        got = module_world.get(f"/api/models?{other}", "reader")
        assert got.status == 400 and b"begin the list anew" in got.body, (other, got.body)
    assert module_world.get(f"/api/datasets?search=bert&limit=1&cursor={cursor}", "reader").status == 400


def test_strangers_see_and_count_nothing(module_world: World) -> None:
    assert module_world.hub
    for who in ("stranger", "reader"):
        got = pages(module_world, "/api/models?filter=law&limit=1", who)
        assert got == ([[]] if who == "stranger" else got) and not any("acme/hidden" in page for page in got)
    assert pages(module_world, "/api/models?search=bert&limit=3", "stranger") == [PUBLIC[:3], PUBLIC[3:6], PUBLIC[6:]]
    got = module_world.get("/api/models?search=bert&limit=3")
    assert ids(got) == []  # nobody who is not logged in may see anything here
    for who, status in (("reader", 200), ("stranger", 404), (None, 404)):
        assert module_world.get("/api/organizations/acme/overview", who).status == status
    assert json.loads(module_world.get("/api/organizations/acme/overview", "reader").body)["name"] == "acme"
    for who, roles in (("reader", ["read"]), ("writer", ["write"]), ("stranger", [])):
        got = json.loads(module_world.get("/api/whoami-v2", who).body)
        assert [each["roleInOrg"] for each in got["orgs"]] == roles, (who, got)


def test_made_changed_deleted(module_world: World) -> None:
    world = module_world
    env = {**world.env("writer"), "HF_HUB_DISABLE_XET": "1"}
    code = r"""
import json, sys
from huggingface_hub import HfApi
api, out = HfApi(), []
def seen():
    out.append([each.id for each in api.list_models(filter="freshly")])
api.create_repo("acme/fresh", private=True)
names = [each.id for each in api.list_models(author="acme", limit=1)]
seen()
api.upload_file(path_or_fileobj=b"---\ntags: [freshly]\n---\n", path_in_repo="README.md", repo_id="acme/fresh")
seen()
api.create_repo("acme/second", private=True)
api.upload_file(path_or_fileobj=b"---\ntags: [freshly]\n---\n", path_in_repo="README.md", repo_id="acme/second")
seen()
api.delete_repo("acme/fresh")
seen()
api.upload_file(path_or_fileobj=b"# none\n", path_in_repo="README.md", repo_id="acme/second")
seen()
print(json.dumps([names, out]))
"""
    done = python("hf240", code, env)
    assert done.status == 0, done.text
    assert done.json == [["acme/fresh"], [[], ["acme/fresh"], ["acme/second", "acme/fresh"], ["acme/second"], []]]
    world.cli("repo", "undelete", "acme/fresh")
    assert ids(world.get("/api/models?filter=freshly", "reader")) == ["acme/fresh"]


def test_one_call_for_everybody(module_world: World) -> None:
    assert module_world.hub
    module_world.configure({"upstream.ttl": "60s"})
    for who in ("reader", "writer", "stranger", "reader"):
        assert ids(module_world.get("/api/models?search=bert-3&limit=20&new_filter=x", who)) == ["me/bert-3"]
    asked = [each for each in module_world.hub.requests("list") if "new_filter=x" in str(each)]
    assert len(asked) == 1, asked
    got = module_world.get("/api/models-tags-by-type", "reader")
    assert "library" in json.loads(got.body)


def test_downloads_are_counted(make_world: Callable[..., World], hub: HubProcess) -> None:
    world = make_world(people="file", private=PRIVATE)
    whole(world)
    for who in ("reader", "writer", "reader"):
        for path in ("config.json", "README.md"):
            assert world.get(f"/acme/bert-law/resolve/main/{path}", who).status == 200
    assert world.head("/acme/odd/resolve/main/config.json", "reader").status == 200
    world.nginx.reload()  # a worker that leaves writes down what it counted
    written = world.nginx.data / "repos/model/acme/bert-law.git/hubgate-downloads"
    procs.wait_until("the downloads are written", lambda: written.exists() and int(written.read_text()) == 2)
    world.cli("index", "rebuild")

    def counts() -> dict[str, int]:
        got = json.loads(world.get("/api/models?author=acme&sort=downloads", "reader").body)
        return {each["id"]: each["downloads"] for each in got}
    procs.wait_until("the downloads are counted", lambda: counts()["acme/bert-law"] == 2)
    assert next(iter(counts())) == "acme/bert-law" and counts()["acme/odd"] == 0


def test_without_the_hub_and_without_the_index(make_world: Callable[..., World]) -> None:
    world = make_world(people="file", private=PRIVATE, settings={"upstream.ttl": "0s", "upstream.stale_max": "0s"})
    assert world.hub
    whole(world)
    fault = world.hub.fault("/api/models", status=503)
    got = world.get("/api/models?limit=50", "reader")
    assert sorted(ids(got)) == sorted(PRIVATE) and "link" not in got.headers
    assert "only this gateway's own repositories are listed" in got.headers["x-hf-warning"]
    first = world.get("/api/models?limit=4", "reader")
    assert sorted(ids(first)) == sorted(PRIVATE)
    more = first.headers["link"].partition("<")[2].partition(">")[0].removeprefix(world.url)
    assert world.get(more, "reader").status == 503  # not an end that is none
    world.hub.heal(fault)
    # the index goes: the same again by itself
    world.nginx.stop()
    for each in world.nginx.cache.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    world.nginx.start()
    whole(world)
    assert sorted(ids(world.get("/api/models?author=acme", "reader"))) == sorted(PRIVATE)
    done = world.cli("index", "rebuild")
    assert done.returncode == 0 and "4 private repositories" in done.stdout, done.stdout + done.stderr
    shutil.rmtree(world.nginx.data / "repos/model/acme/odd.git")  # by other hands
    world.cli("index", "rebuild")
    assert "acme/odd" not in ids(world.get(f"/api/models?search={quote('acme/')}", "reader"))
