"""`rempart.config.load`: option, environment, file, default, in this order; and each value says where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from rempart.config.check import is_loopback
from rempart.config.load import explain, load, with_model
from rempart.config.settings import Engine, Model, Retention, Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rempart.toml"
    path.write_text('[server]\nport = 3\n[logging]\nlevel = "error"\n')
    return path


def source(name: str, *arguments: Any) -> tuple[Any, str]:
    """Value and source, as `config explain` shows them."""
    return {row[0]: row[1:] for row in explain(load(*arguments))}[name]


def test_without_anything_all_is_default() -> None:
    loaded = load({}, {})
    assert loaded.settings == Settings()
    assert {row[2] for row in explain(loaded)} == {"default"}


def test_an_option_comes_before_environment_file_and_default(file: Path) -> None:
    environment = {"REMPART_SERVER_PORT": "2"}
    assert source("server.port", {"server.port": 1}, environment, file) == (1, "option")
    assert source("server.port", {}, environment, file) == (2, "environment (REMPART_SERVER_PORT)")
    assert source("server.port", {}, {}, file) == (3, str(file))
    assert source("server.port", {}, {}) == (8080, "default")


def test_an_option_that_was_not_given_hides_nothing(file: Path) -> None:
    assert source("server.port", {"server.port": None}, {}, file) == (3, str(file))


def test_values_of_one_section_may_come_from_all_sides(file: Path) -> None:
    loaded = load({"server.exchanges_max": 7}, {"REMPART_SERVER_DRAIN_S": "1.5"}, file)
    server = loaded.settings.server
    assert (server.port, server.exchanges_max, server.drain_s, server.host) == (3, 7, 1.5, "127.0.0.1")
    assert loaded.settings.logging.level == "error"


def test_the_data_directory_is_an_option_or_a_variable() -> None:
    assert load({"data": Path("/one")}, {"REMPART_DATA": "/two"}).settings.data == Path("/one")
    assert load({}, {"REMPART_DATA": "/two, three"}).settings.data == Path("/two, three")


def test_the_file_of_the_data_directory_is_read(file: Path) -> None:
    assert load({"data": file.parent}, {}).settings.server.port == 3
    assert load({}, {"REMPART_DATA": str(file.parent)}).settings.server.port == 3


def test_a_data_directory_without_file_is_no_error(tmp_path: Path) -> None:
    assert load({"data": tmp_path}, {}).settings.server.port == 8080


def test_the_file_named_by_the_environment_is_read(file: Path, tmp_path: Path) -> None:
    assert load({"data": tmp_path / "elsewhere"}, {"REMPART_CONFIG": str(file)}).settings.server.port == 3


def test_the_file_of_the_option_comes_before_that_of_the_environment(file: Path, tmp_path: Path) -> None:
    assert load({}, {"REMPART_CONFIG": str(tmp_path / "gone.toml")}, file).settings.server.port == 3


@pytest.mark.parametrize(
    ("variable", "text", "section", "name", "value"),
    [
        ("REMPART_SERVER_HOST", "::1", "server", "host", "::1"),
        ("REMPART_SERVER_PORT", "0", "server", "port", 0),
        ("REMPART_SERVER_EXCHANGE_S", "12.5", "server", "exchange_s", 12.5),
        ("REMPART_SERVER_EXCHANGE_S", "12", "server", "exchange_s", 12.0),
        ("REMPART_SERVER_ALLOWED_HOSTS", "a.example, b.example", "server", "allowed_hosts", ("a.example", "b.example")),
        ("REMPART_SERVER_ALLOWED_HOSTS", "a.example", "server", "allowed_hosts", ("a.example",)),
        ("REMPART_LEDGER_STRICT", "true", "ledger", "strict", True),
        ("REMPART_LEDGER_STRICT", "False", "ledger", "strict", False),
        ("REMPART_LEDGER_RETENTION", "standard", "ledger", "retention", "standard"),
        ("REMPART_LEDGER_ORIGIN", "log.example/1", "ledger", "origin", "log.example/1"),
        ("REMPART_LOGGING_LEVEL", "debug", "logging", "level", "debug"),
    ],
)
def test_a_variable_sets_any_setting_of_a_section(
    variable: str, text: str, section: str, name: str, value: object
) -> None:
    assert getattr(getattr(load({}, {variable: text}).settings, section), name) == value


MEDICAL = '[retention.medical-6y]\ndays = 2192\nbasis = "45 CFR 164.316(b)(2)(i)"\nworm = true\n'


def test_a_class_of_the_file_can_be_chosen_by_a_variable(tmp_path: Path) -> None:
    (tmp_path / "rempart.toml").write_text(MEDICAL + '[retention.2026]\ndays = 1\nbasis = "b"\n')
    for name in ("medical-6y", "2026", "standard"):
        loaded = load({"data": tmp_path}, {"REMPART_LEDGER_RETENTION": name})
        assert loaded.settings.ledger.retention == name
        assert set(loaded.settings.retention) == {"standard", "audit", "medical-6y", "2026"}


def test_retention_classes_are_read_and_explained(tmp_path: Path) -> None:
    file = tmp_path / "rempart.toml"
    file.write_text(MEDICAL)
    loaded = load({}, {}, file)
    assert loaded.settings.retention["medical-6y"] == Retention(days=2192, basis="45 CFR 164.316(b)(2)(i)", worm=True)
    rows = {name: (value, where) for name, value, where in explain(loaded)}
    assert rows["retention.medical-6y.days"] == (2192, str(file))
    assert rows["retention.medical-6y.worm"] == (True, str(file))
    assert rows["retention.medical-6y.erase_with_actor"] == (False, "default")
    assert rows["retention.standard.days"] == (365, "default")


def test_the_standard_class_can_be_another(tmp_path: Path) -> None:
    file = tmp_path / "rempart.toml"
    file.write_text('[retention.standard]\ndays = 30\nbasis = "house rule 7"\n')
    loaded = load({}, {}, file)
    assert loaded.settings.retention["standard"] == Retention(days=30, basis="house rule 7")
    assert set(loaded.settings.retention) == {"standard", "audit"}


def test_variables_of_others_are_not_looked_at() -> None:
    assert load({}, {"PATH": "/bin", "REMPARTS": "1", "rempart_server_port": "1"}).settings == Settings()


def test_the_variable_that_the_documents_keep_the_key_in_is_no_setting() -> None:
    """README and `rempart up` say `$REMPART_KEY`: who exports it must still be able to start the server."""
    assert load({}, {"REMPART_KEY": "rp_0123456789ab"}).settings == Settings()


def test_engines_are_read_and_explained(tmp_path: Path) -> None:
    file = tmp_path / "rempart.toml"
    file.write_text(
        '[[engines]]\nname = "far"\nkind = "openai"\nurl = "https://10.0.0.7"\n[engines.models]\nsmall = "org/Small"\n'
        '[[engines]]\nname = "near"\nmodel = "m.gguf"\n'
    )
    loaded = load({}, {}, file)
    far, near = loaded.settings.engines
    assert (far.kind, far.url, far.models) == ("openai", "https://10.0.0.7", {"small": "org/Small"})
    assert (near.kind, near.model) == ("embedded", Path("m.gguf"))
    rows = {name: (value, where) for name, value, where in explain(loaded)}
    assert rows["engines.far.url"] == ("https://10.0.0.7", str(file))
    assert rows["engines.near.model"] == ("m.gguf", str(file))
    assert rows["engines.near.threads"] == (0, "default")
    assert rows["engines.far.models"] == ({"small": "org/Small"}, str(file))


def test_explain_shows_every_setting_once(file: Path) -> None:
    names = [name for name, _, _ in explain(load({}, {}, file))]
    assert len(names) == len(set(names))
    server = {f"server.{field}" for field in Settings().server.__struct_fields__}
    assert server | {"data", "ledger.strict", "logging.level", "engines.embedded.model"} <= set(names)


def test_the_documented_configuration_is_one(tmp_path: Path) -> None:
    documents = Path(__file__).parents[3] / "docs" / "configuration.md"
    file = tmp_path / "rempart.toml"
    file.write_text(documents.read_text().split("```toml\n")[1].split("```")[0])
    settings = load({}, {}, file).settings
    assert [engine.name for engine in settings.engines] == ["embedded", "vllm"]
    assert settings.models == {"llama-70b": Model()}
    assert msgspec.structs.replace(settings, engines=Settings().engines, models={}) == Settings()


def test_with_model_changes_the_embedded_engine_alone() -> None:
    near = Engine(name="near", parallel=2)
    far = Engine(name="far", kind="openai", url="https://10.0.0.7")
    changed = with_model(Settings(engines=(far, near)), Path("m.gguf"))
    assert sorted(changed.engines, key=lambda engine: engine.name) == [
        far,
        msgspec.structs.replace(near, model=Path("m.gguf")),
    ]


def test_with_model_adds_an_embedded_engine_where_there_is_none() -> None:
    far = Engine(name="far", kind="openai", url="https://10.0.0.7")
    changed = with_model(Settings(engines=(far,)), Path("m.gguf"))
    assert {(engine.kind, engine.model) for engine in changed.engines} == {
        ("embedded", Path("m.gguf")),
        ("openai", None),
    }


def test_without_a_model_nothing_changes() -> None:
    settings = Settings()
    assert with_model(settings, None) is settings


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
    ],
)
def test_what_reaches_only_this_machine(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_models_are_explained_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "rempart.toml"
    file.write_text(
        '[models."llama-3.1"]\npolicy = "prefix"\naliases = ["default"]\n[[engines]]\nname = "a"\nweight = 2\n'
    )
    assert source("models.llama-3.1.policy", {}, {}, file) == ("prefix", str(file))
    assert source("models.llama-3.1.aliases", {}, {}, file) == (("default",), str(file))
    assert source("models.llama-3.1.fallbacks", {}, {}, file) == ((), "default")
    assert source("engines.a.weight", {}, {}, file) == (2.0, str(file))
