"""`rempart.ledger.log.policy`: which files are a policy, and which checkpoints satisfy one."""

from __future__ import annotations

import pytest

from rempart import limits
from rempart.errors import ConfigError, LedgerCorrupt
from rempart.ledger.log.checkpoint import Checkpoint, Signer, encode_vkey, with_signatures
from rempart.ledger.log.cosignature import ED25519, ML_DSA_44, Cosigner
from rempart.ledger.log.policy import Policy

ORIGIN = "rempart.test/log"
HEAD = Checkpoint(ORIGIN, 300, bytes(range(32)))
LOG = Signer(ORIGIN, bytes(32))
NEW_LOG = Signer(ORIGIN, b"\x09" * 32)
PQ_LOG = Cosigner(ORIGIN, b"\x0a" * 32, ML_DSA_44)
WITNESSES = [
    Cosigner(f"witness.example/{number}", bytes([number + 1]) * 32, ML_DSA_44 if number == 5 else ED25519)
    for number in range(6)
]
X1, X2, X3, Y1, Y2, Y3 = (witness.verifier.vkey for witness in WITNESSES)
TIME = 1_790_000_000
EXAMPLE = f"""
# The example of tlog-policy.
log {LOG.verifier.vkey}

witness X1 {X1}
witness X2 {X2}
witness X3 {X3}
group X-witnesses 2 X1 X2 X3

witness Y1 {Y1}
witness Y2 {Y2}
witness Y3 {Y3}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""
NO_QUORUM = f"log {LOG.verifier.vkey}\nquorum none\n"


def policy(text: str) -> Policy:
    return Policy.parse(text.encode())


def note(*numbers: int, time: int = TIME) -> bytes:
    return with_signatures(LOG.sign(HEAD), [WITNESSES[number].cosign(HEAD.text(), time) for number in numbers])


# Files.


def test_the_example_of_the_standard_is_read() -> None:
    read = policy(EXAMPLE)
    assert [log.key.vkey for log in read.logs] == [LOG.verifier.vkey]
    assert [(witness.name, witness.key.vkey) for witness in read.witnesses] == [
        ("X1", X1),
        ("X2", X2),
        ("X3", X3),
        ("Y1", Y1),
        ("Y2", Y2),
        ("Y3", Y3),
    ]
    assert [(group.name, group.threshold, group.members) for group in read.groups] == [
        ("X-witnesses", 2, ("X1", "X2", "X3")),
        ("Y-witnesses", 1, ("Y1", "Y2", "Y3")),
        ("X-and-Y", 2, ("X-witnesses", "Y-witnesses")),
    ]
    assert read.quorum == "X-and-Y"


def test_tabs_spaces_addresses_and_comments_may_stand_there() -> None:
    read = policy(
        f" \t\n\t# a comment\n  log\t{LOG.verifier.vkey}  https://log.test/ \n"
        f"witness  w {X1}\thttps://w.test \n quorum w\t\n"
    )
    assert read.logs[0].url == "https://log.test/"
    assert read.witnesses[0].url == "https://w.test"
    assert read.quorum == "w"


def test_a_policy_may_name_no_log_and_then_opens_nothing() -> None:
    read = policy("quorum none\n")
    assert (read.logs, read.witnesses, read.groups) == ((), (), ())
    with pytest.raises(LedgerCorrupt, match="no log of the policy"):
        read.open(note())


def test_what_follows_the_quorum_is_read_as_well() -> None:
    assert len(policy(f"quorum none\nwitness w {X1}\n").witnesses) == 1


def test_names_are_octets() -> None:
    kelvin, latin = b"\xe2\x84\xaa", b"\xe9\xff"
    read = Policy.parse(
        b"witness K %s\nwitness %s %s\nwitness %s %s\ngroup g all K %s %s\nquorum g\n"
        % (X1.encode(), kelvin, X2.encode(), latin, X3.encode(), kelvin, latin)
    )
    assert [witness.name.encode("utf-8", "surrogateescape") for witness in read.witnesses] == [b"K", kelvin, latin]
    assert len(set(read.groups[0].members)) == 3


def test_an_error_about_such_a_name_can_be_printed() -> None:
    with pytest.raises(ConfigError, match=r"Line 1 of the policy: '\\xff' is not defined above") as caught:
        Policy.parse(b"quorum \xff\n")
    assert caught.value.message.encode()
    read = Policy.parse(b"log %s\nwitness \xff %s\nquorum \xff\n" % (LOG.verifier.vkey.encode(), X1.encode()))
    with pytest.raises(LedgerCorrupt, match="no witness cosigned") as refused:
        read.open(note())
    assert refused.value.message.encode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cut"),
        ("\n", "no quorum"),
        ("quorum none", "cut"),
        ("quorum none\nquorum none\n", "Line 2.*quorum already"),
        ("quorum\n", "too few"),
        ("quorum a b\n", "too few items or too many"),
        ("quorum w\n", "'w' is not defined"),
        (f"quorum w\nwitness w {X1}\n", "Line 1.*'w' is not defined"),
        (f"witness w {X1} url # comment\nquorum none\n", "too many"),
        ("witness w\nquorum none\n", "too few"),
        ("log\nquorum none\n", "too few"),
        (f"log {LOG.verifier.vkey} one two\nquorum none\n", "too many"),
        ("log nonsense\nquorum none\n", "no verifier key"),
        (f"log {X1}\nquorum none\n", "no Ed25519 verifier key"),
        (f"witness w {LOG.verifier.vkey}\nquorum none\n", "no type that cosigns"),
        (f"witness none {X1}\nquorum none\n", "'none' is taken"),
        (f"witness w {X1}\nwitness w {X2}\nquorum none\n", "'w' is taken"),
        (f"witness w {X1}\ngroup w any w\nquorum w\n", "'w' is taken"),
        (f"witness w {X1}\ngroup none any w\nquorum w\n", "'none' is taken"),
        (f"witness w {X1}\nwitness v {X1}\nquorum none\n", "is there already"),
        (f"log {LOG.verifier.vkey}\nlog {LOG.verifier.vkey}\nquorum none\n", "is there already"),
        ("group g any\nquorum g\n", "too few"),
        ("group g\nquorum g\n", "too few"),
        ("group g any none\nquorum g\n", "'none' is not defined"),
        ("group g any g\nquorum g\n", "'g' is not defined"),
        (f"group g any w\nwitness w {X1}\nquorum g\n", "'w' is not defined"),
        (f"witness w {X1}\ngroup g any w w\nquorum g\n", "member already"),
        (f"witness w {X1}\ngroup g any w\ngroup h any w\nquorum g\n", "member already"),
        (f"witness w {X1}\ngroup g 0 w\nquorum g\n", "from 1 to 1"),
        (f"witness w {X1}\ngroup g 2 w\nquorum g\n", "from 1 to 1"),
        (f"witness w {X1}\ngroup g 01 w\nquorum g\n", "from 1 to 1"),
        (f"witness w {X1}\ngroup g -1 w\nquorum g\n", "from 1 to 1"),
        (f"witness w {X1}\ngroup g {'9' * 5000} w\nquorum g\n", "from 1 to 1"),
        (f"witness w {X1}\ngroup g ١ w\nquorum g\n", "from 1 to 1"),
        (f"witness w {X1}\ngroup g most w\nquorum g\n", "neither all, any"),
        ("Quorum none\n", "'Quorum' is none of"),
        ("quorum none\r\n", "control character"),
        ("quorum none\x00\n", "control character"),
        ("quorum none\x7f\n", "control character"),
        ("quorum\x0bnone\n", "control character"),
        ("quorum\u00a0none\n", "is none of log"),
    ],
)
def test_what_is_no_policy_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        policy(text)


def test_the_same_public_key_under_another_name_is_the_same_witness_and_the_same_log() -> None:
    renamed = encode_vkey("another.example", ED25519, WITNESSES[0].verifier.public_key)
    with pytest.raises(ConfigError, match="is there already"):
        policy(f"witness w {X1}\nwitness v {renamed}\nquorum none\n")
    renamed = Signer("another.example", bytes(32)).verifier.vkey
    with pytest.raises(ConfigError, match="is there already"):
        policy(f"log {LOG.verifier.vkey}\nlog {renamed}\nquorum none\n")


def test_a_log_and_a_witness_may_share_a_key() -> None:
    shared = Cosigner("witness.example/shared", bytes(32), ED25519)
    read = policy(f"log {LOG.verifier.vkey}\nwitness w {shared.verifier.vkey}\nquorum w\n")
    assert read.open(with_signatures(LOG.sign(HEAD), [shared.cosign(HEAD.text(), TIME)])).witnesses == {"w": TIME}


def many(logs: int, witnesses: int, groups: int) -> str:
    lines = [f"log {Signer(ORIGIN, number.to_bytes(32, 'big')).verifier.vkey}" for number in range(logs)]
    for number in range(witnesses):
        lines.append(f"witness w{number} {Cosigner('w', (number + 1000).to_bytes(32, 'big')).verifier.vkey}")
    lines.extend(f"group g{number} any w{number}" for number in range(groups))
    return "\n".join([*lines, "quorum none\n"])


def test_a_policy_has_room_for_64_of_each_and_no_more() -> None:
    most = (limits.policy_logs_max, limits.policy_witnesses_max, limits.policy_groups_max)
    read = policy(many(*most))
    assert (len(read.logs), len(read.witnesses), len(read.groups)) == most == (64, 64, 64)
    for over in ((65, 0, 0), (0, 65, 0)):
        with pytest.raises(ConfigError, match="more than 64"):
            policy(many(*over))
    with pytest.raises(ConfigError, match="more than 64 groups"):
        policy(many(0, 64, 64).replace("quorum none", "group over any g0\nquorum none"))
    with pytest.raises(ConfigError, match="bytes"):
        policy("#" * limits.policy_bytes_max + "\nquorum none\n")


# Checkpoints.


def test_a_checkpoint_with_the_quorum_is_opened_with_its_witnesses_and_their_times() -> None:
    opened = policy(EXAMPLE).open(note(0, 2, 5))
    assert opened.checkpoint == HEAD
    assert opened.witnesses == {"X1": TIME, "X3": TIME, "Y3": TIME}


@pytest.mark.parametrize("numbers", [(), (0,), (0, 1), (3, 4, 5), (0, 3), (1, 4, 5)])
def test_a_checkpoint_without_the_quorum_is_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(LedgerCorrupt, match="lacks the quorum 'X-and-Y'") as caught:
        policy(EXAMPLE).open(note(*numbers))
    assert caught.value.hint


def test_a_policy_may_ask_for_no_witness_or_for_one() -> None:
    assert policy(NO_QUORUM).open(note()).witnesses == {}
    single = policy(f"log {LOG.verifier.vkey}\nwitness w {X1}\nquorum w\n")
    assert single.open(note(0)).witnesses == {"w": TIME}
    with pytest.raises(LedgerCorrupt, match="lacks the quorum"):
        single.open(note(1))


def test_the_log_has_to_sign_however_many_witnesses_did() -> None:
    other = Signer(ORIGIN, b"\x0b" * 32)
    lines = [witness.cosign(HEAD.text(), TIME) for witness in WITNESSES]
    with pytest.raises(LedgerCorrupt, match="signed by no log"):
        policy(EXAMPLE).open(with_signatures(other.sign(HEAD), lines))


def test_the_name_of_the_logs_key_is_the_origin() -> None:
    other = Checkpoint("another.test/log", 300, HEAD.root)
    with pytest.raises(LedgerCorrupt, match="signed by no log"):
        policy(NO_QUORUM).open(LOG.sign(other))


def test_one_log_of_several_is_enough() -> None:
    other = Signer("another.test/log", b"\x0c" * 32)
    both = policy(f"log {LOG.verifier.vkey}\nlog {other.verifier.vkey}\nquorum none\n")
    assert both.open(LOG.sign(HEAD)).checkpoint.origin == ORIGIN
    assert both.open(other.sign(Checkpoint("another.test/log", 1, bytes(32)))).checkpoint.size == 1
    crossed = with_signatures(other.sign(HEAD), [])
    with pytest.raises(LedgerCorrupt, match="signed by no log"):
        both.open(crossed)


def test_a_log_that_changes_its_key_is_opened_under_either() -> None:
    both = policy(f"log {LOG.verifier.vkey}\nlog {NEW_LOG.verifier.vkey}\nlog {PQ_LOG.verifier.vkey}\nquorum none\n")
    overlapping = with_signatures(LOG.sign(HEAD), [NEW_LOG.line(HEAD.text()), PQ_LOG.cosign(HEAD.text(), 0)])
    for signed in (LOG.sign(HEAD), NEW_LOG.sign(HEAD), overlapping):
        assert both.open(signed).checkpoint == HEAD
    assert policy(f"log {PQ_LOG.verifier.vkey}\nquorum none\n").open(overlapping).checkpoint == HEAD


def test_a_known_key_whose_signature_is_not_valid_spoils_the_note() -> None:
    wrong = WITNESSES[4].cosign(Checkpoint(ORIGIN, 301, HEAD.root).text(), TIME)
    spoilt = with_signatures(note(0, 1, 3), [wrong])
    with pytest.raises(LedgerCorrupt, match=r"cosignature of witness\.example/4 is not valid"):
        policy(EXAMPLE).open(spoilt)
    without = policy(EXAMPLE.replace(f"witness Y2 {Y2}\n", "").replace("Y1 Y2 Y3", "Y1 Y3"))
    assert set(without.open(spoilt).witnesses) == {"X1", "X2", "Y1"}  # to this policy the key is unknown


def test_unknown_keys_are_ignored_also_under_a_known_name() -> None:
    stranger = Cosigner("witness.example/0", b"\x0d" * 32, ED25519)
    lines = [stranger.cosign(HEAD.text(), TIME), f"— {ORIGIN} AAAAAAAA\n".encode()]
    opened = policy(EXAMPLE).open(with_signatures(note(0, 1, 3), lines))
    assert set(opened.witnesses) == {"X1", "X2", "Y1"}


def test_a_witness_that_signed_twice_counts_once_with_its_newest_time() -> None:
    again = WITNESSES[0].cosign(HEAD.text(), TIME + 60)
    twice = LOG.sign(HEAD) + again + WITNESSES[0].cosign(HEAD.text(), TIME)
    with pytest.raises(LedgerCorrupt, match="lacks the quorum"):
        policy(EXAMPLE).open(twice)
    assert policy(f"log {LOG.verifier.vkey}\nwitness w {X1}\nquorum w\n").open(twice).witnesses == {"w": TIME + 60}


def test_cosignatures_dated_beyond_the_leeway_do_not_count_when_the_time_is_known() -> None:
    read = policy(EXAMPLE)
    ahead = TIME + int(limits.cosignature_leeway_s)
    assert read.open(note(0, 1, 3, time=ahead), now=TIME).witnesses["X1"] == ahead
    late = note(0, 1, 3, time=ahead + 1)
    with pytest.raises(LedgerCorrupt, match="lacks the quorum"):
        read.open(late, now=TIME)
    assert read.open(late).witnesses["X1"] == ahead + 1


def test_one_witness_with_a_fast_clock_spoils_nothing() -> None:
    fast = with_signatures(note(0, 1, 3), [WITNESSES[2].cosign(HEAD.text(), TIME + 3600)])
    assert set(policy(EXAMPLE).open(fast, now=TIME).witnesses) == {"X1", "X2", "Y1"}


def test_extension_lines_are_under_the_logs_signature() -> None:
    text = HEAD.text() + b"extension\n"
    signed = text + b"\n" + LOG.line(text)
    assert policy(NO_QUORUM).open(signed).checkpoint == HEAD
    with pytest.raises(LedgerCorrupt, match="not valid"):
        policy(NO_QUORUM).open(signed.replace(b"extension", b"Extension"))


@pytest.mark.parametrize("cosigned", [{"X1", "X2", "Y1"}, {"X-witnesses", "Y-witnesses"}, {"X-and-Y"}])
def test_only_witnesses_make_a_quorum(cosigned: set[str]) -> None:
    assert policy(EXAMPLE).is_met(cosigned) == ("X1" in cosigned)
