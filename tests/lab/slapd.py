"""A directory with people and groups: the real slapd, in a folder, on loopback.

    dc=example,dc=org
      ou=people    uid=reader, writer, admin, stranger      (inetOrgPerson; employeeType: active)
      ou=groups    cn=staff (reader, writer, admin)  cn=writers (writer)  cn=admins (admin)       (groupOfNames; memberOf kept by overlay)
      cn=gateway   the service that searches

Passwords are made up per run.  It listens on ldap:// (StartTLS offered) and ldaps:// with a certificate of the lab's CA.
A bind with a name and an empty password succeeds here (as anonymous), as it does at many directories: whoever trusts it is wrong.
`disable(person)` sets employeeType to disabled (for a filter), `lock(person)` the password policy's lock.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import signal
import socket
import subprocess
from pathlib import Path

from . import procs
from .ca import CA

SUFFIX = "dc=example,dc=org"
PEOPLE, GROUPS = f"ou=people,{SUFFIX}", f"ou=groups,{SUFFIX}"
SERVICE, ROOT_DN = f"cn=gateway,{SUFFIX}", f"cn=root,{SUFFIX}"
NOBODY = f"cn=nobody,{SUFFIX}"        # a group may not be empty: this one is in all of them
ROLES = ("reader", "writer", "admin", "stranger")
MEMBERS = {"staff": ("reader", "writer", "admin"), "writers": ("writer",), "admins": ("admin",)}
MODULE_PATHS = ("/usr/lib/ldap", "/usr/lib/openldap", "/usr/lib64/openldap", "/usr/libexec/openldap")
SCHEMA_PATHS = ("/etc/ldap/schema", "/etc/openldap/schema")


def person_dn(name: str) -> str:
    return f"uid={name},{PEOPLE}"


def group_dn(name: str) -> str:
    return f"cn={name},{GROUPS}"


def ssha(password: str) -> str:
    salt = os.urandom(8)
    return "{SSHA}" + base64.b64encode(hashlib.sha1(password.encode() + salt).digest() + salt).decode()


class Slapd:
    def __init__(self, folder: Path, ca: CA | None = None, port: int | None = None, tls_port: int | None = None) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.ca = ca or CA(self.folder / "tls")
        self.port, self.tls_port = port or procs.free_port(), tls_port or procs.free_port()
        self.url, self.tls_url = f"ldap://127.0.0.1:{self.port}", f"ldaps://127.0.0.1:{self.tls_port}"
        self.passwords = {role: secrets.token_urlsafe(12) for role in ROLES}
        self.service_password, self.root_password = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
        self.service_file = self._secret("service.password", self.service_password)
        self.root_file = self._secret("root.password", self.root_password)
        self.log = self.folder / "slapd.log"
        self.pid = self.began = 0
        self._write()

    @property
    def secrets(self) -> list[str]:
        return [*self.passwords.values(), self.service_password, self.root_password]

    def _secret(self, name: str, value: str) -> Path:
        path = self.folder / name
        path.write_text(value)
        path.chmod(0o600)
        return path

    def _write(self) -> None:
        program = which("slapd")
        modules = next((path for path in MODULE_PATHS if os.path.isdir(path)), "")
        schema = next((path for path in SCHEMA_PATHS if os.path.isdir(path)), "")
        if not program or not modules or not schema:
            raise procs.LabError("slapd is not installed (Debian: slapd, ldap-utils)")
        self.program = program
        tls = self.ca.cert("slapd")
        (self.folder / "db").mkdir(exist_ok=True)
        (self.folder / "slapd.conf").write_text(f"""\
