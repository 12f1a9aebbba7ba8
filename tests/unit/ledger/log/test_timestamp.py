"""`rempart.ledger.log.timestamp` against OpenSSL's authority; and the pack's own verifier says the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rempart import limits
from rempart.errors import ConfigError, LedgerCorrupt, TimestampError
from rempart.ledger.log.timestamp import Authority
from rempart.ledger.reading import verify_timestamps
from rempart.testing import authority as testing
from rempart.testing.authority import Shape

NOTE = b"log.example/log\n7\nroot\n\n\xe2\x80\x94 log.example/log c2ln\n"


class Stamped:
    """An answer to a request for a stamp on `NOTE`, and whose it is."""

    def __init__(self, directory: Path, shape: Shape | None = None) -> None:
        self.real = testing.Authority(directory, shape)
        self.pem = self.real.ca_file.read_bytes()
        self.authority = Authority.from_pem(self.pem)
        self.asked = self.authority.ask(NOTE)
        self.answer = self.real.answer(self.asked.request)

    def token(self) -> bytes:
        return self.authority.accept(self.answer, self.asked, NOTE).token


@pytest.fixture(scope="module")
def stamped(tmp_path_factory: pytest.TempPathFactory) -> Stamped:
    return Stamped(tmp_path_factory.mktemp("tsa"))


def test_a_stamp_says_when_and_holds_for_these_bytes_alone(stamped: Stamped) -> None:
    stamp = stamped.authority.accept(stamped.answer, stamped.asked, NOTE)
    assert abs((stamp.time - datetime.now(UTC)).total_seconds()) < 3_600
    assert stamped.authority.check(stamp.token, NOTE) == stamp.time
    with pytest.raises(LedgerCorrupt, match="for other bytes than this checkpoint"):
        stamped.authority.check(stamp.token, NOTE + b"x")


def test_the_packs_verifier_finds_the_same(stamped: Stamped) -> None:
    stamp = stamped.authority.accept(stamped.answer, stamped.asked, NOTE)
    token = verify_timestamps.read(stamp.token, NOTE)
    verify_timestamps.verify(token, stamped.pem)
    assert token.time == stamp.time
    with pytest.raises(verify_timestamps.Refused, match="for other bytes"):
        verify_timestamps.read(stamp.token, NOTE + b"x")


@pytest.mark.parametrize("shape", [Shape(rsa=True), Shape(digest="sha512"), Shape(rsa=True, digest="sha384")])
def test_rsa_and_longer_digests_do_as_well(tmp_path: Path, shape: Shape) -> None:
    stamped = Stamped(tmp_path, shape)
    token = stamped.token()
    stamped.authority.check(token, NOTE)
    verify_timestamps.verify(verify_timestamps.read(token, NOTE), stamped.pem)


def test_the_order_of_certificates_in_an_answer_does_not_matter(tmp_path: Path) -> None:
    """OpenSSL writes them as they come; whether that is DER's order is chance."""
    for number in range(4):
        Stamped(tmp_path / str(number)).token()


def test_an_answer_to_another_question_is_refused(stamped: Stamped) -> None:
    """The same note, asked twice: the first answer is played back."""
    with pytest.raises(TimestampError, match="Nonce mismatch"):
        stamped.authority.accept(stamped.answer, stamped.authority.ask(NOTE), NOTE)


def test_an_answer_for_other_bytes_is_refused(stamped: Stamped) -> None:
    other = stamped.authority.ask(b"other bytes")
    with pytest.raises(TimestampError, match="for other bytes"):
        stamped.authority.accept(stamped.real.answer(other.request), other, NOTE)


def test_a_request_that_is_rejected_is_told(stamped: Stamped) -> None:
    with pytest.raises(TimestampError, match=r"gives no stamp \(status 2\)"):
        stamped.authority.accept(stamped.real.answer(b"\x30\x03\x02\x01\x07"), stamped.asked, NOTE)


def test_granted_without_a_token_is_refused(stamped: Stamped) -> None:
    with pytest.raises(TimestampError, match="does not hold"):
        stamped.authority.accept(bytes.fromhex("30053003020100"), stamped.asked, NOTE)


