"""The tables of speed, and large aims beside what was measured; see `comparison`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.benchmarks.loader_promises import IMAGES, MEMORY, RESUME, SHUFFLE
from tests.benchmarks.report import markdown

CORE = "million_points_per_cpu_second"
Record = dict[str, Any]
Records = dict[str, list[Record]]


def newest(found: Records, name: str) -> Record:
    return found[name][-1]


def promised(found: Records, title: str) -> list[Record]:
    return [row for row in newest(found, "loader_promises")["rows"] if row["promise"] == title]


def origin(record: Record) -> str:
    """One line below a table: when, on what, with what."""
    load = record["load_before"]
    return (
        f"{record['date'][:10]}, commit {record['commit'][:7]}, {record['cores']} cores of an {record['cpu']}"
        f" (load {load:.1f} before), Python {record['python']}."
    )


# Aims


def aims(found: Records) -> str:
    """What was aimed at, what came out, held or missed; nothing is rounded in our favour."""
    loader = newest(found, "loader")
    rows = loader["rows"]
    peers = [row for row in rows[1:] if not row["loader"].startswith("brickyard")]
    floats = [row for row in rows[1:] if row["loader"].startswith("brickyard") and "codes" not in row["loader"]]
    ours, codes = best(floats), best([row for row in rows if "codes" in row["loader"]])
    workers, any_mode = best([row for row in peers if "2 workers" in row["loader"]]), best(peers)
    zstd = next(row for row in rows if row["loader"] == "brickyard zstd, 2 threads")
    pairs = [row for row in newest(found, "correspondences")["rows"] if row["storage"] == "brickyard zstd"]
    orders = {row["order"]: row for row in promised(found, SHUFFLE)}
    pictures = {row["decoder"]: row["images_per_second_core"] for row in promised(found, IMAGES)}
    cost = max(row["percent"] for row in newest(found, "verification")["rows"])
    resume = promised(found, RESUME)
    steady = promised(found, MEMORY)[0]
    wait = newest(found, "training")["rows"][0]["share"]
    ratio = pictures["brickyard"] / pictures["Pillow in a DataLoader"]
    lines = [
        ("points/s against the best peer with 2 workers", "4x",
         f"{speed(ours) / speed(workers):.1f}x ({workers['loader']}); {ours[CORE] / workers[CORE]:.1f}x by processor "
         "time",
         speed(ours) >= 4 * speed(workers)),
        ("points/s against the best peer in its best mode", "1.5x",
         f"{speed(ours) / speed(any_mode):.2f}x ({any_mode['loader']}); {speed(codes) / speed(any_mode):.2f}x with xyz "
         "as codes", speed(ours) >= 1.5 * speed(any_mode)),
        ("share of the memory-copy ceiling", "(none)", f"{ours['ratio']:.0%}; {codes['ratio']:.0%} with xyz as codes",
         None),
        ("bytes a point, xyz + normal + colour + label", "at most 10 (raw 43)", f"{zstd['bytes_per_point']:.1f}",
         zstd["bytes_per_point"] <= 10),
        ("bytes a correspondence", "at most 2 (raw 24)",
         ", ".join(f"{row['dataset']} {row['bytes_per_pair']:.1f}" for row in pairs),
         all(row["bytes_per_pair"] <= 2 for row in pairs)),
        ("processor time of verification", "at most 3 %", f"{cost:+.1f} %", cost <= 3),
        ("resume to the first batch, 1 M scenes, 1, 2 and 4 ranks", "under 1 s, state under 1 kB",
         f"at most {max(row['seconds'] for row in resume):.2f} s, {max(row['state_bytes'] for row in resume)} B",
         all(row["seconds"] < 1 and row["state_bytes"] < 1000 for row in resume)),
        ("repeated sequences in a batch of 8", "as a full shuffle",
         f"{orders['brickyard']['repeats']:.4f}, full shuffle {orders['full shuffle']['repeats']:.4f}",
         abs(orders["brickyard"]["repeats"] - orders["full shuffle"]["repeats"]) <= 0.003),
        ("JPEG to crop against Pillow in a DataLoader, per core", "2x", f"{ratio:.1f}x", ratio >= 2),
        ("new buffers a batch in the steady state", "flat",
         f"{steady['new_bytes_per_batch']:.0f} B, {steady['buffers_megabytes']:.0f} MB in use",
         steady["new_bytes_per_batch"] < 1e-4 * 1e6 * steady["buffers_megabytes"]),
        ("share of a training step that waits for data, processor only", "under 2 %", f"{wait:.2%}", wait < 0.02),
    ]  # fmt: skip
    held = {True: "held", False: "**missed**", None: "-"}
    table = [{"figure": f, "aim": a, "measured": m, "held": held[h]} for f, a, m, h in lines]
    return markdown(table, {"figure": "s figure", "aim": "s aim", "measured": "s measured", "held": "s "})


def best(rows: list[Record]) -> Record:
    return max(rows, key=speed)


def speed(row: Record) -> float:
    return float(row["million_points_per_second"])


# Tables


def loader(found: Records) -> str:
    record = newest(found, "loader")
    rows = record["rows"]
    megabytes = next(row["megabytes"] for row in rows if row["loader"].startswith("npy"))
    table = markdown(rows, {
        "loader": "s loader", "bytes_per_point": ".1f B/point", "million_points_per_second": ".0f M points/s",
        "slowest": ".0f min", "fastest": ".0f max", "million_points_per_cpu_second": ".0f M points/s and core",
        "ratio": ".0% of the ceiling", "working_megabytes": ".0f MB memory", "max_xyz_error_mm": ".2f xyz error, mm",
    })  # fmt: skip
    settings = record["settings"]
    command = f"python -m tests.benchmarks.loader --scenes {settings['scenes']} --repeats {settings['repeats']}"
    return (
        f"{settings['scenes']} turned copies of {record['material'][0]}, {settings['points'] / 1e6:.1f} million "
        f"points,\n{megabytes:.0f} MB as arrays, batches of {settings['batch']}; medians of {settings['repeats']} "
        f"interleaved epochs, page cache warm.\n`{command}`:\n\n{table}\n\n{origin(record)}"
    )


def verification(found: Records) -> str:
    return markdown(newest(found, "verification")["rows"], {
        "compressor": "s compressor", "checked_ms": ".2f ms a scene", "unchecked_ms": ".2f ms unchecked",
        "percent": "+.1f % of the time", "expected": ".1f % expected from xxh3 alone",
    })  # fmt: skip


def encodings(found: Records) -> str:
    record = newest(found, "encoding")
    rows = [row for row in record["rows"] if row["bytes_per_point"] is not None]
    table = markdown(rows, {
        "field": "s field", "encoding": "s encoding", "bytes_per_point": ".2f B/point",
        "million_points_per_second": ".0f M points/s", "max_error": ".2f max error",
    })  # fmt: skip
    pairs = markdown(newest(found, "correspondences")["rows"], {
        "dataset": "s dataset", "storage": "s pairs as", "bytes_per_pair": ".2f B/pair",
        "million_pairs_per_second": ".0f M pairs/s", "max_depth_error_mm": ".2f max depth error, mm",
    })  # fmt: skip
    return f"{table}\n\n{pairs}\n\n{origin(record)}"


def resume(found: Records) -> str:
    """Medians and worst over the places of the epoch."""
    rows: dict[tuple[str, int], list[Record]] = {}
    for row in promised(found, RESUME):
        rows.setdefault((row["batch"], row["ranks"]), []).append(row)
    table = [
        {"batch": batch, "ranks": ranks, "bytes": max(row["state_bytes"] for row in group)}
        | {f"at {row['at']:.0f}": 1000 * row["seconds"] for row in group}
        for (batch, ranks), group in rows.items()
    ]
    return markdown(table, {
        "batch": "s batches by", "ranks": "d ranks", "at 10": ".0f 10 %, ms", "at 50": ".0f 50 %, ms",
        "at 90": ".0f 90 %, ms", "bytes": "d bytes of state",
    })  # fmt: skip


def shuffle(found: Records) -> str:
    return markdown(promised(found, SHUFFLE), {
        "order": "s order", "repeats": ".4f repeats in a batch", "correlation": "+.3f rank correlation",
    })  # fmt: skip


def images(found: Records) -> str:
    return markdown(promised(found, IMAGES), {
        "decoder": "s decoder", "images_per_second_core": ".0f images/s and core",
        "mean_difference_levels": ".2f mean difference, grey levels",
    })  # fmt: skip


def training(found: Records) -> str:
    record = newest(found, "training")
    return markdown(record["rows"], {
        "steps": "s steps", "seconds": ".1f s in steps", "waited_seconds": ".3f s waiting for data",
        "share": ".2% waiting", "longest_ms": ".0f longest wait, ms",
    }) + f"\n\n{origin(record)}"  # fmt: skip


def remote(found: Records) -> str:
    record = newest(found, "remote")
    return markdown(record["rows"], {
        "loader": "s loader", "latency_ms": "d latency, ms", "threads": "d threads",
        "megabytes_per_second": ".1f MB/s", "slowest": ".1f min", "fastest": ".1f max",
        "scenes_per_second": ".1f scenes/s", "requests_per_scene": ".1f requests a scene",
    }) + f"\n\n{origin(record)}"  # fmt: skip


SECTIONS: dict[str, Callable[[Records], str]] = {
    "loader": loader, "verification": verification, "encodings": encodings, "resume": resume, "shuffle": shuffle,
    "images": images, "training": training, "remote": remote,
}  # fmt: skip