include {schema}/core.schema
include {schema}/cosine.schema
include {schema}/inetorgperson.schema
pidfile {self.folder}/slapd.pid
modulepath {modules}
moduleload back_mdb
moduleload memberof
moduleload ppolicy
TLSCACertificateFile {self.ca.file}
TLSCertificateFile {tls.cert}
TLSCertificateKeyFile {tls.key}
TLSVerifyClient never
loglevel stats
idletimeout 600
allow bind_anon_dn
database mdb
suffix "{SUFFIX}"
rootdn "{ROOT_DN}"
rootpw {ssha(self.root_password)}
directory {self.folder}/db
maxsize 67108864
dbnosync
index objectClass,uid,cn,member,memberOf,entryUUID eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{SERVICE}" read by self read by * none
overlay memberof
overlay ppolicy
ppolicy_default "cn=policy,{SUFFIX}"
""")

    def start(self) -> "Slapd":
        fresh = not any((self.folder / "db").iterdir())
        process = procs.spawn([self.program, "-d", "stats", "-f", str(self.folder / "slapd.conf"), "-h", f"{self.url} {self.tls_url}"],
                              self.log, self.folder)
        self.pid, self.began = process.pid, procs.start_time(process.pid) or 0

        def answers() -> bool:
            if process.poll() is not None:
                raise procs.LabError(f"slapd ended, see {self.log}:\n{self.log.read_text()[-2000:]}")
            for port in (self.port, self.tls_port):
                with socket.socket() as sock:
                    if sock.connect_ex(("127.0.0.1", port)):
                        return False
            return True
        procs.wait_until("slapd", answers)
        if fresh:
            self._fill()
        return self

    def _fill(self) -> None:
        top = f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n"
        units = [f"dn: {dn}\nobjectClass: organizationalUnit\nou: {dn[3:].partition(',')[0]}\n" for dn in (PEOPLE, GROUPS)]
        policy = (f"dn: cn=policy,{SUFFIX}\nobjectClass: device\nobjectClass: pwdPolicy\ncn: policy\npwdAttribute: userPassword\n"
                  "pwdLockout: TRUE\npwdMaxFailure: 0\n")
        service = (f"dn: {SERVICE}\nobjectClass: applicationProcess\nobjectClass: simpleSecurityObject\ncn: gateway\n"
                   f"userPassword: {ssha(self.service_password)}\n")
        self.ldif("ldapadd", "\n".join([top, *units, policy, service]))
        self.populate()

    def populate(self) -> None:
        """The people and groups of a new directory."""
        for role in ROLES:
            self.add_person(role, self.passwords[role])
        for name, members in MEMBERS.items():
            self.add_group(name, *members)

    # changing it

    def ldif(self, tool: str, text: str) -> None:
        """Run ldapadd or ldapmodify as the root of the directory."""
        run = subprocess.run([tool, "-x", "-H", self.url, "-D", ROOT_DN, "-y", str(self.root_file)], input=text, text=True, capture_output=True)
        if run.returncode:
            raise procs.LabError(f"{tool}: {run.stderr.strip()}")

    def modify(self, dn: str, *changes: str) -> None:
        """`changes` as in LDIF: "replace: mail\\nmail: x"."""
        self.ldif("ldapmodify", f"dn: {dn}\nchangetype: modify\n" + "\n-\n".join(changes) + "\n")

    def add_person(self, name: str, password: str, **attributes: str) -> None:
        self.passwords[name] = password
        more = "".join(f"{key}:: {base64.b64encode(value.encode()).decode()}\n" for key, value in attributes.items())
        self.ldif("ldapadd", f"dn: {person_dn(name)}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name.title()}\nsn: {name.title()}\n"
                             f"mail: {name}@example.org\nemployeeType: active\nuserPassword: {ssha(password)}\n{more}")

    def remove(self, dn: str) -> None:
        self.ldif("ldapmodify", f"dn: {dn}\nchangetype: delete\n")

    def add_group(self, name: str, *members: str) -> None:
        """`members` are names of people, or whole DNs (groups in groups)."""
        rows = "".join(f"member: {member if '=' in member else person_dn(member)}\n" for member in members)
        self.ldif("ldapadd", f"dn: {group_dn(name)}\nobjectClass: groupOfNames\ncn: {name}\nmember: {NOBODY}\n{rows}")

    def join(self, name: str, group: str) -> None:
        self.modify(group_dn(group), f"add: member\nmember: {person_dn(name)}")

    def leave(self, name: str, group: str) -> None:
        self.modify(group_dn(group), f"delete: member\nmember: {person_dn(name)}")

    def set_password(self, name: str, password: str) -> None:
        self.passwords[name] = password
        self.modify(person_dn(name), f"replace: userPassword\nuserPassword: {ssha(password)}")

    def disable(self, name: str, disabled: bool = True) -> None:
        """By the attribute that the gateway's user_filter looks at."""
        self.modify(person_dn(name), f"replace: employeeType\nemployeeType: {'disabled' if disabled else 'active'}")

    def lock(self, name: str, locked: bool = True) -> None:
        """By the password policy: even the right password is refused."""
        change = "replace: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z" if locked else "replace: pwdAccountLockedTime"
        self.modify(person_dn(name), change)

    # faults

    def count(self, word: str) -> int:
        """How often an operation is in its log: BIND, SRCH, MOD, ..."""
        return self.log.read_text(errors="replace").count(f" {word} ")

    def pause(self) -> None:
        """It hangs: the kernel still accepts connections, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> None:
        if self.pid:
            procs.end(self.pid, self.began)

    def kill(self) -> None:
        procs.end(self.pid, self.began, signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()


def which(name: str) -> str | None:
    """A program, also from the folders that only root has in PATH."""
    for folder in [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/libexec"]:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    return None
