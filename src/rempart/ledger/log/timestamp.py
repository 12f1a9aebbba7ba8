"""`Authority`: time stamps on a log's notes (RFC 3161): what an authority is asked, and whether its answer holds.

`rfc3161-client` (over OpenSSL) reads the tokens and verifies signature and certificates. An answer, or a token that was
kept, is accepted when all of this holds:

1. The authority granted it, and it answers what was asked: same nonce (answers only).
2. Its imprint is the SHA-256 of the note's bytes.
3. Exactly one signer signed it, whose certificate has the critical extended key usage `timeStamping` (section 2.3).
4. That certificate leads to a root in the authority's file, and all on the way were valid at the stamp's own time.

Not done: revocation. Take the certificates of an authority that was broken out of the file.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from rempart import limits
from rempart.errors import ConfigError, LedgerCorrupt, MissingDependency, TimestampError

if TYPE_CHECKING:
    import rfc3161_client

_SHA_256: Final = "2.16.840.1.101.3.4.2.1"
_GRANTED: Final = 0
_GRANTED_HEADER: Final = bytes.fromhex("3003020100")
"""PKIStatusInfo: granted, nothing else."""
_SEQUENCE: Final = 0x30
_CERTIFICATES: Final = 0xA0
_REASON: Final = re.compile(r'Verify error: ?([^"\]]*)')
_REASON_CHARS_MAX: Final = 200
_FOREIGN: Final = (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)
"""What the libraries raise at tokens and certificates that are damaged, beside the verifier's own error."""
_ASK: Final = "Ask the authority's operator."


class Asked(msgspec.Struct, frozen=True):
    """A request for a stamp."""

    request: bytes
    """TimeStampReq, DER."""
    nonce: int


class Stamp(msgspec.Struct, frozen=True):
    """A stamp that holds."""

    token: bytes
    """TimeStampToken, DER: a CMS SignedData."""
    time: datetime
    """UTC, by the authority's clock."""


class Authority:
    """Whose stamps are believed."""

    def __init__(self, certificates: list[x509.Certificate]) -> None:
        """Raises `MissingDependency`."""
        self._certificates = certificates
        self._library = _library()

    @classmethod
    def from_pem(cls, pem: bytes) -> Authority:
        """`pem`: the authority's certificates, its root among them. Raises `ConfigError`, `MissingDependency`."""
        hint = "Give a PEM file of the authority's certificates; see ledger.timestamp_ca_file."
        try:
            certificates = x509.load_pem_x509_certificates(pem)
        except ValueError as error:
            raise ConfigError(f"The authority's certificates cannot be read: {error}.", hint=hint) from error
        if not any(one.issuer == one.subject for one in certificates):
            raise ConfigError("No root is among the authority's certificates.", hint=hint)
        return cls(certificates)

    def ask(self, note: bytes) -> Asked:
        """A request with a random nonce, and for the authority's certificate in the answer."""
        builder = self._library.TimestampRequestBuilder().data(note)
        request = builder.hash_algorithm(self._library.HashAlgorithm.SHA256).build()
        if request.nonce is None:
            raise TimestampError("The request for a stamp has no nonce.", hint="Update the package rfc3161-client.")
        return Asked(request.as_bytes(), request.nonce)

    def accept(self, answer: bytes, asked: Asked, note: bytes) -> Stamp:
        """`answer`: a TimeStampResp. Raises `TimestampError`."""
        try:
            response = self._library.decode_timestamp_response(_in_der_order(answer))
            if response.status != _GRANTED:
                said = " ".join(response.status_string)[:_REASON_CHARS_MAX]
                raise TimestampError(
                    f"The authority gives no stamp (status {response.status}). {said}".strip(), hint=_ASK
                )
            return Stamp(response.time_stamp_token(), self._verify(response, note, asked.nonce))
        except (*_FOREIGN, self._library.VerificationError) as error:
            raise TimestampError(f"The authority's answer does not hold: {_reason(error)}.", hint=_ASK) from error

    def check(self, token: bytes, note: bytes) -> datetime:
        """When the note was stamped, UTC. Raises `LedgerCorrupt` unless the token holds for its bytes."""
        if len(token) > limits.timestamp_bytes_max:
            raise LedgerCorrupt("The time stamp is too large.")
        try:
            response = self._library.decode_timestamp_response(_granted(token))
            return self._verify(response, note, None)
        except (*_FOREIGN, self._library.VerificationError) as error:
            raise LedgerCorrupt(f"The time stamp does not hold: {_reason(error)}.") from error

    def _verify(self, response: rfc3161_client.TimeStampResponse, note: bytes, nonce: int | None) -> datetime:
        imprint = response.tst_info.message_imprint
        if imprint.hash_algorithm.dotted_string != _SHA_256 or imprint.message != sha256(note).digest():
            raise ValueError("it is for other bytes than this checkpoint")
        if len(response.signed_data.signer_infos) != 1:
            raise ValueError("it must have one signer")
        verifier = self._library.VerifierBuilder(roots=list(self._certificates), nonce=nonce).build()
        verifier.verify(response, imprint.message)
        return response.tst_info.gen_time


def _library() -> Any:
    try:
        return importlib.import_module("rfc3161_client")
    except ImportError as error:
        raise MissingDependency(
            "Time stamps need the package rfc3161-client.", hint="Install it: pip install 'rempart[timestamps]'."
        ) from error


def _reason(error: Exception) -> str:
    """One line; OpenSSL's own reason where it gives one."""
    found = _REASON.search(str(error))
    text = found[1] if found else str(error)
    return " ".join(text.split())[:_REASON_CHARS_MAX].rstrip(".")


def _granted(token: bytes) -> bytes:
    """The TimeStampResp that would bring this token."""
    length = len(_GRANTED_HEADER) + len(token)
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    head = bytes([length]) if length < 0x80 else bytes([0x80 | len(size)]) + size
    return bytes([_SEQUENCE]) + head + _GRANTED_HEADER + token


def _in_der_order(answer: bytes) -> bytes:
    """The certificates in a TimeStampResp in the order of DER's SET OF (X.690 section 11.6).

    CMS takes them in any order (RFC 5652 section 5.1), and so do authorities; the parser does not. They are not signed.
    Raises `ValueError` when it is not even that far well-formed.
    """
    fields = list(_elements(answer, *_last(answer, 0, len(answer))))
    if len(fields) < 2:
        return answer  # refused: there is no token
    content = _last(answer, *fields[1][1:])  # ContentInfo: after its type
    for tag, begin, end in _elements(answer, *_last(answer, *content)):
        if tag == _CERTIFICATES:
            return answer[:begin] + b"".join(sorted(_encoded(answer, begin, end))) + answer[end:]
    return answer


def _last(data: bytes, begin: int, end: int) -> tuple[int, int]:
    """Where the contents of the last element in `data[begin:end]` stand."""
    found = list(_elements(data, begin, end))
    if not found:
        raise ValueError("it is no time stamp")
    return found[-1][1:]


def _encoded(data: bytes, begin: int, end: int) -> Iterator[bytes]:
    for _, _, after in _elements(data, begin, end):
        yield data[begin:after]
        begin = after


def _elements(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(tag, begin and end of the contents) of each element of definite length in `data[begin:end]`."""
    while begin < end:
        if end - begin < 2:
            raise ValueError("it is cut")
        tag, length, begin = data[begin], data[begin + 1], begin + 2
        if length >= 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4:
                raise ValueError("it is not DER")
            length, begin = int.from_bytes(data[begin : begin + count], "big"), begin + count
        if begin + length > end:
            raise ValueError("it is cut")
        yield tag, begin, begin + length
        begin += length
