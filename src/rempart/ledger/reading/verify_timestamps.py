"""Verify a time stamp of a pack (RFC 3161). Needs Python 3.11 and the package `cryptography`; `verify.py` calls it.

What `verify` does, in this order; `Refused` says what does not hold:
1. The token is a CMS SignedData over a TSTInfo (RFC 5652, RFC 3161 section 2.4.2), in DER.
2. Its imprint is the SHA-256 of the note's bytes.
3. Its one signer signed the digest of the TSTInfo and the hash of its own certificate (RFC 5816); the signature holds.
4. That certificate is for time stamping alone (critical extended key usage, RFC 3161 section 2.3).
5. It leads to a root in the authority's file over certificates that may sign others, all valid at the stamp's time.

`check_beginning`: the tree that was stamped must be the beginning of the pack's (RFC 9162 section 2.1.4.2).

What it does not know how to check is `Unchecked`: RSASSA-PSS and other algorithms than RSA, ECDSA and Ed25519, critical
extensions of certificates beyond the usual ones, revocation.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import NamedTuple, NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
TST_INFO = bytes.fromhex("2a864886f70d0109100104")
CONTENT_TYPE = bytes.fromhex("2a864886f70d010903")
MESSAGE_DIGEST = bytes.fromhex("2a864886f70d010904")
SIGNING_CERTIFICATE = bytes.fromhex("2a864886f70d010910020c")
SIGNING_CERTIFICATE_V2 = bytes.fromhex("2a864886f70d010910022f")
DIGESTS = {
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}
RSA_ENCRYPTION = bytes.fromhex("2a864886f70d010101")
SIGNATURES = {
    **{bytes.fromhex(f"2a864886f70d0101{n:02x}"): name for n, name in ((11, "sha256"), (12, "sha384"), (13, "sha512"))},
    **{bytes.fromhex(f"2a8648ce3d0403{n:02x}"): name for n, name in ((2, "sha256"), (3, "sha384"), (4, "sha512"))},
}
HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
UNDERSTOOD = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage)
DEPTH_MAX = 8
DAMAGED = (ValueError, IndexError, x509.InvalidVersion, x509.DuplicateExtension)
"""What reading a damaged token or certificate raises."""


class Refused(Exception):
    """Something does not hold; the text says what."""


class Unchecked(Exception):
    """It may hold, but this file cannot tell; the text says why."""


def refuse(text: str) -> NoReturn:
    raise Refused(text)


class Element(NamedTuple):
    """One DER element: its tag, its contents, and all its bytes."""

    tag: int
    inner: bytes
    whole: bytes


def elements(data: bytes) -> list[Element]:
    found = []
    while data:
        head, length = 2, data[1] if len(data) > 1 else 0
        if length >= 0x80:
            head += length & 0x7F
            length = int.from_bytes(data[2:head], "big")
            if head == 2 or head > 6:
                refuse("the time stamp is not DER")
        if len(data) < head + length:
            refuse("the time stamp is cut")
        found.append(Element(data[0], data[head : head + length], data[: head + length]))
        data = data[head + length :]
    return found


class Signer(NamedTuple):
    """The SignerInfo."""

    issuer: bytes
    serial: int
    digest: bytes
    attributes: bytes
    """As they are signed: a SET."""
    algorithm: bytes
    signature: bytes


class Token(NamedTuple):
    """What a token says; nothing but its imprint is checked."""

    time: datetime
    content: bytes
    """The TSTInfo."""
    certificates: list[x509.Certificate]
    signer: Signer


def read(data: bytes, note: bytes) -> Token:
    """Refuses a token that is none, or one for other bytes than `note`."""
    try:
        return _read(data, note)
    except DAMAGED as error:
        refuse(f"the time stamp cannot be read: {error}")


def _read(data: bytes, note: bytes) -> Token:
    (outer,) = elements(data)
    kind, wrapped = elements(outer.inner)
    if kind.inner != SIGNED_DATA:
        refuse("the time stamp is no signed data")
    (signed,) = elements(wrapped.inner)
    _, _, encapsulated, *others, signers = elements(signed.inner)
    content_kind, content = elements(encapsulated.inner)
    if content_kind.inner != TST_INFO:
        refuse("the time stamp holds something else than a time stamp")
    (octets,) = elements(content.inner)
    (info,) = elements(octets.inner)
    _, _, imprint, _, time, *_ = elements(info.inner)
    algorithm, hashed = elements(imprint.inner)
    name = DIGESTS.get(elements(algorithm.inner)[0].inner)
    if name != "sha256" or hashed.inner != hashlib.sha256(note).digest():
        refuse("the time stamp is for other bytes than its checkpoint")
    certificates = [
        x509.load_der_x509_certificate(one.whole)
        for other in others
        if other.tag == 0xA0
        for one in elements(other.inner)
    ]
    (signer,) = elements(signers.inner)
    return Token(_time(time.inner.decode()), octets.inner, certificates, _signer(signer))


def _signer(signer: Element) -> Signer:
    _, identifier, digest, *others = elements(signer.inner)
    if identifier.tag != 0x30 or others[0].tag != 0xA0:
        refuse("the time stamp's signer is not named, or signed no attributes")
    issuer, serial = elements(identifier.inner)
    attributes, algorithm, signature, *_ = others
    return Signer(
        issuer.whole,
        int.from_bytes(serial.inner, "big", signed=True),
        elements(digest.inner)[0].inner,
        b"\x31" + attributes.whole[1:],
        elements(algorithm.inner)[0].inner,
        signature.inner,
    )


def _time(text: str) -> datetime:
    found = re.fullmatch(r"([0-9]{14})(\.[0-9]+)?Z", text)
    if found is None:
        refuse("the time of the time stamp cannot be read")
    return datetime.strptime(found[1], "%Y%m%d%H%M%S").replace(tzinfo=UTC)


def verify(token: Token, authority: bytes) -> None:
    """`authority`: its certificates, PEM, its root among them."""
    try:
        _verify(token, authority)
    except UnsupportedAlgorithm as error:
        raise Unchecked(f"the library does not know its algorithm: {error}") from error
    except DAMAGED as error:
        refuse(f"the time stamp, or a certificate, cannot be read: {error}")


def _verify(token: Token, authority: bytes) -> None:
    trusted = x509.load_pem_x509_certificates(authority)
    roots = [one for one in trusted if one.issuer == one.subject]
    known = [*token.certificates, *trusted]
    certificate = next(
        (
            one
            for one in known
            if one.issuer.public_bytes() == token.signer.issuer and one.serial_number == token.signer.serial
        ),
        None,
    )
    if certificate is None:
        refuse("the certificate that signed the time stamp is missing")
    _check_signature(token, certificate)
    _check_usage(certificate)
    _check_chain(certificate, known, roots, token.time)


def _check_signature(token: Token, certificate: x509.Certificate) -> None:
    signer = token.signer
    digest = DIGESTS.get(signer.digest)
    if digest is None:
        raise Unchecked("its digest is not known here")
    (attributes,) = elements(signer.attributes)
    said: dict[bytes, Element] = {}
    for attribute in elements(attributes.inner):
        kind, values = elements(attribute.inner)
        if kind.inner in said:
            refuse("the time stamp has an attribute twice")
        (said[kind.inner],) = elements(values.inner)
    if CONTENT_TYPE not in said or said[CONTENT_TYPE].inner != TST_INFO:
        refuse("the time stamp's signer signed another kind of content")
    if MESSAGE_DIGEST not in said or said[MESSAGE_DIGEST].inner != hashlib.new(digest, token.content).digest():
        refuse("the time stamp's signer signed another time stamp")
    _check_named(said, certificate)
    algorithm = digest if signer.algorithm == RSA_ENCRYPTION else SIGNATURES.get(signer.algorithm, "")
    key = certificate.public_key()
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signer.signature, signer.attributes)
        elif not algorithm:
            raise Unchecked("its signature is of a kind that is not known here")
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signer.signature, signer.attributes, padding.PKCS1v15(), HASHES[algorithm])
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signer.signature, signer.attributes, ec.ECDSA(HASHES[algorithm]))
        else:
            raise Unchecked("its key is of a kind that is not known here")
    except InvalidSignature:
        refuse("the time stamp's signature does not hold")


def _check_named(said: dict[bytes, Element], certificate: x509.Certificate) -> None:
    """The signer must have signed which certificate is its own: the first ESSCertID or ESSCertIDv2."""
    encoded = certificate.public_bytes(Encoding.DER)
    if SIGNING_CERTIFICATE_V2 in said:
        first = elements(elements(elements(said[SIGNING_CERTIFICATE_V2].inner)[0].inner)[0].inner)
        name = DIGESTS.get(elements(first[0].inner)[0].inner, "") if first[0].tag == 0x30 else "sha256"
        if not name:
            raise Unchecked("its signer's certificate is named by a digest that is not known here")
        hashed = first[1 if first[0].tag == 0x30 else 0].inner
    elif SIGNING_CERTIFICATE in said:
        first = elements(elements(elements(said[SIGNING_CERTIFICATE].inner)[0].inner)[0].inner)
        name, hashed = "sha1", first[0].inner
    else:
        refuse("the time stamp does not name its signer's certificate")
    if hashed != hashlib.new(name, encoded).digest():
        refuse("the time stamp names another certificate as its signer's")


def _check_usage(certificate: x509.Certificate) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        refuse("the certificate that signed is not for time stamping")
    if not usage.critical or list(usage.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        refuse("the certificate that signed is not for time stamping alone")


def _check_chain(
    certificate: x509.Certificate, known: list[x509.Certificate], roots: list[x509.Certificate], at: datetime
) -> None:
    """Depth first: a name may have several certificates. The path must end in one of `roots`."""

    def leads(one: x509.Certificate, below: int) -> bool:
        if one in roots:
            return True
        if below >= DEPTH_MAX or one.issuer == one.subject:
            return False
        return any(leads(other, below + 1) for other in known if _signed(one, other, below, at))

    _check_one(certificate, at)
    if not leads(certificate, 0):
        refuse("the certificate that signed the time stamp does not lead to the authority's root")


def _signed(one: x509.Certificate, other: x509.Certificate, below: int, at: datetime) -> bool:
    """Whether `other` may sign certificates with `below` of them between it and the last, and signed `one`."""
    if other.subject != one.issuer:
        return False
    try:
        one.verify_directly_issued_by(other)
        _check_one(other, at)
        constraints = other.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (*DAMAGED, TypeError, InvalidSignature, UnsupportedAlgorithm, Refused, x509.ExtensionNotFound):
        return False
    usage = [found.value for found in other.extensions if isinstance(found.value, x509.KeyUsage)]
    deep = constraints.path_length is not None and constraints.path_length < below
    return constraints.ca and not deep and all(one.key_cert_sign for one in usage)


def _check_one(certificate: x509.Certificate, at: datetime) -> None:
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        refuse(f"a certificate of the authority was not valid on {at:%Y-%m-%d}")
    for extension in certificate.extensions:
        if extension.critical and not isinstance(extension.value, UNDERSTOOD):
            raise Unchecked(f"a certificate has the critical extension {extension.oid.dotted_string}")


def check_beginning(old: tuple[str, int, bytes], new: tuple[str, int, bytes], path: list[bytes]) -> None:
    """The tree of `old` must be the beginning of the tree of `new`."""
    if old[0] != new[0] or not 0 < old[1] <= new[1]:
        refuse("a time stamp is of another log, or of more than the checkpoint covers")
    if old[1] == new[1]:
        if path or old[2] != new[2]:
            refuse("a time stamp is of another tree of the same size")
        return
    hashes = [old[2], *path] if old[1] & (old[1] - 1) == 0 else list(path)
    place, last = old[1] - 1, new[1] - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    first = second = hashes[0]
    for hash_ in hashes[1:]:
        if last == 0:
            refuse("the proof of a time stamp is too long")
        if place % 2 or place == last:
            first, second = node_hash(hash_, first), node_hash(hash_, second)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, hash_)
        place, last = place >> 1, last >> 1
    if last or first != old[2] or second != new[2]:
        refuse(f"the {old[1]} entries that were time-stamped are not the first ones of this log")


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
