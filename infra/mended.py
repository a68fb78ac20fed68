"""Raw data that were mended after a build: what of a change may be taken into the corpus.

A scene that was built stays as it was built: if its files have changed or are gone, the change is refused and the scene
named. A scene that was quarantined, missing or not reached yet is taken as it is now; one that was in no list of the
build is taken while the build is unfinished and refused once the corpus is finished. With the flag, `build.json` is
written anew, and from then on this is the build of the data as they are now: the same scenes in the same shards, hence
the same bytes, as a build of these data in an empty folder. Shards whose scenes are the same are kept; where sizes or
scenes that are new move the cuts between shards, those after the cut are made again.

Crashes: the manifest goes first, then `build.json` changes in one piece, then parts that do not belong to it go. After
each of these steps the same command does the rest.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from brickyard.infra.accepted import begun
from brickyard.infra.plan import Plan
from brickyard.infra.task import inputs
from brickyard.shards.build import BUILD, differences, fingerprint_bytes
from brickyard.shards.corpus import MANIFEST, Corpus
from brickyard.shards.errors import CorpusError
from brickyard.shards.parts import part_name, read_inputs, side_by_side
from brickyard.shards.storage import Store

_FLAG = "--retry-quarantined"


def check_inputs(store: Store, plan: Plan, *, take: bool) -> None:
    """Compare the raw data with those a build was begun with; `infra.accepted` has compared all the rest.

    Args:
        take: let the changes in that may be; the corpus is unfinished from then on.

    Raises:
        CorpusError: with the scenes concerned.
    """
    store.refuse_links()
    before = begun(store)
    if before is None or before["inputs"] == plan.fingerprint["inputs"]:
        return
    refused = _refused(store, plan)
    if refused:
        shown = "\n  ".join(refused[:20] + [f"... and {len(refused) - 20} more"] * (len(refused) > 20))
        raise CorpusError(
            f"{store.uri} was begun with other raw data; continuing would mix the two. What differs:\n  {shown}\n"
            f"{_FLAG} takes changes of scenes that were quarantined or missing, --grow adds those that are new. "
            "Restore the former data for others, or build into another folder."
        )
    if not take:
        shown = "\n  ".join(differences(before["inputs"], plan.fingerprint["inputs"], "inputs"))
        raise CorpusError(
            f"{store.uri} was begun with other raw data:\n  {shown}\nNo scene that was built has changed; "
            f"{_FLAG} takes the others as they are now."
        )
    if store.exists(MANIFEST):
        store.delete(MANIFEST)
    store.write(BUILD, fingerprint_bytes(plan.fingerprint))


def _refused(store: Store, plan: Plan) -> list[str]:
    """What of the change may not be taken, a line for each scene."""
    now = inputs(plan.refs)
    known: set[str] = set()
    built: dict[str, str] = {}
    former = {part_name(task).removeprefix("parts/") for task in range(len(plan.kept))}
    names = store.list("parts")
    for name, (before, quarantined) in zip(names, side_by_side(partial(read_inputs, store), names), strict=True):
        known |= before.keys()
        if name in former:
            continue  # stays as it is, whatever became of its raw data
        built |= {key: digest for key, digest in before.items() if key not in quarantined}
    lines = [
        f"{key}: was built, and its raw files {'have changed' if key in now else 'are gone'} since"
        for key, digest in sorted(built.items())
        if now.get(key) != digest
    ]
    with suppress(CorpusError):  # damaged: as if unfinished
        if store.exists(MANIFEST):
            known |= {item.key for item in Corpus.open(store).quarantine}
            lines += [f"{key}: is new" for key in sorted(now.keys() - known) if not _is_within(key, known)]
    return lines


def _is_within(key: str, known: set[str]) -> bool:
    """Whether the scene belongs to something larger that was missing, such as a whole sequence."""
    return any(key[:end] in known for end in range(1, len(key)))
