"""The environment of a replica, read here and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

Version = Literal["v1", "v2"]
LogLevel = Literal["debug", "info", "warning", "error"]

PREFIX = "VMLOPS_"
RELEASE_FILE = Path(__file__).resolve().parents[1] / "release.json"  # lies beside the package in every release
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 — a tmpfs; only where systemd gave no RuntimeDirectory


class SettingsError(Exception):
    """A replica cannot start with this environment. The message is one line."""


class FeedbackSettings(NamedTuple):
    """Where predictions wait for their labels, and how many."""

    path: Path  # of the database
    days: int
    megabytes: int
    capture_percent: float  # of the predictions, which are kept with their input
    capture_days: int  # that an input is kept


class Settings(NamedTuple):
    """The settings of one replica."""

    version: Version
    bind: str  # host:port
    instance: str  # v1@8001, as in the unit's name
    model_dir: Path
    release: str
    log_level: LogLevel
    runtime_dir: Path  # the only place that the process may write to, besides the database of `feedback`
    feedback: FeedbackSettings | None = None
    tls_dir: Path | None = None  # with host.crt, host.key and ca.crt; None is plain HTTP


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Raises SettingsError, which names the variable, where one is missing, empty, unknown or invalid."""
    rest = {name: value for name, value in environ.items() if name.startswith(PREFIX)}

    def take(name: str, default: str | None = None) -> str:
        value = rest.pop(PREFIX + name, default)
        if not value:
            raise SettingsError(f"{PREFIX}{name} is not set")
        return value

    def choose(name: str, choices: tuple[str, ...], default: str | None = None) -> str:
        value = take(name, default)
        if value not in choices:
            raise SettingsError(f"{PREFIX}{name} is {value!r}, not one of {', '.join(choices)}")
        return value

    def take_number(name: str) -> float:
        value = take(name)
        try:
            return float(value)
        except ValueError:
            raise SettingsError(f"{PREFIX}{name} is {value!r}, not a number") from None

    bind = take("BIND")
    _, colon, port = bind.rpartition(":")
    if not (colon and port.isascii() and port.isdigit() and int(port) < 65536):
        raise SettingsError(f"{PREFIX}BIND is {bind!r}, not host:port")
    settings = Settings(
        version=cast(Version, choose("VERSION", get_args(Version))),
        bind=bind,
        instance=take("INSTANCE"),
        model_dir=Path(take("MODEL_DIR")),
        release=take("RELEASE", _release()),
        log_level=cast(LogLevel, choose("LOG_LEVEL", get_args(LogLevel), "info")),
        runtime_dir=Path(environ.get("RUNTIME_DIRECTORY", "").split(":")[0] or SHARED_MEMORY),
        feedback=_feedback(take_number, Path(take("FEEDBACK_FILE"))) if f"{PREFIX}FEEDBACK_FILE" in rest else None,
        tls_dir=Path(take("TLS_DIR")) if f"{PREFIX}TLS_DIR" in rest else None,
    )
    if rest:
        raise SettingsError(f"unknown variable {min(rest)}")
    return settings


def _feedback(take_number: Callable[[str], float], path: Path) -> FeedbackSettings:
    return FeedbackSettings(
        path,
        int(take_number("FEEDBACK_DAYS")),
        int(take_number("FEEDBACK_MEGABYTES")),
        take_number("CAPTURE_PERCENT"),
        int(take_number("CAPTURE_DAYS")),
    )


def _release() -> str:
    """Return the id in release.json, which only releases have; a checkout of the repository has no such file."""
    try:
        return str(json.loads(RELEASE_FILE.read_bytes())["id"])
    except FileNotFoundError:
        return "checkout"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{RELEASE_FILE} cannot be read: {error!r}") from None
