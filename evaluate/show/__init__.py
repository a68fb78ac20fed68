"""Pages that show what a corpus holds and what a run was worth: single HTML files, for eyes."""

from brickyard.evaluate.show.corpus import MAX_SCENES, corpus_page
from brickyard.evaluate.show.run import run_page
from brickyard.evaluate.show.summary import (
    CorpusSummary,
    Curve,
    FeatureScene,
    Probe,
    ProbeRun,
    RunSummary,
    SplitCounts,
    join_probes,
    read_curve,
    read_features,
    read_protocol_pictures,
    summarise_corpus,
)

__all__ = [
    "MAX_SCENES",
    "CorpusSummary",
    "Curve",
    "FeatureScene",
    "Probe",
    "ProbeRun",
    "RunSummary",
    "SplitCounts",
    "corpus_page",
    "join_probes",
    "read_curve",
    "read_features",
    "read_protocol_pictures",
    "run_page",
    "summarise_corpus",
]
