"""What deploy/ ships, as it is shipped: each nginx sample is started and used, with other paths and ports and nothing else changed;
the systemd units are what systemd-analyze accepts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from clients import python

from tests.lab import procs
from tests.lab.fetch import fetch
from tests.lab.nginx import command_file, give, module_file, worker_user
from tests.lab.world import World

DEPLOY = procs.ROOT / "deploy"
HOST = "models.corp.example"


def change(text: str, *pairs: tuple[str, str]) -> str:
    """Each of them is in it: a sample that says something else is not the one that was tried."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def started(world: World, sample: str, *pairs: tuple[str, str], whole: bool = False) -> None:
    """The world's nginx, with the sample in place of the lab's own configuration."""
    nginx, f = world.nginx, world.nginx.folder
    cert = world.ca.cert("nginx")
    every = [("/etc/hubgate/hubgate.yaml", str(nginx.config_file))]
    if "ssl_certificate " in sample:
        every += [("/etc/hubgate/tls/models.pem", str(cert.cert)), ("/etc/hubgate/tls/models.key", str(cert.key))]
    text = change(sample, *every, *pairs)
    user = worker_user()
    who = f"user {user[0]} {user[2]};\n" if user else ""
    if not whole:
        temp = "".join(f"{name}_temp_path {f}/temp/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        text = f"load_module {module_file()};\npid {f}/nginx.pid;\nerror_log {nginx.error_log} info;\n" \
               f"events {{}}\nhttp {{\naccess_log {nginx.access_log};\n{temp}{text}}}\n"
    nginx.stop()
    nginx.conf.write_text("daemon off;\n" + who + text)
    assert nginx.test().returncode == 0, nginx.test().stderr
    nginx.workers_wanted = 1
    nginx.start()


def read(world: World, url: str) -> None:
    """A real client, a public repository and a private one."""
    env = {**world.env("reader"), "HF_ENDPOINT": url, "REQUESTS_CA_BUNDLE": str(world.ca.file), "SSL_CERT_FILE": str(world.ca.file)}
    done = python("hf240-noxet", """
import json
from huggingface_hub import snapshot_download
print(json.dumps([len(snapshot_download("demo/tiny-llm")) > 0, len(snapshot_download("acme/llm")) > 0]))
""", env)
    assert done.status == 0, done.text
    assert done.json == [True, True]


def test_a_host_of_its_own(make_world: Callable[..., World]) -> None:
    world = make_world(tls=True)
    nginx, f = world.nginx, world.nginx.folder
    for name in ("body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (f / "temp" / "nginx" / name).mkdir(parents=True)
    give(f / "temp" / "nginx")
    plain = procs.free_port()
    nginx.port = plain
    nginx.url = f"http://127.0.0.1:{plain}"
    sample = (DEPLOY / "nginx" / "own-host.conf").read_text()
    world.settings["public_urls"] = [str(world.tls_url), f"https://{HOST}"]
    nginx.write_config(world.config())
    started(world, sample,
            ("/usr/lib/nginx/modules/ngx_http_hubgate_module.so", str(module_file())), ("/run/hubgate/nginx.pid", f"{f}/nginx.pid"),
            ("/var/log/hubgate/error.log warn", f"{nginx.error_log} info"), ("/var/log/hubgate/access.log", str(nginx.access_log)),
            ("/var/cache/hubgate/nginx", f"{f}/temp/nginx"), ("listen 443 ", f"listen 127.0.0.1:{nginx.tls_port} "),
            ("listen 80;", f"listen 127.0.0.1:{plain};"), ("worker_processes auto", "worker_processes 1"), whole=True)
    read(world, str(world.tls_url))
    got = fetch(nginx.url, "/demo/tiny-llm/resolve/main/config.json", headers={"Host": HOST})
    assert got.status == 308 and got["location"] == f"https://{HOST}/demo/tiny-llm/resolve/main/config.json"
    secret = "?X-Sig=not-for-a-log"
    fetch(str(world.tls_url), "/api/models/demo/tiny-llm" + secret, ca_file=world.ca.file)
    nginx.stop()
    assert "/api/models/demo/tiny-llm " in nginx.access_log.read_text() and secret not in nginx.access_log.read_text()


def test_behind_a_balancer(make_world: Callable[..., World]) -> None:
    """The client's address is what the balancer says, of a balancer that is listed and of nobody else."""
    world = make_world()
    world.settings["public_urls"] = [world.url, f"https://{HOST}"]
    world.nginx.write_config(world.config())
    sample = (DEPLOY / "nginx" / "behind-balancer.conf").read_text()
    started(world, sample, ("listen 8080", f"listen 127.0.0.1:{world.nginx.port}"), ("10.0.0.0/24", "127.0.0.1/32"))
    read(world, world.url)
    assert world.get("/api/models/demo/tiny-llm", "reader", headers={"X-Forwarded-For": "203.0.113.9"}).status == 200
    procs.wait_until("its record", lambda: '"ip":"203.0.113.9"' in world.nginx.audit_log.read_text(), 20)


def test_beside_other_sites(make_world: Callable[..., World]) -> None:
    world = make_world(tls=True)
    port = world.nginx.port
    other = f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 other; }} }}\n"
    world.settings["public_urls"] = [str(world.tls_url), f"https://{HOST}"]
    world.nginx.write_config(world.config())
    sample = other + (DEPLOY / "nginx" / "beside-sites.conf").read_text()
    started(world, sample, ("listen 443 ", f"listen 127.0.0.1:{world.nginx.tls_port} "))
    assert fetch(world.url, "/").body == b"other"
    read(world, str(world.tls_url))


def test_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    assert analyze, "systemd is not installed: tests install it"
    unit = tmp_path / "hubgate.service"
    unit.write_text(change((DEPLOY / "systemd" / "hubgate.service").read_text(), ("/usr/bin/hubgate", str(command_file()))))
    verify = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert (verify.returncode, verify.stdout + verify.stderr) == (0, "")
    security = subprocess.run([analyze, "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)], capture_output=True, text=True)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", security.stdout)
    assert security.returncode == 0 and exposure and float(exposure[1]) <= 2.0, security.stdout[-400:]
    dropin = tmp_path / "nginx.service"
    dropin.write_text("[Service]\nExecStart=/bin/true\n" + (DEPLOY / "systemd" / "nginx.service.d" / "hubgate.conf").read_text().replace("[Service]\n", ""))
    verify = subprocess.run([analyze, "verify", "--man=no", str(dropin)], capture_output=True, text=True)
    assert (verify.returncode, verify.stdout + verify.stderr) == (0, "")


def test_ready_says_what_does_not_answer(make_world: Callable[..., World]) -> None:
    """200 in both cases: a node whose Hub is away serves what is held. Nobody is asked."""
    world = make_world(private={}, settings={"upstream.url": f"http://127.0.0.1:{procs.free_port()}"})
    fine = {"status": "ok", "upstream": "ok", "directory": "ok", "redis": "ok"}
    got = world.get("/-/readyz", None, headers={"Host": "a.probe"})
    assert (got.status, got.json()) == (200, fine)
    for number in range(8):
        assert world.get(f"/api/models/who/r{number}", "reader").status == 503
    got = world.get("/-/readyz", None)
    assert (got.status, got.json()) == (200, {**fine, "status": "degraded", "upstream": "does not answer"})
    assert world.get("/-/healthz", None).json()["status"] == "ok"
