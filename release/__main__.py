"""What the playbooks ask of this package.

`python -m release seal TREE` finishes a release's tree: bill of materials, sha256 of every file, signature.

`python -m release labels FILE` writes the labels of all hosts, which it reads, into a table.

`python -m release bake PROMETHEUS SECONDS VERSION …` watches a rollout, see bake.py; a JSON object with `decision` and `reason`.

`python -m release verdict`: is v2 fit to become v1? playbooks/verdict.yml asks Prometheus in between. It reads a JSON list
of Prometheus' answers so far, and writes a JSON object: with `question`, the next query, as long as an answer is missing,
then with `decision` (promote, wait or go back), `reason`, `release` (v2's) and `report`, lines of text.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from release import bake, labels, prometheus
from release.seal import SealError, seal
from release.verdict import ALLOWED, ALPHA, Counts, Evidence, Verdict, judge


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("seal")
    verb.add_argument("tree", type=Path)
    verb.add_argument("about", type=json.loads, help="members of release.json, as JSON")
    verb.add_argument("--key", type=Path, help="the operator's key for ssh-keygen -Y sign")
    baking = verbs.add_parser("bake")
    baking.add_argument("prometheus", help="its address")
    baking.add_argument("seconds", type=float)
    baking.add_argument("--rolled", type=float, default=0, help="seconds since the rollout began")
    baking.add_argument("versions", nargs="+", choices=prometheus.VERSIONS)
    judging = verbs.add_parser("verdict")
    for name, share in ALLOWED.items():
        for verb in (judging, baking):
            verb.add_argument(
                f"--{name}", type=_share, default=share, metavar="SHARE", help=f"allowed; {share} by default"
            )
    for verb in (judging, baking):
        verb.add_argument("--promised", type=float, required=True, metavar="SECONDS", help="what takes longer is slow")
    verbs.add_parser("labels").add_argument("output", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.verb == "labels":
            print(*labels.write(sys.stdin, options.output), sep="\n")
            return 0
        if options.verb == "seal":
            seal(options.tree, options.about, options.key)
            return 0
        allowed = {name: getattr(options, name) for name in ALLOWED}
        if options.verb == "bake":
            outcome = bake.watch(
                bake.client(options.prometheus),
                options.versions,
                options.seconds,
                allowed,
                options.promised,
                options.rolled,
            )
            print(json.dumps(outcome._asdict()))
            return 0
        print(json.dumps(verdict(json.load(sys.stdin), allowed, options.promised)))
    except prometheus.NoAnswerError as error:
        print(f"no {'verdict' if options.verb == 'verdict' else 'answer'}: {error}", file=sys.stderr)
        return 1
    except SealError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def verdict(answers: list[Any], allowed: dict[str, float], promised: float) -> dict[str, Any]:
    """As the module says. Raises NoAnswerError."""
    if not answers:
        return {"question": prometheus.running_query()}
    what = prometheus.running(answers[0])
    if what.releases[0] == what.releases[1]:
        raise prometheus.NoAnswerError(
            f"v1 and v2 run the same release, {what.releases[0]}: deploy another one to v2 first"
        )
    now = max((sample["value"][0] for sample in answers[0]["data"]["result"]), default=what.since)
    if len(answers) == 1:
        return {"question": prometheus.counts_query(what, now)}
    counts = prometheus.counts(answers[1], promised)
    found = judge(counts, allowed)
    return {
        "decision": found.decision,
        "reason": found.reason,
        "release": what.releases[1],
        "report": report(what, found, counts),
    }


def report(what: prometheus.Running, found: Verdict, counts: Counts) -> list[str]:
    since = datetime.fromtimestamp(what.since, UTC).isoformat(" ", "minutes").removesuffix("+00:00")
    runs = [
        f"{version} release {release} (model {model})"
        for version, release, model in zip(prometheus.VERSIONS, what.releases, what.models, strict=True)
    ]
    confused = sorted(((n, pair) for pair, n in counts.pairs.items() if n and pair[0] != pair[1]), reverse=True)[:3]
    lines = [
        f"{found.decision.upper()}: {found.reason}.",
        f"{runs[0]}, {runs[1]}, since {since} UTC; {1 - ALPHA:.0%} intervals, however often looked at.",
        f"{'':13} {'n':>8} {'of':8} {'v1':>8} {'v2':>8}  {'v2 is worse by':20} {'allowed':>8}",
        *map(_line, found.evidence),
    ]
    if confused:
        lines.append("v1 → v2, most often: " + ", ".join(f"{a} → {b} ({n:,})" for n, (a, b) in confused))
    return lines


def _line(piece: Evidence) -> str:
    low, high = (f"{100 * x:.2f}" for x in piece.worse_by)
    state = {"fine": "fine", "worse": "WORSE", "open": f"open: {piece.needed:,} more"}[piece.state]
    one, other = (f"{share:.2%}" for share in (piece.reference, piece.candidate))
    interval = f"{low} to {high} %"
    return (
        f"{piece.name:13} {piece.n:8,} {piece.unit:8} {one:>8} {other:>8}  {interval:20} {piece.allowed:8.2%}  {state}"
    )


def _share(text: str) -> float:
    share = float(text)
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return share


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
