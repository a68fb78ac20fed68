"""One epoch of a shuffled loader: the same scenes, the same arrays, batches of four, ours beside the others.

Every loader has a corpus in its own format (all hold the same scenes), a process of its own, and runs: a first epoch
(workers start, caches warm), one in which its memory is watched, several timed ones, interleaved with those of all
others, and one in which every array is compared with the original. The page cache is warm. "memory copy" copies ready
arrays into reused buffers: on one thread nothing can be faster. "xyz as codes" leaves dequantising to the training
device, which is what training does; all other rows end in the same arrays. On a busy machine points per processor
second say more than points/s. What checking digests costs is measured by `verification`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from tests.benchmarks import loader_picture
from tests.benchmarks.contestants import (
    CEILING,
    PEER_WRITERS,
    Contestant,
    absent,
    contestants,
    write_bricks,
    write_npy,
)
from tests.benchmarks.material import Material, material, room_copy
from tests.benchmarks.measuring import Server
from tests.benchmarks.report import append, arguments, table

XYZ_BOUND_MM = 1000 / 2048 + 1e-3
NORMAL_BOUND_DEGREES = 0.67
COLUMNS = {
    "loader": "s loader",
    "files": "d files",
    "bytes_per_point": ".1f B/point",
    "million_points_per_second": ".1f M points/s",
    "slowest": ".1f min",
    "fastest": ".1f max",
    "million_points_per_cpu_second": ".0f M points/CPU s",
    "ratio": ".2f of ceiling",
    "working_megabytes": ".0f MB memory",
    "first_epoch_seconds": ".2f 1st epoch s",
    "max_xyz_error_mm": ".2f xyz mm",
    "max_normal_error_degrees": ".2f normal deg",
}


def write_layouts(folder: Path, rooms: Material, scenes: int, entries: list[Contestant]) -> dict[str, dict[str, float]]:
    """Write the corpus in every format that is needed; returns layout -> files, megabytes, seconds to write."""
    copies = [room_copy(rooms.scenes, number) for number in range(scenes)]
    about, layouts = {}, {entry.layout for entry in entries}
    for layout in ["npy", *sorted(layouts - {"npy"})]:
        start, place = time.perf_counter(), folder / layout
        if layout == "npy":
            write_npy(place, copies)
        elif layout in PEER_WRITERS:
            entry = next(entry for entry in entries if entry.layout == layout)
            with closing(Server(entry, folder)) as server:
                server.ask("write")
        else:
            write_bricks(place, copies, "lz4" if layout.endswith("lz4") else "zstd")
        sizes = [path.stat().st_size for path in place.rglob("*") if path.is_file()]
        took = time.perf_counter() - start
        about[layout] = {"files": len(sizes), "megabytes": sum(sizes) / 1e6, "write_seconds": took}
    return about


def compare(folder: Path, entries: list[Contestant], repeats: int) -> dict[str, dict[str, Any]]:
    """Loader -> answers: "first" epoch, "memory", "timed" (a list) and "checked"; see `Server.ask`."""
    with ExitStack() as stack:
        servers = [stack.enter_context(closing(Server(entry, folder))) for entry in entries]
        answers: dict[str, dict[str, Any]] = {
            s.name: {"first": s.ask("timed"), "memory": s.ask("memory"), "timed": []} for s in servers
        }
        for turn in range(repeats):
            start = turn * len(servers) // repeats  # nobody is always the first, or always after the same one
            for server in servers[start:] + servers[:start]:
                answers[server.name]["timed"].append(server.ask("timed"))
        for server in servers:
            answers[server.name]["checked"] = server.ask("checked") if server.name != CEILING.name else {}
    return answers


def check(answers: dict[str, dict[str, Any]], scenes: int) -> None:
    """Everyone gave every scene once, equal bytes where the format is exact, and errors within our bounds."""
    checksums = {}
    for name, answer in answers.items():
        given = {timed["scenes"] for timed in [answer["first"], *answer["timed"]]}
        found = answer["checked"]
        wrong = [
            given != {scenes} and f"epochs of {given} scenes",
            found and found["distinct"] != scenes and f"{found['distinct']} different scenes in an epoch",
            found and found["max_xyz_error_mm"] > XYZ_BOUND_MM and f"xyz is off by {found['max_xyz_error_mm']} mm",
            found and found["max_normal_error_degrees"] > NORMAL_BOUND_DEGREES and "normals are off",
        ]
        if any(wrong):
            raise SystemExit(f"loader benchmark is void: {name} gave {', '.join(str(w) for w in wrong if w)}")
        if found:
            checksums[name] = found["checksum"]
    if len(set(checksums.values())) != 1:
        raise SystemExit(f"loader benchmark is void: colours and labels differ between loaders: {checksums}")


def summarise(entry: Contestant, answer: dict[str, Any], layout: dict[str, float]) -> dict[str, Any]:
    """One row of the table."""
    speeds = [timed["points"] / timed["seconds"] / 1e6 for timed in answer["timed"]]
    cpu = statistics.median(timed["cpu_seconds"] / timed["scenes"] for timed in answer["timed"])
    ceiling = entry.name == CEILING.name
    points = answer["first"]["points"] / answer["first"]["scenes"]
    return {
        "loader": entry.name,
        "files": None if ceiling else layout["files"],
        "megabytes": None if ceiling else layout["megabytes"],
        "bytes_per_point": None if ceiling else 1e6 * layout["megabytes"] / answer["first"]["points"],
        "million_points_per_cpu_second": points / cpu / 1e6,
        "write_seconds": None if ceiling else layout["write_seconds"],
        "million_points_per_second": statistics.median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "epoch_seconds": [timed["seconds"] for timed in answer["timed"]],
        "cpu_ms_per_scene": 1000 * cpu,
        "working_megabytes": None if ceiling else answer["memory"]["working_bytes"] / 1e6,
        "first_epoch_seconds": answer["first"]["seconds"],
        **answer["checked"],
    }


def headline(rows: list[dict[str, Any]]) -> str:
    """Our best against the best peer with two workers, and against the best peer in its best mode."""

    def best(chosen: list[dict[str, Any]]) -> tuple[float, str]:
        return max(
            ((row["million_points_per_second"], row["loader"]) for row in chosen), default=(float("nan"), "none")
        )

    peers = [row for row in rows[1:] if not row["loader"].startswith("brickyard")]
    ours = best([row for row in rows[1:] if row["loader"].startswith("brickyard") and "codes" not in row["loader"]])
    workers, any_mode = best([row for row in peers if "2 workers" in row["loader"]]), best(peers)
    return (
        f"{ours[1]}: {ours[0] / workers[0]:.1f}x the best peer with 2 workers ({workers[1]}), "
        f"{ours[0] / any_mode[0]:.1f}x the best peer in its best mode ({any_mode[1]})"
    )


def run(*, scenes: int = 400, repeats: int = 5, dry: bool = False) -> list[dict[str, Any]]:
    """Write the corpora into a temporary folder, measure, print, append the record."""
    rooms, entries = material("scannet"), contestants()
    with tempfile.TemporaryDirectory(prefix="brickyard-bench-") as place:
        folder = Path(place)
        layouts = write_layouts(folder, rooms, scenes, entries)
        answers = compare(folder, entries, repeats)
    check(answers, scenes)
    rows = [summarise(entry, answers[entry.name], layouts[entry.layout]) for entry in entries]
    for row in rows:
        row["ratio"] = row["million_points_per_second"] / rows[0]["million_points_per_second"]
    points = answers[entries[0].name]["first"]["points"]
    raw = layouts["npy"]["megabytes"]
    table(
        f"loader: {scenes} turned copies of {rooms.origin}, {points / 1e6:.1f} M points, {raw:.0f} MB as arrays, "
        f"median of {repeats} interleaved epochs",
        rows,
        COLUMNS,
    )
    print("\n" + headline(rows))
    if missing := absent():
        print("\nnot measured: " + "; ".join(f"{package} ({reason})" for package, reason in missing.items()))
    if not dry:
        settings = {"scenes": scenes, "repeats": repeats, "points": points, "batch": 4}
        append("loader", settings, rows, material=[rooms.origin], absent=missing)
        loader_picture.draw(rows)
    return rows


if __name__ == "__main__":
    options = arguments(__doc__, scenes=400, repeats=5).parse_args()
    run(**vars(options))
