"""`drain init`: what is known, what is asked, what is written, what is said."""

import os
import re
import shlex
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from drain import config, envfile, keygen
from drain.cli import main
from drain.init import answers, person, sample
from drain.init.answers import Answers
from drain.init.questions import QUESTIONS, Question
from drain.keys import read_x25519
from drain.settings import SETTINGS
from tests.sealing import rsa_key

ACCOUNT = "0123456789abcdef0123456789abcdef"
FULL = {
    "MAIL_DOMAIN": "example.org",
    "R2_ACCOUNT_ID": ACCOUNT,
    "R2_BUCKET": "post",
    "R2_ACCESS_KEY_ID": "AK",
    "R2_SECRET_ACCESS_KEY": "s3cret-s3cret",
}
SMTP = {
    "RELAY_UPSTREAM": "smtp",
    "SMARTHOST_HOST": "smtp.provider.example",
    "SMARTHOST_USER": "me",
    "SMARTHOST_PASS": "hush-hush",
}


class Home:
    """A folder for drain.env and the keys, and `drain init` in it, asking nobody."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.env_file = folder / "etc/drain.env"
        self.answers_file = folder / "answers"
        self._folder = folder
        self._capsys = capsys
        self.out = self.err = ""

    def init(self, *arguments: str, **environ: str) -> int:
        """Its exit code; what it said is in ``out`` and ``err``."""
        here = {"DRAIN_ENV_FILE": str(self.env_file), "STATE_DIR": str(self._folder / "state")}
        here["RELAY_KEY_FILE"] = str(self._folder / "etc/relay.key")
        code = main(["init", "--no-doctor", *arguments], {**here, **environ})
        self.out, self.err = self._capsys.readouterr()
        return code

    def answered(self, values: dict[str, str], *arguments: str, **environ: str) -> int:
        """The same with a file of answers."""
        self.answers_file.write_text("".join(f"{name}={shlex.quote(text)}\n" for name, text in values.items()))
        self.answers_file.chmod(0o600)
        return self.init("--yes", "--answers", str(self.answers_file), *arguments, **environ)

    @property
    def values(self) -> dict[str, str]:
        """What drain.env has."""
        return envfile.read(self.env_file)[0]

    @property
    def files(self) -> list[str]:
        """The names of all that is there, but for the answers."""
        found = (str(path.relative_to(self._folder)) for path in self._folder.rglob("*") if path.is_file())
        return sorted(name for name in found if name != "answers")


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    return Home(tmp_path, capsys)


# -- what is written --


def test_every_setting_stands_in_drain_env_once_with_its_help_and_its_default(home: Home) -> None:
    assert home.answered(FULL) == 0
    text = home.env_file.read_text()
    for name, setting in SETTINGS.items():
        lines = re.findall(rf"^#?\s*(?:{name}|{name}_FILE)=.*", text, re.MULTILINE)
        assert len(lines) == 1, name
        if name not in home.values and f"{name}_FILE" not in home.values:
            assert lines == [f"#{name}={envfile.quoted(setting.default)}"]
    unwrapped = " ".join(text.replace("\n# ", " ").split())
    assert all(" ".join(setting.help.split()) in unwrapped for setting in SETTINGS.values())
    assert max(len(line) for line in text.splitlines() if line.startswith("#")) <= 100
    assert all(f"# ---- {setting.section} ----" in text for setting in SETTINGS.values() if setting.section)
    assert next(iter(SETTINGS.values())).section, "no setting stands above the first heading"


def test_drain_env_and_the_keys_are_for_their_owner_only_and_drain_can_use_them(home: Home) -> None:
    assert home.answered(FULL) == 0
    for name in ("drain.env", "drain-key.pem", "origin-token"):
        assert stat.S_IMODE((home.env_file.parent / name).stat().st_mode) == 0o600, name
    made, warnings = config.load({"DRAIN_ENV_FILE": str(home.env_file)})
    assert not warnings
    assert (made.mail_domain, made.r2_bucket, made.inject_user) == (("example.org",), "post", "drain")
    read_x25519(made.private_key_file[0])  # raises if it is none
    assert made.origin_token[0].reveal() == (home.env_file.parent / "origin-token").read_text().strip()
    assert made.sealed_only


def test_where_state_and_the_relays_key_are_is_written_out_if_it_is_said(home: Home, tmp_path: Path) -> None:
    home.answered(FULL)
    assert home.values["STATE_DIR"] == str(tmp_path / "state")
    assert home.values["RELAY_KEY_FILE"] == str(tmp_path / "etc/relay.key")
    assert (tmp_path / "etc/relay.key").exists(), "a unit may not be let to make it later"


def test_the_password_for_the_mail_server_is_random_and_nothing_secret_is_said(home: Home) -> None:
    assert home.answered({**FULL, **SMTP, "NTFY_URL": "https://ntfy.sh/hidden-topic"}) == 0
    password = home.values["INJECT_PASS"]
    assert len(password) == 32
    token = (home.env_file.parent / "origin-token").read_text().strip()
    for secret in (password, token, "s3cret-s3cret", "hush-hush", "hidden-topic"):
        assert secret not in home.out + home.err
    home.env_file.unlink()
    home.answered(FULL)
    assert home.values["INJECT_PASS"] != password


def test_a_link_into_a_folder_that_is_not_there_is_said_before_a_key_is_made(home: Home, tmp_path: Path) -> None:
    home.env_file.parent.mkdir()
    home.env_file.symlink_to(tmp_path / "elsewhere/drain.env")
    assert home.answered(FULL) == os.EX_CONFIG
    assert "is a link to" in home.err
    assert "Make the folder, or remove the link." in home.err
    assert home.files == []
    (tmp_path / "elsewhere").mkdir()
    assert home.answered(FULL) == 0
    assert home.env_file.is_symlink()
    assert home.values["R2_BUCKET"] == "post"


def test_a_second_run_says_that_there_is_nothing_to_do_and_changes_nothing(home: Home) -> None:
    home.answered({**FULL, **SMTP})
    before = {name: (home.env_file.parent / name).read_bytes() for name in ("drain.env", "drain-key.pem")}
    stamp = home.env_file.stat()
    assert home.init("--yes") == 0
    assert f"Nothing to ask, and nothing to change in {home.env_file}.\n" in home.out
    assert {name: (home.env_file.parent / name).read_bytes() for name in before} == before
    assert home.env_file.stat().st_mtime_ns == stamp.st_mtime_ns


def test_what_is_in_drain_env_already_stays_with_its_comments(home: Home) -> None:
    home.env_file.parent.mkdir()
    mine = "# my own words\nexport MAIL_DOMAIN='example.net'  # ours\r\nR2_BUCKET=b\nCONCURRENCY=3"
    home.env_file.write_bytes(mine.encode())
    home.env_file.chmod(0o644)
    assert home.answered(FULL, CONCURRENCY="5") == 0
    text = home.env_file.read_text()
    assert "# my own words\nexport MAIL_DOMAIN='example.net'  # ours\nR2_BUCKET=b\nCONCURRENCY=3\n" in text
    values = home.values
    assert (values["MAIL_DOMAIN"], values["R2_BUCKET"], values["CONCURRENCY"]) == ("example.net", "b", "3")
    assert values["R2_ACCESS_KEY_ID"] == "AK", "what it lacks comes from the answers"
    assert text.count("#POLL_INTERVAL=60") == 1, "what it does not know is added as a comment"
    assert stat.S_IMODE(home.env_file.stat().st_mode) == 0o600
    assert "R2_JURISDICTION" not in values, "a bucket that is there is somewhere already"


def test_settings_of_a_newer_drain_are_appended_as_comments(home: Home) -> None:
    home.answered(FULL)
    text = home.env_file.read_text()
    older = re.sub(r"\n(?:# [^\n]*\n)+#?POLL_INTERVAL=[^\n]*\n", "\n", text)
    assert older != text
    home.env_file.write_text(older)
    assert home.init("--yes") == 0
    assert home.env_file.read_text().startswith(older)
    added = home.env_file.read_text().removeprefix(older)
    assert re.findall(r"^#(\w+)=", added, re.MULTILINE) == ["POLL_INTERVAL"]
    assert "---- Passes ----" in added
    home.init("--yes")
    assert home.env_file.read_text() == older + added


def test_mail_of_another_worker_goes_on_coming_where_drain_ran_before_without_a_key(home: Home) -> None:
    """With a token, mail that is not sealed would go to quarantine from one day to the next."""
    home.env_file.parent.mkdir()
    home.env_file.write_text("R2_BUCKET=b\n")
    home.answered(FULL)
    assert not config.load({"DRAIN_ENV_FILE": str(home.env_file)})[0].sealed_only
    assert "REQUIRE_SEALED=false" in home.out
    home.env_file.write_text("R2_BUCKET=b\nORIGIN_TOKEN=tok\n")
    home.answered(FULL)
    assert config.load({"DRAIN_ENV_FILE": str(home.env_file)})[0].sealed_only, "it was so before"


def test_keys_that_an_earlier_run_left_are_taken(home: Home) -> None:
    """It was killed before it wrote drain.env; and perhaps the Worker has the key already."""
    home.env_file.parent.mkdir()
    made = keygen.make_first(keygen.Place((), home.env_file.parent, home.env_file, has_token=False))
    before = made.private.read_bytes()
    assert home.answered(FULL) == 0
    assert made.private.read_bytes() == before
    assert home.values["PRIVATE_KEY_FILE"] == str(made.private)


def test_a_key_is_made_where_the_settings_say(home: Home, tmp_path: Path) -> None:
    assert home.answered({**FULL, "PRIVATE_KEY_FILE": str(tmp_path / "a b/k.pem")}) == 0
    read_x25519(tmp_path / "a b/k.pem")
    assert f"DRAIN_PUBLIC_KEY < '{tmp_path}/a b/k.pub.pem'\n" in home.out


# -- outgoing mail --


def test_with_an_upstream_the_relay_is_on_and_its_key_is_made(home: Home, tmp_path: Path) -> None:
    """A unit may not be let to write beside drain.env when the first mail comes."""
    assert home.answered({**FULL, **SMTP, "MAIL_DOMAIN": "example.org,example.net"}) == 0
    values = home.values
    assert values["RELAY_ENABLED"] == "true"
    assert values["ALLOWED_FROM"] == "@example.org,@example.net"
    assert stat.S_IMODE((tmp_path / "etc/relay.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    config.check_relay(config.load({"DRAIN_ENV_FILE": str(home.env_file)})[0])


def test_a_relay_that_is_off_in_drain_env_stays_off(home: Home) -> None:
    home.answered({**FULL, **SMTP, "RELAY_ENABLED": "false"})
    assert home.values["RELAY_ENABLED"] == "false"
    home.env_file.write_text("".join(f"{name}={text}\n" for name, text in {**FULL, **SMTP}.items()))
    home.init("--yes")
    assert "RELAY_ENABLED" not in home.values, "`drain relay` may run by itself"


def test_port_465_means_implicit_tls(home: Home) -> None:
    home.answered({**FULL, **SMTP, "SMARTHOST_HOST": "smtp.provider.example:465"})
    assert home.values["SMARTHOST_TLS"] == "implicit"


def test_who_only_sends_gets_no_bucket_and_no_keys(home: Home) -> None:
    home.env_file.parent.mkdir()
    home.env_file.write_text("".join(f"{name}={text}\n" for name, text in {"MAIL_DOMAIN": "a.org", **SMTP}.items()))
    assert home.init("--yes") == 0
    assert "R2_BUCKET" not in home.values
    assert home.files == ["etc/drain.env", "etc/relay.key"]
    assert "wrangler" not in home.out


# -- what is wrong --


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("R2_ACCOUNT_ID=xyz", "R2_ACCOUNT_ID 'xyz' is not right: it wants 32 hex digits"),
        ("R2_BUKET=mail", "R2_BUKET is no setting of drain. Is it R2_BUCKET?"),
        ("two words", "line 1, is not NAME=value"),
        ("NTFY_URL=ftp://x", "NTFY_URL is not right"),
    ],
)
def test_a_wrong_answer_in_the_file_is_one_sentence_and_nothing_is_written(home: Home, line: str, words: str) -> None:
    home.answers_file.write_text(line + "\nMAIL_DOMAIN=example.org\n")
    assert home.init("--yes", "--answers", str(home.answers_file)) == 65
    assert words in home.err
    assert str(home.answers_file) in home.err
    assert "ftp" not in home.err
    assert home.files == []


def test_a_file_of_answers_that_is_not_there_is_said(home: Home) -> None:
    assert home.init("--yes", "--answers", "/nowhere/answers") == 66
    assert "/nowhere/answers" in home.err
    assert home.files == []


@pytest.mark.parametrize(
    ("name", "text"), [("INJECT_PORT", "many"), ("MAIL_ALERT_CMD", "a\nb"), ("MAIL_ALERT_MSG", "\udcff")]
)
def test_a_wrong_value_in_the_environment_is_named_and_nothing_is_written(home: Home, name: str, text: str) -> None:
    assert home.answered(FULL, **{name: text}) == 78
    assert f"In the environment: {name} " in home.err
    assert home.files == []


def test_a_wrong_value_in_drain_env_is_named_and_it_stays_as_it_is(home: Home) -> None:
    home.env_file.parent.mkdir()
    home.env_file.write_text("CONCURRENCY=many\n")
    assert home.answered(FULL) == 78
    assert f"In {home.env_file}: CONCURRENCY 'many'" in home.err
    assert home.env_file.read_text() == "CONCURRENCY=many\n"
    assert home.files == ["etc/drain.env"]


def test_a_secret_in_a_file_that_is_not_there_is_named_and_nothing_is_written(home: Home) -> None:
    assert home.answered(FULL, INJECT_PASS_FILE="/nowhere/pass") == 78
    assert "INJECT_PASS_FILE names /nowhere/pass" in home.err
    assert home.files == []


def test_a_place_that_is_no_file_is_refused(home: Home, tmp_path: Path) -> None:
    """DRAIN_ENV_FILE=/dev/null means no file; as root a rename would take its place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, tmp_path):
        assert home.answered(FULL, DRAIN_ENV_FILE=str(place)) == 78
        assert f"{place} is not a file" in home.err
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert home.files == []


