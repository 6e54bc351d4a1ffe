"""`drain doctor`: the configuration."""

from pathlib import Path

import pytest

from drain.doctor import settings
from drain.doctor.finding import Finding, Level

ENVIRON = {
    "R2_ENDPOINT_URL": "http://127.0.0.1:9",
    "R2_ACCESS_KEY_ID": "a" * 32,
    "R2_SECRET_ACCESS_KEY": "hush-hush",
    "R2_BUCKET": "mail",
    "MAIL_DOMAIN": "example.test",
    "INJECT_USER": "drain",
    "INJECT_PASS": "hush-hush",
    "DRAIN_ENV_FILE": "/dev/null",
}


def bad(read: settings.Settings) -> list[Finding]:
    return [finding for finding in read.findings if finding.level is not Level.OK]


def words(read: settings.Settings) -> str:
    return "\n".join(f"{one.level}: {one.words} {one.next}" for one in read.findings)


def env_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "drain.env"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_sound_configuration_is_ok_and_says_where_it_is(tmp_path: Path) -> None:
    path = env_file(tmp_path, "".join(f"{name}={text}\n" for name, text in ENVIRON.items() if name != "DRAIN_ENV_FILE"))
    read = settings.read({"DRAIN_ENV_FILE": str(path)})
    (finding,) = read.findings
    assert finding.level is Level.OK
    assert str(path) in finding.words
    assert read.config.r2_bucket == "mail"
    assert read.consistent
    assert not read.lacking


def test_without_a_file_it_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {name: text for name, text in ENVIRON.items() if name != "DRAIN_ENV_FILE"}
    assert "no drain.env was found" in settings.read(environ).findings[0].words


def test_a_name_that_no_setting_has_is_a_warning_with_the_nearest(tmp_path: Path) -> None:
    path = env_file(tmp_path, "ALERT_DAY=2\n")
    (warning,) = bad(settings.read({**ENVIRON, "DRAIN_ENV_FILE": str(path)}))
    assert warning.level is Level.WARNING
    assert "ALERT_DAY is no setting of drain. Is it ALERT_DAYS?" in warning.words


def test_it_is_said_also_where_the_right_one_is_missing_for_that(tmp_path: Path) -> None:
    path = env_file(tmp_path, "R2_BUKET=mail\n")
    read = settings.read({**without("R2_BUCKET"), "DRAIN_ENV_FILE": str(path)})
    assert {finding.level for finding in bad(read)} == {Level.FAILURE, Level.WARNING}
    assert "Is it R2_BUCKET?" in words(read)


def test_the_mode_of_a_file_is_left_to_the_check_of_files(tmp_path: Path) -> None:
    path = env_file(tmp_path, "ALERT_DAYS=2\n", 0o644)
    assert not bad(settings.read({**ENVIRON, "DRAIN_ENV_FILE": str(path)}))


def without(*names: str) -> dict[str, str]:
    return {name: text for name, text in ENVIRON.items() if name not in names}


@pytest.mark.parametrize("name", [name for name in ENVIRON if name not in ("DRAIN_ENV_FILE", "R2_ENDPOINT_URL")])
def test_a_setting_that_is_missing_is_named(name: str) -> None:
    read = settings.read(without(name))
    (failure,) = bad(read)
    assert failure.level is Level.FAILURE
    assert failure.words == f"{name} is not set."
    assert failure.next
    assert read.lacking == {name}
    assert read.consistent


def test_without_an_endpoint_the_account_is_missing() -> None:
    assert settings.read(without("R2_ENDPOINT_URL")).lacking == {"R2_ACCOUNT_ID"}


def test_everything_that_is_missing_is_named_at_once() -> None:
    read = settings.read({"DRAIN_ENV_FILE": "/dev/null"})
    assert len(bad(read)) == 7
    assert read.lacking >= {"R2_BUCKET", "MAIL_DOMAIN", "INJECT_PASS", "R2_ACCOUNT_ID"}


def test_everything_that_is_wrong_is_named_at_once_and_the_rest_holds(tmp_path: Path) -> None:
    path = env_file(tmp_path, "POLL_INTERVAL=soon\nINJECT_HOST=192.0.2.1\nSPAM_TAG_SCORE=many\n")
    read = settings.read({**ENVIRON, "INJECT_PORT": "99999", "DRAIN_ENV_FILE": str(path)})
    assert read.lacking == {"POLL_INTERVAL", "SPAM_TAG_SCORE", "INJECT_PORT"}
    assert len(bad(read)) == 3
    assert all(finding.level is Level.FAILURE for finding in bad(read))
    assert read.config.inject_host == "192.0.2.1"


