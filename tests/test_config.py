"""The configuration: what it means, and what each mistake is answered with."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay import config, declared, provider
from relay.cli.providers import example
from relay.config import Config, declaration, schemas
from relay.errors import ConfigError

EXAMPLE = Path(__file__).parents[1] / "config.example.yaml"

# The least that is right; LINES below counts on its lines.
LEAST = """\
destinations:
  main:
    api_key: df_abc123
sources:
  shop:
    provider: razorpay
    destination: main
    secrets:
      - a-long-webhook-secret
"""


def load(tmp_path: Path, text: str, **environ: str) -> Config:
    file = tmp_path / "relay.yaml"
    file.write_text(text, "utf-8")
    return config.load(file, environ)


def mistakes(tmp_path: Path, text: str, **environ: str) -> list[str]:
    """Each mistake as it is printed, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    name = str(tmp_path / "relay.yaml")
    assert all(line.startswith(f"{name}: ") for line in caught.value.message.splitlines())
    return [str(problem) for problem in caught.value.problems]


def changed(*changes: tuple[str, str]) -> str:
    """LEAST, with some of its text replaced."""
    text = LEAST
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


# What is right


def test_the_least_configuration_has_every_default(tmp_path: Path) -> None:
    found = load(tmp_path, LEAST)
    assert found.server == config.Server("127.0.0.1:8080", "http://127.0.0.1:8080", 1, 8, 2**20, 25)
    assert found.worker == config.Work(1, 4, 120)
    assert (found.database, found.log_level) == ("sqlite:///relay.db", "info")
    assert found.destinations == {"main": config.Destination("main", "df_abc123")}
    shop = found.sources["shop"]
    assert shop.provider.name == "razorpay"
    assert shop.destination is found.destinations["main"]
    assert shop.secrets == ("a-long-webhook-secret",)
    assert (shop.tolerance, shop.test_events, shop.disputes) == (300, "ignore", "refund")
    assert shop.currency is None


def test_secrets_are_a_list_the_newest_first(tmp_path: Path) -> None:
    text = changed(("- a-long", "- newest-${NEW}\n      - a-long"))
    found = load(tmp_path, text, NEW="one")
    assert found.sources["shop"].secrets == ("newest-one", "a-long-webhook-secret")


def test_one_provider_can_have_several_sources_and_there_can_be_several_sites(
    tmp_path: Path,
) -> None:
    text = changed(
        ("sources:", "  other:\n    api_key: dft_account\n    website_id: abc\nsources:")
    )
    text += (
        "  shop-2:\n    provider: razorpay\n    destination: other\n    secrets: [another-one]\n"
    )
    found = load(tmp_path, text)
    assert {name: it.destination.name for name, it in found.sources.items()} == {
        "shop": "main",
        "shop-2": "other",
    }
    assert found.destinations["other"].website_id == "abc"
    assert found.destinations["other"].gate != found.destinations["main"].gate


def test_numbers_may_come_from_the_environment(tmp_path: Path) -> None:
    text = LEAST + "server:\n  threads: ${THREADS}\n  processes: ${PROCESSES:-2}\n"
    server = load(tmp_path, text, THREADS="16").server
    assert (server.threads, server.processes) == (16, 2)


def test_a_providers_own_settings_are_read_with_their_defaults(tmp_path: Path) -> None:
    text = changed(
        ("razorpay", "dodopayments"), ("a-long-webhook-secret", "whsec_bG9uZyBlbm91Z2g=")
    )
    assert load(tmp_path, text).sources["shop"].settings == {"test": False}
    assert load(tmp_path, f"{text}    test: yes\n").sources["shop"].settings == {"test": True}


def test_an_empty_setting_is_one_that_is_left_out(tmp_path: Path) -> None:
    text = LEAST + "    currency:\nserver:\nworker:\n  threads:\n"
    assert load(tmp_path, text) == load(tmp_path, LEAST)


