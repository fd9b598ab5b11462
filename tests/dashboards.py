"""Grafana's dashboards, made with Grafana's own SDK: `python -m tests.dashboards` writes them into the role that copies them.

A panel is one call: what it shows, why, and its queries, each with the legend of its lines ({{label}} is a label's value).
What a page of Prometheus shows too is a recorded series there and here; other queries are written out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from tests.paths import ROOT

FOLDER = ROOT / "roles/grafana/files/etc/grafana/dashboards"
PROMETHEUS = model.DataSourceRef(type_val="prometheus", uid="prometheus")

Query = tuple[str, str]
Row = tuple[str, list[Any]]
# (from, color), the first one from -∞.
Steps = list[tuple[float | None, str]]


def thresholds(steps: Steps) -> builder.ThresholdsConfig:
    values = [model.Threshold(value, color) for value, color in steps]
    return builder.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(values)


def common_parts(panel: Any, title: str, description: str, queries: tuple[Query, ...], unit: str, lines: bool) -> Any:
    panel = panel.title(title).description(description).datasource(PROMETHEUS).unit(unit)
    for name, (expression, legend) in zip("ABCDEF", queries, strict=False):
        query = prometheus.Dataquery().ref_id(name).datasource(PROMETHEUS).expr(expression).legend_format(legend)
        panel = panel.with_target(query.range() if lines else query.instant())
    return panel


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "none",
    width: int = 12,
    top: float | None = None,
    stack: bool = False,
    steps: Steps | None = None,
) -> Any:
    """Lines over time. ``top`` is the end of the axis, for shares 1; with ``steps``, lines mark where a value is bad."""
    panel = common_parts(timeseries.Panel(), title, description, queries, unit, lines=True).span(width).height(8)
    panel = panel.line_width(1).fill_opacity(30 if stack else 0).show_points(options.VisibilityMode.NEVER)
    panel = panel.legend(
        common.VizLegendOptions()
        .display_mode(options.LegendDisplayMode.LIST)
        .placement(options.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel = panel.tooltip(
        common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING)
    )
    if stack:
        panel = panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    if unit == "percentunit":
        panel = panel.min(0)
    if top is not None:
        panel = panel.max(top)
    if steps:
        style = common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.LINE)
        panel = panel.thresholds(thresholds(steps)).thresholds_style(style)
    return panel


def number(
    title: str, description: str, *queries: Query, unit: str = "none", steps: Steps | None = None, width: int = 4
) -> Any:
    """The last value of each query, coloured by ``steps``."""
    panel = common_parts(stat.Panel(), title, description, queries, unit, lines=False).span(width).height(4)
    panel = panel.graph_mode(options.BigValueGraphMode.NONE).reduce_options(LAST)
    return panel.thresholds(thresholds(steps or [(None, "green")]))


def bars(title: str, description: str, *queries: Query, unit: str, top: float) -> Any:
    panel = common_parts(bargauge.Panel(), title, description, queries, unit, lines=False).span(24).height(8)
    panel = panel.orientation(options.VizOrientation.HORIZONTAL).display_mode(options.BarGaugeDisplayMode.BASIC)
    return panel.reduce_options(LAST).min(0).max(top)


def rows_of_labels(title: str, description: str, expression: str, columns: list[str]) -> Any:
    """A table of a metric's labels."""
    panel = table.Panel().title(title).description(description).datasource(PROMETHEUS).unit("none").span(24).height(5)
    query = prometheus.Dataquery().ref_id("A").datasource(PROMETHEUS).expr(expression).instant()
    panel = panel.with_target(query.format(PromQueryFormat.TABLE).legend_format("{{replica}}"))
    keep = model.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": columns}})
    return panel.with_transformation(keep)


LAST = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
BUDGET: Steps = [(None, "red"), (0, "orange"), (0.25, "green")]
BY_HOST = "{{host}}"

