"""`brickyard verify`: is the corpus what it says it is?"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from infra.progress import Progress
from infra.verbs.text import size
from shards.corpus import Corpus
from shards.verify import verify


def run(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    progress = Progress("verifying", "shards")
    report = verify(Corpus.open(args.corpus), deep=args.deep, progress=progress)
    for problem in report.problems:
        print(problem, file=sys.stderr)
    if report.problems:
        print("`brickyard repair` makes the damaged scenes anew from the raw data", file=sys.stderr)
    if not args.json:
        found = f"{len(report.problems)} problems" if report.problems else "no problems"
        print(f"{args.corpus}: {report.scenes} scenes, {report.blobs} blobs, {size(report.bytes)} read: {found}")
    return {"corpus": args.corpus, "deep": args.deep} | asdict(report), 1 if report.problems else 0