@pytest.mark.parametrize("name", provider.names())
def test_what_is_printed_for_a_provider_is_a_source_that_is_right(
    name: str, tmp_path: Path
) -> None:
    known = provider.load(name)
    text = f"destinations:\n  main:\n    api_key: df_abc123\n{example(known)}\n"
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "value-of-some-length")
    environ[f"{name.upper()}_SECRET"] = known.signature.rehearse().secrets[0]
    environ[f"{name.upper()}_API_BASE"] = "https://api.example.com"
    bare = load(tmp_path, text, **environ).sources[name]
    whole = load(tmp_path, text.replace("    # ", "    "), **environ).sources[name]
    for setting in known.settings:
        shown = whole.settings[setting.name]
        assert shown == setting.default if setting.default is not None else shown
        assert setting.required or bare.settings[setting.name] == setting.default


def test_a_final_slash_of_the_address_does_not_matter(tmp_path: Path) -> None:
    text = changed(("df_abc123", "df_abc123\n    base_url: https://datafa.st/"))
    assert load(tmp_path, text) == load(tmp_path, LEAST)


def test_the_sandbox_on_this_machine_may_be_spoken_to_without_tls(tmp_path: Path) -> None:
    for host in ("127.0.0.1:8081", "localhost", "[::1]:8081"):
        text = changed(("df_abc123", f"df_abc123\n    base_url: http://{host}"))
        assert load(tmp_path, text).destinations["main"].base_url == f"http://{host}"


def test_secrets_do_not_show_in_a_repr(tmp_path: Path) -> None:
    assert "abc123" not in repr(load(tmp_path, LEAST))
    assert "a-long-webhook-secret" not in repr(load(tmp_path, LEAST))


# Secrets in files


def test_secrets_can_stand_in_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("df_from_file\n")
    (tmp_path / "secrets").write_text("newest\nolder\n")
    text = changed(
        ("api_key: df_abc123", f"api_key_file: {tmp_path}/key"),
        ("secrets:\n      - a-long-webhook-secret", f"secrets_file: {tmp_path}/secrets"),
    )
    found = load(tmp_path, text)
    assert found.destinations["main"].api_key == "df_from_file"
    assert found.sources["shop"].secrets == ("newest", "older")


def test_a_providers_own_secret_can_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("live_from_file\n")
    text = changed(("razorpay", "gocardless")) + f"    api_key_file: {tmp_path}/key\n"
    assert load(tmp_path, text).sources["shop"].settings["api_key"] == "live_from_file"


