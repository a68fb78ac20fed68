"""A GPU that is not there: what a program would ask of it is computed on the CPU, and counted.

A `Twin` is a tensor that says it lies on "cuda:0" and holds its values on the CPU. A dispatch mode runs every operation
on these values, so code takes the ways that it takes on CUDA (block-wise matching, fused optimisers, autocast) and gets
true sizes and values, and what mixes tensors of host and device is refused as CUDA refuses it. Counted are, for every
file of the trainer that asks for them (what autograd asks for by itself counts as "backward"):

launches   operations that compute something. A view is none; several tensors updated at once are as many as torch's own
           limits for such kernels make them. Few operations take more than one kernel (a sort some ten): they count
           once, too. Sparse convolutions do not run through torch: a product counts 1 forward and 2 back, and tables
           of neighbours as `_TABLE` says, after spconv's source.
waits      the host cannot go on before the device is done, because it asks for a value or a size: item, tolist, .cpu(),
           nonzero, boolean masks, unique, bincount (twice), repeat_interleave without its output size.
copies     of host memory to the device, their bytes, and those of them that wait (`blocking`), because nobody said
           non_blocking.
float32    matrix products and attentions computed in float32.

A memory model goes along: the bytes of all values that are alive, and their peak. What kernels take for themselves is
not in it.
"""

from __future__ import annotations

import contextlib
import math
import sys
import weakref
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from brickyard.train.models import serialization, sparse

spconv = sparse.spconv
SparseConvolution = spconv.conv.SparseConvolution
DEVICE = torch.device("cuda:0")
FIELDS = ("launches", "waits", "copies", "blocking", "bytes", "float32")
_TRAIN = str(Path(sparse.__file__).resolve().parents[1])
_TABLE = {"submanifold": 8, "down": 16}
"""Launches that build a table of neighbours: fills, insertion into a hash table, look-up, a radix sort of masks; for a
strided layer also the distinct cells, whose number the host waits for."""

_NONE = {
    "empty", "empty_strided", "new_empty", "empty_like", "new_empty_strided", "detach", "alias", "lift_fresh",
    "_unsafe_view", "_reshape_alias", "is_same_size", "resize_", "set_", "_has_compatible_shallow_copy_type",
}  # fmt: skip
_WAITS = {
    "_local_scalar_dense": 1, "nonzero": 1, "masked_select": 1, "_unique2": 1, "unique_dim": 1, "unique_consecutive": 1,
    "bincount": 2, "equal": 1, "nonzero_numpy": 1,
}  # fmt: skip
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "dot", "mv", "addmv"}
_AT_ONCE = {1: 110, 2: 64, 3: 48, 4: 36}
"""Tensors that a kernel over lists takes, by the number of lists; further limits are 320 blocks of 65,536 elements."""


