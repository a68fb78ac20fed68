"""Host memory on its way to a device, without waiting for the device.

A copy from memory that the system may move waits until everything before it is done; one from pinned memory takes its
place in the queue. Small tables that the host works out for the device (sizes, per-view draws) travel this way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def send(values: Tensor, device: torch.device) -> Tensor:
    """Values of the host on a device; what is there already stays as it is."""
    if device.type == "cuda" and values.device.type == "cpu" and torch.cuda.is_available():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def send_table(rows: Sequence[Any] | NDArray[Any], device: torch.device) -> Tensor:
    """int64 numbers, or rows of them, on a device."""
    return send(torch.from_numpy(np.array(rows, dtype=np.int64)), device)
