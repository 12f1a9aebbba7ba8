"""`rempart.config.load`: what cannot be used stops with its name and what to do, and with nothing but `ConfigError`."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart import limits
from rempart.config.load import load
from rempart.config.settings import Engine
from rempart.errors import ConfigError


def refused(tmp_path: Path, text: str) -> ConfigError:
    file = tmp_path / "rempart.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load({}, {}, file)
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nprot = 1", "server.prot"),
        ("[serve]\nport = 1", "serve"),
        ("port = 1", "port"),
        ('[[engines]]\nname = "a"\nmodle = "x"', "engines.a.modle"),
        ('[[engines]]\nmodle = "x"\nname = 1', "engines[0].modle"),
        ("[ledger]\nseal = true", "ledger.seal"),
    ],
)
def test_an_unknown_field_and_its_file_are_named(tmp_path: Path, text: str, named: str) -> None:
    error = refused(tmp_path, text)
    assert error.message == f"{tmp_path / 'rempart.toml'}: there is no setting `{named}`."


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[server]\nprot = 1", "Did you mean server.port?"),
        ("[sever]\nport = 1", "Did you mean server?"),
        ('[[engines]]\nname = "a"\nmodle = "x"', "Did you mean engines.a.model?"),
        ("[logging]\ncolour = 1", "There are: level. See docs/configuration.md."),
    ],
)
def test_what_was_meant_is_guessed_or_listed(tmp_path: Path, text: str, hint: str) -> None:
    assert refused(tmp_path, text).hint == hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('[logging]\nlevel = "loud"', "logging.level is 'loud'.", "Allowed: debug, info, warning, error."),
        ('[[engines]]\nname = "a"\nkind = "magic"', "engines.a.kind is 'magic'.", "Allowed: embedded, openai."),
    ],
)
def test_a_word_of_a_list_is_answered_with_the_list(tmp_path: Path, text: str, message: str, hint: str) -> None:
    error = refused(tmp_path, text)
    assert (error.message, error.hint) == (f"{tmp_path / 'rempart.toml'}: {message}", hint)


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("REMPART_SERVER_PRT", "1", "there is no setting `server.prt`."),
        ("REMPART_SERVER_PORT", "eighty", "server.port must be a whole number, not text."),
        ("REMPART_SERVER_PORT", "99999", "server.port is 99999."),
        ("REMPART_SERVER_DRAIN_S", "-1", "server.drain_s must be positive."),
        ("REMPART_LOGGING_LEVEL", "loud", "logging.level is 'loud'."),
        ("REMPART_LEDGER_STRICT", "perhaps", "ledger.strict must be true or false, not text."),
        ("REMPART_ENGINES", "vllm", "engines must be a list, not text."),
        ("REMPART_SPEED", "1", "there is no setting `speed`."),
        ("REMPART_DATA", "", "data is empty."),
        ("REMPART_SERVER_CERTIFICATE", "", "server.certificate is empty."),
    ],
)
def test_what_is_wrong_in_a_variable_names_the_variable(tmp_path: Path, variable: str, text: str, message: str) -> None:
    file = tmp_path / "rempart.toml"
    file.write_text("[server]\nexchanges_max = 1\n[logging]\n[ledger]\n")
    with pytest.raises(ConfigError) as caught:
        load({}, {variable: text}, file)
    assert caught.value.message == f"{variable}: {message}"
    assert "config explain" not in caught.value.hint  # which would fail in the same way


def test_what_is_wrong_in_an_option_names_the_option() -> None:
    with pytest.raises(ConfigError, match=r"^--port: server\.port is 70000"):
        load({"server.port": 70_000}, {})


FAR = '[[engines]]\nname = "far"\nkind = "openai"\n'


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('timestamp_url = "http://tsa.example/ts"', "without TLS"),
        ('timestamp_url = "http://10.0.0.7/ts"', "without TLS"),
        ('timestamp_url = "ftp://tsa.example"', "ledger.timestamp_url is 'ftp://tsa.example'"),
        ('timestamp_url = "https://me:secret@tsa.example"', "ledger.timestamp_url is"),
        ('timestamp_url = "https://tsa.example"', "needs ledger.timestamp_ca_file"),
        ("timestamp_s = 0.5", "ledger.timestamp_s must be at least 1."),
        ("timestamp_s = nan", "ledger.timestamp_s must be at least 1."),
    ],
)
def test_a_time_stamping_authority_that_will_not_do_is_refused(tmp_path: Path, lines: str, message: str) -> None:
    ca = "" if "needs" in message else 'timestamp_ca_file = "ca.pem"'
    (tmp_path / "rempart.toml").write_text(f"[ledger]\n{ca}\n{lines}\n")
    with pytest.raises(ConfigError, match=re.escape(message)):
        load({}, {}, tmp_path / "rempart.toml")


@pytest.mark.parametrize("url", ["https://tsa.example/ts", "http://127.0.0.1:3180/ts", "http://[::1]/"])
def test_a_time_stamping_authority_over_tls_or_on_this_machine_will_do(tmp_path: Path, url: str) -> None:
    (tmp_path / "rempart.toml").write_text(f'[ledger]\ntimestamp_ca_file = "ca.pem"\ntimestamp_url = "{url}"\n')
    assert load({}, {}, tmp_path / "rempart.toml").settings.ledger.timestamp_url == url


@pytest.mark.parametrize("host", ["10.0.0.7:8000", "vllm.hospital.example", "[2001:db8::7]:8000", "localhost.example"])
def test_an_engine_elsewhere_is_not_asked_in_clear(tmp_path: Path, host: str) -> None:
    error = refused(tmp_path, f'{FAR}url = "http://{host}"')
    assert error.message.startswith(f"{tmp_path / 'rempart.toml'}: engines.far.url is http://{host}, without TLS")
    assert "https://" in error.hint
    assert "plain_http = true" in error.hint


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000/v1", "http://[::1]:8000"])
def test_an_engine_on_this_machine_may_be_asked_in_clear(tmp_path: Path, url: str) -> None:
    (tmp_path / "rempart.toml").write_text(f'{FAR}url = "{url}"')
    assert load({}, {}, tmp_path / "rempart.toml").settings.engines[0].url == url


def test_an_engine_elsewhere_is_asked_in_clear_when_the_settings_say_so(tmp_path: Path) -> None:
    (tmp_path / "rempart.toml").write_text(f'{FAR}url = "http://10.0.0.7"\nplain_http = true')
    assert load({}, {}, tmp_path / "rempart.toml").settings.engines[0].plain_http


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[server]\nport = "8080"', "server.port"),
        ("[server]\nport = 1.5", "server.port"),
        ("[server]\nhost = 1", "server.host"),
        ("[server]\nallowed_hosts = 1", "server.allowed_hosts"),
        ("[server]\nallowed_hosts = [1]", "server.allowed_hosts"),
        ('[ledger]\nstrict = "yes"', "ledger.strict"),
        ('[logging]\nlevel = "loud"', "logging.level"),
        ("server = 1", "server"),
        ("engines = 1", "engines"),
        ("engines = [1]", "engines"),
        ('[[engines]]\nname = "a"\nkind = "magic"', "engines.a.kind"),
        ('[[engines]]\nkind = "embedded"', "`name`"),
        ('[[engines]]\nname = "a"\nmodels = ["b"]', "engines.a.models"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(tmp_path: Path, text: str, named: str) -> None:
    assert named in refused(tmp_path, text).message


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("data = 1", "data"),
        ("[server]\ncertificate = 1\nkey = 2", "server"),
        ('[[engines]]\nname = "a"\nmodel = 1', "engines.a.model"),
    ],
)
def test_a_path_that_is_no_text_is_named(tmp_path: Path, text: str, named: str) -> None:
    assert named in refused(tmp_path, text).message


def test_a_variable_that_is_no_number_is_named() -> None:
    with pytest.raises(ConfigError, match=r"server\.port"):
        load({}, {"REMPART_SERVER_PORT": "eighty"})


def test_an_unknown_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^REMPART_SERVER_PROT: .*`server\.prot`"):
        load({}, {"REMPART_SERVER_PROT": "80"})


def test_a_variable_into_a_section_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rempart.toml"
    file.write_text("server = 3")
    with pytest.raises(ConfigError, match="server must be a table"):
        load({}, {"REMPART_SERVER_PORT": "1"}, file)


@pytest.mark.parametrize("content", [b"[server\n", b"port = \n", b"a = 1\na = 2\n", b"\xff\xfe", b"\x00"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "rempart.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="is not TOML") as caught:
        load({}, {}, file)
    assert str(file) in caught.value.message


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read") as caught:
            load({}, {}, path)
        assert str(path) in caught.value.message


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "llm.example", ""])
def test_beyond_this_machine_nothing_is_served_in_clear(host: str) -> None:
    with pytest.raises(ConfigError, match="in clear") as caught:
        load({"server.host": host}, {})
    assert "certificate" in caught.value.hint


def test_beyond_this_machine_a_certificate_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "rempart.toml"
    file.write_text('[server]\nhost = "0.0.0.0"\ncertificate = "c.pem"\nkey = "k.pem"\n')
    assert load({}, {}, file).settings.server.certificate == Path("c.pem")


@pytest.mark.parametrize("name", ["certificate", "key"])
def test_certificate_and_key_belong_together(tmp_path: Path, name: str) -> None:
    assert "belong together" in refused(tmp_path, f'[server]\n{name} = "x.pem"').message


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=str(port)):
        load({"server.port": port}, {})


@pytest.mark.parametrize("value", ["0", "-1"])
@pytest.mark.parametrize("name", ["body_bytes_max", "exchanges_max", "exchange_s"])
def test_a_bound_that_lets_nothing_through_is_refused(tmp_path: Path, name: str, value: str) -> None:
    assert f"server.{name}" in refused(tmp_path, f"[server]\n{name} = {value}").message


@pytest.mark.parametrize(
    ("name", "value"), [("exchange_s", "nan"), ("exchange_s", "inf"), ("drain_s", "nan"), ("drain_s", "-1")]
)
def test_a_time_that_never_comes_is_refused(tmp_path: Path, name: str, value: str) -> None:
    assert f"server.{name}" in refused(tmp_path, f"[server]\n{name} = {value}").message


def test_a_body_that_the_ledger_could_not_record_is_refused(tmp_path: Path) -> None:
    most = limits.segment_bytes // 3
    assert str(most) in refused(tmp_path, f"[server]\nbody_bytes_max = {most + 1}").hint


@pytest.mark.parametrize("word", ["", "Standard", "medical-6y", "a/b"])
def test_a_retention_class_that_is_not_there_is_refused(tmp_path: Path, word: str) -> None:
    error = refused(tmp_path, f'[ledger]\nretention = "{word}"')
    assert "ledger.retention" in error.message
    assert "standard" in error.hint


@pytest.mark.parametrize("word", ["Standard", "two words", "-x", "x" * 33, "a/b", "a\\nb", ""])
def test_a_class_whose_name_is_no_short_word_is_refused(tmp_path: Path, word: str) -> None:
    assert "short word" in refused(tmp_path, f'[retention."{word}"]\ndays = 1\nbasis = "b"').message


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("days = 0\nbasis = 'b'", "retention.x.days"),
        ("days = -1\nbasis = 'b'", "retention.x.days"),
        (f"days = {limits.retention_days_max + 1}\nbasis = 'b'", "retention.x.days"),
        ("days = 1\nbasis = ' '", "retention.x.basis"),
        (f"days = 1\nbasis = '{'b' * (limits.retention_basis_chars_max + 1)}'", "retention.x.basis"),
        ("days = 1\nbasis = 'b'\nworm = true\nerase_with_actor = true", "both worm"),
        ("days = 1", "`basis`"),
        ("basis = 'b'", "`days`"),
        ("days = 1.5\nbasis = 'b'", "days"),
        ("days = 1\nbasis = 'b'\nwrom = true", "wrom"),
    ],
)
def test_a_class_that_cannot_be_kept_is_refused(tmp_path: Path, lines: str, named: str) -> None:
    assert named in refused(tmp_path, f"[retention.x]\n{lines}").message


def test_a_field_of_a_class_that_is_none_is_named_with_its_file_and_what_was_meant(tmp_path: Path) -> None:
    error = refused(tmp_path, "[retention.x]\ndays = 1\nbasis = 'b'\nwrom = true")
    assert error.message == f"{tmp_path / 'rempart.toml'}: there is no setting `retention.<class>.wrom`."
    assert error.hint == "Did you mean retention.<class>.worm?"


def test_more_classes_than_anyone_needs_are_refused(tmp_path: Path) -> None:
    text = "".join(f"[retention.c{n}]\ndays = 1\nbasis = 'b'\n" for n in range(limits.retention_classes_max))
    assert "classes" in refused(tmp_path, text).message


def test_retention_that_is_no_table_of_tables_is_refused(tmp_path: Path) -> None:
    for text in ("retention = 1", "[retention]\ndays = 1", "[[retention]]\ndays = 1"):
        assert "retention" in refused(tmp_path, text).message


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ('sealing = "passphrase"', "keys.passphrase_file"),
        ('sealing = "pkcs11"\npkcs11_library = "/l"\npkcs11_token = "t"', "keys.pkcs11_pin_file"),
        ('database = "dbname=rempart"', "keys.database"),
        ('database = "postgresql://rempart:secret@db/rempart"', "holds a password"),
        ('database = "postgresql://db/rempart?password=secret"', "holds a password"),
    ],
)
def test_keys_that_cannot_be_kept_so_are_refused(tmp_path: Path, lines: str, named: str) -> None:
    error = refused(tmp_path, f"[keys]\n{lines}")
    assert named in error.message
    assert "secret" not in f"{error.message} {error.hint}"


def test_a_class_may_not_be_called_as_the_directory_of_what_is_held(tmp_path: Path) -> None:
    assert "held" in refused(tmp_path, '[retention.held]\ndays = 1\nbasis = "b"').message


def test_engines_need_names_of_their_own(tmp_path: Path) -> None:
    assert "names" in refused(tmp_path, '[[engines]]\nname = "a"\n[[engines]]\nname = "a"').message
    assert "names" in refused(tmp_path, "engines = []").message


@pytest.mark.parametrize(
    "url",
    [
        *("", "10.0.0.7:8000", "ftp://10.0.0.7", "file:///etc/passwd", "http://", "http://:8000", "http://10.0.0.7:x"),
        *("http://10.0.0.7:0", "http://10.0.0.7:99999", "https://me:secret@10.0.0.7", "http://10.0.0.7/?key=1"),
        *("http://10.0.0.7/a b", "http://[::1", "http://10.0.0.7/\\u00e9"),
    ],
)
def test_an_engine_far_away_needs_its_address(tmp_path: Path, url: str) -> None:
    text = f'[[engines]]\nname = "far"\nkind = "openai"\nurl = "{url}"'
    assert "engines.far.url" in refused(tmp_path, text).message


_names = st.sampled_from(
    ["data", "retention", "retention.x", "engines", "server.port", "server.certificate", "server.host", "ledger.strict"]
)
_values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers()), st.just({})
)


@given(st.dictionaries(_names | st.sampled_from([f"engines.{name}" for name in Engine.__struct_fields__]), _values))
def test_any_options_are_settings_or_a_configuration_error(options: dict[str, object]) -> None:
    with contextlib.suppress(ConfigError):
        load(options, {"REMPART_CONFIG": "/dev/null"})


_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
_variables = st.sampled_from(["REMPART_SERVER_PORT", "REMPART_SERVER_HOST", "REMPART_LEDGER_STRICT", "REMPART_ENGINES"])


@given(st.dictionaries(_variables | st.text("ABCDEFGHIJ_").map("REMPART_".__add__), _texts))
def test_any_environment_is_settings_or_a_configuration_error(environment: dict[str, str]) -> None:
    with contextlib.suppress(ConfigError):
        load({}, environment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[models.a]\npolcy = 1", "there is no setting `models.<name>.polcy`."),
        ('[models.a]\npolicy = "magic"', "models.<name>.policy is 'magic'."),
        ('[models.a]\naliases = ["a"]', "models.a.aliases has 'a', which names 'a'."),
        ('[models.a]\naliases = ["b"]\n[models.b]', "models.a.aliases has 'b', which names 'b'."),
        (
            '[models.a]\naliases = ["c"]\n[models.b]\naliases = ["c"]',
            "models.b.aliases has 'c', which names 'a'.",
        ),
        ('[models.a]\naliases = [""]', "models.a.aliases has ''."),
        ('[models.a]\nfallbacks = ["a"]', "models.a.fallbacks names a model twice."),
        ('[models.a]\nfallbacks = ["b", "b"]', "models.a.fallbacks names a model twice."),
        (
            '[models.a]\nfallbacks = ["c"]\n[models.b]\naliases = ["c"]',
            "models.a.fallbacks has 'c', which is an alias.",
        ),
        ('[models.a]\nfallbacks = ["b", "c", "d", "e", "f", "g", "h", "i", "j"]', "models.a.fallbacks has 9."),
        ('[[engines]]\nname = "a"\nweight = 0', "engines.a.weight is 0."),
        ('[[engines]]\nname = "a"\nweight = nan', "engines.a.weight is nan."),
        ('[[engines]]\nname = "a"\nmax_concurrent = -1', "engines.a.max_concurrent is -1."),
        ("[server]\nqueue_max = -1", "server.queue_max is -1."),
        ("[server]\nqueue_s = 0", "server.queue_s must be positive."),
    ],
)
def test_routing_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text).message == f"{tmp_path / 'rempart.toml'}: {message}"
