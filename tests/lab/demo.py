"""The repositories that the lab's Hub shows when it is told nothing else."""

from __future__ import annotations

import json

MIB = 1 << 20
GITATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.bin filter=lfs diff=lfs merge=lfs -text\n"


def card(title: str, **front: object) -> str:
    lines = "".join(f"{key}: {value}\n" for key, value in front.items())
    return f"---\n{lines}---\n# {title}\n\nMade up by the lab; no weight in here knows anything.\n"


def tiny(title: str, seed: int, rows: int = 1024) -> dict:
    """The usual files of a small language model; model.safetensors is rows * 3 KiB (LFS)."""
    return {
        ".gitattributes": GITATTRIBUTES,
        "README.md": card(title, license="apache-2.0", library_name="transformers", pipeline_tag="text-generation"),
        "config.json": json.dumps({"model_type": "gpt2", "n_embd": 768, "n_layer": 1, "vocab_size": rows}, indent=2) + "\n",
        "generation_config.json": json.dumps({"eos_token_id": 0, "max_length": 20}, indent=2) + "\n",
        "tokenizer_config.json": json.dumps({"model_max_length": 1024}, indent=2) + "\n",
        "tokenizer.json": json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}}),
        "model.safetensors": {"tensors": {"wte.weight": [rows, 768]}, "seed": seed},
    }


def demo_repos() -> list[dict]:
    apache = {"license": "apache-2.0", "library_name": "transformers", "pipeline_tag": "text-generation"}
    many = {f"part-{number:03d}.json": json.dumps({"part": number, "values": list(range(number, number + 200))}) for number in range(200)}
    huge = {f"shard-{number // 1000:02d}/item-{number:05d}.txt": f"item {number}\n" for number in range(50_000)}
    odd = {
        "README.md": card("Odd names", license="mit"), "config.json": "{}\n",
        "dir with space/é+#%.txt": "a name that has to be quoted\n",
        "a+b.txt": "plus\n", "100%.txt": "per cent\n", "no#fragment.txt": "hash\n", "what?.txt": "question\n",
        "日本語/モデル.json": "{\"name\": \"日本語\"}\n", "quote\"and'back\\slash.txt": "quotes\n", "resolve/main/x.txt": "looks like a route\n",
        "semi;colon,comma&amp=.txt": "separators\n", "weights of 100%.bin": {"size": 70_000, "seed": 7},
        "empty.txt": "", "empty.bin": {"text": "", "lfs": False}, "~tilde!$'()*.txt": "sub-delims\n",
    }
    return [
        {"id": "demo/tiny-llm", "card": apache, "downloads": 1200, "tags": {"v1.0": 0}, "commits": [
            {"message": "First version", "files": tiny("Tiny LLM", 1)},
            {"message": "Better config", "files": {"config.json": json.dumps({"model_type": "gpt2", "n_embd": 768, "n_layer": 2}) + "\n"}},
            {"message": "Work on a branch", "branch": "dev", "files": {"notes.txt": "on dev only\n"}},
            {"message": "A branch with a slash", "branch": "feature/x", "files": {"notes.txt": "on feature/x only\n"}},
            {"message": "Convert to another format", "branch": "refs/pr/1", "files": {"proposal.txt": "in the pull request only\n"}}]},
        {"id": "demo/second-llm", "card": apache, "downloads": 30, "commits": [{"files": tiny("Second LLM", 2)}]},
        {"id": "openai-community/gpt2", "aliases": ["gpt2"], "card": apache, "downloads": 90_000, "commits": [{"files": tiny("GPT-2, or so", 3)}]},
        {"id": "demo/renamed", "aliases": ["old-org/old-name"], "commits": [{"files": tiny("Renamed", 4, rows=64)}]},
        {"id": "demo/many-small", "commits": [{"files": many}]},
        {"id": "demo/huge-tree", "type": "dataset", "commits": [{"files": huge}]},
        {"id": "demo/odd-names", "commits": [{"files": odd}]},
        {"id": "demo/sharded", "commits": [{"files": {
            "config.json": "{}\n", "sub/config.json": "{}\n",
            "model.safetensors.index.json": json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}),
            "model-00001-of-00002.safetensors": {"tensors": {"a": [1024, 512]}, "seed": 5},
            "model-00002-of-00002.safetensors": {"tensors": {"b": [1024, 768]}, "seed": 6}}}]},
        {"id": "demo/medium", "commits": [{"files": {"config.json": "{}\n", "model.safetensors": {"size": 64 * MIB + 12_345, "seed": 8}}}]},
        {"id": "demo/big", "commits": [{"files": {"config.json": "{}\n", "model.safetensors": {"size": 1024 * MIB, "seed": 9}}}]},
        {"id": "demo/gated", "gated": "manual", "commits": [{"files": tiny("Gated", 10, rows=64)}]},
        {"id": "demo/gated-granted", "gated": "auto", "granted": True, "commits": [{"files": tiny("Gated, and granted to the lab's token", 11, rows=64)}]},
        {"id": "demo/disabled", "disabled": True, "commits": [{"files": tiny("Disabled", 12, rows=64)}]},
        {"id": "evil/pickles", "commits": [{"files": {"config.json": "{}\n", "README.md": card("Evil"), "pytorch_model.bin": {"size": 100_000, "seed": 13}}}]},
        {"id": "demo/tiny-data", "type": "dataset", "card": {"license": "mit"}, "commits": [
            {"files": {"README.md": card("Tiny data", license="mit"), "data/train.csv": "text,label\nhello,1\nbye,0\n",
                       "data/blob.bin": {"size": 300_000, "seed": 14}}},
            {"branch": "refs/convert/parquet", "files": {"default/train/0000.parquet": {"size": 5_000, "seed": 15}}}]},
        {"id": "demo/app", "type": "space", "commits": [{"files": {"README.md": card("App", sdk="gradio"), "app.py": "print('hello')\n"}}]},
    ]