def test_a_folder_that_cannot_be_made_is_named(home: Home, tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("")
    assert home.answered(FULL) == 78
    assert "cannot be" in home.err
    assert str(tmp_path / "etc") in home.err


# -- where answers come from --


def test_drain_env_comes_before_the_environment_and_that_before_the_answers(home: Home) -> None:
    home.env_file.parent.mkdir()
    home.env_file.write_text("R2_BUCKET=one\nPRIVATE_KEY_FILE=/nowhere/k.pem\n")
    given = {**FULL, "R2_BUCKET": "three", "R2_ACCESS_KEY_ID": "three", "MAIL_DOMAIN": "three.org"}
    home.answered(given, R2_BUCKET="two", R2_ACCESS_KEY_ID="two", PRIVATE_KEY_FILE=str(home.env_file.parent / "k.pem"))
    assert home.values["R2_BUCKET"] == "one"
    assert home.values["R2_ACCESS_KEY_ID"] == "two"
    assert home.values["MAIL_DOMAIN"] == "three.org"


def test_a_secret_may_be_given_as_a_file_and_is_known_then(home: Home, tmp_path: Path) -> None:
    secret = tmp_path / "inject"
    secret.write_text("pass\n")
    home.answered(FULL, INJECT_PASS_FILE=str(secret))
    assert home.values["INJECT_PASS_FILE"] == str(secret)
    assert "INJECT_PASS" not in home.values
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "INJECT_PASS").write_text("of systemd")
    home.env_file.unlink()
    home.answered(FULL, CREDENTIALS_DIRECTORY=str(folder))
    assert not {"INJECT_PASS", "INJECT_PASS_FILE"} & set(home.values)


