"""A disk that fails on demand: faultdisk.c in nginx."""

from __future__ import annotations

import uuid
from pathlib import Path

from .preload import preload


class FaultDisk:
    """`env` is for the nginx to be started: World(nginx_env=disk.env)."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self.rules, self.boot_id = self.folder / "rules", self.folder / "boot_id"
        self.env = preload("faultdisk", {"FAULTDISK": str(self.rules), "FAULTDISK_BOOT": str(self.boot_id)})
        self.heal()
        self.boot()

    def fail(self, *rules: tuple[str, str, int] | tuple[str, str, int, int] | tuple[str, str, int, int, int]) -> None:
        """(call, part of the path, errno or 0 to kill, skip=0, times=-1), in place of all rules before."""
        lines = [" ".join(str(each) for each in (*rule, *(0, -1)[len(rule) - 3:])) for rule in rules]
        temp = self.rules.with_suffix(".new")
        temp.write_text("".join(line + "\n" for line in lines))
        temp.chmod(0o644)
        temp.rename(self.rules)

    def heal(self) -> None:
        self.fail()

    def boot(self) -> None:
        """From the next start on the machine was booted anew."""
        self.boot_id.write_text(f"{uuid.uuid4()}\n")
        self.boot_id.chmod(0o644)
