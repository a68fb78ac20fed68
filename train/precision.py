"""Islands of float32 under autocast: what the published systems compute in full precision stays so.

Autocast turns every matrix product below it into bfloat16, whatever the type of its inputs: a similarity of
descriptors then has 8 bits, and which of 4,000 rows are an anchor's nearest 1 % differs in up to two of five. Networks
may run in bfloat16; what compares their outputs (similarities, pooled means, losses) goes into an island.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def float32_island(device: torch.device) -> AbstractContextManager[Any]:
    """A region without autocast on a device; its inputs are cast by whoever enters it (`tensor.float()`). There is no
    autocast on "meta", where sizes are counted."""
    if device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
