"""Real git servers for tests: `git http-backend` behind HTTPS, with a token where one is asked for, and LFS objects."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import http.server
import ipaddress
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def git(folder: Path, *arguments: str, input: bytes | None = None) -> str:
    """Git as a developer has it."""
    config = ("user.name=ada", "user.email=ada@example.org", "protocol.file.allow=always", "init.defaultBranch=main")
    argv = ["git", *(word for each in config for word in ("-c", each)), *arguments]
    env = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "GIT_LFS_SKIP_PUSH": "1", "GIT_LFS_SKIP_SMUDGE": "1"}
    done = subprocess.run(argv, cwd=folder, check=False, capture_output=True, input=input, env=env)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "surrogateescape").strip()


def commit(folder: Path, message: str = "a change") -> str:
    """Commit all that is in a work tree; makes the repository where there is none."""
    if not (folder / ".git").exists():
        folder.mkdir(exist_ok=True)
        git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


class GitServer:
    """Serves the repositories below `root`. What is in `private` (first part of the path) needs the token."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.private: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        """First part of a path -> where else everything behind it is."""
        self.asked: list[str] = []
        """Method and path of each request."""
        self.tokens: list[str | None] = []
        self.sent = 0
        """Bytes of answers."""
        self.slow = threading.Event()
        """Set: packs are not sent, until it is cleared or the server stops."""
        self.go_on = threading.Event()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.ca = str(certificate(root.parent / "ca.pem"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def url(self, name: str) -> str:
        """Of a repository."""
        return f"https://127.0.0.1:{self._server.server_address[1]}/{name}"

    def __enter__(self) -> GitServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: GitServer

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def do_GET(self) -> None:
        """Any request."""
        self.owner.asked.append(f"{self.command} {self.path}")
        self.owner.tokens.append(self.headers.get("Authorization"))
        token = self.owner.private.get(self.path.split("/")[1])
        wanted = base64.b64encode(f"x-access-token:{token}".encode()).decode()
        if token and self.headers.get("Authorization") != f"Basic {wanted}":
            self._answer(401, b"no", {"WWW-Authenticate": 'Basic realm="git"'})
        elif elsewhere := self.owner.redirects.get(self.path.split("/")[1]):
            self._answer(302, b"", {"Location": elsewhere + self.path.split("/", 2)[2]})
        elif "/info/lfs/" in self.path:
            self._lfs()
        else:
            self._git()

    do_POST = do_GET

    def _lfs(self) -> None:
        if self.command == "GET":
            self._answer(200, (self.owner.root / "lfs" / self.path.rpartition("/")[2]).read_bytes())
            return
        asked = json.loads(self._body())
        href = f"https://{self.headers['Host']}{self.path.removesuffix('/batch')}/"
        objects = [{**one, "actions": {"download": {"href": href + one["oid"]}}} for one in asked["objects"]]
        body = json.dumps({"transfer": "basic", "objects": objects}).encode()
        self._answer(200, body, {"Content-Type": "application/vnd.git-lfs+json"})

    def _git(self) -> None:
        body = self._body()
        if self.command == "POST" and self.owner.slow.is_set() and b"command=fetch" in body:
            self.owner.go_on.wait()
            return
        path, _, query = self.path.partition("?")
        env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.owner.root), "GIT_HTTP_EXPORT_ALL": "1",
               "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command, "REMOTE_ADDR": "127.0.0.1",
               "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
               "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "HOME": "/nonexistent",
               "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "GIT_CONFIG_COUNT": "1",
               "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}  # fmt: skip
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=False)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self._answer(int(lines.pop("Status", "200").split()[0]), answer, lines)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.owner.sent += len(body)
        with contextlib.suppress(OSError):
            self.send_response(code)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def lfs_pointer(root: Path, content: bytes) -> str:
    """Store an object at the server; returns the pointer to it."""
    id = hashlib.sha256(content).hexdigest()
    (root / "lfs").mkdir(exist_ok=True)
    (root / "lfs" / id).write_bytes(content)
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{id}\nsize {len(content)}\n"


def certificate(file: Path) -> Path:
    """Of 127.0.0.1, its own authority, with its key; made where there is none."""
    if file.exists():
        return file
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a git server")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(private + made.public_bytes(Encoding.PEM))
    return file


@contextlib.contextmanager
def daemon(root: Path) -> Iterator[str]:
    """`git daemon` for the repositories below a folder; the beginning of their URLs."""
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_COUNT": "1",
           "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}  # fmt: skip
    argv = ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--export-all",
            "--informative-errors", f"--base-path={root}", str(root)]  # fmt: skip
    with subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
            yield f"git://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