def test_install_shs_own_answers_are_left_to_it(home: Home) -> None:
    assert home.answered({**FULL, "DRAIN_MAIL_SERVER": "postfix", "DRAIN_START": "timer"}) == 0
    assert not [name for name in home.values if name.startswith("DRAIN_")]


def test_what_has_neither_answer_nor_default_stays_unset_and_is_named(home: Home) -> None:
    assert home.init("--yes") == 0
    assert "Not set yet: MAIL_DOMAIN, R2_ACCOUNT_ID, R2_ACCESS_KEY_ID, R2_SECRET_ACCESS_KEY." in home.out
    assert home.values["R2_BUCKET"] == "mail"
    assert not {"MAIL_DOMAIN", "R2_JURISDICTION", "NTFY_URL"} & set(home.values)
    home.init("--yes")
    assert f"Nothing to change in {home.env_file}." in home.out
    assert "Nothing to ask" not in home.out


# -- what is asked --


def asked(said: dict[str, str], **before: str) -> tuple[list[str], Answers]:
    """The settings that are asked for, in order, by somebody who answers like that, and else takes the default."""
    names: list[str] = []

    def ask(question: Question, default: str) -> str:
        names.append(question.name)
        return said.get(question.name, default)

    found = Answers(before)
    found.fill(ask)
    return names, found