OVERVIEW: list[Row] = [
    (
        "Promise",
        [
            number(
                "Availability budget left",
                "Share of v1's failures allowed in 30 days that have not happened yet. 0 % = the objective is just met.",
                ('slo:budget_remaining:ratio30d{slo="availability", version="v1"}', "left"),
                unit="percentunit",
                steps=BUDGET,
            ),
            number(
                "Latency budget left",
                "The same for predictions that came later than promised.",
                ('slo:budget_remaining:ratio30d{slo="latency", version="v1"}', "left"),
                unit="percentunit",
                steps=BUDGET,
            ),
            number(
                "Replicas up",
                "How many replicas of each version answer Prometheus.",
                ("api:replicas_up:count", "{{version}}"),
                steps=[(None, "red"), (1, "green")],
            ),
            number(
                "Requests",
                "Answers a second over the last five minutes, of everything that nginx serves.",
                ("edge:requests_all:rate5m", "requests"),
                unit="reqps",
            ),
            number(
                "Certificate",
                "Days until the certificate in use ends. It is renewed well before.",
                ("edge:certificate_left:days", BY_HOST),
                unit="d",
                steps=[(None, "red"), (3, "orange"), (14, "green")],
            ),
            number(
                "Firing alerts",
                "Alerts that fire now, without the Watchdog, which always does.",
                ('count(ALERTS{alertstate="firing", alertname!="Watchdog"}) or vector(0)', "firing"),
                steps=[(None, "green"), (1, "red")],
            ),
        ],
    ),
    (
        "Requests",
        [
            lines(
                "Requests by code",
                "What nginx answered, whether a replica had part in it or not.",
                ("edge:requests_by_code:rate5m > 0", "{{code}}"),
                unit="reqps",
                stack=True,
            ),
            lines(
                "Bad answers",
                "Share of the requests for a prediction that failed (availability) or came later than promised (latency).",
                ("slo:bad:ratio5m", "{{slo}} {{version}}"),
                unit="percentunit",
            ),
            lines(
                "Time to answer",
                "Half, 95 % and 99 % of the answers took at most this long, from the request's first byte to the answer's last.",
                ("edge:request_duration_seconds:p50", "50 % {{version}}"),
                ("edge:request_duration_seconds:p95", "95 % {{version}}"),
                ("edge:request_duration_seconds:p99", "99 % {{version}}"),
                unit="s",
            ),
            lines(
                "Turned away",
                "401 = no or a wrong password, 429 = more requests than the limit allows. The client's doing.",
                ('edge:requests_by_code:rate5m{code=~"401|429"}', "{{code}}"),
                unit="reqps",
            ),
        ],
    ),
    (
        "Replicas",
        [
            lines(
                "Requests by replica",
                "The lines of one version lie on each other, or the balance is lost.",
                ("api:requests:rate5m", "{{host}} {{replica}}"),
                unit="reqps",
            ),
            lines(
                "Answers by upstream and code",
                "Which replica gave which code, as nginx saw it.",
                (
                    "sum by (upstream, code) (rate(edge_upstream_answers_total[$__rate_interval]))",
                    "{{upstream}} {{code}}",
                ),
                unit="reqps",
            ),
        ],
    ),
]

