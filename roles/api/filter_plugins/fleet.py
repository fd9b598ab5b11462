"""What the hosts of a fleet say about their releases, put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Report = Mapping[str, Mapping[str, Any]]


def fleet_releases(reports: Iterable[Report], versions: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return by version the ``release`` that the fleet runs and the ``previous`` one; empty texts where there is none.

    The host whose record is the newest took part in the last rollout that reached the end, so its record counts for all:
    a host that was away, or that an interrupted rollout left with another release, is behind or ahead.

    Args:
        reports: what ``vmlops-api releases`` says, of each host that answers.
        versions: the versions asked for.
    """
    reports = list(reports)
    found = {}
    for version in versions:
        known = [report[version] for report in reports if version in report]
        newest = max(known, key=lambda report: report["since"], default={})
        found[version] = {
            "release": newest.get("recorded") or newest.get("active", ""),
            "previous": newest.get("previous", ""),
        }
    return found


class FilterModule:
    """Filters of the role api."""

    def filters(self) -> dict[str, Any]:
        return {"fleet_releases": fleet_releases}
