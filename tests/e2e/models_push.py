"""push_to_hub of transformers and sentence-transformers: pushed by one person, loaded by another one, the same numbers (`make e2e-models`)."""

from __future__ import annotations

import json
from typing import Any

from clients import BUILD, run
from models import CHECKPOINTS, NAMES, VALUES, load

from tests.lab.world import ORG, World

PUSHED = ("ast", "bert", "minilm", "vit", "clip")
WORLD: dict = {"workers": 2}

PUSH = r"""
import json, sys
from sentence_transformers import SentenceTransformer
from transformers import (ASTForAudioClassification, AutoFeatureExtractor, AutoImageProcessor, AutoModelForImageClassification,
                          AutoModelForMaskedLM, AutoProcessor, AutoTokenizer, CLIPModel)
parts = {"ast": (AutoFeatureExtractor, ASTForAudioClassification), "bert": (AutoTokenizer, AutoModelForMaskedLM),
         "vit": (AutoImageProcessor, AutoModelForImageClassification), "clip": (AutoProcessor, CLIPModel)}
for key, (folder, name) in json.loads(sys.argv[1]).items():
    if key == "minilm":
        SentenceTransformer(folder, device="cpu").push_to_hub(name, private=True)
        continue
    for part in parts[key]:
        part.from_pretrained(folder).push_to_hub(name, private=True)
print(json.dumps("pushed"))
"""


def tree(world: World, name: str) -> dict[str, Any]:
    return {entry["path"]: entry for entry in json.loads(world.get(f"/api/models/{name}/tree/main?recursive=true", "reader").body)}


def test_push_to_hub(module_world: World) -> None:
    local = load({"HOME": "/nonexistent", "HF_HOME": str(module_world.folder / "nowhere"), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
                 {key: str(CHECKPOINTS / NAMES[key]) for key in PUSHED})
    names = {key: f"{ORG}/pushed-{key}" for key in PUSHED}
    env = module_world.env("writer", HF_HUB_DISABLE_XET="1")
    what = {key: (str(CHECKPOINTS / NAMES[key]), names[key]) for key in PUSHED}
    done = run([str(BUILD / "venv-models" / "bin" / "python"), "-c", PUSH, json.dumps(what)], env, 280)
    assert done.status == 0 and done.json == "pushed", done.text
    loaded = load(module_world.env("reader"), names)
    for key in PUSHED:
        assert len(loaded[key]["values"]) == VALUES[key] and loaded[key]["values"] == local[key]["values"], key
        assert "lfs" in tree(module_world, names[key])["model.safetensors"]
