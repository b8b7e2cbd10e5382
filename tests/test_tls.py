"""TLS: certificates made with openssl, and every `tls-*` directive seen from a client."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from conftest import FreshServer
from harness import Conn, Directive, Server, free_port, wait_until
from test_listeners import PONG, refusal

PASSPHRASE = "a-passphrase"


def openssl(*words: str | Path, cwd: Path) -> None:
    subprocess.run(["openssl", *map(str, words)], cwd=cwd, check=True, capture_output=True)


class Authority:
    """A certificate authority, and the certificates that it signed, in a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir()
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self._make(name, "ca", "-x509", "-addext", "basicConstraints=critical,CA:TRUE")

    def _make(self, subject: str, file: str, *options: str) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        out = ("-keyout", f"{file}.key", "-out", f"{file}.crt", "-days", "3650")
        openssl("req", *key, *out, "-subj", f"/CN={subject}", *options, cwd=self.directory)

    def sign(self, name: str) -> tuple[str, str]:
        """The paths of a new certificate for localhost and of its key."""
        san = ("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        self._make(name, name, "-CA", "ca.crt", "-CAkey", "ca.key", *san)
        return str(self.directory / f"{name}.crt"), str(self.directory / f"{name}.key")


class Certificates:
    """What the tests need, made once."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory / "ours", "our CA")
        self.ca = str(self.authority.certificate)
        self.server = self.authority.sign("server")
        self.renewed = self.authority.sign("renewed")
        self.client = self.authority.sign("client")
        self.stranger = Authority(directory / "theirs", "their CA").sign("stranger")
        self.locked_key = str(directory / "locked.key")
        encrypt = ("pkey", "-in", self.server[1], "-aes256", "-passout", f"pass:{PASSPHRASE}")
        openssl(*encrypt, "-out", self.locked_key, cwd=directory)

    def directives(self) -> dict[str, Directive]:
        """Those of a server."""
        certificate, key = self.server
        return {"tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": self.ca}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


StartTLS = Callable[..., tuple[Server, int]]


@pytest.fixture
def start(fresh_server: FreshServer, certificates: Certificates) -> StartTLS:
    """Start a server; returns it and its TLS port."""

    def run(**directives: Any) -> tuple[Server, int]:
        port = free_port()
        options = {
            "tls_port": port,
            **{name.replace("-", "_"): v for name, v in certificates.directives().items()},
            "tls_auth_clients": "no",
        }
        return fresh_server(**{**options, **directives}), port

    return run


def client_context(certificates: Certificates) -> ssl.SSLContext:
    """A client's settings: it trusts our authority, and shows nothing."""
    return ssl.create_default_context(cafile=certificates.ca)


def connect(port: int, context: ssl.SSLContext) -> Conn:
    sock = socket.create_connection(("127.0.0.1", port), 10)
    return Conn(context.wrap_socket(sock, server_hostname="localhost"))


def tls_of(conn: Conn) -> ssl.SSLSocket:
    assert isinstance(conn.sock, ssl.SSLSocket)
    return conn.sock


def is_refused(port: int, context: ssl.SSLContext) -> bool:
    """Whether the server refuses the connection or, with TLS 1.3, ends it at once."""
    try:
        with connect(port, context) as conn:
            return conn.ask("PING") != PONG
    except OSError:
        return True


# -- connections -----------------------------------------------------------------------------


def test_commands_over_tls_beside_plain_tcp(start: StartTLS, certificates: Certificates) -> None:
    server, port = start()
    conn = connect(port, client_context(certificates))
    value = bytes(range(256)) * 40_000
    assert conn.ask("SET", "k", value) == b"+OK\r\n"
    assert conn.ask("GET", "k") == b"$10240000\r\n%b\r\n" % value
    conn.send(b"PING\r\n" * 10_000)
    assert all(conn.reply() == PONG for _ in range(10_000))
    assert b" laddr=127.0.0.1:%d " % port in conn.ask("CLIENT", "INFO")
    assert server.client().get("k") == value
    assert server.log_text().count("(TLS)") == 1


def test_redis_py_and_redis_cli(start: StartTLS, certificates: Certificates) -> None:
    _, port = start(tls_auth_clients="yes")
    cert, key = certificates.client
    with redis.Redis(
        port=port, ssl=True, ssl_ca_certs=certificates.ca, ssl_certfile=cert, ssl_keyfile=key
    ) as client:
        assert client.set("k", "v")
    command = ["redis-cli", "-p", str(port), "--tls", "--cacert", certificates.ca]
    command += ["--cert", cert, "--key", key, "GET", "k"]
    assert subprocess.run(command, capture_output=True, timeout=20).stdout == b"v\n"


def test_a_client_that_does_not_read_is_held_back(
    start: StartTLS, certificates: Certificates
) -> None:
    server, port = start()
    client = server.client(decode_responses=True)
    client.set("big", "x" * (1 << 20))
    conn = connect(port, client_context(certificates))
    conn.send(b"GET big\r\n" * 500)
    wait_until(lambda: "cmdstat_get" in client.info("commandstats"))
    [line] = [line for line in client.client_list() if line["laddr"].endswith(f":{port}")]
    assert int(line["tot-mem"]) < 32 << 20
    for _ in range(500):
        assert len(conn.reply()) == (1 << 20) + 12
    assert conn.ask("PING") == PONG


def test_plain_bytes_on_the_tls_port_hurt_nobody(
    start: StartTLS, certificates: Certificates
) -> None:
    server, port = start()
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(b"PING\r\n" * 100)
        conn = Conn(sock)
        assert PONG not in conn.read_to_end()
    assert connect(port, client_context(certificates)).ask("PING") == PONG
    assert server.client().ping()


def test_tls_alone(start: StartTLS, certificates: Certificates) -> None:
    server, port = start()
    server.client().config_set("port", 0)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), 10)
    assert connect(port, client_context(certificates)).ask("PING") == PONG


