"""What two roles must agree on without sharing a variable."""

from __future__ import annotations

import re

from roles.api.files.vmlops_api import SETTLE_SECONDS
from tests.templates.render import render


def test_rollout_waits_longer_than_the_gateway_shuns_a_replica() -> None:
    shunned = re.findall(r"fail_timeout=(\d+)s", render("gateway", "etc/nginx/vmlops/upstreams.conf"))
    assert shunned
    # nginx compares whole seconds: a replica that refused at 0.99 is asked again from 3.0 on, one that refused at 0.0 too.
    assert max(int(seconds) for seconds in shunned) + 1 < SETTLE_SECONDS, (SETTLE_SECONDS, shunned)
