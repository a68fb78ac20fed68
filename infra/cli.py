"""The command `brickyard`: one verb per job. Only the verb that runs is imported, so `--help` costs nothing.

Exit codes: 0 done; 1 failed (the last line on stderr says why); 2 wrong usage, or a recipe that cannot be used; 3 done,
but scenes were quarantined; 4 a training was asked to stop, and goes on with the same command.
With --json, stdout carries one JSON object and nothing else; progress is on stderr always.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from brickyard.infra.extras import how_to_install
from brickyard.infra.output import guard_arguments, without_credentials
from brickyard.shards.errors import BrickyardError, RecipeError

FAILED, USAGE, QUARANTINED = 1, 2, 3
TARGETS = ("scannet", "scannet200", "s3dis", "nuscenes", "semantickitti", "waymo")
"""Of predictions; written out here because `--help` imports nothing (see `evaluate.predictions.targets`)."""

_RATES = "costs of a raw byte that were measured elsewhere: what `plan --json` printed, or a corpus with its log"

Verb = Callable[[argparse.Namespace], tuple[dict[str, Any], int]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    # Threads of OpenMP that wait for each other sleep. Spinning ones (the default) keep the cores from who has work:
    # beside other programs the demo's linear probe took 142 s instead of 26 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with without_credentials(words), _terminated_as_interrupted():
        return _main(words)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends a verb as Ctrl-C does: it lets go of what it holds and says how to go on. Not under torchrun, which
    ends ranks that may be waiting in native code for one that is lost."""
    if threading.current_thread() is not threading.main_thread() or "TORCHELASTIC_RUN_ID" in os.environ:
        yield
        return

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _main(words: Sequence[str]) -> int:
    args = parser().parse_args(words)
    if misplaced := guard_arguments(args):
        return _fail(args, misplaced, USAGE)
    try:
        verb: Verb = import_module(f"brickyard.infra.verbs.{args.verb}").run
        # libraries that print (Ray does) must not get between the reader and the one JSON object
        with redirect_stdout(sys.stderr) if args.json else nullcontext():
            result, code = verb(args)
    except BrickyardError as problem:
        code = USAGE if isinstance(problem, RecipeError) else getattr(problem, "exit_code", FAILED)
        return _fail(args, str(problem), code)
    except ModuleNotFoundError as problem:
        if (hint := how_to_install(problem, args.verb)) is None:
            raise
        return _fail(args, hint)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as problem:  # the machine's own troubles: no space, no permission, no such folder
        return _fail(args, f"{problem.filename or 'the system'}: {problem.strerror or problem}")
    except KeyboardInterrupt:
        return _fail(args, "interrupted; run the same command again to go on")
    if args.json:
        print(json.dumps(result, allow_nan=False, default=str))
    return code