# -- clients' certificates ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auth", "none", "ours", "theirs"),
    [("no", True, True, True), ("optional", True, True, False), ("yes", False, True, False)],
)
def test_tls_auth_clients(
    start: StartTLS, certificates: Certificates, auth: str, none: bool, ours: bool, theirs: bool
) -> None:
    _, port = start(tls_auth_clients=auth)
    plain, known, strange = (client_context(certificates) for _ in range(3))
    known.load_cert_chain(*certificates.client)
    strange.load_cert_chain(*certificates.stranger)
    assert [not is_refused(port, context) for context in (plain, known, strange)] == [
        none,
        ours,
        theirs,
    ]


def test_tls_ca_cert_dir(start: StartTLS, certificates: Certificates, tmp_path: Path) -> None:
    directory = tmp_path / "cas"
    directory.mkdir()
    (directory / "ca.crt").write_bytes(Path(certificates.ca).read_bytes())
    openssl("rehash", directory, cwd=tmp_path)
    _, port = start(tls_auth_clients="yes", tls_ca_cert_file="", tls_ca_cert_dir=str(directory))
    context = client_context(certificates)
    assert is_refused(port, context)
    context.load_cert_chain(*certificates.client)
    assert connect(port, context).ask("PING") == PONG


# -- keys, versions, ciphers ---------------------------------------------------------------------


def test_an_encrypted_key(start: StartTLS, certificates: Certificates) -> None:
    server, port = start(tls_key_file=certificates.locked_key, tls_key_file_pass=PASSPHRASE)
    assert connect(port, client_context(certificates)).ask("PING") == PONG
    assert PASSPHRASE not in server.log_text()


@pytest.mark.parametrize(
    ("protocols", "versions"),
    [
        ("", {"TLSv1.2", "TLSv1.3"}),
        ("TLSv1.2", {"TLSv1.2"}),
        ("tlsv1.3", {"TLSv1.3"}),
        ("TLSv1.2 TLSv1.3", {"TLSv1.2", "TLSv1.3"}),
    ],
)
def test_tls_protocols(
    start: StartTLS, certificates: Certificates, protocols: str, versions: set[str]
) -> None:
    _, port = start(tls_protocols=protocols)
    spoken = set()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_context(certificates)
        context.minimum_version = context.maximum_version = version
        if not is_refused(port, context):
            spoken.add(tls_of(connect(port, context)).version())
    assert spoken == versions


CHACHA, AES = "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-GCM-SHA256"


