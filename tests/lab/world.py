"""A whole world: the lab's Hub, a directory, nginx with the module, people with tokens, one private model.

    with World(workers=2, settings={"upstream.ttl": "0s"}) as world:
        answer = world.get("/demo/tiny-llm/resolve/main/config.json", "reader")
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterable, Mapping
from urllib.parse import urlencode, urlsplit

from . import procs
from .ca import CA
from .demo import tiny
from .fetch import Response, basic, fetch
from .hub import default_cache
from .hubctl import HubProcess
from .logcheck import LogCheck
from .nginx import Nginx, command_file, give
from .redis import USER as REDIS_USER, Redis
from .repos import Maker
from .slapd import MEMBERS, PEOPLE, ROLES, SERVICE, Slapd, group_dn
from .yamlout import dump, put

ORG = "acme"
TOKEN_ROLE = {"reader": "read", "writer": "write", "admin": "write", "stranger": "read"}
REASON = "Blocked by the security team: evil/* (SEC-1)"


def sample_policy(people: str = "ldap") -> dict[str, Any]:
    """Who may do what in a world that is told nothing else."""
    def group(name: str) -> dict:
        return {"ldap": group_dn(name)} if people == "ldap" else {"users": list(MEMBERS[name])}
    acme = {"hub": "private", "repo": f"{ORG}/*"}
    return {
        "version": 1, "private_namespaces": [ORG], "groups": {name: group(name) for name in MEMBERS},
        "rules": [
            {"id": "staff-read", "allow": ["read"], "to": ["group:staff"], "where": acme},
            {"id": "writers-write", "allow": ["write", "create"], "to": ["group:writers"], "where": acme},
            {"id": "admins-admin", "allow": ["admin"], "to": ["group:admins"], "where": acme},
            {"id": "public-read", "allow": ["read"], "to": ["authenticated"], "where": {"hub": "public"}},
            {"id": "no-evil", "deny": ["read"], "where": {"hub": "public", "repo": "evil/*"}, "reason": REASON}]}


def private_model() -> dict[str, Any]:
    """The files of acme/llm."""
    return tiny("The company's model", 21)


class World:
    def __init__(self, folder: Path | None = None, *, workers: int = 1, people: str = "ldap", hub: HubProcess | None = None,
                 slapd: Slapd | None = None, upstream: str | None = None, settings: Mapping[str, Any] | None = None,
                 policy: str | dict | None = None, private: Mapping[str, Any] | None = None, tls: bool = False,
                 upstream_tls: bool = False, hub_options: Iterable[str] = (), roles: Iterable[str] = ROLES, main_extra: str = "", http_extra: str = "",
                 server_extra: str = "", daemon: bool = False, redis: Redis | Iterable[Redis] = (), redis_tls: bool = False,
                 node_of: "World | None" = None, cache: Path | None = None, nginx_env: Mapping[str, str] | None = None) -> None:
        """`hub`, `slapd`: running ones to be shared.  `upstream`: any other hub in place of the lab's.
        `settings`: dotted keys of hubgate.yaml.  `policy`: text, or data (see sample_policy).
        `tls`: the gateway listens with TLS too (.tls_url).  `upstream_tls`: the Hub does (a Hub of its own, then).
        `private`: {"acme/name": folder, or files as in repos.py}; by default acme/llm.  `roles`: who gets a token.
        `redis`: running ones, in order (see redis.py).  `node_of`: another node of that world's cluster, which lives as long as this one.
        `cache`: the cache's folder, in place of one in `folder`.  `nginx_env`: more of nginx's environment."""
        self.made_folder = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="hubgate-lab-")).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        self.people, self.roles, self.upstream = people, list(roles), upstream
        if upstream_tls:
            hub = None
        self.node_of, self.redis, self.redis_tls = node_of, [redis] if isinstance(redis, Redis) else list(redis), redis_tls
        self.cluster_key = secrets.token_urlsafe(48)
        if node_of:
            self.people, self.roles, self.upstream = people, roles, upstream = node_of.people, (), node_of.upstream
            hub, slapd, private = node_of.hub, node_of.slapd, {}
            self.redis, self.redis_tls, self.cluster_key = self.redis or node_of.redis, redis_tls or node_of.redis_tls, node_of.cluster_key
            policy = node_of.policy if policy is None else policy
        self.own_hub, self.own_slapd = hub is None and upstream is None, slapd is None and people == "ldap"
        self.hub, self.slapd, self.settings, self.policy = hub, slapd, dict(settings or {}), policy
        self.private = {f"{ORG}/llm": private_model()} if private is None else dict(private)
        self.secrets: list[str] = []
        self.tokens: dict[str, str] = {}
        self.passwords: dict[str, str] = {}
        (self.folder / "secrets").mkdir(exist_ok=True, mode=0o700)
        self.ca = slapd.ca if slapd else CA(self.folder / "tls")
        if self.own_hub:
            cert = self.ca.cert("hub") if upstream_tls else None
            more = ["--cert", str(cert.cert), "--key", str(cert.key)] if cert else []
            self.hub = HubProcess(self.folder / "hub", [*more, *hub_options], "hf_" + secrets.token_hex(20), self.ca.file if cert else None)
        self.nginx = Nginx(self.folder, workers, self.ca.cert("nginx") if tls else None, main_extra, http_extra, server_extra,
                           daemon=daemon)
        self.nginx.env = dict(nginx_env or {})
        self.nginx.cache = cache or self.nginx.cache
        give(self.nginx.cache)
        self.url, self.tls_url = self.nginx.url, self.nginx.tls_url
        if node_of:
            self.nginx.data = node_of.nginx.data
        self.logs = LogCheck(self)

    # life

    def start(self, note: Callable[["World"], None] = lambda _: None) -> "World":
        """Returns when everything answers.  `note` is called whenever one more server runs."""
        try:
            if self.own_hub and self.hub:
                self.hub.start()
                note(self)
            if self.own_slapd:
                self.slapd = Slapd(self.folder / "slapd", self.ca).start()
                note(self)
            if self.redis:
                self.secrets += [self.cluster_key, *(secret for each in self.redis for secret in each.secrets)]
            if self.node_of:
                self.passwords, self.tokens = self.node_of.passwords, self.node_of.tokens
                self.secrets += self.node_of.secrets
            elif self.people == "ldap":
                assert self.slapd
                self.passwords = dict(self.slapd.passwords)
                self.secrets += self.slapd.secrets
            else:
                self.passwords = {role: secrets.token_urlsafe(12) for role in ROLES}
                self.secrets += self.passwords.values()
            if self.hub and self.hub.token:
                self.secrets.append(self.hub.token)
            self.nginx.write(self.config(), self.policy_text())
            if self.people == "file" and not self.node_of:
                for role in ROLES:
                    self.nginx.cli("user", "add", role, "--password-file", str(self.secret_file(f"{role}.password", self.passwords[role])))
            for name, files in self.private.items():
                self.import_repo(name, files)
            self.nginx.start()
            note(self)
            for role in self.roles:
                self.tokens[role] = self.mint(role, TOKEN_ROLE.get(role, "read"))
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> bool:
        """End what this world started; True when everything went by itself."""
        ended = self.nginx.stop()
        if self.own_slapd and self.slapd:
            self.slapd.stop()
        if self.own_hub and self.hub:
            self.hub.stop()
        return ended

    def remove(self) -> None:
        if self.made_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "World":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.remove()

    # configuration

    def secret_file(self, name: str, value: str) -> Path:
        path = self.folder / "secrets" / name
        path.write_text(value)
        path.chmod(0o600)
        return path

    def config(self) -> dict[str, Any]:
        """hubgate.yaml as data."""
        n = self.nginx
        upstream: dict[str, Any] = {"url": self.upstream}
        if self.upstream is not None:
            host = str(urlsplit(self.upstream).hostname)
            if host == "localhost" or host.startswith("127."):      # a stand-in: its large files may be on another port or loopback address
                upstream["redirect_hosts"] = sorted({f"{each}:*" for each in (host, "localhost", "127.0.0.1", "127.0.0.2")})
        else:
            assert self.hub
            upstream = {"url": self.hub.url, "redirect_hosts": [urlsplit(self.hub.cdn_url).netloc]}
            if self.hub.token:
                upstream["token_file"] = str(self.secret_file("upstream-token", self.hub.token))
            if self.hub.ca_file:
                upstream["ca_file"] = str(self.hub.ca_file)
        config: dict[str, Any] = {
            "public_urls": [n.url] + ([n.tls_url] if n.tls_url else []), "data": str(n.data), "cache": {"dir": str(n.cache)},
            "upstream": upstream, "policy_dir": str(n.policy_dir), "audit_file": str(n.audit_log),
            "git": {"command": str(command_file())}}
        if self.people == "file":
            config["users_file"] = str((self.node_of or self).folder / "users.yaml")
        else:
            assert self.slapd
            config["ldap"] = [{
                "name": "lab", "urls": [self.slapd.url], "bind_dn": SERVICE,
                "bind_password_file": str(self.secret_file("ldap-service", self.slapd.service_password)), "user_base": PEOPLE,
                "user_filter": "(&(uid=${user})(employeeType=active))", "name_attr": "uid", "id_attr": "entryUUID", "groups": "memberof"}]
        if self.redis:
            config["redis"] = {
                "servers": [each.tls_url if self.redis_tls else each.url for each in self.redis], "user": REDIS_USER,
                "password_file": str(self.secret_file("redis.password", self.redis[0].password)), "ca_file": str(self.redis[0].ca.file)}
            config["cluster_key_file"] = str(self.secret_file("cluster.key", self.cluster_key))
            config["node_url"] = n.url
        for key, value in self.settings.items():
            put(config, key, value)
        return config

    def policy_text(self) -> str:
        policy = sample_policy(self.people) if self.policy is None else self.policy
        return policy if isinstance(policy, str) else dump(policy)

    def configure(self, settings: Mapping[str, Any] | None = None, policy: str | dict | None = None) -> None:
        """Change settings or policy of the running world and reload."""
        self.settings.update(settings or {})
        self.policy = self.policy if policy is None else policy
        self.nginx.write(self.config(), self.policy_text())
        self.nginx.reload()

    def import_repo(self, name: str, files: Mapping[str, Any] | Path | str, *arguments: str) -> None:
        """`hubgate repo import NAME FOLDER`."""
        source = Path(files) if isinstance(files, (str, Path)) else self.write_files(self.folder / "sources" / name, files)
        self.nginx.cli("repo", "import", name, str(source), *arguments)

    def write_files(self, folder: Path, files: Mapping[str, Any]) -> Path:
        """A folder with these files (descriptions as in repos.py)."""
        maker = Maker(default_cache())
        for path, spec in files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(maker.blob(path, spec).read())
        return folder

    # people

    def mint(self, user: str, role: str = "read", password: str | None = None, **form: str) -> str:
        """A new token of this person, which no log may show."""
        answer = fetch(self.url, "/api/gateway/tokens", "POST", {
            "Authorization": basic(user, self.passwords[user] if password is None else password),
            "Content-Type": "application/x-www-form-urlencoded"}, urlencode({"name": "lab", "role": role, **form}).encode())
        if answer.status not in (200, 201):
            raise procs.LabError(f"no token for {user}: {answer.status} {answer.text[:500]}\n{self.nginx.tail()}")
        token = answer.json()["token"]
        self.secrets.append(token)
        return token

    def headers(self, role: str | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens.get(role, role)}"} if role else {}

    # asking it

    def get(self, target: str, role: str | None = None, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None,
            timeout: float = 30) -> Response:
        """One request, as written; `role` is a person, or a token."""
        return fetch(self.url, target, method, {**self.headers(role), **(headers or {})}, body, timeout)

    def head(self, target: str, role: str | None = None, **keys: Any) -> Response:
        return self.get(target, role, "HEAD", **keys)

    def env(self, role: str | None, home: Path | None = None, **more: str) -> dict[str, str]:
        """The environment of a client of this gateway, with a home of its own."""
        home = Path(tempfile.mkdtemp(prefix="home-", dir=self.folder)) if home is None else home
        keep = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING")) and "proxy" not in key.lower()}
        env = {**keep, "HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": self.url, "HF_HUB_DISABLE_TELEMETRY": "1",
               "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **more}
        if role:
            env["HF_TOKEN"] = self.tokens.get(role, role)
        return env

    def cli(self, *arguments: str, **keys: Any) -> subprocess.CompletedProcess[str]:
        return self.nginx.cli(*arguments, **keys)

    def audit(self) -> list[dict]:
        """The audit records written so far."""
        log = self.nginx.audit_log
        return [json.loads(line) for line in log.read_text().splitlines() if line] if log.exists() else []

    def expect_log(self, pattern: str, min: int = 1, max: int | None = None) -> None:
        """Declare that lines matching this appear in nginx's error log from now on (see logcheck.py)."""
        self.logs.expect(pattern, min, max)

    def describe(self) -> dict[str, Any]:
        """What `up --json` prints."""
        return {
            "gateway": self.url, "gateways": [self.url], "hub": self.upstream or (self.hub.url if self.hub else None),
            "ldap": self.slapd.url if self.slapd else None, "redis": self.redis[0].url if self.redis else None, "dir": str(self.folder), "org": ORG,
            "pids": {"nginx": self.nginx.pid, "workers": self.nginx.workers(), "hub": self.hub.pid if self.hub else None,
                     "slapd": self.slapd.pid if self.slapd else None, "redis": self.redis[0].pid if self.redis else None},
            "tokens": dict(self.tokens), "passwords": {role: self.passwords[role] for role in ROLES}}