def test_the_environment_goes_before_the_file_in_pieces_too(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file")
    path = env_file(tmp_path, "INJECT_HOST=192.0.2.1\nR2_SECRET_ACCESS_KEY=from-env\n")
    environ = {
        **without("R2_SECRET_ACCESS_KEY", "R2_BUCKET"),
        "R2_SECRET_ACCESS_KEY_FILE": str(tmp_path / "secret"),
        "INJECT_HOST": "192.0.2.2",
        "DRAIN_ENV_FILE": str(path),
    }
    read = settings.read(environ)
    assert read.config.inject_host == "192.0.2.2"
    assert read.config.r2_secret_access_key.reveal() == "from-file"


def test_a_secret_s_file_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    read = settings.read({**without("INJECT_PASS"), "INJECT_PASS_FILE": str(tmp_path / "none")})
    (failure,) = bad(read)
    assert "INJECT_PASS_FILE names" in failure.words
    assert read.lacking == {"INJECT_PASS"}


def test_a_credential_of_systemd_s_that_is_empty_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "INJECT_PASS").touch()
    read = settings.read({**without("INJECT_PASS"), "CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert "which is empty" in words(read)
    assert read.lacking == {"INJECT_PASS"}


@pytest.mark.parametrize("text", ["A=B C\n", None])
def test_a_drain_env_that_cannot_be_read_is_a_failure_and_the_environment_holds(
    tmp_path: Path, text: str | None
) -> None:
    path = env_file(tmp_path, text) if text else tmp_path / "none"
    read = settings.read({**ENVIRON, "DRAIN_ENV_FILE": str(path)})
    (failure,) = bad(read)
    assert failure.level is Level.FAILURE
    assert str(path) in failure.words
    assert read.config.r2_bucket == "mail"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"INJECT_TLS": "none", "INJECT_HOST": "192.0.2.1"}, "INJECT_TLS=none is for loopback only"),
        ({"R2_ENDPOINT_URL": "http://192.0.2.1"}, "would send mail in the clear"),
        ({"PROCESSED_PREFIX": "pending/done/"}, "must not lie within each other"),
        ({"INJECT_RCPT": "inbox@other.test"}, "is not in MAIL_DOMAIN"),
    ],
)
def test_settings_that_contradict_each_other_are_a_failure_also_with_others_missing(
    more: dict[str, str], said: str
) -> None:
    for environ in ({**ENVIRON, **more}, {**without("R2_ACCESS_KEY_ID"), **more}):
        read = settings.read(environ)
        assert said in words(read)
        assert not read.consistent


def test_a_catch_all_is_no_contradiction_while_the_domain_is_not_known() -> None:
    read = settings.read({**without("MAIL_DOMAIN"), "INJECT_RCPT": "inbox@example.test"})
    assert read.consistent
    assert read.lacking == {"MAIL_DOMAIN"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"MAIL_ALIASES_FILE": "/nowhere"}, "/nowhere"),
        ({"FILTERS": "clamav", "CLAMD_SOCKET": "clamd"}, "CLAMD_SOCKET is not right"),
        ({"RELAY_UPSTREAM": "smtp"}, "SMARTHOST_HOST is not set"),
        ({"RELAY_ENABLED": "true"}, "RELAY_UPSTREAM is not set"),
    ],
)
def test_what_only_a_part_can_judge_is_judged(more: dict[str, str], said: str) -> None:
    for environ in ({**ENVIRON, **more}, {**without("R2_BUCKET"), "R2_ENDPOINT_URL": "", **more}):
        read = settings.read(environ)
        assert said in words(read)
        assert Level.FAILURE in {finding.level for finding in read.findings}


def test_a_drain_that_only_sends_needs_no_bucket() -> None:
    environ = {name: text for name, text in ENVIRON.items() if not name.startswith("R2_")}
    read = settings.read({**environ, "RELAY_UPSTREAM": "resend", "RELAY_API_KEY": "key"})
    assert settings.sends_only(read.config)
    assert not bad(read)
    assert read.findings[0].level is Level.OK


def test_no_secret_is_shown(tmp_path: Path) -> None:
    environ = {**ENVIRON, "ORIGIN_TOKEN": "hush-hush,\x00hush", "NTFY_URL": "hush-hush", "POLL_INTERVAL": "x"}
    read = settings.read(environ)
    assert read.lacking == {"ORIGIN_TOKEN", "NTFY_URL", "POLL_INTERVAL"}
    assert "hush" not in words(read)
