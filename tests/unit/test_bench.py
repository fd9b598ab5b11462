"""What make bench concludes from its figures: the figures themselves need a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.load.bench import growth, load, report, stacks
from tests.load.bench.machine import instances


def row(title: str, rate: float, p99: float, **more: Any) -> dict[str, Any]:
    run = {"rate": rate, "p50_ms": 1.0, "p99_ms": p99, "app_us": 90.0, "gateway_us": 60.0, "non_2xx": 0, "broken": 0}
    return {"title": title, "runs": [run, run], "labels": ["a", "b"], **more}


def test_goals_compare_the_rounds_and_name_what_is_missing() -> None:
    rows = {
        "vmlops": row("**vmlops**", 8000, 9, pss_kb=100, starts=[0.5], half={"p99_ms": 3.0}),
        "reference": row("reference", 400, 100, pss_kb=400, starts=[1.0]),
        "litserve": row("LitServe", 1600, 50),
        "bentoml": row("BentoML", 500, 50),
    }
    lines = report.goals(rows).splitlines()[2:]
    print("\n".join(lines))
    assert [line.rsplit(" | ", 2)[1] for line in lines] == ["20.0", "5.00", "missing", "0.09", "3.00", "0.25", "0.50"]
    assert ["**not met**" in line for line in lines] == [True, True, False, False, False, False, True]
    assert "(LitServe)" in lines[1]


def test_a_row_that_could_not_be_measured_is_left_out_of_the_table_and_named() -> None:
    found = {
        "quick": True,
        "effort": {"rounds": 2, "seconds": 1},
        "connections": 32,
        "sentences": 200,
        "versions": {"distribution": "Debian", "nginx": "1.22"},
        "rows": {"vmlops": row("**vmlops**", 8000, 9), "mlserver": {**row("MLServer", 1, 1), "runs": []}},
        "growth": {
            "replicas": [
                {"x": 1, "pss_mb": 40, "rate": 10, "p99_ms": 1},
                {"x": 2, "pss_mb": 80, "rate": 9, "p99_ms": 1},
            ]
        },
        "provisioning": {},
        "missing": {"MLServer": "did not\nanswer"},
    }
    text = report.text(found)
    assert "| MLServer" not in text
    assert "- MLServer: did not answer" in text
    assert "| **vmlops** | 8,000 | 8,000 to 8,000 |" in text
    assert "exponent 1.00" in text


def test_exponent_is_the_steepest_step() -> None:
    points: list[growth.Point] = [{"x": 1, "us": 10}, {"x": 10, "us": 10}, {"x": 100, "us": 1000}]
    assert growth.exponent(points, "us") == pytest.approx(2)


def test_texts_have_the_length_asked_for() -> None:
    for length in growth.LENGTHS:
        assert {len(text) for text in growth.texts_of(length, ["one two", "three"], 5)} == {length}


def test_our_row_is_what_the_inventory_says() -> None:
    ours = stacks.ours(instances())
    assert len(ours.units) == stacks.REPLICAS == len(ours.memory_units) - 1
    assert ours.unit_files() == {}


def test_every_other_row_has_its_units_and_a_gateway_of_its_own(tmp_path: Path) -> None:
    for stack in stacks.OTHERS:
        bodies = load.write_bodies(tmp_path / stack.name, [stack.body("a\nb")])
        assert len(bodies.read_text().splitlines()) == 1
        if not stack.shares:
            assert len(stack.unit_files()) == len(stack.units)
            assert all("@PORT@" not in text for text in stack.unit_files().values())
    ports = [stack.gateway_port for stack in stacks.OTHERS if not stack.shares]
    assert len(set(ports)) == len(ports)


def test_a_part_is_compared_with_the_first_of_its_group_round_by_round() -> None:
    def runs(*rates: float) -> list[dict[str, float]]:
        return [{"rate": rate, "gateway_us": 60.0, "app_us": 70.0, "ms": 2.0} for rate in rates]

    group = [{"title": "whole", "runs": runs(100, 50, 100)}, {"title": "without", "runs": runs(110, 60, 120)}]
    lines = report.parts({"rate": group, "counting": group, "protocol": group, "handshake": group}).splitlines()
    print("\n".join(lines))
    assert lines[2:4] == ["| whole | 100 |  | 60.0 | 70.0 |", "| without | 110 | 1.20 | 60.0 | 70.0 |"]
    assert lines[-1] == "| without | 2.00 | 60.0 |"