def agreed_cipher(port: int, certificates: Certificates, offered: str) -> str:
    context = client_context(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(offered)
    cipher = tls_of(connect(port, context)).cipher()
    assert cipher is not None
    return cipher[0]


def test_tls_ciphers(start: StartTLS, certificates: Certificates) -> None:
    _, port = start(tls_ciphers=CHACHA)
    assert agreed_cipher(port, certificates, f"{AES}:{CHACHA}") == CHACHA
    with pytest.raises(OSError):
        agreed_cipher(port, certificates, AES)


@pytest.mark.parametrize(("prefer", "agreed"), [("no", AES), ("yes", CHACHA)])
def test_tls_prefer_server_ciphers(
    start: StartTLS, certificates: Certificates, prefer: str, agreed: str
) -> None:
    _, port = start(tls_ciphers=f"{CHACHA}:{AES}", tls_prefer_server_ciphers=prefer)
    assert agreed_cipher(port, certificates, f"{AES}:{CHACHA}") == agreed


# -- changes at run time -----------------------------------------------------------------------


def server_name(port: int, certificates: Certificates) -> str:
    """The common name of the certificate that the server shows."""
    certificate = tls_of(connect(port, client_context(certificates))).getpeercert()
    assert certificate is not None
    subject: Any = certificate["subject"]
    return str(subject[0][0][1])


def test_a_new_certificate_at_run_time(start: StartTLS, certificates: Certificates) -> None:
    server, port = start()
    client, before = server.client(), connect(port, client_context(certificates))
    assert server_name(port, certificates) == "server"
    cert, key = certificates.renewed
    client.config_set("tls-cert-file", cert, "tls-key-file", key)
    wait_until(lambda: server_name(port, certificates) == "renewed")
    assert before.ask("PING") == PONG


def test_a_wrong_certificate_at_run_time_changes_nothing(
    start: StartTLS, certificates: Certificates
) -> None:
    server, port = start()
    client = server.client(decode_responses=True)
    with pytest.raises(redis.ResponseError, match="TLS certificates can't be loaded"):
        client.config_set("tls-key-file", certificates.renewed[1])
    assert client.config_get("tls-key-file") == {"tls-key-file": certificates.server[1]}
    assert server_name(port, certificates) == "server"


def test_tls_port_at_run_time(fresh_server: FreshServer, certificates: Certificates) -> None:
    server = fresh_server()
    client, port = server.client(), free_port()
    with pytest.raises(redis.ResponseError, match="tls-port needs tls-cert-file"):
        client.config_set("tls-port", port)
    cert, key = certificates.server
    client.config_set(
        *("tls-port", port, "tls-cert-file", cert, "tls-key-file", key),
        *("tls-auth-clients", "no"),
    )
    wait_until(lambda: not is_refused(port, client_context(certificates)))
    client.config_set("tls-port", 0)
    assert is_refused(port, client_context(certificates))


# -- what is refused at the start ----------------------------------------------------------------


def test_wrong_settings_are_refused(tmp_path: Path, certificates: Certificates) -> None:
    cert, key = certificates.server
    good = {"port": 0, "tls_port": free_port(), "tls_cert_file": cert, "tls_key_file": key}
    good |= {"tls_ca_cert_file": certificates.ca}

    def refused(**directives: Any) -> str:
        return refusal(tmp_path, **{**good, **directives})

    assert refused(tls_cert_file="") == "kvserver: tls-port needs tls-cert-file"
    assert "tls-auth-clients needs tls-ca-cert-file" in refused(tls_ca_cert_file="")
    for wrong in (
        {"tls_cert_file": str(tmp_path / "missing")},
        {"tls_key_file": certificates.client[1]},
        {"tls_key_file": certificates.locked_key},
        {"tls_key_file": certificates.locked_key, "tls_key_file_pass": "wrong"},
        {"tls_ca_cert_file": str(tmp_path / "missing")},
    ):
        assert refused(**wrong).startswith("kvserver: TLS certificates can't be loaded: ")
    assert refused(tls_ciphers="nonsense").startswith("kvserver: TLS ciphers can't be set: ")
    assert "tls-protocols takes TLSv1.2, TLSv1.3 or both" in refused(tls_protocols="SSLv3")
