"""The way from AWS's own names to this world, for a client that knows no other: an HTTP proxy on 127.0.0.1, which ends TLS itself.

Its certificate is for the names of AWS in one region, and made for this world: who is to come this way trusts it (SSL_CERT_FILE).
"""

import http.client
import re
import ssl
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BUCKET = re.compile(r"(?P<bucket>.+)\.(s3[.-].*amazonaws\.com|127\.0\.0\.1)")  # a bucket's name in a host's
HOP = ("connection", "content-length", "date", "host", "keep-alive", "proxy-connection", "server", "transfer-encoding")


class Proxy:
    def __init__(self, aws: str, region: str, path: Path):
        regional = f"{region}.amazonaws.com"
        write_certificate(path, [f"*.{place}" for place in ("amazonaws.com", regional, f"s3.{regional}", "s3.amazonaws.com")])
        self.certificate = str(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        way = type("Way", (Handler,), {"aws": urlsplit(aws).netloc, "context": context})
        server = ThreadingHTTPServer(("127.0.0.1", 0), way)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{server.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    aws: str  # host and port of the world
    context: ssl.SSLContext

    def do_CONNECT(self) -> None:
        """From here on this end speaks as the host that was asked for."""
        self.send_response(200)
        self.end_headers()
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False  # whatever version the caller named for this one

    def pass_on(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match = BUCKET.fullmatch(url.hostname or self.headers["Host"].partition(":")[0])
        place = (f"/{match['bucket']}" if match else "") + (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection = http.client.HTTPConnection(self.aws, timeout=120)
        try:
            connection.request(self.command, place, body, without_hop(self.headers.items()))
            reply = connection.getresponse()
            content = reply.read()
        finally:
            connection.close()
        self.send_response(reply.status)
        for name, value in without_hop(reply.getheaders()).items():
            self.send_header(name, value)
        self.send_header("Content-Length", reply.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = pass_on

    def log_message(self, *_) -> None:
        """The journal has it."""


def without_hop(headers) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower() not in HOP}


def write_certificate(path: Path, names: list[str]) -> None:
    """A certificate for these names with its key, which is its own authority."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    itself = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AWS, emulated")])
    certificate = x509.CertificateBuilder().subject_name(itself).issuer_name(itself).public_key(key.public_key())
    certificate = certificate.serial_number(x509.random_serial_number())
    certificate = certificate.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=30))
    certificate = certificate.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    certificate = certificate.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(key, hashes.SHA256())
    form, nothing = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, nothing) + certificate.public_bytes(serialization.Encoding.PEM))
