"""The configuration: every setting, where `config.load` ends at the first that is wrong."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from drain import assembly, config as configuration, envfile
from drain.doctor import files
from drain.doctor.finding import Finding, Level
from drain.errors import ConfigError
from drain.settings import SETTINGS, Config
from drain.text import clean

NAME = "configuration"
_HINT = "`drain config --reference` says of each setting what it is."
# For what is not set, so that the rest can be looked at together.
_STAND_INS = {
    "R2_ACCOUNT_ID": "0" * 32,
    "R2_ACCESS_KEY_ID": "unset",
    "R2_SECRET_ACCESS_KEY": "unset",
    "R2_BUCKET": "unset",
    "INJECT_USER": "unset",
    "INJECT_PASS": "unset",
}
# Addresses cannot be held against a domain that is not known.
_WITHOUT_DOMAIN = {"MAIL_DOMAIN": "unset.invalid", "INJECT_RCPT": "", "SPAM_RCPT": ""}


@dataclass(frozen=True)
class Settings:
    """As much of the configuration as is right.

    Attributes:
        config: it; a setting that is wrong has its default, one that is missing the empty value of its type.
        lacking: the names of settings that are wrong, or required and not set.
        consistent: whether they fit together; if not, nobody must be given a password by them.
        findings: what there is to say.
    """

    config: Config
    lacking: frozenset[str]
    consistent: bool
    findings: tuple[Finding, ...]


def read(environ: Mapping[str, str]) -> Settings:
    """Looks at all of them."""
    path = envfile.find(environ)
    try:
        config, warnings = configuration.load(environ)
    except ConfigError:
        return _in_pieces(environ, path)
    place = f"{path} and the environment" if path else "the environment; no drain.env was found"
    findings = [*_faults_of_parts(config), *_warned(config, warnings, environ)]
    if not any(finding.level is Level.FAILURE for finding in findings):
        findings.insert(0, Finding(NAME, Level.OK, clean(f"Every setting is right. They are from {place}.")))
    return Settings(config, frozenset(), consistent=True, findings=tuple(findings))


def sends_only(config: Config) -> bool:
    """Whether this drain is not meant to have a bucket, as `drain config` sees it."""
    return bool(config.relay_upstream) and not config.r2_bucket


def _in_pieces(environ: Mapping[str, str], path: Path | None) -> Settings:
    """Each setting for itself, then what is left of them together."""
    values, others, findings = _texts(environ, path)
    faults = {name: _fault({**others, name: text}, complete=False) for name, text in values.items()}
    findings += [_failure(fault) for fault in faults.values() if fault]
    right = others | {name: text for name, text in values.items() if not faults[name]}
    config, _ = configuration.load(right, complete=False)
    wrong = {name if name in SETTINGS else name.removesuffix("_FILE") for name, fault in faults.items() if fault}
    missing = [name for name in _required(config) if not getattr(config, name.lower()) and name not in wrong]
    findings += [Finding(NAME, Level.FAILURE, f"{name} is not set.", SETTINGS[name].help) for name in missing]
    stand_ins = {name: text for name, text in _STAND_INS.items() if name not in right}
    together = right | stand_ins | ({} if config.mail_domain else _WITHOUT_DOMAIN)
    contradiction = _fault(together, complete=True)
    if contradiction:
        findings.append(_failure(contradiction))
    elif config.mail_domain:
        findings += _faults_of_parts(config)
    if not wrong and not _fault(environ, complete=False):
        findings += _warned(config, configuration.load(environ, complete=False)[1], environ)
    if not any(finding.level is Level.FAILURE for finding in findings):
        findings.insert(0, Finding(NAME, Level.OK, "Every setting that a drain needs which only sends is right."))
    return Settings(config, frozenset([*wrong, *missing]), contradiction is None, tuple(findings))


def _texts(environ: Mapping[str, str], path: Path | None) -> tuple[dict[str, str], dict[str, str], list[Finding]]:
    """The text of each setting that has one; the environment without settings; what cannot be read."""
    findings: list[Finding] = []
    in_file: dict[str, str] = {}
    if path is not None:
        try:
            in_file, _ = envfile.read(path)
        except ConfigError as error:
            findings.append(_failure(error))
    names = set(SETTINGS) | {f"{name}_FILE" for name, setting in SETTINGS.items() if setting.secret}
    given = {name: text for name, text in environ.items() if name in names and text}
    # As `config.load` has it: X_FILE in the environment goes before X in drain.env.
    rest = {name: text for name, text in in_file.items() if name in names and text and f"{name}_FILE" not in given}
    others = {name: text for name, text in environ.items() if name not in names} | {"DRAIN_ENV_FILE": os.devnull}
    if fault := _fault(others, complete=False):  # one of systemd's credentials
        findings.append(_failure(fault))
        others.pop("CREDENTIALS_DIRECTORY", None)
    return rest | given, others, findings


def _fault(environ: Mapping[str, str], *, complete: bool) -> ConfigError | None:
    try:
        configuration.load(environ, complete=complete)
    except ConfigError as error:
        return error
    return None


def _required(config: Config) -> list[str]:
    names = [name for name, setting in SETTINGS.items() if setting.required]
    if not config.r2_endpoint_url:
        names.insert(0, "R2_ACCOUNT_ID")
    return [name for name in names if not (name.startswith("R2_") and sends_only(config))]


def _faults_of_parts(config: Config) -> list[Finding]:
    """What only those can judge that the settings are for."""
    checks: list[Callable[[Config], object]] = [assembly.router, assembly.policy]
    if config.relay_enabled or config.relay_upstream:
        checks.append(configuration.check_relay)
    return [_failure(error) for check in checks if (error := _fault_of_part(check, config))]


def _fault_of_part(check: Callable[[Config], object], config: Config) -> ConfigError | None:
    try:
        check(config)
    except ConfigError as error:
        return error
    return None


def _warned(config: Config, warnings: Iterable[str], environ: Mapping[str, str]) -> list[Finding]:
    """What `config.load` warns of, but for the modes of files, which are a check of their own."""
    modes = set(envfile.readable_by_others(files.with_secrets(config, environ)))
    hint = "What is not known is not used: mend its name, or take it away."
    return [Finding(NAME, Level.WARNING, clean(words), hint) for words in warnings if words not in modes]


def _failure(error: ConfigError) -> Finding:
    return Finding(NAME, Level.FAILURE, clean(error.args[0]), clean(error.hint or _HINT))
