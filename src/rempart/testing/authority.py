"""`Authority`: a time-stamping authority (RFC 3161) for tests: OpenSSL's `ts` command, under certificates made here."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_ANSWER_S: Final = 30.0
_CONFIGURATION: Final = """\
[tsa]
default_tsa = one
[one]
serial = {directory}/serial
signer_cert = {directory}/signer.pem
signer_key = {directory}/signer.key
certs = {directory}/between.pem
signer_digest = {digest}
default_policy = 1.3.6.1.4.1.55555.1
digests = sha256
ess_cert_id_alg = sha256
clock_precision_digits = 0
"""
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Answer = Callable[[bytes], Awaitable[bytes]]
"""A TimeStampReq -> the whole HTTP answer."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How the authority's own certificate is made."""

    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.TIME_STAMPING
    from_days: int = -30
    """When it begins to be valid, from today."""
    upto_days: int = 30
    between_is_ca: bool = True
    """Whether the certificate between it and the root may sign others."""
    rsa: bool = False
    digest: str = "sha256"


class Authority:
    """A root, one authority between, and the one that stamps; its files are in `directory`."""

    def __init__(self, directory: Path, shape: Shape | None = None) -> None:
        shape = shape or Shape()
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        keys: list[_Key] = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
        own: _Key = rsa.generate_private_key(65_537, 2048) if shape.rsa else ec.generate_private_key(ec.SECP256R1())
        root = _certificate("root", keys[0], "root", keys[0], Shape(), ca=True)
        between = _certificate("between", keys[1], "root", keys[0], Shape(), ca=shape.between_is_ca)
        signer = _certificate("tsa", own, "between", keys[1], shape, ca=False)
        self.ca_file = directory / "ca.pem"
        """The root and the one between, as ledger.timestamp_ca_file wants it."""
        pem = [one.public_bytes(Encoding.PEM) for one in (root, between, signer)]
        self.ca_file.write_bytes(pem[0] + pem[1])
        (directory / "between.pem").write_bytes(pem[1])
        (directory / "signer.pem").write_bytes(pem[2])
        key = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (directory / "signer.key").write_bytes(key)
        (directory / "serial").write_text("01\n")
        (directory / "tsa.cnf").write_text(_CONFIGURATION.format(directory=directory, digest=shape.digest))
        self.asked: list[bytes] = []

    def answer(self, request: bytes) -> bytes:
        """A TimeStampReq -> the TimeStampResp of `openssl ts`."""
        self.asked.append(request)
        query, reply = self._directory / "query", self._directory / "reply"
        query.write_bytes(request)
        command = ["openssl", "ts", "-reply", "-config", "tsa.cnf", "-section", "one"]
        command += ["-queryfile", str(query), "-out", str(reply)]
        subprocess.run(command, check=True, capture_output=True, cwd=self._directory, timeout=_ANSWER_S)
        return reply.read_bytes()

    def sign(self, content: bytes) -> bytes:
        """A TimeStampToken over that TSTInfo, whatever the certificate is for: `openssl cms`."""
        info, token = self._directory / "info", self._directory / "token"
        info.write_bytes(content)
        command = ["openssl", "cms", "-sign", "-binary", "-nodetach", "-cades", "-md", "sha256", "-outform", "DER"]
        command += ["-econtent_type", "1.2.840.113549.1.9.16.1.4", "-signer", "signer.pem", "-inkey", "signer.key"]
        command += ["-in", str(info), "-out", str(token)]
        subprocess.run(command, check=True, capture_output=True, cwd=self._directory, timeout=_ANSWER_S)
        return token.read_bytes()

    async def over_http(self, request: bytes) -> bytes:
        """As `answer`, as the whole HTTP answer."""
        return http(await asyncio.to_thread(self.answer, request))


def http(body: bytes, kind: bytes = b"application/timestamp-reply", status: int = 200) -> bytes:
    """A whole HTTP answer."""
    head = b"HTTP/1.1 %d X\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, kind, len(body)) + body


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """The address, on loopback, at which each POST is answered."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            writer.write(await answer(await reader.readexactly(length)))
            await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/ts"
    finally:
        server.close()


def _certificate(subject: str, key: _Key, issuer: str, by: _Key, shape: Shape, *, ca: bool) -> x509.Certificate:
    now = datetime.now(UTC)
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    usage |= {"encipher_only": False, "decipher_only": False}
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=shape.from_days))
        .not_valid_after(now + timedelta(days=shape.upto_days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if subject == "tsa":
        builder = builder.add_extension(x509.ExtendedKeyUsage([shape.usage]), critical=True)
    return builder.sign(by, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
