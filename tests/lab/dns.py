"""A name server on 127.0.0.1 that says what a test wants, or nothing."""

from __future__ import annotations

import socket
import struct
import threading
from ipaddress import ip_address

NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
A, AAAA = 1, 28


class Dns:
    """names: {"cdn.example": ["127.0.0.1"]}. mode: "answer", "servfail", "nxdomain", "empty", "silent"."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names, self.mode = names, "answer"
        self.asked: list[tuple[str, int]] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while True:
            query, peer = self.socket.recvfrom(4096)
            if not query:
                return                                      # from close()
            if answer := self._answer(query):
                self.socket.sendto(answer, peer)

    def _answer(self, query: bytes) -> bytes:
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode("ascii"))
            at += 1 + query[at]
        name = ".".join(labels).lower()
        kind = struct.unpack(">H", query[at + 1:at + 3])[0]
        self.asked.append((name, kind))
        if self.mode == "silent":
            return b""
        code = {"servfail": SERVFAIL, "nxdomain": NXDOMAIN}.get(self.mode, NOERROR if name in self.names else NXDOMAIN)
        found = [ip_address(each) for each in self.names.get(name, [])] if code == NOERROR and self.mode == "answer" else []
        found = [each for each in found if (each.version == 4) == (kind == A) and kind in (A, AAAA)]
        out = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0) + query[12:at + 5]
        for each in found:
            out += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 5, len(each.packed)) + each.packed
        return out

    def close(self) -> None:
        self.socket.sendto(b"", self.socket.getsockname())
        self.thread.join(5)
        self.socket.close()
