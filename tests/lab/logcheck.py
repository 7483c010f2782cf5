"""What no log of a world may hold: alarms nobody declared, a sanitizer's words, a secret.

`expect(regex, min, max)`: so many lines of nginx's error log match it, from the last `reset` on; alarms that match are no
complaint.  Undeclared is a problem, declared and absent is one too.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from .nginx import log_files

if TYPE_CHECKING:
    from .world import World

ALARM = re.compile(r"\[(alert|crit|emerg)\]")
SANITIZER = re.compile(r"(Address|Leak|Thread|Memory|UndefinedBehavior)Sanitizer|runtime error: |WARNING: ThreadSanitizer")
SHOWN = 5                       # lines quoted per complaint


@dataclass
class Expected:
    pattern: re.Pattern[str]
    min: int
    max: int | None


class LogCheck:
    def __init__(self, world: "World") -> None:
        self.world = world
        self.expected: list[Expected] = []
        self.read_to: dict[Path, int] = {}

    def expect(self, pattern: str, min: int, max: int | None) -> None:
        self.expected.append(Expected(re.compile(pattern), min, max))

    def files(self) -> list[Path]:
        return list(log_files(self.world.folder))

    def news(self) -> dict[Path, str]:
        """What every log got since the last reset."""
        out = {}
        for path in self.files():
            with open(path, "rb") as file:
                file.seek(self.read_to.get(path, 0))
                out[path] = file.read().decode(errors="replace")
        return out

    def reset(self) -> None:
        self.expected = []
        self.read_to = {path: path.stat().st_size for path in self.files()}

    def problems(self) -> list[str]:
        out, news = [], self.news()
        nginx_logs = (self.world.nginx.error_log, self.world.nginx.logs / "stderr.log")
        lines = news.get(self.world.nginx.error_log, "").splitlines()
        for expected in self.expected:
            count = sum(bool(expected.pattern.search(line)) for line in lines)
            if count < expected.min or (expected.max is not None and count > expected.max):
                most = "" if expected.max is None else f" to {expected.max}"
                out.append(f"declared {expected.min}{most} lines /{expected.pattern.pattern}/ in the error log, found {count}")
        for path, text in news.items():
            if path in nginx_logs:
                alarms = [line for line in text.splitlines() if ALARM.search(line) and not any(each.pattern.search(line) for each in self.expected)]
                out += [f"{path.name}: not declared: {line}" for line in alarms[:SHOWN]]
            out += [f"{path.name}: sanitizer: {line}" for line in [line for line in text.splitlines() if SANITIZER.search(line)][:SHOWN]]
        out += self.secrets_in(news)
        return out

    def secrets_in(self, news: dict[Path, str]) -> list[str]:
        """Secrets, as they are and as they travel (Basic, quoted); the secret itself is not repeated here."""
        forms: dict[str, str] = {}
        for secret in self.world.secrets:
            forms[secret] = forms[quote(secret, safe="")] = f"{secret[:4]}..."
        for name, password in [*self.world.passwords.items(), *(("user", token) for token in self.world.tokens.values())]:
            forms[base64.b64encode(f"{name}:{password}".encode()).decode()] = f"Basic of {name}"
        return [f"{path.name}: holds a secret ({shown})" for path, text in news.items() for form, shown in forms.items() if form in text]
