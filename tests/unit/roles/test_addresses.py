"""How hosts and ports are spelt, whatever people write."""

from __future__ import annotations

import pytest

from plugins.filter.addresses import canonical_name, host_port


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("127.0.0.1", 8001, "127.0.0.1:8001"),
        ("fd00::5", 8001, "[fd00::5]:8001"),
        ("emotions.example.org", 443, "emotions.example.org:443"),
        ("fd00::5", None, "[fd00::5]"),
        ("localhost", None, "localhost"),
    ],
)
def test_only_addresses_of_ipv6_have_brackets(host: str, port: int | None, expected: str) -> None:
    assert host_port(host, port) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("localhost", "localhost"),
        ("API.Example.ORG", "api.example.org"),
        ("example.org.", "example.org"),
        ("Bücher.example", "xn--bcher-kva.example"),
        (
            "straße.example",
            "xn--strae-oqa.example",
        ),  # as browsers do it; the codec of Python's own makes another name of it
        ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
        ("web_1.example", "web_1.example"),
        ("2001:DB8:0::0:1", "2001:db8::1"),
        ("192.0.2.7", "192.0.2.7"),
        ("a" * 63 + "." + "b" * 63 + ".example", "a" * 63 + "." + "b" * 63 + ".example"),
    ],
)
def test_names_are_spelt_as_dns_and_certificates_have_them(name: str, expected: str) -> None:
    assert canonical_name(name) == expected
    assert canonical_name(expected) == expected, "a second run must change nothing"


def test_what_can_be_no_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="Codepoint"):
        canonical_name("a☃☃\u2028.example")