def test_only_what_cannot_be_known_is_asked_for() -> None:
    names, _ = asked({"MAIL_DOMAIN": "example.org"})
    assert names == [
        *("MAIL_DOMAIN", "R2_ACCOUNT_ID", "R2_JURISDICTION", "R2_BUCKET", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY"),
        *("MAIL_ADMIN_LOCALPART", "NTFY_URL", "RELAY_UPSTREAM"),
    ]
    assert asked({}, **FULL)[0] == []
    assert asked({}, **{**FULL, "R2_ACCOUNT_ID": ""})[0] == ["R2_ACCOUNT_ID"]
    assert asked({}, **{**FULL, "R2_ACCOUNT_ID": "", "R2_ENDPOINT_URL": "https://s3.example"})[0] == []
    only_sends = {"MAIL_DOMAIN": "a.org", "ALLOWED_FROM": "@a.org", **SMTP}
    assert asked({}, **only_sends)[0] == []


@pytest.mark.parametrize(
    ("upstream", "more"),
    [
        ("smtp", ["SMARTHOST_HOST", "SMARTHOST_TLS", "SMARTHOST_USER", "SMARTHOST_PASS"]),
        ("postmark", ["RELAY_API_KEY"]),
        ("cloudflare", ["RELAY_API_KEY"]),
        ("mailgun", ["RELAY_API_KEY", "MAILGUN_DOMAIN", "MAILGUN_BASE_URL"]),
        ("ses", ["RELAY_API_KEY", "SES_REGION", "SES_ACCESS_KEY_ID"]),
    ],
)
def test_each_way_out_has_its_own_questions(upstream: str, more: list[str]) -> None:
    said = {
        **FULL,
        **SMTP,
        "RELAY_UPSTREAM": upstream,
        "RELAY_API_KEY": "k",
        "MAILGUN_DOMAIN": "mg.example.org",
        "SES_REGION": "eu-west-1",
        "SES_ACCESS_KEY_ID": "a",
    }
    names, found = asked(said)
    assert names[names.index("RELAY_UPSTREAM") + 1 :] == [*more, "ALLOWED_FROM"]
    made, _ = config.load({**found.values, "DRAIN_ENV_FILE": "/dev/null"})
    config.check_relay(made)
    assert made.relay_enabled


def test_a_smarthost_without_login_is_asked_for_no_password() -> None:
    names, found = asked({**FULL, "RELAY_UPSTREAM": "smtp", "SMARTHOST_HOST": "relay.lan"})
    assert "SMARTHOST_PASS" not in names
    assert "SMARTHOST_PASS" not in found.missing()


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str) -> list[str]:
    """A person at the terminal, who types these lines; the prompts that were shown."""
    prompts: list[str] = []
    left = list(lines)

    def read(prompt: str) -> str:
        prompts.append(prompt)
        return left.pop(0)

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr("getpass.getpass", read)
    return prompts