def test_files_that_cannot_be_read_are_one_mistake_each(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    text = changed(
        ("api_key: df_abc123", f"api_key_file: {tmp_path}/missing"),
        ("secrets:\n      - a-long-webhook-secret", f"secrets_file: {tmp_path}/binary"),
    )
    assert mistakes(tmp_path, text) == [
        (
            f"line 3, destinations.main.api_key_file: the file {tmp_path}/missing cannot be read: "
            "No such file or directory"
        ),
        (
            f"line 8, sources.shop.secrets_file: the file {tmp_path}/binary cannot be read: "
            "it is no text in UTF-8"
        ),
    ]


def test_what_is_wrong_in_a_file_is_said_at_the_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("\n")
    (tmp_path / "secrets").write_text("fine-secret\nchangeme\n")
    text = changed(
        ("api_key: df_abc123", f"api_key_file: {tmp_path}/key"),
        ("secrets:\n      - a-long-webhook-secret", f"secrets_file: {tmp_path}/secrets"),
    )
    first, second = mistakes(tmp_path, text)
    assert first.startswith("line 3, destinations.main.api_key: write the key as DataFast shows it")
    assert second.startswith("line 8, sources.shop.secrets[1]: this is a placeholder")


def test_a_secret_and_its_file_contradict_each_other(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("df_other")
    text = changed(("df_abc123", f"df_abc123\n    api_key_file: {tmp_path}/key"))
    assert mistakes(tmp_path, text) == [
        "line 3, destinations.main.api_key: both api_key and api_key_file are here; keep one"
    ]


# What is wrong

KEY = "write the key as DataFast shows it: df_… (of a website) or dft_… (of an account)"
MISSING = "this setting is missing; config.example.yaml shows it"
PLACEHOLDER = "this is a placeholder; put the real one here"
TLS = "this must begin with https://, since a key is sent there"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        # Names
        (
            "    secrets:",
            "    tolerence_seconds: 5\n    secrets:",
            (
                "line 8, sources.shop.tolerence_seconds: there is no setting 'tolerence_seconds'; "
                "did you mean 'tolerance_seconds'?"
            ),
        ),
        (
            "    provider: razorpay",
            "    provider: razorpya",
            "line 6, sources.shop.provider: there is no provider 'razorpya'; did you mean razorpay?",
        ),
        (
            "destination: main",
            "destination: mian",
            "line 7, sources.shop.destination: there is no destination 'mian'; did you mean 'main'?",
        ),
        (
            "  shop:",
            "  My Shop:",
            (
                "line 5, sources.My Shop: a name is made of small letters, digits, - and _ "
                "(it is part of a URL)"
            ),
        ),
        (
            "destinations:",
            "servers: {}\ndestinations:",
            "line 1, servers: there is no setting 'servers'; did you mean 'server'?",
        ),
        (
            "destinations:",
            "zzz: 1\ndestinations:",
            (
                "line 1, zzz: there is no setting 'zzz'; there are: database, destinations, log_level, "
                "server, sources, worker"
            ),
        ),
        (
            "secrets:",
            "secret_file: /tmp/x\n    secrets:",
            (
                "line 8, sources.shop.secret_file: there is no setting 'secret_file'; "
                "did you mean 'secrets_file'?"
            ),
        ),
        # Keys and secrets
        (
            "df_abc123",
            "abc123",
            f"line 3, destinations.main.api_key: {KEY}",
        ),
        (
            "df_abc123",
            "'df_abc 123'",
            f"line 3, destinations.main.api_key: {KEY}",
        ),
        (
            "df_abc123",
            "df_xxxxxxxx",
            f"line 3, destinations.main.api_key: {PLACEHOLDER}",
        ),
        (
            "df_abc123",
            "dft_abc123",
            "line 2, destinations.main: an account token (dft_…) needs website_id beside it",
        ),
        (
            "df_abc123",
            "df_abc123\n    website_id: abc",
            (
                "line 4, destinations.main.website_id: a website key (df_…) knows its site; "
                "take this line out"
            ),
        ),
        (
            "    api_key: df_abc123",
            "    rate_limit: 60",
            f"line 2, destinations.main.api_key: {MISSING}",
        ),
        (
            "- a-long-webhook-secret",
            "- ''",
            "line 9, sources.shop.secrets[0]: this is empty; nothing would be checked with it",
        ),
        (
            "- a-long-webhook-secret",
            "- <your secret>",
            f"line 9, sources.shop.secrets[0]: {PLACEHOLDER}",
        ),
        (
            "- a-long-webhook-secret",
            "- fine-secret\n      - change-me",
            f"line 10, sources.shop.secrets[1]: {PLACEHOLDER}",
        ),
        (
            "- a-long-webhook-secret",
            "- 'a-long-webhook-secret '",
            "line 9, sources.shop.secrets[0]: it has white space around it",
        ),
        (
            "- a-long-webhook-secret",
            "- 12345678",
            "line 9, sources.shop.secrets[0]: this must be text; put it in quotes",
        ),
        (
            "- a-long-webhook-secret",
            "-",
            "line 9, sources.shop.secrets[0]: this is empty; write a value, or take the line out",
        ),
        (
            "\n      - a-long-webhook-secret",
            " a-long-webhook-secret",
            (
                "line 8, sources.shop.secrets: this must be a list: one entry a line, "
                "each after a dash"
            ),
        ),
        (
            "\n      - a-long-webhook-secret",
            " []",
            "line 8, sources.shop.secrets: write 1 to 10 secrets, each after a dash",
        ),
        (
            "    secrets:\n      - a-long-webhook-secret\n",
            "",
            f"line 5, sources.shop.secrets: {MISSING}",
        ),
        # Addresses
        (
            "df_abc123",
            "df_abc123\n    base_url: http://datafa.st",
            f"line 4, destinations.main.base_url: {TLS}",
        ),
        (
            "df_abc123",
            "df_abc123\n    base_url: http://localhost.example.com",
            f"line 4, destinations.main.base_url: {TLS}",
        ),
        (
            "df_abc123",
            "df_abc123\n    base_url: datafa.st",
            (
                "line 4, destinations.main.base_url: write a whole address, "
                "such as https://relay.example.com"
            ),
        ),
        (
            "destinations:",
            "server: {public_url: relay.example.com}\ndestinations:",
            "line 1, server.public_url: write a whole address, such as https://relay.example.com",
        ),
        (
            "destinations:",
            "server: {bind: 8080}\ndestinations:",
            "line 1, server.bind: this must be text; put it in quotes",
        ),
        (
            "destinations:",
            "server: {bind: '127.0.0.1:65536'}\ndestinations:",
            "line 1, server.bind: write address:port, such as 127.0.0.1:8080 or 0.0.0.0:8080",
        ),
        # Numbers and words
        (
            "destinations:",
            "server: {max_body: 10}\ndestinations:",
            "line 1, server.max_body: write a number from 1024 to 104857600, in bytes",
        ),
        (
            "destinations:",
            "worker: {threads: 2.5}\ndestinations:",
            "line 1, worker.threads: this must be a whole number, such as 8",
        ),
        (
            "destinations:",
            "worker: {threads: true}\ndestinations:",
            "line 1, worker.threads: this must be a whole number, such as 8",
        ),
        (
            "destinations:",
            "worker: {lease_seconds: 5}\ndestinations:",
            "line 1, worker.lease_seconds: write a number from 30 to 3600, in seconds",
        ),
        (
            "df_abc123",
            "df_abc123\n    read_timeout: fast",
            "line 4, destinations.main.read_timeout: this must be a number, such as 2.5",
        ),
        (
            "df_abc123",
            "df_abc123\n    read_timeout: .nan",
            "line 4, destinations.main.read_timeout: this must be a number",
        ),
        (
            "df_abc123",
            "df_abc123\n    rate_limit: -1",
            (
                "line 4, destinations.main.rate_limit: write a number from 0 to 60000, "
                "in requests a minute (0: no limit)"
            ),
        ),
        (
            "df_abc123",
            "df_abc123\n    refunds: both",
            "line 4, destinations.main.refunds: write one of: auto, original_id, refund_id",
        ),
        (
            "    secrets:",
            "    test_events: maybe\n    secrets:",
            "line 8, sources.shop.test_events: write one of: ignore, forward",
        ),
        (
            "    secrets:",
            "    currency: EURO\n    secrets:",
            "line 8, sources.shop.currency: this is no code of ISO 4217, such as EUR",
        ),
        (
            "destinations:",
            "log_level: loud\ndestinations:",
            "line 1, log_level: write one of: debug, info, warning, error",
        ),
        # Databases
        (
            "destinations:",
            "database: mysql://u:pass-word@host/db\ndestinations:",
            "line 1, database: write sqlite:///relay.db, or postgresql://user:password@host/name",
        ),
        (
            "destinations:",
            "database: postgresql://u:pass-word@host:port/db\ndestinations:",
            "line 1, database: write sqlite:///relay.db, or postgresql://user:password@host/name",
        ),
        (
            "destinations:",
            "database: relay.db\ndestinations:",
            "line 1, database: write sqlite:///relay.db, or postgresql://user:password@host/name",
        ),
        (
            "destinations:",
            "database: 'sqlite://'\ndestinations:",
            (
                "line 1, database: SQLite needs a file: write sqlite:///relay.db, "
                "or sqlite:////var/lib/relay.db"
            ),
        ),
        # Shapes
        (
            "destinations:",
            "server: fast\ndestinations:",
            "line 1, server: this must hold settings of its own, indented, one a line",
        ),
        (
            "    api_key: df_abc123\n",
            "    - df_abc123\n",
            "line 2, destinations.main: this must hold settings of its own, indented, one a line",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line_its_path_and_what_to_write(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    assert mistakes(tmp_path, changed((old, new))) == [told]


@pytest.mark.parametrize(
    "host", ["", "http://api.mollie.com", "https://", "http://[", "ftp://x", "x"]
)
def test_a_key_is_not_sent_to_a_providers_api_without_tls(host: str, tmp_path: Path) -> None:
    url_secret = "0123456789abcdef"
    text = changed(("razorpay", "mollie"), ("a-long-webhook-secret", url_secret))
    text += f"    api_key: live_abc\n    api_base: '{host}'\n"
    (told,) = mistakes(tmp_path, text)
    assert told.startswith("line 11, sources.shop.api_base: ")
    assert "https://" in told


@pytest.mark.parametrize("key", ["''", "live_xxxxxxx", "<api key>"])
def test_a_providers_own_key_is_no_placeholder_either(key: str, tmp_path: Path) -> None:
    text = changed(("razorpay", "gocardless")) + f"    api_key: {key}\n"
    (told,) = mistakes(tmp_path, text)
    assert told.startswith("line 10, sources.shop.api_key: this is ")


def test_a_required_setting_of_the_provider_is_asked_for(tmp_path: Path) -> None:
    assert mistakes(tmp_path, changed(("razorpay", "gocardless"))) == [
        f"line 5, sources.shop.api_key: {MISSING}"
    ]


def test_of_an_unknown_provider_no_setting_is_called_unknown(tmp_path: Path) -> None:
    text = changed(("razorpay", "razorpya")) + "    charge_on: capture\n"
    (told,) = mistakes(tmp_path, text)
    assert told.startswith("line 6, sources.shop.provider: ")


def test_a_setting_of_another_provider_is_unknown(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, LEAST + "    charge_on: capture\n")
    assert told.startswith("line 10, sources.shop.charge_on: there is no setting 'charge_on'; ")


@pytest.mark.parametrize(
    ("name", "secret", "words"),
    [
        ("dodopayments", "whsec_!", "is not base64"),
        ("adyen", "nothex", "hexadecimal"),
        ("gumroad", "short", "16 to 128 letters"),
        ("paypal", "x y", "webhook id"),
        ("dodopayments", "whsec_xxxx", "placeholder"),
    ],
)
def test_a_secret_of_the_wrong_form_is_told_as_its_provider_knows_it(
    name: str, secret: str, words: str, tmp_path: Path
) -> None:
    text = changed(("razorpay", name), ("a-long-webhook-secret", secret))
    (told,) = mistakes(tmp_path, text)
    assert told.startswith("line 9, sources.shop.secrets[0]: ")
    assert words in told


@pytest.mark.parametrize("text", ["", "# nothing\n", "sources:\ndestinations:\n"])
def test_without_sources_and_destinations_there_is_nothing_to_run(
    text: str, tmp_path: Path
) -> None:
    told = mistakes(tmp_path, text)
    assert [it.partition(": ")[2] for it in told] == [MISSING, MISSING]


@pytest.mark.parametrize("text", ["just text", "- a\n- b\n", "42"])
def test_a_file_that_holds_no_settings_is_a_mistake(text: str, tmp_path: Path) -> None:
    assert any("this must hold settings of its own" in it for it in mistakes(tmp_path, text))


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = """\
log_level: loud
server:
  threads: many
  thread: 3
destinations:
  main:
    api_key: ${NOT_SET}
    refunds: both
    refunds: auto
sources:

  shop:
    provider: nobody
    destination: elsewhere
    secrets: [todo, '']
    test_events: maybe
"""
    told = mistakes(tmp_path, text)
    numbers = [int(re.match(r"line (\d+)", it)[1]) for it in told]  # type: ignore[index]
    assert numbers == sorted(numbers)
    assert set(numbers) == {1, 3, 4, 7, 9, 13, 14, 15, 16}
    assert len([it for it in told if it.startswith("line 15")]) == 2


def test_a_name_that_is_not_set_is_one_mistake_and_not_two(tmp_path: Path) -> None:
    text = changed(("df_abc123", "${KEY}"), ("a-long-webhook-secret", "${SECRET}"))
    assert mistakes(tmp_path, text, SECRET="") == [
        (
            "line 3, destinations.main.api_key: the environment variable KEY is not set; "
            "set it and try again"
        ),
        (
            "line 9, sources.shop.secrets[0]: the environment variable SECRET is empty; "
            "set it and try again"
        ),
    ]


def test_broken_yaml_is_told_with_the_file_and_the_line(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, LEAST + "  broken: 'x\n")
    assert told.startswith("line 11: this is not YAML: ")


@pytest.mark.parametrize("secret", ["pass-word", "df_hush-hush", "hush-hush-${ZERO}"])
def test_no_mistake_repeats_a_secret(secret: str, tmp_path: Path) -> None:
    text = changed(
        ("destinations:", f"database: mysql://u:{secret}@h/d\ndestinations:"),
        ("df_abc123", f"{secret} x"),
        ("a-long-webhook-secret", f"'{secret} '"),
    )
    told = " ".join(mistakes(tmp_path, text))
    assert "hush-hush" not in told
    assert "pass-word" not in told


def test_a_missing_file_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "none.yaml", {})
    assert caught.value.message == (
        f"{tmp_path}/none.yaml: No such file or directory; "
        "copy config.example.yaml to relay.yaml to begin"
    )


@pytest.mark.parametrize("make", [lambda it: it.mkdir(), lambda it: it.write_bytes(b"a: \xff\n")])
def test_what_is_no_text_is_a_mistake(make: Any, tmp_path: Path) -> None:
    make(tmp_path / "relay.yaml")
    with pytest.raises(ConfigError):
        config.load(tmp_path / "relay.yaml", {})


def test_a_mark_of_the_byte_order_does_no_harm(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + LEAST) == load(tmp_path, LEAST)


# Whatever else somebody writes

NAMES = st.sampled_from(
    [
        *("server", "worker", "database", "log_level", "destinations", "sources", "main", "shop"),
        *("provider", "destination", "secrets", "secrets_file", "api_key", "api_key_file"),
        *("base_url", "api_base", "website_id", "currency", "threads", "bind", "<<", "", "é x"),
    ]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.binary(max_size=4),
    st.sampled_from(
        [
            *("main", "shop", "df_abc", "dft_abc", "${NOT_SET}", "${A:-b}", "${", "\x00", "\ud800"),
            *("https://x.example", "http://[", "https://", "sqlite:///x", "postgresql://h:p/x"),
            *provider.names(),
        ]
    ),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)


def read_whatever(file: Path, text: str) -> None:
    file.write_text(text, "utf-8", errors="surrogatepass")
    problems: list[Any] = ["none, it is right"]
    try:
        config.load(file, {})
    except ConfigError as error:
        problems = error.problems
    assert problems


hard = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@hard
@given(tree=TREES)
def test_no_tree_of_settings_raises_anything_but_a_config_error(tree: Any, tmp_path: Path) -> None:
    read_whatever(tmp_path / "relay.yaml", yaml.dump(tree, allow_unicode=True))


@hard
@given(source=st.dictionaries(NAMES, TREES), target=st.dictionaries(NAMES, TREES))
def test_no_source_and_no_destination_raises_anything_but_a_config_error(
    source: Any, target: Any, tmp_path: Path
) -> None:
    tree = {"destinations": {"main": target}, "sources": {"shop": source}}
    read_whatever(tmp_path / "relay.yaml", yaml.dump(tree, allow_unicode=True))


@hard
@given(
    text=st.text(st.characters(codec="utf-8"))
    | st.text("ab:-[]{}&*!|>'\"%@`?#,\n\t ${}<=", max_size=60)
)
def test_no_text_raises_anything_but_a_config_error(text: str, tmp_path: Path) -> None:
    read_whatever(tmp_path / "relay.yaml", text)


@hard
@given(
    at=st.integers(0, len(LEAST)),
    what=st.text("\n -:#[]{}&*!'\"$xd1", max_size=6),
    cut=st.integers(0, 8),
)
def test_no_slip_of_the_pen_raises_anything_but_a_config_error(
    at: int, what: str, cut: int, tmp_path: Path
) -> None:
    read_whatever(tmp_path / "relay.yaml", LEAST[:at] + what + LEAST[at + cut :])


# The example


@dataclass(frozen=True)
class Line:
    """A setting as the example shows it: where, what its comment says, and whether it is left out."""

    place: str
    name: str
    value: str
    comment: str
    left_out: bool


SETTING = re.compile(r"(?P<indent> *)(?P<off># )?(?P<name>[a-z_0-9-]+):(?: (?P<value>.*))?")


def example_lines() -> Iterator[Line]:
    """Every setting of the example, with the comment right above it."""
    section = block = ""
    comment: list[str] = []
    for raw in EXAMPLE.read_text("utf-8").splitlines():
        found = SETTING.fullmatch(raw)
        if found is None:
            comment = [*comment, raw.strip(" #")] if raw.strip().startswith("#") else []
            continue
        depth = len(found["indent"])
        if depth == 0:
            section, block = found["name"], ""
        elif depth == 2 and section in {"destinations", "sources"}:
            block = found["name"]
        yield Line(
            place=".".join(
                filter(
                    None,
                    (
                        section if depth else "",
                        block if depth > 2 else "",
                        "mapping" if depth > 4 else "",
                    ),
                )
            ),
            name=found["name"],
            value=found["value"] or "",
            comment=" ".join(comment),
            left_out=bool(found["off"]),
        )
        comment = []


def environment(folder: Path) -> dict[str, str]:
    """Everything that the example takes from the environment, each of a form that is right."""
    text = EXAMPLE.read_text("utf-8")
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "value-of-some-length")
    environ |= {"DATAFAST_API_KEY": "df_abc", "DATAFAST_ACCOUNT_TOKEN": "dft_abc"}
    for block in yaml.safe_load(text)["sources"].values():
        if block["provider"] == declared.NAME:
            continue
        for each in block.get("secrets", []):
            secret = provider.load(block["provider"]).signature.rehearse().secrets[0]
            environ[each.strip("${}")] = secret
    (folder / "adyen_hmac_keys").write_text("0123456789ABCDEF\n")
    environ["SECRETS_FOLDER"] = str(folder)
    return environ


def wanted() -> dict[tuple[str, str], Any]:
    """Every setting that there is: its place and name, and its default (... if it is required)."""
    parts: dict[str, Mapping[str, Any]] = {
        "": schemas.RelaySchema().fields,
        "server": schemas.ServerSchema().fields,
        "worker": schemas.WorkSchema().fields,
        "destination": schemas.DestinationSchema().fields,
        "source": schemas.SourceSchema().fields,
    }
    found = {
        (place, name): ... if field.required else field.load_default
        for place, part in parts.items()
        for name, field in part.items()
    }
    for schema in (
        declaration.MappingSchema(),
        declaration.SignatureSchema(),
        declaration.RuleSchema(),
    ):
        for name, field in schema.fields.items():
            shown = None if callable(field.load_default) else field.load_default
            found[declared.NAME, name] = ... if field.required else shown
    found[declared.NAME, "mapping"] = ...
    for name in sorted(shown_providers() - {declared.NAME}):
        for setting in provider.load(name).settings:
            found[name, setting.name] = ... if setting.required else setting.default
    return {
        key: default
        for key, default in found.items()
        if key[1] not in {"server", "worker", "destinations", "sources"}
    }


def shown_providers() -> set[str]:
    """The example shows some; `relay providers NAME` prints the block of each."""
    sources = yaml.safe_load(EXAMPLE.read_text("utf-8"))["sources"]
    return {block["provider"] for block in sources.values()}


def documented() -> dict[tuple[str, str], Line]:
    """The lines of the example by the same keys: the first of each that is explained."""
    sources = yaml.safe_load(EXAMPLE.read_text("utf-8"))["sources"]
    common = schemas.SourceSchema().fields
    found: dict[tuple[str, str], Line] = {}
    for line in example_lines():
        section, block, inner = [*line.place.split("."), "", ""][:3]
        place = section
        if section == "destinations":
            place = "destination"
        elif section == "sources" and block:
            own = inner or line.name not in common
            place = sources[block]["provider"] if own else "source"
        if "Default:" in line.comment or "Required." in line.comment:
            found.setdefault((place, line.name), line)
    return found


def test_the_example_is_right(tmp_path: Path) -> None:
    found = config.load(EXAMPLE, environment(tmp_path))
    assert {it.provider.name for it in found.sources.values()} == shown_providers()
    assert {it.api_key.partition("_")[0] for it in found.destinations.values()} == {"df", "dft"}
    assert found.sources["adyen"].secrets == ("0123456789ABCDEF",)


def test_what_the_example_leaves_out_is_right_as_well(tmp_path: Path) -> None:
    lines, seen = [], set()
    for raw, line in zip_lines():
        if line and line.left_out and (line.place, line.name) in seen:
            continue
        seen |= {(line.place, line.name)} if line else set()
        lines.append(raw.replace("# ", "", 1) if line and line.left_out else raw)
    (tmp_path / "relay.yaml").write_text("\n".join(lines), "utf-8")
    found = config.load(tmp_path / "relay.yaml", environment(tmp_path))
    assert found.sources["gumroad"].settings["seller_id"] == "value-of-some-length"
    assert found.sources["razorpay"].currency == "EUR"


def zip_lines() -> Iterator[tuple[str, Line | None]]:
    """Each raw line of the example, with its setting if it has one."""
    settings_ = example_lines()
    for raw in EXAMPLE.read_text("utf-8").splitlines():
        yield raw, next(settings_) if SETTING.fullmatch(raw) else None


def test_the_example_runs_on_postgresql_with_one_line_more(tmp_path: Path) -> None:
    text = (
        EXAMPLE.read_text("utf-8")
        .replace("\ndatabase: ", "\n# ")
        .replace("# database: ", "database: ")
    )
    (tmp_path / "relay.yaml").write_text(text, "utf-8")
    found = config.load(tmp_path / "relay.yaml", environment(tmp_path))
    assert found.database.startswith("postgresql://relay:value-of-some-length@")


@pytest.mark.parametrize("key", wanted(), ids=".".join)
def test_the_example_shows_every_setting_with_its_default(key: tuple[str, str]) -> None:
    line, default = documented().get(key), wanted()[key]
    assert line, (
        f"{'.'.join(key)} is not in config.example.yaml, with a comment that says its default"
    )
    assert line.comment.partition(". Default")[0].count(" ") > 2, "say what it is good for"
    if default is ...:
        assert line.comment.endswith("Required.")
        return
    told = re.search(r"Default: (none|`(.*)`)$", line.comment)
    assert told, "the comment ends with Default: `…`"
    assert (None if told[1] == "none" else yaml.safe_load(told[2])) == default


def test_the_example_shows_nothing_that_is_not_there() -> None:
    assert set(documented()) <= set(wanted())
