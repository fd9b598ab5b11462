"""Which passwords an environment must not have, and which ones cannot be used at all."""

from __future__ import annotations

import ctypes
import ctypes.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

SHORTEST = 12  # characters
LONGEST = 510  # bytes of name, colon and password: what the gateway reads; crypt(3) takes 511 of the password
REMEDY = "choose another, and keep it in a file encrypted with ansible-vault"


def unusable(password: str, name: str) -> str:
    """Return why a password can be sent by no client or kept by no hash; empty where it can."""
    if re.search(r"[\x00-\x1f\x7f]", password):
        return "has a control character, which HTTP's basic authentication forbids (RFC 7617)"
    if len(f"{name}:{password}".encode()) > LONGEST:
        return f"has, with the name and a colon, more than the {LONGEST} bytes that the gateway reads"
    return ""


def weakness(password: str, name: str, known: Iterable[str]) -> str:
    """Return why a password is easily guessed; empty where it is not. Digits and signs around a word hide it from nobody."""
    lowered = "".join(password.casefold().split())
    word = re.sub(r"^[\W\d_]+|[\W\d_]+$", "", lowered)
    if name.casefold() in (word, lowered):
        return "is the account's name"
    if word in known or lowered in known:
        return "is known to everybody"
    if len(password) < SHORTEST:
        return f"is shorter than {SHORTEST} characters"
    if not word or len(set(lowered)) < 5:
        return "has too few letters"
    return ""


@cache
def libcrypt() -> Callable[[bytes, bytes], bytes | None] | None:
    """Return crypt(3) of this computer, if it has one."""
    path = ctypes.util.find_library("crypt")
    if path is None:
        return None
    function = ctypes.CDLL(path).crypt
    function.argtypes, function.restype = [ctypes.c_char_p, ctypes.c_char_p], ctypes.c_char_p
    return function


@cache
def is_hash_of(password: str, hashed: str) -> bool:
    """Whether ``hashed`` is the hash of ``password``, as far as this computer's crypt(3) can tell."""
    crypt = libcrypt()
    return crypt is not None and crypt(password.encode(), hashed.encode()) == hashed.encode()


def known_behind(hashed: str, name: str, known: Iterable[str]) -> bool:
    """Whether the hash is that of the account's name or of a password that is known to everybody."""
    names = {name, name.casefold(), name.capitalize(), name.upper(), f" {name}", f"{name} "}
    return any(is_hash_of(guess, hashed) for guess in ["", *names, *known])


def accounts(settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield every account with the words for its password."""
    for setting in ("gateway_users", "gateway_operators"):
        for account in settings.get(setting, []):
            yield f"{setting}: the password of {account['name']}", account
    admin = {"name": settings["grafana_admin_user"], "password": settings["grafana_admin_password"]}
    yield "grafana_admin_password", admin


def password_problems(settings: Mapping[str, Any], known: list[str]) -> list[str]:
    """Return a line for each account with a password that cannot be used, or must not be. None has the password in it.

    Args:
        settings: as effective_settings returns them.
        known: passwords, and words of them, that guessers try first; in lower case.
    """
    weak_allowed = settings["preflight_allow_weak_passwords"]
    problems = []
    for what, account in accounts(settings):
        name, password, hashed = account["name"], account.get("password", ""), account.get("hash", "")
        fault = unusable(password, name)
        if not fault and not weak_allowed:
            if hashed:
                fault = "is known to everybody" if known_behind(hashed, name, known) else ""
            else:
                fault = weakness(password, name, known)
        if fault:
            problems.append(f"{what} {fault}: {REMEDY}")
    return problems


class FilterModule:
    """Filters of the role preflight."""

    def filters(self) -> dict[str, Any]:
        return {"password_problems": password_problems}