def the_question(name: str) -> Question:
    return next(question for question in QUESTIONS if question.name == name)


@pytest.mark.parametrize(
    ("name", "lines", "answer"),
    [
        ("MAIL_DOMAIN", ["", "alice@example.org", " example.org "], "example.org"),
        ("R2_ACCOUNT_ID", ["abc", ACCOUNT], ACCOUNT),
        ("R2_ACCOUNT_ID", [""], ""),
        ("R2_BUCKET", [""], "mail"),
        ("R2_BUCKET", ["\x1b[A", "mail\udcff", "post"], "post"),
        ("MAIL_ADMIN_LOCALPART", ["boss@example.org"], "boss"),
        ("RELAY_UPSTREAM", ["sendmail", "None"], ""),
        ("NTFY_URL", ["ntfy.sh/x", "https://ntfy.sh/x"], "https://ntfy.sh/x"),
    ],
)
def test_a_question_is_asked_until_its_answer_is_one(
    monkeypatch: pytest.MonkeyPatch, name: str, lines: list[str], answer: str
) -> None:
    prompts = typed(monkeypatch, *lines)
    question = the_question(name)
    assert person.ask(question, question.default({})) == answer
    assert len(prompts) == len(lines)


def test_a_wrong_answer_is_explained_in_the_settings_own_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed(monkeypatch, "abc\x07", "abc", ACCOUNT)
    person.ask(the_question("R2_ACCOUNT_ID"), "")
    out = capsys.readouterr().out
    assert "R2_ACCOUNT_ID 'abc' is not right: it wants 32 hex digits." in out
    assert "\x07" not in out