MODEL: list[Row] = [
    (
        "What runs",
        [
            rows_of_labels(
                "Models",
                "Model, engine and release of each replica. Two of one version are normal only during a rollout.",
                "vmlops_model_info",
                ["host", "replica", "version", "model_version", "engine", "release"],
            )
        ],
    ),
    (
        "Predictions",
        [
            lines(
                "Labels, v1",
                "Share of each predicted label.",
                ('api:predictions:ratio5m{version="v1"}', "{{label}}"),
                unit="percentunit",
                stack=True,
            ),
            lines(
                "Labels, v2",
                "The same for the debug version.",
                ('api:predictions:ratio5m{version="v2"}', "{{label}}"),
                unit="percentunit",
                stack=True,
            ),
            bars(
                "Labels of the last day beside the baseline",
                "The share in the predictions of v1 in the last day, and that on held-out data when the model was made.",
                (
                    'sum by (label) (increase(vmlops_predictions_total{version="v1"}[1d]))'
                    ' / on () group_left () sum(increase(vmlops_predictions_total{version="v1"}[1d]))',
                    "{{label}}",
                ),
                ('api:baseline_label:ratio{version="v1"}', "{{label}} baseline"),
                unit="percentunit",
                top=1,
            ),
        ],
    ),
    (
        "Quality",
        [
            lines(
                "Drift",
                "Population stability index of the last predictions against the baseline. 0.1 = have a look, 0.25 = shifted.",
                ("api:drift_psi:max", "{{version}} {{distribution}}"),
                steps=[(None, "green"), (0.1, "orange"), (0.25, "red")],
            ),
            lines(
                "Confidence",
                "Probability of the predicted label; a tenth of the sentences got less than the lower line.",
                ("api:confidence:mean5m", "mean {{version}}"),
                (
                    "histogram_quantile(0.1, sum by (version, le)"
                    " (rate(vmlops_prediction_confidence_ratio_bucket[$__rate_interval])))",
                    "lowest 10 % {{version}}",
                ),
                unit="percentunit",
                top=1,
            ),
            lines(
                "Estimated accuracy",
                "Mean confidence of the latest predictions of v1 with its 95 % interval, and the accuracy on held-out data.",
                ('api:estimated_accuracy:ratio{version="v1"}', "{{bound}}"),
                ('max by (version) (vmlops_held_out_accuracy_ratio{version="v1"})', "held-out"),
                unit="percentunit",
                top=1,
                width=24,
            ),
            lines(
                "Out of vocabulary",
                "Share of a sentence that the model has no weights for, mean.",
                ("api:unknown:mean5m", "{{version}}"),
                unit="percentunit",
                width=8,
                top=1,
            ),
            lines(
                "Length of sentences",
                "Characters; half of the sentences are shorter than the lower line, nine tenths than the upper one.",
                *(
                    (
                        f"histogram_quantile({quantile}, sum by (version, le)"
                        " (rate(vmlops_sentence_length_characters_bucket[$__rate_interval])))",
                        f"{100 * quantile:.0f} % {{{{version}}}}",
                    )
                    for quantile in (0.5, 0.9)
                ),
                unit="short",
                width=8,
            ),
            lines(
                "Time in the API",
                "95 % of the requests needed at most this long in the process, without nginx and network.",
                ("api:request_duration_seconds:p95", "{{version}}"),
                unit="s",
                width=8,
            ),
        ],
    ),
]

MACHINE: list[Row] = [
    (
        "CPU",
        [
            lines(
                "CPU in use",
                "Share of all cores that is not idle.",
                ("node:cpu_in_use:ratio5m", BY_HOST),
                unit="percentunit",
                width=8,
                top=1,
            ),
            lines(
                "Load a core",
                "Processes that run or wait, divided by cores. Above 1 something waits.",
                ("node:load1_per_core:ratio", BY_HOST),
                width=8,
            ),
            lines(
                "CPU by service",
                "Cores in use by the processes that export it.",
                (
                    "sum by (host, job, replica) (rate(process_cpu_seconds_total[$__rate_interval]))",
                    "{{host}} {{job}} {{replica}}",
                ),
                width=8,
            ),
        ],
    ),
    (
        "Memory",
        [
            lines(
                "Memory in use",
                "What is not available to new processes.",
                ("node:memory_in_use:ratio", BY_HOST),
                unit="percentunit",
                top=1,
            ),
            lines(
                "Memory by service",
                "Resident memory; pages that replicas share (the model) are counted in each.",
                ("sum by (host, job, replica) (process_resident_memory_bytes)", "{{host}} {{job}} {{replica}}"),
                unit="bytes",
            ),
        ],
    ),
    (
        "Disk and network",
        [
            lines(
                "Disk in use",
                "By file system, without those that are read-only by design.",
                ("node:filesystem_in_use:ratio", "{{host}} {{mountpoint}}"),
                unit="percentunit",
                width=8,
                top=1,
            ),
            lines(
                "Disk busy",
                "Share of the time in which a device worked on something.",
                ("node:disk_busy:ratio5m", "{{host}} {{device}}"),
                unit="percentunit",
                width=8,
            ),
            lines(
                "Network",
                "Bytes a second, sent above and received below the line.",
                ("node:network_sent_bytes:rate5m", "sent {{host}} {{device}}"),
                (
                    '-rate(node_network_receive_bytes_total{device!="lo"}[$__rate_interval])',
                    "received {{host}} {{device}}",
                ),
                unit="Bps",
                width=8,
            ),
        ],
    ),
    (
        "Units",
        [
            number(
                "Failed units",
                "Units that systemd gave up on.",
                ("node:units_failed:count", BY_HOST),
                steps=[(None, "green"), (1, "red")],
                width=8,
            ),
            lines(
                "Restarts",
                "How often systemd had to start a unit again.",
                ("increase(node_systemd_service_restart_total[$__rate_interval])", "{{host}} {{name}}"),
                width=16,
            ),
        ],
    ),
]

