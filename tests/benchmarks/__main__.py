"""All benchmarks at modest sizes, in a few minutes on two quiet cores; each script takes larger ones.

python -m tests.benchmarks            print the tables, append the results to results/, rewrite the pages
python -m tests.benchmarks --dry      print only

Longer ones, by commands of their own: `features`, `corruption`, `remote`, `training`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported: one thread means one thread

from tests.benchmarks import comparison, correspondences, encoding, loader, loader_promises, readers, verification
from tests.benchmarks.report import arguments, environment


def main() -> None:
    options = arguments(__doc__, scenes=160, repeats=5, milliseconds=300).parse_args()
    place = environment()
    print(f"{place['cpu']}, {place['cores']} cores, load {place['load_before']:.1f}, Python {place['python']}")
    encoding.run(milliseconds=options.milliseconds, dry=options.dry)
    correspondences.run(milliseconds=options.milliseconds, dry=options.dry)
    readers.run(dry=options.dry)
    verification.run(dry=options.dry)
    loader_promises.run(dry=options.dry)
    loader.run(scenes=options.scenes, repeats=options.repeats, dry=options.dry)
    if not options.dry:
        comparison.differing(comparison.records(), write=True)


if __name__ == "__main__":
    main()