def test_a_topic_of_ones_own_is_random_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    question = the_question("NTFY_URL")
    topics = set()
    for _ in range(3):
        typed(monkeypatch, "new")
        topics.add(person.ask(question, ""))
    assert len(topics) == 3
    assert all(re.fullmatch(r"https://ntfy\.sh/drain-[\w-]{12}", topic) for topic in topics)


def test_each_question_is_for_a_setting_and_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for question in QUESTIONS:
        monkeypatch.setattr("builtins.input", lambda prompt: "k")
        monkeypatch.setattr("getpass.getpass", lambda prompt: "k")
        monkeypatch.setattr(person, "judge", lambda name, text: None)
        assert question.name in SETTINGS
        person.ask(question, "")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_the_persons_input_in_another_encoding_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[Callable[[], str]] = [b"\xff".decode, lambda: "mail"]
    monkeypatch.setattr("builtins.input", lambda prompt: left.pop(0)())
    assert person.ask(the_question("R2_BUCKET"), "") == "mail"


# -- what is said --


def test_the_steps_have_the_persons_bucket_jurisdiction_domains_and_paths_in_them(home: Home) -> None:
    home.answered({**FULL, "R2_JURISDICTION": "eu", "MAIL_DOMAIN": "example.org,example.net"})
    folder = home.env_file.parent
    for line in (
        "npx wrangler@4 login",
        "npx wrangler@4 r2 bucket create post --jurisdiction eu",
        "npx wrangler@4 r2 bucket lifecycle add post pending pending/ --expire-days 30 --force --jurisdiction eu",
        "npx wrangler@4 r2 bucket lifecycle add post processed processed/ --expire-days 7 --force --jurisdiction eu",
        "npx wrangler@4 deploy",
        f"npx wrangler@4 secret put DRAIN_PUBLIC_KEY < {folder}/drain-key.pub.pem",
        f"npx wrangler@4 secret put ORIGIN_TOKEN < {folder}/origin-token",
    ):
        assert f"     {line}\n" in home.out
    flowing = " ".join(home.out.split())
    assert 'in wrangler.toml: bucket_name = "post" and jurisdiction = "eu"' in flowing
    assert "Onboard Domain: example.org, example.net" in flowing
    for domain in ("example.org", "example.net"):
        for number in (1, 2, 3):
            assert f"     {domain}. MX 10 route{number}.mx.cloudflare.net.\n" in home.out
        assert f'     {domain}. TXT "v=spf1 include:_spf.mx.cloudflare.net ~all"\n' in home.out
        assert f'     _dmarc.{domain}. TXT "v=DMARC1; p=none; rua=mailto:dmarc@{domain}"\n' in home.out
    prose = [line for line in home.out.splitlines() if not line.startswith("     ") and "/" not in line]
    assert max(map(len, prose)) <= 80


def test_the_commands_of_the_steps_are_those_of_the_workers_readme(home: Home) -> None:
    readme = (Path(__file__).parents[1] / "worker/README.md").read_text()
    home.answered({**FULL, "R2_BUCKET": "mail"})
    said = [line.strip().partition(" <")[0] for line in home.out.splitlines() if line.startswith("     npx")]
    assert len(said) == 7
    assert all(re.search(rf"^ +{re.escape(command)}(?: <|$)", readme, re.MULTILINE) for command in said)
    assert "wrangler.toml" not in home.out, "nothing to change there"


