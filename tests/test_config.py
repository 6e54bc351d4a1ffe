from pathlib import Path

import pytest

from drain import config
from drain.errors import ConfigError
from drain.setting import Secret
from drain.settings import SETTINGS, Config

MINIMAL = {
    "R2_ACCOUNT_ID": "0123456789abcdef" * 2,
    "R2_ACCESS_KEY_ID": "AK",
    "R2_SECRET_ACCESS_KEY": "SK-secret",
    "R2_BUCKET": "mail",
    "MAIL_DOMAIN": "example.org",
    "INJECT_PORT": "2525",
    "INJECT_USER": "drain",
    "INJECT_PASS": "IP-secret",
    "DRAIN_ENV_FILE": "/dev/null",
}
NO_DOMAINS = (
    'a"b.test',
    "example.test{",
    "*",
    "#x",
    "$(x)",
    "a/../b",
    "static:all",
    "$myhostname",
    "/etc/passwd",
    "a..b",
    "-a.test",
    "a-.test",
    "example.test\nx",
    "two words",
    f"{'a' * 64}.test",
    ".".join(["a" * 60] * 5),
)


def load(**more: str) -> Config:
    return config.load({**MINIMAL, **more})[0]


def test_eight_settings_are_enough() -> None:
    assert len(MINIMAL) - 1 == 8
    loaded = load()
    assert loaded.endpoint_url == "https://0123456789abcdef0123456789abcdef.r2.cloudflarestorage.com"
    assert loaded.catch_all == "inbox@example.org"
    assert loaded.admin_mailbox == "admin@example.org"


