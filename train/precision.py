"""Islands of float32 under autocast: what the published systems compute in full precision stays so.

Autocast turns every matrix product below it into bfloat16, whatever the type of its inputs: a similarity of
descriptors then has 8 bits, and which of 4,000 rows are an anchor's nearest 1 % differs in up to two of five. Networks
may run in bfloat16; what compares their outputs (similarities, pooled means, losses) goes into an island.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def settle(device: torch.device, *, tf32: bool) -> None:
    """What is left to chance otherwise, for the whole process, on CUDA.

    Args:
        device: of this process.
        tf32: products of float32 matrices and convolutions, sparse ones too, round their factors to 10 bits. What runs
            in bfloat16 is not concerned.
    """
    if device.type != "cuda":
        return
    from spconv import constants

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    constants.SPCONV_ALLOW_TF32 = tf32  # read at every product
    # Attention is flash attention, or memory-efficient where patches are filled. cuDNN's is chosen by version and shape
    # and plans anew for every new shape, and patches have ever other numbers.
    torch.backends.cuda.enable_cudnn_sdp(False)


def float32_island(device: torch.device) -> AbstractContextManager[Any]:
    """A region without autocast on a device; its inputs are cast by whoever enters it (`tensor.float()`). There is no
    autocast on "meta", where sizes are counted."""
    if device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
