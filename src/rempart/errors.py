"""The one tree of errors: what happened, why, and what to do next.

Every error that a user of Rempart can meet is a `RempartError`. It knows how it looks over HTTP (`http_status`,
OpenAI's `type` and `code`) and on the command line (`exit_code`), whether trying again can help (`retryable`), and
what to do (`hint`). Foreign exceptions are mapped to these inside the adapter that met them.

Exit codes: 0 done, 1 the ledger that was checked does not hold, 2 wrong use, 3 something that is needed is missing,
busy, down, or failed. `docs/operations.md` has the table.
"""

from __future__ import annotations

from typing import ClassVar


class RempartError(Exception):
    """Root of the tree. `message` says what and why, `hint` says what to do; neither holds a secret or a prompt."""

    code: ClassVar[str] = "internal_error"
    openai_type: ClassVar[str] = "server_error"
    http_status: int = 500
    exit_code: ClassVar[int] = 3
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after_s = retry_after_s


# Wrong use: the caller can mend it.


class UsageError(RempartError):
    """A command was called with arguments that make no sense together."""

    code = "usage"
    http_status = 400
    openai_type = "invalid_request_error"
    exit_code = 2


class NoInstallation(UsageError):
    """The directory holds no ledger or no keys, and the command makes none."""

    code = "no_installation"


class ErasureRefused(UsageError):
    """What is to be erased must be kept, or a hold may not be released yet; it says why and until when."""

    code = "erasure_refused"
    http_status = 409


class ConfigError(RempartError):
    """rempart.toml, an option or a REMPART_ variable holds something that cannot be used."""

    code = "bad_configuration"
    exit_code = 2


class AddressInUse(ConfigError):
    """Another program listens at the address."""

    code = "address_in_use"
    exit_code = 3


class InvalidRequest(RempartError):
    """The body or the parameters of a request are not what the API takes."""

    code = "invalid_request"
    openai_type = "invalid_request_error"
    http_status = 400
    exit_code = 2


class RequestTooLarge(InvalidRequest):
    """The body is over `limits.body_bytes_max`."""

    code = "request_too_large"
    http_status = 413


class HeadersTooLarge(InvalidRequest):
    """The header section is over its limits (RFC 6585 section 5)."""

    code = "headers_too_large"
    http_status = 431


class UnsupportedEncoding(InvalidRequest):
    """A transfer coding other than `chunked` (RFC 9112 section 6.1)."""

    code = "unsupported_encoding"
    http_status = 501


class RequestTimeout(InvalidRequest):
    """The client did not send its request in time."""

    code = "request_timeout"
    http_status = 408


class NotFound(InvalidRequest):
    """There is nothing at this address or under this id."""

    code = "not_found"
    http_status = 404


class MethodNotAllowed(InvalidRequest):
    """The address exists, but not with this method."""

    code = "method_not_allowed"
    http_status = 405


class ModelNotFound(NotFound):
    """No engine here serves a model of that name, or this key may not use it."""

    code = "model_not_found"


class HostNotAllowed(InvalidRequest):
    """The Host header names none of this server's names (DNS rebinding)."""

    code = "host_not_allowed"
    http_status = 421


# Identity and quota.


class Unauthenticated(RempartError):
    """No key, or one that is malformed, unknown, expired or revoked."""

    code = "invalid_api_key"
    openai_type = "authentication_error"
    http_status = 401
    exit_code = 2


class Forbidden(RempartError):
    """The key is good, but its role may not do this."""

    code = "forbidden"
    openai_type = "permission_error"
    http_status = 403
    exit_code = 2


class RateLimited(RempartError):
    """The key has used up its requests of this minute."""

    code = "rate_limit_exceeded"
    openai_type = "rate_limit_error"
    http_status = 429
    retryable = True


class QuotaExceeded(RateLimited):
    """The key has used up its tokens of this day."""

    code = "insufficient_quota"


# Things of ours that are down.


class Overloaded(RempartError):
    """More work than the limits allow is already running."""

    code = "overloaded"
    http_status = 503
    exit_code = 3
    retryable = True


class ShuttingDown(Overloaded):
    """The server is draining and takes nothing new."""

    code = "shutting_down"


class LedgerUnavailable(RempartError):
    """The ledger cannot record, so nothing is answered (fail closed)."""

    code = "ledger_unavailable"
    http_status = 503
    exit_code = 3
    retryable = True


class LedgerCorrupt(RempartError):
    """What is on disk is not what was signed or acknowledged. Nothing is served until it is understood."""

    code = "ledger_corrupt"
    http_status = 503
    exit_code = 1


class WitnessError(RempartError):
    """A witness is away, or answers what no witness should. Exchanges are not touched by it."""

    code = "witness_error"
    http_status = 502
    exit_code = 3
    retryable = True


class TimestampError(RempartError):
    """The time-stamping authority is away, or its answer does not hold. Exchanges are not touched by it."""

    code = "timestamp_error"
    http_status = 502
    exit_code = 3
    retryable = True


class IndexDamaged(RempartError):
    """A part of the search index is not what was written. The ledger is untouched; the index is rebuilt from it."""

    code = "index_damaged"
    http_status = 503


class KeystoreError(RempartError):
    """A key is missing, unreadable, or its file can be read by others."""

    code = "keystore"
    http_status = 503
    exit_code = 2


class KeystoreChanged(KeystoreError):
    """Another process destroyed keys meanwhile: what was read of the keystore must be read again."""

    retryable = True


class KeystoreAway(KeystoreError):
    """The database of the keystore's rows does not answer."""

    retryable = True


class KeystoreTaken(KeystoreError):
    """Another gateway owns the keystore's rows in the database, or has destroyed keys there."""

    exit_code = 3


class SharedStateUnavailable(RempartError):
    """PostgreSQL, which has the API keys and limits of several gateways, does not answer (fail closed)."""

    code = "shared_state_unavailable"
    http_status = 503
    exit_code = 3
    retryable = True


class DirectoryLocked(RempartError):
    """Another process owns this data directory."""

    code = "directory_locked"
    http_status = 503
    exit_code = 3


class MissingDependency(RempartError):
    """A program, library or file that this needs is not installed."""

    code = "missing_dependency"
    exit_code = 3


# Engines: somebody else's.


class EngineError(RempartError):
    """The engine failed, or answered what no engine should."""

    code = "engine_error"
    http_status = 502
    exit_code = 3


class EngineUnavailable(EngineError):
    """The engine cannot be reached, is starting, or has died."""

    code = "engine_unavailable"
    http_status = 503
    retryable = True


class EngineTimeout(EngineError):
    """The engine did not answer, or stopped in the middle, past its deadline."""

    code = "engine_timeout"
    http_status = 504
    retryable = True


_CLIENT_CAN_MEND = frozenset({400, 404, 413, 422, 429})


class EngineRefused(EngineError):
    """The engine itself refused the request (a 4xx of its own), and says why.

    What only the operator can mend becomes 502.
    """

    code = "engine_refused"
    openai_type = "invalid_request_error"
    http_status = 400

    def __init__(self, message: str, *, status: int, hint: str = "", param: str | None = None) -> None:
        super().__init__(message, hint=hint, param=param)
        self.http_status = status if status in _CLIENT_CAN_MEND else 502


class ContextLengthExceeded(EngineRefused):
    """The conversation and the answer asked for are longer than the model's context."""

    code = "context_length_exceeded"


class ClientGone(RempartError):
    """The client closed its connection before the answer was whole."""

    code = "client_gone"
    http_status = 499
