"""What two roles must agree on without sharing a variable."""

from __future__ import annotations

import re

from tests.paths import ROOT
from tests.templates.render import render


def test_rollout_waits_longer_than_the_gateway_shuns_a_replica() -> None:
    tool = (ROOT / "roles/api/files/vmlops-api").read_text()
    settle = float(re.findall(r"^SETTLE_SECONDS = ([\d.]+)$", tool, re.MULTILINE)[0])
    shunned = [
        float(seconds)
        for seconds in re.findall(r"fail_timeout=([\d.]+)s", render("gateway", "etc/nginx/vmlops/upstreams.conf"))
    ]
    assert shunned
    assert settle > max(shunned), (settle, shunned)
