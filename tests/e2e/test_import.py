"""`hubgate repo import` as an administrator uses it."""

from __future__ import annotations

import os

import pytest

from tests.lab.world import ORG, World

WORLD = {"private": {}}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's rights are dropped")
def test_root_imports_what_only_its_owner_may_read(module_world: World) -> None:
    """save_pretrained() leaves weights of mode 0600, often in a home that is closed; what is stored belongs to the workers."""
    world = module_world
    files = {"config.json": "{}\n", "sub/model.safetensors": {"tensors": {"w": [4, 4]}}}
    folder = world.write_files(world.folder / "closed" / "model", files)
    for path in (folder / "sub" / "model.safetensors", folder / "sub", folder, folder.parent):
        os.chown(path, 12345, 12345)
        path.chmod(0o700 if path.is_dir() else 0o600)
    world.import_repo(f"{ORG}/closed", folder)
    for name in files:
        answer = world.get(f"/{ORG}/closed/resolve/main/{name}", "reader")
        assert (answer.status, answer.body) == (200, (folder / name).read_bytes())
    owner = world.nginx.data.stat().st_uid
    assert owner != 0 and {path.lstat().st_uid for path in (world.nginx.data / "repos").rglob("*")} == {owner}