NGINX: list[Row] = [
    (
        "Requests",
        [
            lines(
                "Requests by route",
                "As the access log names routes; everything unknown is other.",
                ("sum by (route) (edge:requests:rate5m)", "{{route}}"),
                unit="reqps",
                stack=True,
            ),
            lines(
                "Errors by route",
                "Answers with 5xx.",
                ('sum by (route, code) (edge:requests:rate5m{code=~"5.."})', "{{route}} {{code}}"),
                unit="reqps",
            ),
            lines(
                "Time to answer by route",
                "95 % of a replica's answers with 2xx took at most this long.",
                (
                    "histogram_quantile(0.95, sum by (route, le) (rate(edge_request_duration_seconds_bucket[$__rate_interval])))",
                    "{{route}}",
                ),
                unit="s",
            ),
            lines(
                "Asked more than one replica",
                "Requests that a first replica failed and another one was asked; clients do not notice.",
                ("rate(edge_retried_requests_total[$__rate_interval])", BY_HOST),
                unit="reqps",
            ),
        ],
    ),
    (
        "Connections",
        [
            lines(
                "Connections",
                "Active = all, waiting = kept alive without a request.",
                *(
                    (f"nginx_connections_{state}", f"{state} {{{{host}}}}")
                    for state in ("active", "reading", "writing", "waiting")
                ),
                width=8,
            ),
            lines(
                "Dropped connections",
                "Accepted but not handled, mostly because worker_connections is reached. Should be 0.",
                (
                    "rate(nginx_connections_accepted[$__rate_interval]) - rate(nginx_connections_handled[$__rate_interval])",
                    BY_HOST,
                ),
                unit="cps",
                width=8,
            ),
            lines(
                "Bytes sent",
                "Bodies of answers.",
                ("sum by (route) (rate(edge_response_bytes_total[$__rate_interval]))", "{{route}}"),
                unit="Bps",
                width=8,
            ),
        ],
    ),
]

