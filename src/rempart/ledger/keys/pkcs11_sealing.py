"""`Pkcs11Sealing`: the root is wrapped by an AES-256 key that never leaves a PKCS #11 token.

Each root has a token key of its own, made for it and destroyed with it: a copy of `root.key` from before a destroy
then opens nowhere, whoever may use the token. The mechanism is CKM_AES_GCM (PKCS #11 v3.0, section 2.12.2).
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rempart.errors import KeystoreError, MissingDependency
from rempart.ledger.keys.sealing import NONCE_BYTES

if TYPE_CHECKING:
    import pkcs11

LABEL: Final = "rempart-root"
_ID_BYTES: Final = 16
_AES_BITS: Final = 256


class _Wrapped(msgspec.Struct, frozen=True, kw_only=True):
    """The line of JSON. Bytes are hex."""

    kind: str = "pkcs11"
    mechanism: str = "AES_GCM"
    token: str
    key: str
    """CKA_ID of the token's key."""
    nonce: str
    sealed: str


class Pkcs11Sealing:
    """Needs the package `python-pkcs11` (extra `pkcs11`) and the token's own library."""

    kind = "pkcs11"

    def __init__(self, library: Path, token: str, pin: Callable[[], str]) -> None:
        """`library`: the token's shared object; `token`: its label; `pin`: asked at each use, never kept here."""
        self._library = library
        self._token = token
        self._pin = pin

    def seal(self, root: bytes) -> bytes:
        id_, nonce = secrets.token_bytes(_ID_BYTES), secrets.token_bytes(NONCE_BYTES)
        with self._session() as (module, session):
            attribute = module.Attribute
            key: Any = session.generate_key(
                module.KeyType.AES,
                _AES_BITS,
                id=id_,
                label=LABEL,
                store=True,
                capabilities=module.MechanismFlag.ENCRYPT | module.MechanismFlag.DECRYPT,
                template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False, attribute.PRIVATE: True},
            )
            wrapped = self._crypt(module, key.encrypt, nonce, id_, root)
        line = _Wrapped(token=self._token, key=id_.hex(), nonce=nonce.hex(), sealed=wrapped.hex())
        return msgspec.json.encode(line) + b"\n"

    def unseal(self, sealed: bytes) -> bytes:
        line, id_ = _decode(sealed)
        with self._session() as (module, session):
            try:
                key: Any = session.get_key(module.ObjectClass.SECRET_KEY, id=id_)
            except module.NoSuchKey as error:
                raise KeystoreError(
                    f"The token {self._token} has no key {line.key}: it was destroyed, or it is another token.",
                    hint="Attach the token that root.key was sealed with.",
                ) from error
            return self._crypt(module, key.decrypt, bytes.fromhex(line.nonce), id_, bytes.fromhex(line.sealed))

    def forget(self, sealed: bytes) -> None:
        _, id_ = _decode(sealed)
        with self._session() as (module, session):
            attribute = module.Attribute
            wanted = {attribute.CLASS: module.ObjectClass.SECRET_KEY, attribute.ID: id_}
            for key in list(session.get_objects(wanted)):
                key.destroy()

    @staticmethod
    def _crypt(module: Any, verb: Callable[..., bytes], nonce: bytes, id_: bytes, data: bytes) -> bytes:
        parameters = module.GCMParams(nonce, b"rempart/v1/root " + id_)
        return verb(data, mechanism=module.Mechanism.AES_GCM, mechanism_param=parameters)

    @contextlib.contextmanager
    def _session(self) -> Iterator[tuple[Any, pkcs11.Session]]:
        """The module, imported when it is first needed, and a session that is logged in."""
        try:
            import pkcs11
        except ImportError as error:
            raise MissingDependency("python-pkcs11 is not installed.", hint="Install rempart[pkcs11].") from error
        try:
            token = pkcs11.lib(str(self._library)).get_token(token_label=self._token)
            with token.open(rw=True, user_pin=self._pin()) as session:
                yield pkcs11, session
        except RuntimeError as error:  # the root of its errors, and what it raises for a library that is none
            raise KeystoreError(
                f"The token {self._token} failed: {type(error).__name__} {error}".rstrip() + ".",
                hint="Check the token's library, label and PIN.",
            ) from error


def _decode(sealed: bytes) -> tuple[_Wrapped, bytes]:
    try:
        line = msgspec.json.decode(sealed, type=_Wrapped)
        if line.mechanism != "AES_GCM":
            raise ValueError(f"unknown mechanism {line.mechanism}")
        return line, bytes.fromhex(line.key)
    except (msgspec.MsgspecError, ValueError) as error:
        raise KeystoreError(f"root.key is damaged: {error}.", hint="Restore keys/ from its backup.") from error