class Tally:
    """Counts by part, and the memory that is alive."""

    def __init__(self) -> None:
        self.parts: dict[str, Counter[str]] = defaultdict(Counter)
        self.operations: Counter[tuple[str, str]] = Counter()
        self.alive = self.peak = 0
        self._storages: Counter[int] = Counter()

    def add(self, what: str, count: int = 1, *, operation: str = "") -> None:
        if not count:
            return
        part = _asked_by()
        self.parts[part][what] += count
        if what in ("launches", "waits") and operation:
            self.operations[part, f"{operation}: {what}"] += count

    def total(self) -> dict[str, int]:
        return {name: sum(part[name] for part in self.parts.values()) for name in FIELDS}

    def begin(self) -> None:
        """Forget what was counted; what is alive stays."""
        self.parts.clear()
        self.operations.clear()
        self.peak = self.alive

    def hold(self, twin: Tensor, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if place == 0:
            return
        self._storages[place] += 1
        if self._storages[place] == 1:
            self.alive += size
            self.peak = max(self.peak, self.alive)
        weakref.finalize(twin, self._release, place, size)

    def _release(self, place: int, size: int) -> None:
        self._storages[place] -= 1
        if self._storages[place] == 0:
            self.alive -= size
            del self._storages[place]


_tally = Tally()


class Twin(Tensor):
    """See the module's text."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, real: Tensor) -> Twin:
        twin: Twin = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype
        )
        twin.held = real
        _tally.hold(twin, real.untyped_storage())
        return twin

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    def to(self, *args: Any, **kwargs: Any) -> Any:
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        more = {} if memory_format is None else {"memory_format": memory_format}
        moved = self if device is None or device.type == "cuda" else self._fetch(wait=not non_blocking)
        if dtype is None or dtype == self.dtype:
            return moved
        return torch.Tensor.to(moved, dtype=dtype, non_blocking=non_blocking, **more)

    def cpu(self) -> Tensor:  # type: ignore[override]
        return self._fetch()

    def tolist(self) -> Any:
        return self._fetch().tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("memory of the device has no numpy array")

    def new_tensor(self, data: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return torch.tensor(data, **{"dtype": self.dtype, "device": DEVICE, **kwargs})

    def _fetch(self, *, wait: bool = True) -> Tensor:
        _tally.add("waits", int(wait), operation="cpu")
        with _disable_current_modes():
            return self.held.detach().clone()

    def __deepcopy__(self, memo: Any) -> Any:
        if id(self) not in memo:
            copy = self.detach().clone()
            memo[id(self)] = torch.nn.Parameter(copy, self.requires_grad) if getattr(self, "_is_param", 0) else copy
        return memo[id(self)]


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextlib.contextmanager
def pretended_gpu() -> Iterator[Tally]:
    """A region where "cuda:0" is there; what is counted in it."""
    tables = (serialization._spread_bits, serialization._steps)  # none may survive
    for kept in tables:
        kept.cache_clear()
    _tally.__init__()  # type: ignore[misc]
    norm = torch.nn.functional.layer_norm
    made, autocast, enabled, dtype = torch.tensor, torch.autocast, torch.is_autocast_enabled, torch.get_autocast_dtype

    def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
        made_here: Tensor = made(data, **kwargs)
        return made_here if device is None else made_here.to(device)

    def layer_norm(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # on CUDA, autocast has it in float32
        normed: Tensor = norm(x.float() if torch.is_autocast_enabled("cpu") else x, *args, **kwargs)
        return normed

    def on_cpu(kind: str, *args: Any, **kwargs: Any) -> Any:
        return autocast("cpu", *args, **kwargs)

    patches = {
        "torch.tensor": tensor,
        "torch.autocast": on_cpu,
        "torch.is_autocast_enabled": lambda *_: enabled("cpu"),
        "torch.get_autocast_dtype": lambda *_: dtype("cpu"),
        "torch.__future__._overwrite_module_params_on_conversion": True,  # a Parameter cannot turn into a Twin
        "torch.cuda._lazy_init": lambda: None,
        "torch.nn.functional.layer_norm": layer_norm,
        "torch.cuda.reset_peak_memory_stats": lambda *_: None,
        "torch.cuda.max_memory_allocated": lambda *_: _tally.peak,
        "torch.utils._foreach_utils._has_foreach_support": lambda *_: True,
        "torch.nn.utils.clip_grad._has_foreach_support": lambda *_: True,
        "torch.optim.optimizer._foreach_supported_types": [Tensor, torch.nn.Parameter, Twin],
    }
    with contextlib.ExitStack() as stack:
        for name, stand_in in patches.items():
            stack.enter_context(mock.patch(name, stand_in))
        stack.enter_context(mock.patch.object(SparseConvolution, "forward", _convolve))
        stack.enter_context(_Mode())
        try:
            yield _tally
        finally:
            for kept in tables:
                kept.cache_clear()


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    twins = {id(leaf.held): leaf for leaf in leaves if isinstance(leaf, Twin)}
    wanted = kwargs.get("device")
    there = wanted is not None and (torch.device(wanted).type == "cuda" or _in_backward())
    if not twins and not there:
        return func(*args, **kwargs)
    if wanted is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    _count(func, args, kwargs, comes=there and not twins)
    real_args, real_kwargs = tree_map(_real, args), tree_map(_real, kwargs)
    out = func(*real_args, **real_kwargs)

    def twin(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        return twins[id(x)] if id(x) in twins else Twin(x)  # the same one, where it was changed in place

    return tree_map(twin, out)


def _real(x: Any) -> Any:
    return x.held if isinstance(x, Twin) else x


def _count(func: Any, args: Any, kwargs: dict[str, Any], *, comes: bool) -> None:
    """`comes`: there is no operand on the device, so the operation makes the first value or brings one."""
    name, leaves = func._schema.name.removeprefix("aten::"), tree_leaves((args, kwargs))
    hosts = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, Twin)]
    big = [leaf for leaf in hosts if leaf.dim()]
    if name in ("_to_copy", "copy_", "_index_put_impl_", "index_put_", "index", "index_put") and hosts:
        if name in ("_to_copy", "copy_") or big:
            blocking = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            _tally.add("copies", len(hosts))
            _tally.add("blocking", len(hosts) * blocking)
            _tally.add("bytes", sum(leaf.numel() * leaf.element_size() for leaf in hosts))
        if name in ("_to_copy", "copy_"):
            return
    elif big and not comes:
        raise RuntimeError(f"{name} has operands on the host and on the device")
    if name in _NONE or (func._schema.returns and all(_is_view(value) for value in func._schema.returns)):
        return
    waits = _WAITS.get(name, 0)
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        waits = 1
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        masks = [index for index in args[1] if index is not None and index.dtype in (torch.bool, torch.uint8)]
        filled = name != "index" and args[2].dim() == 0 and not (len(args) > 3 and args[3])
        waits = 0 if filled else len(masks)
    if waits:
        _tally.add("waits", waits, operation=name)
    launches = _at_once(args) if name.startswith("_foreach") or name.startswith("_fused") else 1
    _tally.add("launches", launches, operation=name)
    product = name in _PRODUCTS or "scaled_dot_product" in name
    if product and args[0].dtype == torch.float32:
        _tally.add("float32")


def _is_view(value: Any) -> bool:
    return value.alias_info is not None and not value.alias_info.is_write


def _at_once(args: Any) -> int:
    """Kernels over lists of tensors."""
    lists = [value for value in args if isinstance(value, Sequence) and value and isinstance(value[0], Tensor)]
    tensors = [tensor for tensor in lists[0] if isinstance(tensor, Twin)]
    blocks = sum(math.ceil(max(1, tensor.numel()) / 65536) for tensor in tensors)
    return max(math.ceil(len(tensors) / _AT_ONCE.get(len(lists), 30)), math.ceil(blocks / 320)) if tensors else 0


def _asked_by() -> str:
    """The file of the trainer that asks, or "backward"."""
    back = _in_backward()
    frame: Any = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_TRAIN) or "/brickyard/train/" in name:
            part = name.rpartition("/train/")[2].removesuffix(".py")
            return "backward" if back and part == "step" else part
        frame = frame.f_back
    return "other"


def _in_backward() -> bool:
    """Whether autograd is at work. Zeros that it makes by itself lie where a twin truly lies, but stand for others."""
    return bool(torch._C._current_graph_task_id() != -1)


# Sparse convolutions


class _Convolved(torch.autograd.Function):
    """spconv's layer on the CPU."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        layer, x, result = rest
        with _disable_current_modes(), torch.enable_grad(), torch.autocast("cpu", enabled=False):
            ctx.inputs = [real.detach().requires_grad_() for real in (_real(features), _real(weight))]
            plain = spconv.SparseConvTensor(ctx.inputs[0], _real(x.indices), x.spatial_shape, x.batch_size)
            plain.indice_dict = x.indice_dict
            layer._parameters["weight"], algorithm, layer.algo = ctx.inputs[1], layer.algo, spconv.ConvAlgo.Native
            try:
                out = _forward(layer, plain)
            finally:
                layer._parameters["weight"], layer.algo = weight, algorithm
            result["plain"], ctx.out = out, out.features
        _tally.add("launches", operation="sparse product")
        _tally.add("float32", int(features.dtype == torch.float32))
        return Twin(ctx.out.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        with _disable_current_modes():
            grads = torch.autograd.grad(ctx.out, ctx.inputs, _real(gradient))
        _tally.add("launches", 2, operation="sparse product")
        _tally.add("float32", 2)
        return (*(Twin(grad) for grad in grads), None, None, None)


_forward = SparseConvolution.forward


def _convolve(self: Any, x: Any) -> Any:
    if self.indice_key not in x.indice_dict:
        _tally.add("launches", _TABLE["submanifold" if self.subm else "down"], operation="table of neighbours")
        if not self.subm:
            _tally.add("waits", operation="table of neighbours")
    result: dict[str, Any] = {}
    features = _Convolved.apply(x.features, self.weight, self, x, result)  # type: ignore[no-untyped-call]
    plain = result["plain"]
    indices = x.indices if self.subm else Twin(plain.indices)
    out = spconv.SparseConvTensor(features, indices, plain.spatial_shape, plain.batch_size)
    out.indice_dict = x.indice_dict
    out.indice_dict.update(plain.indice_dict)
    return out