def test_steps_alone_can_be_said_again_and_nothing_is_written(home: Home) -> None:
    home.answered(FULL)
    before, text = home.out, home.env_file.read_bytes()
    assert home.init("--steps") == 0
    assert home.out in before
    assert home.env_file.read_bytes() == text
    home.env_file.unlink()
    assert home.init("--steps") == 0
    assert "MAIL_DOMAIN is not set" in home.out
    assert not home.env_file.exists()


def test_a_token_that_is_written_out_is_given_by_hand(home: Home) -> None:
    home.answered({**FULL, "ORIGIN_TOKEN": "tok-tok-tok"})
    assert "     npx wrangler@4 secret put ORIGIN_TOKEN\n" in home.out
    assert "tok-tok" not in home.out


@pytest.mark.parametrize(
    ("settings", "expected", "signer"),
    [
        (SMTP, 'example.org. TXT "v=spf1 include:_spf.mx.cloudflare.net a:smtp.provider.example ~all"', "your mail"),
        (
            {**SMTP, "SMARTHOST_HOST": "1.2.3.4:465,relay.lan"},
            'example.org. TXT "v=spf1 include:_spf.mx.cloudflare.net ip4:1.2.3.4 ~all"',
            "your mail",
        ),
        (
            {**SMTP, "SMARTHOST_HOST": "SMTP.mailgun.org"},
            'example.org. TXT "v=spf1 include:_spf.mx.cloudflare.net include:mailgun.org ~all"',
            "Mailgun",
        ),
        (
            {"RELAY_UPSTREAM": "mailgun", "RELAY_API_KEY": "k", "MAILGUN_DOMAIN": "mg.example.org"},
            'mg.example.org. TXT "v=spf1 include:mailgun.org ~all"',
            "Mailgun",
        ),
        (
            {"RELAY_UPSTREAM": "resend", "RELAY_API_KEY": "k"},
            'send.example.org. TXT "v=spf1 include:amazonses.com ~all"',
            "Resend",
        ),
    ],
)
def test_the_spf_record_lets_the_smarthost_send(
    home: Home, settings: dict[str, str], expected: str, signer: str
) -> None:
    home.answered({**FULL, **settings})
    assert f"     {expected}\n" in home.out
    assert f"is signed (DKIM) by {signer}" in home.out


def test_the_dkim_record_is_there_to_copy_where_drain_signs(home: Home, tmp_path: Path) -> None:
    key = tmp_path / "dkim.pem"
    key.write_bytes(rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
    signs = {"DKIM_DOMAIN": "example.org", "DKIM_SELECTOR": "d1", "DKIM_KEY_FILE": str(key)}
    home.answered({**FULL, **SMTP, **signs})
    (line,) = [line for line in home.out.splitlines() if line.startswith("     d1._domainkey.example.org. TXT ")]
    assert '"v=DKIM1; k=rsa; p=' in line
    assert len(line) > 300, "it is not cut off"
    assert "is signed (DKIM) by" not in home.out


def test_a_dkim_key_that_is_none_is_said_before_anything_is_written(home: Home) -> None:
    signs = {"DKIM_DOMAIN": "example.org", "DKIM_SELECTOR": "d1", "DKIM_KEY_FILE": "/nowhere/dkim.pem"}
    assert home.answered({**FULL, **SMTP, **signs}) == 78
    assert "DKIM_KEY_FILE /nowhere/dkim.pem cannot be read" in home.err
    assert home.files == []


def test_nothing_in_a_setting_moves_the_terminal(home: Home) -> None:
    home.answered(FULL, R2_BUCKET="a\x1b[2Jb")
    assert "\x1b" not in home.out


# -- the sample --


def test_a_sample_lacks_nothing_and_an_empty_file_everything() -> None:
    assert sample.lacking(sample.whole({"INJECT_PASS_FILE": "/x", "R2_BUCKET": "a b"})) == ""
    assert re.findall(r"^#(\w+)=", sample.lacking(""), re.MULTILINE) == list(SETTINGS)


def test_all_that_was_gathered_may_be_read_back(tmp_path: Path) -> None:
    answers_file = tmp_path / "answers"
    answers_file.write_text("MAIL_DOMAIN=example.org\nMAIL_ALERT_CMD='a \"b\" # c'\n")
    found = answers.gather(tmp_path / "none", {}, str(answers_file))
    (tmp_path / "drain.env").write_text(sample.whole(found.new))
    assert envfile.read(tmp_path / "drain.env")[0] == found.new
