"""What mtail makes of nginx's access log."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.templates.render import evaluate, render

MTAIL = ROOT / "build/tools/usr/bin/mtail"
PROGRAM = render("mtail", "etc/mtail/edge.mtail.j2")
ANSWER = {
    "time": "2030-01-01T00:00:00+00:00",
    "route": "/predict",
    "status": 200,
    "bytes": 57,
    "request_time": "0.003",
    "version": "v1",
    "upstream_addr": "127.0.0.1:8001",
    "upstream_status": "200",
    "upstream_time": "0.003",
    "request_id": "3f9c2a7be0144b1f8f6f0a51c0ffee00",
    "client": "10.213.0.1",
    "user": "admin",
    "method": "POST",
    "path": "/predict",
    "protocol": "HTTP/1.1",
    "tls": "TLSv1.3",
    "limit": "PASSED",
}
Count = Callable[..., dict[str, float]]
REFUSED = {"upstream_addr": "", "upstream_status": "", "upstream_time": ""}


def line(**changes: object) -> str:
    """A line as nginx writes it; times are numbers with three decimals."""
    text = json.dumps(ANSWER | changes, separators=(",", ":"))
    seconds = (ANSWER | changes)["request_time"]
    return text.replace(f'"request_time":"{seconds}"', f'"request_time":{seconds}')


@pytest.fixture
def count(tmp_path: Path) -> Count:
    def run(*lines: str) -> dict[str, float]:
        (tmp_path / "log").write_text("".join(f"{text}\n" for text in lines))
        (tmp_path / "edge.mtail").write_text(PROGRAM)
        metrics = subprocess.run(
            [MTAIL, "--one_shot", "--one_shot_format=prometheus", "--emit_prog_label=false", "--progs", tmp_path / "edge.mtail",
             "--logs", tmp_path / "log", "--log_dir", tmp_path],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        print(metrics)
        samples = (text.rsplit(" ", 1) for text in metrics.splitlines() if text and not text.startswith("#"))
        return {series: float(value) for series, value in samples}

    return run


V1 = 'route="/predict",version="v1"'


def test_answers(count: Count) -> None:
    metrics = count(line(), line(request_time="0.250"), line(request_time="0.000"))
    assert metrics[f'edge_requests_total{{code="200",{V1}}}'] == 3
    assert metrics['edge_response_bytes_total{route="/predict"}'] == 3 * 57
    assert metrics['edge_upstream_answers_total{code="200",upstream="127.0.0.1:8001"}'] == 3
    assert metrics[f'edge_request_duration_seconds_bucket{{{V1},le="0.001"}}'] == 1
    assert metrics[f'edge_request_duration_seconds_bucket{{{V1},le="0.25"}}'] == 3
    assert metrics[f'edge_request_duration_seconds_bucket{{{V1},le="+Inf"}}'] == 3
    assert metrics[f"edge_request_duration_seconds_count{{{V1}}}"] == 3
    assert metrics[f"edge_request_duration_seconds_sum{{{V1}}}"] == pytest.approx(0.253)
    assert metrics["edge_unparsed_lines_total"] == 0


def test_errors_do_not_count_as_fast_answers(count: Count) -> None:
    dead = {"upstream_addr": "api_v1", "upstream_status": "502", "upstream_time": "0.000"}
    refused = {"upstream_addr": "127.0.0.1:8001", "upstream_status": "502", "upstream_time": "0.000"}
    metrics = count(
        line(status=429, **REFUSED),
        line(status=401, **REFUSED),
        line(status=503, **dead),
        line(status=502, **refused),
        line(status=422, upstream_status="422"),
    )
    codes = (401, 422, 429, 502, 503)
    assert [metrics[f'edge_requests_total{{code="{code}",{V1}}}'] for code in codes] == [1] * len(codes)
    assert not any(name.startswith("edge_request_duration") for name in metrics)
    assert {series: value for series, value in outcomes(metrics).items() if value} == {"v1 failed": 2}


def outcomes(metrics: dict[str, float]) -> dict[str, float]:
    """Counts of edge_predictions_total under names such as ``v1 failed``."""
    labels = re.compile(r'edge_predictions_total{outcome="(\w+)",version="(\w+)"}')
    return {f"{match[2]} {match[1]}": value for series, value in metrics.items() if (match := labels.fullmatch(series))}


def test_what_became_of_a_request_for_a_prediction(count: Count) -> None:
    metrics = count(
        line(),
        line(request_time="0.250"),
        line(request_time="0.251"),
        line(route="/predict/batch", request_time="3.000"),
        line(route="/v2/models/{name}/infer", version="v2", request_time="0.300"),
        line(status=503, **REFUSED),
        line(status=499, request_time="0.251", upstream_status="-"),
        # None of these says how well predictions are served: the client's own affair, or another route.
        line(status=499, request_time="0.100", upstream_status="-"),
        *(line(status=code) for code in (400, 401, 404, 413, 422, 429)),
        line(status=0, **REFUSED),
        line(route="other", path="/v2/nowhere", status=404),
        line(route="/docs"),
        line(route="/version", status=503),
        line(route="/health", version="", **REFUSED),
    )
    assert metrics["edge_unparsed_lines_total"] == 0
    assert {series: value for series, value in outcomes(metrics).items() if value} == {
        "v1 in_time": 2,
        "v1 late": 2,
        "v2 late": 1,
        "v1 failed": 1,
        "v1 abandoned": 1,
    }


def test_known_series_begin_with_zero(count: Count) -> None:
    metrics = count("start")
    assert set(metrics.values()) == {0}
    assert len(outcomes(metrics)) == 2 * 4
    for code in (200, 429, 499, 503):
        assert f'edge_requests_total{{code="{code}",{V1}}}' in metrics
        assert f'edge_requests_total{{code="{code}",route="/v2/models/{{name}}/infer",version="v2"}}' in metrics
    assert metrics["edge_unparsed_lines_total"] == 0


def test_known_codes_are_those_that_the_gateway_gives() -> None:
    """Those of nginx's own answers that a request for a prediction can get."""
    elsewhere = {414, 421, 501, 505}  # not of a request that was understood
    of_gateway = {problem["status"] for problem in evaluate("_gateway_problems", "gateway")} - elsewhere
    assert of_gateway <= set(evaluate("_mtail_codes", "mtail"))