@pytest.mark.parametrize(
    ("shape", "why", "pack"),
    [
        (Shape(from_days=-30, upto_days=-1), "expired", "not valid on"),
        (Shape(from_days=1), "not yet valid", "not valid on"),
        (Shape(between_is_ca=False), "invalid CA certificate", "does not lead to the authority's root"),
    ],
    ids=["expired", "not yet valid", "signed by one that may not"],
)
def test_a_certificate_that_will_not_do_is_refused(tmp_path: Path, shape: Shape, why: str, pack: str) -> None:
    stamped = Stamped(tmp_path, shape)
    with pytest.raises(TimestampError, match=why):
        stamped.token()
    token = _token_of(stamped.answer)
    with pytest.raises(verify_timestamps.Refused, match=pack):
        verify_timestamps.verify(verify_timestamps.read(token, NOTE), stamped.pem)


def test_a_certificate_that_is_for_something_else_stamps_nothing(stamped: Stamped, tmp_path: Path) -> None:
    """The same time and imprint, signed by a certificate of the same authorities that may sign code."""
    content = verify_timestamps.read(stamped.token(), NOTE).content
    for usage in (ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING):
        other = testing.Authority(tmp_path / usage.dotted_string, Shape(usage=usage))
        token, pem = other.sign(content), other.ca_file.read_bytes()
        if usage == ExtendedKeyUsageOID.TIME_STAMPING:
            Authority.from_pem(pem).check(token, NOTE)
            verify_timestamps.verify(verify_timestamps.read(token, NOTE), pem)
            continue
        with pytest.raises(LedgerCorrupt, match="unsuitable certificate purpose"):
            Authority.from_pem(pem).check(token, NOTE)
        with pytest.raises(verify_timestamps.Refused, match="not for time stamping alone"):
            verify_timestamps.verify(verify_timestamps.read(token, NOTE), pem)


def _token_of(answer: bytes) -> bytes:
    fields = verify_timestamps.elements(verify_timestamps.elements(answer)[0].inner)
    return fields[-1].whole


def test_the_stamp_of_another_authority_is_refused(stamped: Stamped, tmp_path: Path) -> None:
    other = testing.Authority(tmp_path).ca_file.read_bytes()
    with pytest.raises(TimestampError, match="does not hold"):
        Authority.from_pem(other).accept(stamped.answer, stamped.asked, NOTE)
    with pytest.raises(LedgerCorrupt, match="does not hold"):
        Authority.from_pem(other).check(stamped.token(), NOTE)
    with pytest.raises(verify_timestamps.Refused, match="does not lead to the authority's root"):
        verify_timestamps.verify(verify_timestamps.read(stamped.token(), NOTE), other)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda pem: b"", "cannot be read"),
        (lambda pem: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        (lambda pem: pem[pem.rindex(b"-----BEGIN") :], "No root"),
    ],
)
def test_a_file_without_a_root_is_refused(stamped: Stamped, change: Callable[[bytes], bytes], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        Authority.from_pem(change(stamped.pem))


def test_a_token_that_is_too_large_is_not_read(stamped: Stamped) -> None:
    with pytest.raises(LedgerCorrupt, match="too large"):
        stamped.authority.check(stamped.token() + bytes(limits.timestamp_bytes_max), NOTE)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_changed_in_an_answer_raises_our_errors_alone(stamped: Stamped, data: st.DataObject) -> None:
    """What is changed in an unsigned part may hold still, and then says the same."""
    answer = bytearray(stamped.answer)
    for _ in range(data.draw(st.integers(1, 4))):
        answer[data.draw(st.integers(0, len(answer) - 1))] = data.draw(st.integers(0, 255))
    changed = bytes(answer)[: data.draw(st.sampled_from([len(answer), len(answer) // 2, len(answer) - 1]))]
    when = stamped.authority.accept(stamped.answer, stamped.asked, NOTE).time
    try:
        assert stamped.authority.accept(changed, stamped.asked, NOTE).time == when
    except TimestampError:
        assert changed != stamped.answer
    try:
        token = verify_timestamps.read(_token_of(changed) if changed[:1] == b"\x30" else changed, NOTE)
        verify_timestamps.verify(token, stamped.pem)
        assert token.time == when
    except (verify_timestamps.Refused, verify_timestamps.Unchecked):
        assert changed != stamped.answer


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=200))
def test_garbage_is_no_stamp(stamped: Stamped, garbage: bytes) -> None:
    with pytest.raises(TimestampError):
        stamped.authority.accept(garbage, stamped.asked, NOTE)
    with pytest.raises(LedgerCorrupt):
        stamped.authority.check(garbage, NOTE)
    with pytest.raises(verify_timestamps.Refused):
        verify_timestamps.read(garbage, NOTE)
