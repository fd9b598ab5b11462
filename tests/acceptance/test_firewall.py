"""Which ports can be reached from outside, and which rules of nftables are loaded."""

from __future__ import annotations

import errno
import json
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.acceptance.conftest import STRAY_PORT, Machine

MEANT_TO_BE_OPEN = {22, 80, 443}
AT_ONCE = 800  # sockets; a process may often have no more than 1024
PATIENCE = 0.2  # seconds for an answer over a cable that is a few memory copies long


def open_ports(address: str, ports: range) -> set[int]:
    """Return those of ``ports`` at which a TCP connection to ``address`` can be made."""
    found = set()
    for start in range(0, len(ports), AT_ONCE):
        with ExitStack() as stack:
            poll, tried = select.poll(), {}
            for port in ports[start : start + AT_ONCE]:
                connection = stack.enter_context(socket.socket())
                connection.setblocking(False)
                assert connection.connect_ex((address, port)) == errno.EINPROGRESS
                poll.register(connection, select.POLLOUT)
                tried[connection.fileno()] = port, connection
            select.select([], [], [], PATIENCE)
            for descriptor, _ in poll.poll(0):
                port, connection = tried[descriptor]
                if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.add(port)
    return found


@pytest.mark.direct
@pytest.mark.usefixtures("stray_listener")
def test_only_ssh_and_http_are_open_from_outside(host: Any, machine: Machine) -> None:
    within = host.check_output(f"curl -s -o /dev/null -w '%{{http_code}}' http://{machine.address}:{STRAY_PORT}/")
    assert within == "200", "the stray service does not listen: this test would prove nothing"
    assert open_ports(machine.address, range(1, 65536)) == MEANT_TO_BE_OPEN


def loaded_chain(host: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the input chain of the loaded table and its rules, as nft's JSON has them (man libnftables-json)."""
    objects = json.loads(host.check_output("nft -j list chain inet vmlops input"))["nftables"]
    (chain,) = [entry["chain"] for entry in objects if "chain" in entry]
    return chain, [entry["rule"] for entry in objects if "rule" in entry]


def accepted_tcp_ports(rules: list[dict[str, Any]]) -> set[int]:
    ports: set[int] = set()
    for rule in rules:
        for part in rule["expr"]:
            match part:
                case {"match": {"left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": values}}}:
                    ports |= set(values)
                case {"match": {"left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": value}}:
                    ports.add(value)
    return ports


def test_loaded_rules_let_nothing_else_in(host: Any) -> None:
    chain, rules = loaded_chain(host)
    assert (chain["hook"], chain["policy"]) == ("input", "drop"), chain
    assert accepted_tcp_ports(rules) == MEANT_TO_BE_OPEN, rules


def test_rules_are_loaded_at_boot_before_the_network(host: Any) -> None:
    unit = host.check_output("systemctl show -p UnitFileState -p ActiveState -p Before vmlops-firewall")
    assert {"UnitFileState=enabled", "ActiveState=active"} <= set(unit.splitlines())
    assert "network-pre.target" in unit


@pytest.fixture
def table_of_somebody_else(host: Any) -> Iterator[str]:
    host.check_output("nft add table inet somebody_else")
    yield "table inet somebody_else"
    host.run("nft delete table inet somebody_else")


def test_tables_of_others_are_left_alone(host: Any, table_of_somebody_else: str) -> None:
    for verb in ["reload", "restart"]:
        host.check_output(f"systemctl {verb} vmlops-firewall")
    assert table_of_somebody_else in host.check_output("nft list tables").splitlines()
    assert accepted_tcp_ports(loaded_chain(host)[1]) == MEANT_TO_BE_OPEN
