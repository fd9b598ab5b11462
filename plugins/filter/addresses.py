"""Hosts and ports as URLs, configurations and certificates spell them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import idna


def host_port(host: str, port: int | None = None) -> str:
    """Return ``host:port``, or the host alone; an IPv6 address in brackets either way (RFC 3986, section 3.2.2)."""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port is None else f"{bracketed}:{port}"


def canonical_name(name: str) -> str:
    """Return a host name or an address as DNS, certificates and Host headers have it.

    That is lower case, international names in their ASCII form (UTS 46, as browsers do it), IPv6 addresses in their short form.
    ``*.`` in front stays. Raises idna.IDNAError, a ValueError, for what can be no name.
    """
    try:
        return ip_address(name).compressed
    except ValueError:
        wildcard, rest = ("*.", name[2:]) if name.startswith("*.") else ("", name)
        ascii_name = rest if rest.isascii() else idna.encode(rest, uts46=True).decode()
        return wildcard + ascii_name.lower().removesuffix(".")


class FilterModule:
    """Filters that several roles use."""

    def filters(self) -> dict[str, Any]:
        return {"host_port": host_port, "canonical_name": canonical_name}