BY_SIDE = "{{side}} {{model_version}}"
COMPARISON: list[Row] = [
    (
        "Since the replicas of v2 started",
        [
            number(
                "Copies compared",
                "Copies of v1's requests that both versions answered.",
                ("shadow:pairs:sum", "copies"),
                width=8,
            ),
            number(
                "Same label",
                "Share of these in which v2 gave v1's label.",
                ("shadow:agreement:ratio", "same"),
                unit="percentunit",
                width=8,
            ),
            number(
                "Copies that v2 failed",
                "Requests that v1 answered and v2 did not.",
                ("shadow:failures:sum", "failed"),
                steps=[(None, "green"), (1, "red")],
                width=8,
            ),
            bars(
                "Other labels",
                "Left the label of v1, right what v2 made of it, the most frequent ones.",
                (
                    "topk(10, sum by (reference, candidate) (vmlops_shadow_pairs_total))"
                    " / on () group_left () shadow:pairs:sum",
                    "{{reference}} → {{candidate}}",
                ),
                unit="percentunit",
                top=1,
            ),
        ],
    ),
    (
        "Over time",
        [
            lines(
                "Same label over time",
                "Of the copies of the last five minutes.",
                ("shadow:agreement:ratio5m", "{{reference_model_version}} → {{model_version}}"),
                unit="percentunit",
                top=1,
            ),
            lines(
                "Confidence",
                "Mean probability of the label, of both versions on the same sentences: what they expect their accuracy to be.",
                ("shadow:confidence:mean5m", BY_SIDE),
                unit="percentunit",
                top=1,
            ),
            lines(
                "Parsing and scoring",
                "95 % of the sentences took at most this long, in both versions.",
                ("shadow:duration_seconds:p95", BY_SIDE),
                unit="s",
            ),
            lines(
                "Copies",
                "A second: compared, and failed by v2.",
                ("shadow:pairs:rate5m", "compared"),
                ("shadow:failures:rate5m", "failed"),
                unit="reqps",
            ),
        ],
    ),
]

DASHBOARDS: dict[str, tuple[str, str, list[Row]]] = {
    "vmlops-overview": (
        "vmlops / Overview",
        "Are clients served as promised, and if not, where does it hurt?",
        OVERVIEW,
    ),
    "vmlops-model": (
        "vmlops / Model",
        "What does the model say, how sure is it, and is what it sees still what it was trained on?",
        MODEL,
    ),
    "vmlops-comparison": ("vmlops / Comparison", "Does v2 answer as v1 does, on the same sentences?", COMPARISON),
    "vmlops-machine": ("vmlops / Machine", "Utilisation, saturation and errors of what the machines have.", MACHINE),
    "vmlops-nginx": ("vmlops / nginx", "The gateway itself, by route and connection.", NGINX),
}
# Grafana's Prometheus data source reads more of an annotation than its schema has.
DEPLOYMENTS = {
    "target": {
        "refId": "Anno",
        "expr": "count by (version, release) (vmlops_model_info)"
        " unless count by (version, release) (vmlops_model_info offset 2m)",
    },
    "titleFormat": "{{version}}",
    "textFormat": "release {{release}}",
    "tagKeys": "version",
}
# Promotions, forced or not, and rollouts that went back by themselves; the value is the time.
DECISIONS = {
    "target": {"refId": "Anno", "expr": "vmlops_decision_timestamp_seconds * 1000"},
    "useValueForTime": True,
    "titleFormat": "{{decision}} of {{version}}",
    "textFormat": "release {{release}}: {{reason}}",
    "tagKeys": "decision,version",
}


def made(uid: str) -> dict[str, Any]:
    """Return one of the dashboards as Grafana reads it from a file."""
    title, description, rows = DASHBOARDS[uid]
    others = builder.DashboardLink("vmlops").type(model.DashboardLinkType.DASHBOARDS).tags(["vmlops"]).keep_time(True)
    deployments = builder.AnnotationQuery().name("Deployments").datasource(PROMETHEUS).enable(True).icon_color("blue")
    decisions = builder.AnnotationQuery().name("Decisions").datasource(PROMETHEUS).enable(True).icon_color("orange")
    board = (
        builder.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["vmlops"])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .timezone("browser")
        .time("now-1h", "now")
        .link(others)
        .annotation(deployments)
        .annotation(decisions)
    )
    ids = count(1)
    for name, panels in rows:
        board = board.with_row(builder.Row(name).id(next(ids)))
        for panel in panels:
            board = board.with_panel(panel.id(next(ids)))
    result: dict[str, Any] = json.loads(JSONEncoder().encode(board.build()))
    result["annotations"]["list"][0] |= DEPLOYMENTS
    result["annotations"]["list"][1] |= DECISIONS
    return result | {"id": None}


def files() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file."""
    for uid in DASHBOARDS:
        yield f"{uid}.json", json.dumps(made(uid), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in files():
        (FOLDER / name).write_text(text)