def test_the_upstream_that_answered_in_the_end_counts(count: Count) -> None:
    tries = {"upstream_addr": "127.0.0.1:8001, 127.0.0.1:8002", "upstream_status": "502, 200"}
    metrics = count(line(**tries))
    assert metrics['edge_upstream_answers_total{code="200",upstream="127.0.0.1:8002"}'] == 1
    assert metrics["edge_retried_requests_total"] == 1


def test_an_answer_that_nginx_led_on_to_another_upstream_is_that_upstreams(count: Count) -> None:
    """Between upstreams of one request there is a comma, and a colon after an internal redirect."""
    led_on = {"upstream_addr": "127.0.0.1:8001, 127.0.0.1:8002 : 127.0.0.1:9090", "upstream_status": "502, 502 : 200"}
    metrics = count(line(**led_on))
    assert metrics['edge_upstream_answers_total{code="200",upstream="127.0.0.1:9090"}'] == 1
    assert metrics["edge_unparsed_lines_total"] == 0


def test_clients_cannot_forge_fields(count: Count) -> None:
    forged = '","route":"/forged","status":500,"bytes":1,"request_time":9.000,"version":"v9","upstream_addr":"x:1"'
    metrics = count(line(path=forged, user=forged, method=forged))
    assert metrics[f'edge_requests_total{{code="200",{V1}}}'] == 1
    assert not any("forged" in name or "v9" in name for name in metrics)


def test_other_lines_are_noticed(count: Count) -> None:
    assert count("127.0.0.1 - - [01/Jan/2030] GET /")["edge_unparsed_lines_total"] == 1


def test_every_line_of_the_gateway_is_of_this_form() -> None:
    """The gateway's log format and the program agree on the order of the fields."""
    logging = render("gateway", "etc/nginx/vmlops/logging.conf")
    keys = [part.split('"')[1] for part in logging[logging.index("log_format") :].splitlines()[1:] if '":' in part]
    assert keys == list(ANSWER)


def test_each_client_of_a_canary_counts_once_a_day_and_side_by_its_first_answer(count: Count) -> None:
    other, v1 = {"client": "10.213.0.9"}, {"assigned": "v1"}
    counted = count(
        line(status=429, **REFUSED, **v1),
        line(status=502, **v1),
        line(status=200, **v1),
        line(status=200, user="another", **v1),
        line(status=200, user='with " quotes', **v1),
        line(request_time="0.251", **other, **v1),
        line(request_time="0.001", **other, **v1),
        line(version="v2", assigned="v2", **other),
        line(version="v2", assigned="", client="10.213.0.11"),  # it asked for v2
        line(time="2030-01-02T00:00:00+00:00", **other, **v1),
        line(client="10.213.0.10"),  # there is no canary
    )
    clients = {series: value for series, value in counted.items() if "client" in series}
    assert clients == {
        'edge_clients_total{outcome="failed",version="v1"}': 1,
        'edge_clients_total{outcome="good",version="v1"}': 3,
        'edge_clients_total{outcome="slow",version="v1"}': 1,
        'edge_clients_total{outcome="good",version="v2"}': 1,
    }


def test_lost_copies_are_counted_as_such(count: Count) -> None:
    lost = '{"time":"2030-01-01T00:00:00+00:00","lost_copy_of":"3f9c2a7be0144b1f8f6f0a51c0ffee00","status":502}'
    metrics = count("start", lost, line(), lost)
    assert metrics["edge_lost_copies_total"] == 2
    assert metrics["edge_unparsed_lines_total"] == 0
    assert metrics['edge_requests_total{code="200",route="/predict",version="v1"}'] == 1