@pytest.mark.parametrize(
    "name", ["R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "R2_BUCKET", "MAIL_DOMAIN", "INJECT_USER"]
)
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_setting_is_named(name: str, value: str | None) -> None:
    environ = {**MINIMAL, name: value or ""}
    with pytest.raises(ConfigError, match=f"^{name} is not set"):
        config.load(environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INJECT_PORT", "70000"),
        ("INJECT_PORT", "smtp"),
        ("POLL_INTERVAL", "-5"),
        ("POLL_INTERVAL", "soon"),
        ("POLL_INTERVAL", "nan"),
        ("MEMORY_BUDGET", "lots"),
        ("CONCURRENCY", "0"),
        ("ONESHOT", "perhaps"),
        ("INJECT_TLS", "maybe"),
        ("R2_JURISDICTION", "mars"),
        ("R2_ACCOUNT_ID", "0123"),
        ("PENDING_PREFIX", "pending"),
        ("PENDING_PREFIX", "/pending/"),
        ("R2_ENDPOINT_URL", "ftp://x"),
        ("R2_ENDPOINT_URL", "http://r2.example.org"),
        ("MAIL_DOMAIN", "a@b"),
        ("MAIL_DOMAIN", ","),
        *(("MAIL_ADMIN_LOCALPART", value) for value in ("a@b.test", 'q"x', "two words", "a,b", "a;b")),
        *(("MAIL_DOMAIN", value) for value in NO_DOMAINS),
        ("INJECT_RCPT", "me@elsewhere.org"),
        ("LEDGER_RETENTION_DAYS", "0"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_setting_and_the_value(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**{name: value})
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_secret_is_in_an_error_or_a_repr() -> None:
    loaded = load()
    for shown in (repr(loaded), str(config.shown(loaded))):
        assert "SK-secret" not in shown
        assert "IP-secret" not in shown
    assert str(loaded.inject_pass) == "***"
    assert loaded.inject_pass.reveal() == "IP-secret"
    assert repr(Secret("")) == "(not set)"


def test_tls_can_be_turned_off_on_loopback_only() -> None:
    assert load(INJECT_TLS="none").inject_tls == "none"
    with pytest.raises(ConfigError, match="loopback"):
        load(INJECT_TLS="none", INJECT_HOST="mail.example.org")


@pytest.mark.parametrize(("jurisdiction", "host"), [("eu", "eu."), ("fedramp", "fedramp."), ("default", "")])
def test_a_jurisdiction_has_an_endpoint_of_its_own(jurisdiction: str, host: str) -> None:
    assert (
        load(R2_JURISDICTION=jurisdiction).endpoint_url
        == f"https://{MINIMAL['R2_ACCOUNT_ID']}.{host}r2.cloudflarestorage.com"
    )


def test_domains_are_compared_in_one_form() -> None:
    assert load(MAIL_DOMAIN="Example.ORG., bücher.example").mail_domain == ("example.org", "xn--bcher-kva.example")


@pytest.mark.parametrize(
    ("text", "size"), [("64M", 64 << 20), ("64MiB", 64 << 20), ("1g", 1 << 30), ("512", 512), ("8k", 8192)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert load(MEMORY_BUDGET=text).memory_budget == size


class TestFile:
    def write(self, tmp_path: Path, content: str, mode: int = 0o600) -> dict[str, str]:
        file = tmp_path / "drain.env"
        file.write_text(content, encoding="utf-8")
        file.chmod(mode)
        return {"DRAIN_ENV_FILE": str(file)}

    def everything(self, **more: str) -> str:
        values = {**{k: v for k, v in MINIMAL.items() if k != "DRAIN_ENV_FILE"}, **more}
        return "".join(f"{name}={value}\n" for name, value in values.items())

    def test_a_file_is_read_as_a_shell_would(self, tmp_path: Path) -> None:
        text = (
            self.everything() + "# note\n\nexport INJECT_HOST='127.0.0.2' # why\nMAIL_ADMIN_LOCALPART=\"post-master\"\n"
        )
        loaded, warnings = config.load(self.write(tmp_path, text))
        assert (loaded.inject_host, loaded.mail_admin_localpart) == ("127.0.0.2", "post-master")
        assert warnings == []

    @pytest.mark.parametrize(
        ("line", "value"),
        [
            ("INJECT_PASS=pa#ss", "pa#ss"),
            ("INJECT_PASS='pa #ss'", "pa #ss"),
            ("INJECT_PASS=pass # don't", "pass"),
            ('INJECT_PASS="it\'s"', "it's"),
            ("INJECT_PASS=pass\r", "pass"),
        ],
    )
    def test_a_hash_begins_a_comment_only_at_the_beginning_of_a_word(
        self, tmp_path: Path, line: str, value: str
    ) -> None:
        environ = self.write(tmp_path, self.everything() + line + "\n")
        assert config.load(environ)[0].inject_pass.reveal() == value

    def test_the_environment_wins(self, tmp_path: Path) -> None:
        environ = self.write(tmp_path, self.everything(POLL_INTERVAL="10"))
        assert config.load({**environ, "POLL_INTERVAL": "20"})[0].poll_interval == 20

    def test_a_file_that_others_can_read_warns(self, tmp_path: Path) -> None:
        _, warnings = config.load(self.write(tmp_path, self.everything(), mode=0o644))
        assert "chmod 600" in warnings[0]

    def test_an_unknown_name_warns_with_the_nearest_known_one(self, tmp_path: Path) -> None:
        _, warnings = config.load(self.write(tmp_path, self.everything(POLL_INTERVALL="5")))
        assert "POLL_INTERVALL" in warnings[0]
        assert "POLL_INTERVAL?" in warnings[0]

    def test_a_key_or_secret_that_others_can_read_is_a_warning(self, tmp_path: Path) -> None:
        names = ("PRIVATE_KEY_FILE", "MAILBRIDGE_PRIVATE_KEY_PATH", "ORIGIN_TOKEN_FILE")
        for name in names:
            (tmp_path / name).write_text("x")
            (tmp_path / name).chmod(0o604)
        text = self.everything(**{name: str(tmp_path / name) for name in names})
        _, warnings = config.load(self.write(tmp_path, text))
        assert len(warnings) == 3
        assert all(f"chmod 600 {tmp_path}/{name}" in "".join(warnings) for name in names)
        for name in names:
            (tmp_path / name).chmod(0o600)
        assert config.load(self.write(tmp_path, text))[1] == []

    def test_a_secrets_file_that_is_empty_is_an_error(self, tmp_path: Path) -> None:
        """Taken for "not set" it would turn off what the secret protects."""
        for content in ("", "\n"):
            (tmp_path / "token").write_text(content)
            with pytest.raises(ConfigError, match=r"ORIGIN_TOKEN_FILE names .*, which is empty"):
                config.load(self.write(tmp_path, self.everything(ORIGIN_TOKEN_FILE=str(tmp_path / "token"))))

    @pytest.mark.parametrize("token", ["' '", "','", "a,", "a,b,c", "t\u00f6ken", "'a\tb'", "\ufeffa"])
    def test_a_token_that_the_worker_would_read_in_another_way_is_an_error(self, tmp_path: Path, token: str) -> None:
        with pytest.raises(ConfigError, match="ORIGIN_TOKEN is not right"):
            config.load(self.write(tmp_path, self.everything(ORIGIN_TOKEN=token)))

    def test_a_token_makes_sealed_mail_the_only_one_unless_told_otherwise(self, tmp_path: Path) -> None:
        for more, sealed_only in (
            ({}, False),
            ({"ORIGIN_TOKEN": "'a b, c'"}, True),
            ({"ORIGIN_TOKEN": "a", "REQUIRE_SEALED": "false"}, False),
            ({"REQUIRE_SEALED": "true"}, True),
        ):
            loaded, _ = config.load(self.write(tmp_path, self.everything(**more)))
            assert loaded.sealed_only is sealed_only
            assert config.shown(loaded)["ORIGIN_TOKEN"] in {"", "***", "***,***"}

    def test_a_key_that_was_pasted_is_not_shown(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="the path of the key, not the key") as caught:
            config.load(self.write(tmp_path, self.everything(PRIVATE_KEY_FILE="'-----BEGIN PRIVATE KEY-----SECRET'")))
        assert "SECRET" not in str(caught.value)

    def test_the_list_of_recipients_is_no_mail(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="must leave config/ alone"):
            config.load(self.write(tmp_path, self.everything(PENDING_PREFIX="config/")))

    def test_the_file_of_a_pocket_homeserver_is_taken_without_a_word(self, tmp_path: Path) -> None:
        """Its names keep their meaning; those that mean nothing here are no warnings."""
        text = self.everything(
            INJECT_RCPT="inbox@example.org",
            MAIL_USERS_FILE="/x",
            MAIL_ADMIN_LOCALPART="admin",
            LEDGER_DB=str(tmp_path / "l.db"),
            LOCKFILE=str(tmp_path / "l.lock"),
            POLL_INTERVAL="180",
            ALERT_DAYS="3",
            MAIL_ALERT_CMD="'notify \"$MAIL_ALERT_MSG\"'",
            ONESHOT="1",
            MADDY_DIR="/opt/maddy",
            INJECT_MAIL_FROM="ingest@example.org",
        )
        loaded, warnings = config.load(self.write(tmp_path, text))
        assert warnings == []
        assert loaded.oneshot
        assert loaded.ledger_path == tmp_path / "l.db"

    @pytest.mark.parametrize("line", ["INJECT_PASS=two words", "no equals", "A-B=c", "X='open"])
    def test_a_line_of_another_form_is_named(self, tmp_path: Path, line: str) -> None:
        with pytest.raises(ConfigError, match="line 9"):
            config.load(self.write(tmp_path, self.everything() + line + "\n"))

    def test_a_named_file_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="DRAIN_ENV_FILE"):
            config.load({**MINIMAL, "DRAIN_ENV_FILE": str(tmp_path / "none")})


class TestSecrets:
    def test_a_secret_may_come_from_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "pass").write_text("from-file\n")
        environ = {**MINIMAL, "INJECT_PASS": "", "INJECT_PASS_FILE": str(tmp_path / "pass")}
        assert config.load(environ)[0].inject_pass.reveal() == "from-file"

    def test_a_secret_may_come_from_systemds_credentials(self, tmp_path: Path) -> None:
        (tmp_path / "INJECT_PASS").write_text("credential")
        environ = {**MINIMAL, "INJECT_PASS": "", "CREDENTIALS_DIRECTORY": str(tmp_path)}
        assert config.load(environ)[0].inject_pass.reveal() == "credential"

    def test_a_secrets_file_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        environ = {**MINIMAL, "INJECT_PASS": "", "INJECT_PASS_FILE": str(tmp_path / "none")}
        with pytest.raises(ConfigError, match="INJECT_PASS_FILE"):
            config.load(environ)


def test_every_setting_has_help() -> None:
    assert all(len(setting.help) > 10 for setting in SETTINGS.values())


class TestFilters:
    def test_auth_alone_is_asked_and_does_nothing(self) -> None:
        made = load()
        assert made.filters == ("auth",)
        assert set(made.auth_fail_action.values()) == {"none"}
        assert (made.strip_forged, made.allow_discard, made.spam_subject_tag, made.spam_mailbox) == (
            False,
            False,
            "",
            "",
        )

    def test_they_are_kept_in_the_persons_order(self) -> None:
        assert load(FILTERS="SpamAssassin, auth").filters == ("spamassassin", "auth")
        assert load(FILTERS="none").filters == ()

    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("FILTERS", "auth,auth"),
            ("FILTERS", "auth,rspamd"),
            ("FILTERS", "none,auth"),
            ("FILTERS", ","),
            ("SPAM_RCPT", "+spam"),
            ("SPAM_RCPT", "Junk Mail"),
            ("SPAMD_HOST", "127.0.0.1:784"),
            ("DNSBL_IP_ZONES", "key.zen.dq.spamhaus.net"),
            ("AUTH_FAIL_ACTION", "dmarc=junk,dmarc=tag"),
            ("FILTER_FAIL_OPEN", "everything"),
            ("FILTER_TIMEOUT", "ai=soon"),
            ("FILTER_TIMEOUT", "auth=3"),
            ("FILTER_TIMEOUT", "0"),
            ("AUTH_FAIL_ACTION", "discard"),
            ("AUTH_FAIL_ACTION", "spf"),
            ("AUTH_FAIL_ACTION", "arc=tag"),
            ("SPAM_TAG_SCORE", "nan"),
            ("SPAM_TAG_SCORE", "inf"),
            ("SPAM_TAG_SCORE", "0"),
            ("SPAM_SUBJECT_TAG", "[SPAM]\r\nBcc: x"),
            ("SPAM_SUBJECT_TAG", "x" * 61),
            ("DNSBL_IP_ZONES", "zen"),
            ("DNSBL_IP_ZONES", "zen.spamhaus.org/x"),
            ("DNS_RESOLVERS", "one.one.one.one"),
            ("DNS_RESOLVERS", "192.0.2.1:0"),
            ("DNS_RESOLVERS", "2001:db8::1:99999:53:1"),
            ("AI_BASE_URL", "http://api.example.com/v1"),
            ("AI_BASE_URL", "https://user:secret@api.example.com/v1"),
            ("AI_BASE_URL", "ftp://192.168.1.1"),
            ("WEBHOOK_DECISION_URL", "http://8.8.8.8/decide"),
            ("AI_MONTHLY_CALLS", "-1"),
            ("AI_INPUT_SCOPE", "everything"),
        ],
    )
    def test_a_wrong_value_is_named(self, setting: str, value: str) -> None:
        with pytest.raises(ConfigError, match=setting):
            load(**{setting: value})

    @pytest.mark.parametrize(
        "url",
        [
            "http://127.0.0.1:11434/v1",
            "http://192.168.1.5:11434/v1",
            "http://[fd00::5]/v1",
            "http://ollama.local/v1",
            "http://nas/v1",
            "http://100.64.0.5/v1",
            "https://api.example.com/v1/",
        ],
    )
    def test_in_the_clear_only_in_ones_own_network(self, url: str) -> None:
        assert load(AI_BASE_URL=url).ai_base_url == url.rstrip("/")

    def test_one_value_is_for_all_and_a_name_for_one(self) -> None:
        assert load(FILTER_TIMEOUT="7").filter_timeout["ai"] == 7.0
        made = load(FILTER_TIMEOUT="ai=90, dnsbl=0.5").filter_timeout
        assert (made["ai"], made["dnsbl"], made["clamav"]) == (90.0, 0.5, 60.0)
        made_action = load(AUTH_FAIL_ACTION="dmarc=quarantine,spf=tag").auth_fail_action
        assert made_action == {"spf": "tag", "dkim": "none", "dmarc": "quarantine"}

    @pytest.mark.parametrize(
        ("filters", "needed"),
        [("ai", "AI_BASE_URL"), ("decision", "WEBHOOK_DECISION_URL"), ("dnsbl", "DNSBL_IP_ZONES")],
    )
    def test_a_filter_that_lacks_what_it_needs_is_found_out_at_once(self, filters: str, needed: str) -> None:
        with pytest.raises(ConfigError, match=needed):
            load(FILTERS=filters, DNSBL_IP_ZONES="none", DNSBL_DOMAIN_ZONES="none")

    def test_thresholds_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="SPAM_QUARANTINE_SCORE"):
            load(SPAM_TAG_SCORE="8", SPAM_QUARANTINE_SCORE="7")

    @pytest.mark.parametrize(
        ("text", "mailbox"),
        [
            ("", ""),
            ("none", ""),
            ("+junk", "+junk"),
            ("+Junk", "+junk"),
            ("spam", "spam@example.test"),
            ("a@example.test", "a@example.test"),
        ],
    )
    def test_spam_goes_to_a_mailbox_of_ones_own(self, text: str, mailbox: str) -> None:
        assert load(SPAM_RCPT=text, MAIL_DOMAIN="example.test").spam_mailbox == mailbox

    def test_what_people_put_into_an_address_is_not_shown(self) -> None:
        made = load(WEBHOOK_DECISION_URL="https://policy.example.org/?token=hush")
        assert config.shown(made)["WEBHOOK_DECISION_URL"] == "https://policy.example.org/?***"

    def test_or_nowhere_else(self) -> None:
        with pytest.raises(ConfigError, match="SPAM_RCPT"):
            load(SPAM_RCPT="spam@elsewhere.test")

    def test_each_filter_can_be_made_from_settings_alone(self) -> None:
        from drain import assembly

        made = load(
            FILTERS="auth,dnsbl,clamav,spamassassin,ai,decision",
            AI_BASE_URL="http://127.0.0.1/v1",
            AI_MODEL="m",
            WEBHOOK_DECISION_URL="http://127.0.0.1/",
            SPAMD_HOST="/run/spamd.sock",
            FILTER_TIMEOUT="dnsbl=2.5",
            SPAMHAUS_DQS_KEY="hush1234",
            AI_API_KEY="hush",
        )
        policy = assembly.policy(made)
        assert [one.name for one in policy.filters] == list(made.filters)
        assert [one.timeout_seconds for one in policy.filters] == [0.0, 2.5, 60.0, 60.0, 30.0, 15.0]
        assert "hush" not in repr(policy)
        with pytest.raises(ConfigError, match="CLAMD_SOCKET"):
            assembly.policy(load(FILTERS="clamav", CLAMD_SOCKET="clamd.ctl"))

    def test_the_default_loads_no_filter_that_is_not_asked(self) -> None:
        import subprocess
        import sys

        script = (
            "import sys; from drain import assembly, config; import os;"
            "assembly.policy(config.load(dict(os.environ))[0]);"
            "print(sorted({'requests', 'dns', 'aiospamc', 'loguru'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", script], env=MINIMAL, capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"