def _fail(args: argparse.Namespace, problem: str, code: int = FAILED) -> int:
    if args.json:
        print(json.dumps({"error": problem}))
    print(f"brickyard {args.verb}: {problem}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="brickyard",
        description="Raw 3D datasets -> one verified corpus of training shards -> pretrained 3D encoders.",
        epilog="Start with `brickyard demo --out demo`, then look at the pages it names.",
    )
    top.add_argument("--version", action="version", version=f"brickyard {version('brickyard')}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    _add_building(verbs)
    _add_corpora(verbs)
    _add_choosing(verbs)
    _add_training(verbs)
    _add_worlds(verbs)
    return top


def _add_building(verbs: Any) -> None:
    sources = _verb(verbs, "sources", "the datasets that can be read, and their options", "brickyard sources nuscenes")
    sources.add_argument("name", nargs="?", help="explain the options of this one")

    plan = _verb(verbs, "plan", "what a build would do: scenes, bytes, time, memory; writes nothing",
                 "brickyard plan recipe.yaml --cpus 64")  # fmt: skip
    _recipe(plan)
    plan.add_argument(
        "--cpus", type=_positive, default=os.cpu_count(), help="cores to plan for (default: this machine's)"
    )
    plan.add_argument("--samples", type=_natural, default=1, help="scenes per dataset to try out in memory (default 1)")
    plan.add_argument("--rates", default=None, metavar="FROM", help=_RATES)
    plan.add_argument("--simulate", type=Path, default=None, metavar="CLUSTER",
                      help="a YAML file of a cluster: how long the build would take there")  # fmt: skip
    plan.add_argument("--times", type=_positive, default=1, metavar="N", help="simulate N times as many tasks")
    plan.add_argument("--page", type=Path, default=None, metavar="FILE", help="the simulation as a page, HTML")

    build = _verb(
        verbs, "build", "raw data -> corpus; run it again to resume", "brickyard build recipe.yaml --out corpus/"
    )
    _recipe(build)
    build.add_argument("--out", required=True, help="the corpus: a folder or URI")
    build.add_argument("--cpus", type=_positive, default=None, help="tasks at a time (default: all cores)")
    build.add_argument("--address", default=None, help="address of a running Ray cluster (default: start one here)")
    build.add_argument("--ship-code", action="store_true",
                       help="with --address: bring this brickyard to the nodes; libraries must be there")  # fmt: skip
    build.add_argument("--rates", default=None, metavar="FROM", help=_RATES)
    build.add_argument("--in-process", action="store_true", help="no Ray, one task after another")
    _accepting(build)

    submit = _verb(verbs, "submit", "a build on a cluster, by its Ray job server; goes on without you",
                   "brickyard submit recipe.yaml --out s3://bucket/corpus --address http://127.0.0.1:8265")  # fmt: skip
    _recipe(submit)
    submit.add_argument("--out", required=True, help="the corpus: a URI, or a folder that all nodes share")
    submit.add_argument("--address", required=True, help="of the job server, such as http://127.0.0.1:8265")
    submit.add_argument("--detach", action="store_true", help="do not follow what it prints")
    _accepting(submit)

    jobs = _verb(verbs, "jobs", "builds that were submitted to a cluster; follow or stop one",
                 "brickyard jobs --address http://127.0.0.1:8265 JOB --follow")  # fmt: skip
    jobs.add_argument("job", nargs="?", help="as `submit` named it (default: list them)")
    jobs.add_argument("--address", required=True, help="of the job server, such as http://127.0.0.1:8265")
    jobs.add_argument("--follow", action="store_true", help="show what it prints until it ends")
    jobs.add_argument("--stop", action="store_true", help="stop it; what is committed stays")

    status = _verb(verbs, "status", "how far a build is, from any machine, while it runs or after it died",
                   "brickyard status corpus/")  # fmt: skip
    status.add_argument("corpus", help="what the build's --out was: a folder or URI")

    report = _verb(verbs, "report", "a page of a build: workers over time, stages, memory, slow scenes, refusals",
                   "brickyard report corpus/ --out build.html")  # fmt: skip
    report.add_argument("corpus", help="what the build's --out was: a folder or URI")
    report.add_argument("--out", type=Path, required=True, help="the page, an HTML file")
    report.add_argument("--price", type=_price, default=None, metavar="MONEY", help="of a core for an hour")

    repair = _verb(verbs, "repair", "make the damaged scenes of a corpus anew from the raw data",
                   "brickyard repair recipe.yaml --corpus corpus/")  # fmt: skip
    _recipe(repair)
    repair.add_argument("--corpus", required=True, help="folder or URI")

    gc = _verb(verbs, "gc", "list the files that interrupted work has left and nothing refers to",
               "brickyard gc corpus/ --yes")  # fmt: skip
    gc.add_argument("folder", help="a corpus, an unfinished build or an export: a folder or URI")
    gc.add_argument("--yes", action="store_true", help="delete them")
    gc.add_argument("--older-than", type=_natural, default=24, metavar="HOURS",
                    help="in an object store, which has no locks, leave younger ones (default 24)")  # fmt: skip


def _accepting(verb: argparse.ArgumentParser) -> None:
    """What a build puts up with."""
    verb.add_argument("--grow", action="store_true",
                      help="add to a finished corpus what the recipe plans and it has not")  # fmt: skip
    verb.add_argument("--retry-quarantined", action="store_true",
                      help="make shards that lost scenes anew, after the raw data were mended")  # fmt: skip
    verb.add_argument("--accept-code", action="store_true",
                      help="go on with code that has changed; the manifest says what made which part")  # fmt: skip
    verb.add_argument("--allow-quarantined", type=_natural, default=0, metavar="N",
                      help="exit with 0 although up to N scenes were quarantined")  # fmt: skip


def _add_corpora(verbs: Any) -> None:
    verify = _verb(verbs, "verify", "every byte against its digest", "brickyard verify corpus/ --deep")
    verify.add_argument("corpus", help="folder or URI")
    verify.add_argument("--deep", action="store_true", help="also decode, validate and reproject every scene")

    convert = _verb(verbs, "convert", "the same scenes in another container, byte for byte",
                    "brickyard convert corpus/ --to webdataset --out tars/")  # fmt: skip
    convert.add_argument("corpus", help="folder or URI")
    convert.add_argument("--to", choices=("parquet", "webdataset"), required=True, help="the container")
    convert.add_argument("--out", required=True, help="the new corpus: a folder or URI")

    export = _verb(verbs, "export", "leave: the scenes in the layout of other tools",
                   "brickyard export corpus/ --to pointcept --out data/scannet")  # fmt: skip
    export.add_argument("corpus", help="folder or URI")
    export.add_argument(
        "--to",
        choices=("pointcept", "ply", "rerun", "superpixels", "webdataset-plain"),
        required=True,
        help="the layout",
    )
    export.add_argument("--out", required=True, help="an empty folder, or one that this export began; may be a URI")

    diff = _verb(verbs, "diff", "what differs between two corpora or selections; exit code 1 if anything does",
                 "brickyard diff old/ new/")  # fmt: skip
    diff.add_argument("first", help="folder or URI; a selection's name ends in .parquet")
    diff.add_argument("second", help="folder or URI, of the same kind")

    stats = _verb(verbs, "stats", "what a corpus holds and where its bytes go", "brickyard stats corpus/")
    stats.add_argument("corpus", help="folder or URI")

    show = _verb(verbs, "show", "one self-contained HTML page of a corpus or a run",
                 "brickyard show corpus/ scannet/scene0000_00 --out page.html")  # fmt: skip
    show.add_argument("target", help="a corpus, or the folder of a training run")
    show.add_argument("scene", nargs="?", help="one scene (default: a few of every dataset)")
    show.add_argument("--out", type=Path, required=True, help="the page")


def _add_choosing(verbs: Any) -> None:
    describe = _verb(verbs, "describe", "numbers by which scenes are chosen, written beside the corpus",
                     "brickyard describe corpus/")  # fmt: skip
    describe.add_argument("corpus", help="folder or URI")
    describe.add_argument("--no-network", action="store_true",
                          help="no embedding of pictures by the network that comes with `train`")  # fmt: skip

    select = _verb(verbs, "select", "choose scenes of a corpus; no data is moved",
                   "brickyard select corpus/ --split train --at-least n_points=20000 --out chosen.parquet")  # fmt: skip
    select.add_argument("corpus", help="folder or URI")
    select.add_argument("--out", required=True, help="the selection, a Parquet file")
    for name in ("dataset", "split", "domain"):
        select.add_argument(f"--{name}", action="append", default=[], help=f"allow this {name} (repeat for several)")
    for name in ("at-least", "at-most"):
        select.add_argument(f"--{name}", action="append", default=[], metavar="COLUMN=NUMBER",
                            help="a limit on a number or figure of the index, such as n_points")  # fmt: skip
    select.add_argument("--weight", action="append", default=[], metavar="NAME=NUMBER",
                        help="visits an epoch of the scenes of a dataset or domain (default 1)")  # fmt: skip
    select.add_argument("--scenes", type=Path, default=None, metavar="FILE",
                        help="only the scenes in this file: ids, keys or sequences, one a line")  # fmt: skip
    select.add_argument("--without", type=Path, default=None, metavar="FILE",
                        help="leave out the scenes in this file")  # fmt: skip

    curate = _verb(verbs, "curate", "filter, deduplicate, guard, balance and thin out scenes; no data is moved",
                   "brickyard curate corpus/ curation.yaml --name v1")  # fmt: skip
    curate.add_argument("corpus", help="folder or URI")
    curate.add_argument("recipe", type=Path, help="YAML file of curators; see docs/curation.md")
    curate.add_argument("--name", required=True, help="of the selection, in the corpus's folder selections/")
    curate.add_argument(
        "--against", default=None, metavar="CORPUS", help="another corpus whose val and test are kept out"
    )

    explain = _verb(verbs, "explain", "one scene: its figures, its raw files, and what a curation decided of it",
                    "brickyard explain corpus/ scannet/scene0000_00 --selection v1")  # fmt: skip
    explain.add_argument("corpus", help="folder or URI")
    explain.add_argument("scene", help="its key, or a unique part of it")
    explain.add_argument("--selection", default=None, metavar="NAME", help="as `curate --name` called it")
    explain.add_argument("--why-not", action="store_true", help="all that stands against it, not only what came first")
    explain.add_argument("--against", default=None, metavar="CORPUS", help="as it was curated, for --why-not")


def _add_training(verbs: Any) -> None:
    train = _verb(verbs, "train", "train a 3D encoder from a corpus; run it again to resume",
                  "brickyard train recipe.yaml --corpus corpus/ --out run/")  # fmt: skip
    _recipe(train)
    train.add_argument("--corpus", action="append", default=[], metavar="CORPUS[=WEIGHT]",
                       help="folder or URI, for the recipe's `train.corpora` (repeat to mix several)")  # fmt: skip
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument("--seed", type=_natural, default=None, help="instead of the recipe's")
    train.add_argument("--continue-with", default=None, metavar="NAME",
                       help="go on with other settings of the loop than the run had, under this name")  # fmt: skip
    train.add_argument("--selection", type=Path, action="append", default=[],
                       help="train on the scenes that `select` chose (repeat for several corpora)")  # fmt: skip
    train.add_argument("--cache", default=None, help="local folder that keeps what was read from an object store")
    train.add_argument("--cache-gib", type=_positive, default=64, help="its size at most (default 64)")
    train.add_argument("--workers", type=_positive, default=None,
                       help="train with so many Ray workers, a GPU each if there are (default: no Ray)")  # fmt: skip
    train.add_argument("--address", default=None, help="address of a running Ray cluster for them (default: start one)")

    evaluate = _verb(verbs, "evaluate", "probe a trained encoder against its random initialisation",
                     "brickyard evaluate recipe.yaml --run run/ --corpus corpus/")  # fmt: skip
    _recipe(evaluate)
    whose = evaluate.add_mutually_exclusive_group(required=True)
    whose.add_argument("--run", type=Path, help="folder of the run")
    whose.add_argument("--weights", type=Path, metavar="FILE", help="a released checkpoint instead, such as sonata.pth")
    evaluate.add_argument("--corpus", required=True, help="folder or URI")
    evaluate.add_argument("--out", type=Path, default=None, help="folder for the results of --weights")
    evaluate.add_argument("--predictions", type=Path, default=None, metavar="DIR",
                          help="write predictions for an official server here, instead of scoring")  # fmt: skip
    evaluate.add_argument("--to", choices=TARGETS, default=None, help="whose server")
    evaluate.add_argument("--split", default=None, help="of the corpus, to predict (default: the protocol's val_split)")
    evaluate.add_argument("--raw", default=None, metavar="ROOT",
                          help="root of the raw dataset, whose points are counted: a folder or URI")  # fmt: skip
    evaluate.add_argument("--about", type=Path, default=None, metavar="FILE",
                          help="JSON with what the server asks beside the predictions")  # fmt: skip
    evaluate.add_argument("--scenes", type=Path, default=None, metavar="FILE",
                          help="predict only the scenes in this file, such as Waymo's list of test frames")  # fmt: skip

    features = _verb(verbs, "features", "what a trained encoder sees in scenes, as pictures and point clouds",
                     "brickyard features run/ --corpus corpus/ --scene scannet/scene0000_00 --query 1000")  # fmt: skip
    features.add_argument("run", type=Path, help="folder of the run")
    features.add_argument("--corpus", required=True, help="folder or URI")
    features.add_argument("--scene", action="append", required=True, help="its key (repeat for several)")
    features.add_argument("--query", type=_natural, default=None, metavar="POINT",
                          help="where else does it look like at this point of the first scene")  # fmt: skip
    features.add_argument("--out", type=Path, default=None, help="folder (default: features/ in the run's)")

    runs = _verb(verbs, "runs", "trainings side by side, and the settings in which they differ",
                 "brickyard runs run-0/ run-1/")  # fmt: skip
    runs.add_argument("folders", nargs="+", type=Path, help="runs, or folders that hold runs")


def _add_worlds(verbs: Any) -> None:
    simulate = _verb(verbs, "simulate", "write small simulated raw datasets in their native layouts",
                     "brickyard simulate --out raw/ --datasets scannet,nuscenes,kitti")  # fmt: skip
    simulate.add_argument("--out", type=Path, required=True, help="folder to write to")
    simulate.add_argument("--datasets", default="scannet,nuscenes,kitti", help="comma-separated, or all")
    simulate.add_argument("--seed", type=_natural, default=0)
    simulate.add_argument("--config", type=Path, default=None, help="YAML with sizes of the worlds")
    simulate.add_argument("--listings", nargs="?", type=float, const=1.0, default=None, metavar="SHARE",
                          help="not worlds, but all files of whole releases (or a share), empty, to plan")  # fmt: skip

    demo = _verb(verbs, "demo", "simulate, build, verify, train, evaluate and show, in a few minutes",
                 "brickyard demo --out demo")  # fmt: skip
    demo.add_argument("--out", type=Path, required=True, help="folder for everything")
    demo.add_argument("--seeds", type=_positive, default=1, help="trainings to run (default 1)")


def _verb(verbs: Any, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    sub: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=f"example: {example}"
    )
    sub.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    return sub


def _recipe(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("recipe", type=Path, help="YAML file; see docs/recipes.md")
    sub.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                     help="another value of the recipe, such as train.lr=0.001 (repeat for several)")  # fmt: skip


def _positive(text: str) -> int:
    return _number(text, 1)


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a price")
    return price


def _natural(text: str) -> int:
    return _number(text, 0)


def _number(text: str, least: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
