"""A CUDA device whose memory is the CPU's: what a run on a GPU does, seen without one.

Its tensors say that they are on `cuda:0` and refuse to work beside tensors of the CPU, as real ones
do. Copies are recorded; one that the host does not wait for holds wrong numbers until the stream is
synchronized; where memory is used up, torch's own error is raised. Sizes and the order of work are
real; speed and the last bits of floats are not.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda:0")
UUID = f"GPU-fake-{os.getpid()}"  # one a process: jobs on the same device would wait
_WAITING = ("nonzero", "masked_select", "bincount", "unique_consecutive", "_unique2", "unique_dim")
"""Operations whose result has a size that the host must ask for."""
_NOT_ARRIVED = 77  # every byte of a copy that nobody has waited for


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy between host and device.

    shape, dtype: of what was copied.
    pinned:       whether the host's side was pinned memory.
    """

    to_host: bool
    shape: tuple[int, ...]
    dtype: torch.dtype
    pinned: bool
    non_blocking: bool

    @property
    def n_values(self) -> int:
        """How many numbers went over."""
        return torch.Size(self.shape).numel()


@dataclass
class FakeCuda:
    """The device, and what has happened on it.

    capacity:             bytes that fit, None for any number.
    n_bytes, peak:        in use now, and at most so far.
    copies:               between host and device, in order; a number read by `.item()` is one.
    n_bytes_when_emptied: in use at each call of `torch.cuda.empty_cache`.
    chosen:               numbers given to `torch.cuda.set_device`, with the copies before.
    waits:                what the host waited for, in order: copies, and operations of a size that
                          only the device knows.
    """

    capacity: int | None = None
    n_bytes: int = 0
    peak: int = 0
    copies: list[Copy] = field(default_factory=list)
    n_bytes_when_emptied: list[int] = field(default_factory=list)
    chosen: list[tuple[int, int]] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    _late: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    _blocks: "WeakValueDictionary[int, _Block]" = field(default_factory=WeakValueDictionary)

    @property
    def n_free(self) -> int:
        """Bytes that still fit; of a device without a limit as many as a large one has."""
        return (1 << 37 if self.capacity is None else self.capacity) - self.n_bytes

    def to_host(self) -> list[Copy]:
        """Copies from the device."""
        return [copy for copy in self.copies if copy.to_host]

    def to_device(self) -> list[Copy]:
        """Copies to the device."""
        return [copy for copy in self.copies if not copy.to_host]

    def synchronize(self) -> None:
        """Every copy arrives."""
        self.waits.append("synchronize")
        for into, value in self._late:
            into.copy_(value)
        self._late.clear()

    def empty_cache(self) -> None:
        """Nothing is cached here; what is in use then is noted."""
        self.n_bytes_when_emptied.append(self.n_bytes)

    def hold(self, host: torch.Tensor) -> "_Block":
        """Memory for a tensor, shared with views of it. Raises torch.OutOfMemoryError."""
        storage = host.untyped_storage()
        block = self._blocks.get(storage.data_ptr())
        if block is None:
            if self.capacity is not None and self.n_bytes + storage.nbytes() > self.capacity:
                raise torch.OutOfMemoryError(f"no room for {storage.nbytes()} bytes")
            block = _Block(self, storage.nbytes())
            if storage.nbytes():
                self._blocks[storage.data_ptr()] = block
        return block

    def arrive_late(self, into: torch.Tensor, value: torch.Tensor) -> None:
        """Put the value there at the next synchronization, and wrong numbers until then."""
        into.view(torch.uint8).fill_(_NOT_ARRIVED)
        self._late.append((into, value))


class _Block:
    """Memory in use, for as long as a tensor holds it."""

    def __init__(self, device: FakeCuda, n_bytes: int) -> None:
        self._device, self._n_bytes = device, n_bytes
        device.n_bytes += n_bytes
        device.peak = max(device.peak, device.n_bytes)

    def __del__(self) -> None:
        self._device.n_bytes -= self._n_bytes


class _OnDevice(torch.Tensor):
    """A tensor of the CPU, `host`, that says it is on CUDA."""

    host: torch.Tensor
    owner: FakeCuda
    block: _Block

    @staticmethod
    def __new__(cls: Any, host: torch.Tensor, owner: FakeCuda) -> "_OnDevice":
        block = owner.hold(host)
        made: _OnDevice = torch.Tensor._make_wrapper_subclass(
            cls,
            host.shape,
            strides=host.stride(),
            dtype=host.dtype,
            device=torch.device("meta"),
        )
        made.host, made.owner, made.block = host, owner, block
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """What everybody in Python sees; torch itself has nothing for CUDA in a build for CPUs."""
        return CUDA

    def __repr__(self, **ignored: object) -> str:  # type: ignore[override]
        return f"on cuda: {self.host!r}"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: object, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        [first, *_] = [each for each in tree_leaves((args, kwargs)) if isinstance(each, cls)]
        return _run(first.owner, func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    """Sees every operation, also those that make a tensor of none."""

    def __init__(self, device: FakeCuda) -> None:
        super().__init__()
        self._owner = device

    def __torch_dispatch__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        return _run(self._owner, func, args, kwargs or {})


class _Places(TorchFunctionMode):
    """What torch decides before an operation, where it would ask a build for CUDA."""

    def __torch_function__(
        self, func: Any, types: object, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        args = [_numbered(each) for each in args]
        kwargs = {name: _numbered(each) for name, each in (kwargs or {}).items()}
        if func is torch.Tensor.to and isinstance(args[0], _OnDevice) and CUDA in args[1:]:
            args.remove(CUDA)  # where it is already
            if not any(args[1:]):
                return args[0]
        return func(*args, **kwargs)


def _numbered(value: Any) -> Any:
    return CUDA if isinstance(value, torch.device) and value.type == "cuda" else value


def _run(device: FakeCuda, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """One operation, on the CPU's tensors behind those of the device."""
    name, given = func._schema.name.removeprefix("aten::"), dict(kwargs)
    if name in ("to", "item", "is_nonzero"):  # made of copies; inference mode leaves that to us
        with _Operations(device):
            return func.decompose(*args, **kwargs)
    tensors = [each for each in tree_leaves((args, given)) if isinstance(each, torch.Tensor)]
    mine = [each for each in tensors if isinstance(each, _OnDevice)]
    where = torch.device(given["device"]) if given.get("device") is not None else None
    if where is not None and where.type == "meta" and not mine:  # a model that is being read
        return func(*args, **kwargs)
    stays = bool(mine) if where is None else where.type != "cpu"
    moved = _memory(
        device,
        name,
        args,
        given,
        crosses=0 < len(mine) < len(tensors) or (bool(tensors) and stays != bool(mine)),
    )
    if moved is not None:
        return moved
    if mine and any(each.ndim and not isinstance(each, _OnDevice) for each in tensors):
        raise RuntimeError(f"{name}: expected all tensors on one device, found cuda:0 and cpu")
    if where is not None:
        given["device"] = torch.device("cpu")
    is_mask = name.startswith("index") and any(
        each.dtype == torch.bool for each in tree_leaves(args[1:]) if isinstance(each, _OnDevice)
    )
    if mine and (name in _WAITING or is_mask):
        device.waits.append(name)
    is_pinned = bool(given.pop("pin_memory", False))
    plain_args, plain_kwargs = tree_map(_behind, (args, given))
    known = {id(_behind(each)): each for each in tensors}

    def shown(found: Any) -> Any:
        if not isinstance(found, torch.Tensor) or id(found) in known:
            return known.get(id(found), found)
        return _OnDevice(found, device) if stays else _pinned(found) if is_pinned else found

    return tree_map(shown, _ON_CUDA_ALONE.get(func, func)(*plain_args, **plain_kwargs))


def _mm_of_two_dtypes(a: torch.Tensor, b: torch.Tensor, dtype: Any, *, out: torch.Tensor) -> Any:
    """Products of bfloat16 are exact in float32."""
    return out.copy_(a.to(dtype) @ b.to(dtype))


_ON_CUDA_ALONE = {torch.ops.aten.mm.dtype_out: _mm_of_two_dtypes}


def _memory(
    device: FakeCuda, name: str, args: Sequence[Any], given: Mapping[str, Any], *, crosses: bool
) -> Any:
    """What pins memory or copies between host and device; None for everything else."""
    if name == "is_pinned":
        return hasattr(args[0], "is_pinned_here")
    if name in ("pin_memory", "_pin_memory"):
        return _pinned(args[0].clone())
    if name == "_local_scalar_dense" and isinstance(args[0], _OnDevice):
        return _read(device, args[0], False).item()
    if name == "copy_" and crosses:
        return _copy_into(device, args[0], args[1], bool((*args, False)[2]))
    if name == "_to_copy" and crosses:
        return _move(device, args[0], given)
    return None


def _behind(value: Any) -> Any:
    return value.host if isinstance(value, _OnDevice) else value


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    tensor.is_pinned_here = True  # type: ignore[attr-defined]
    return tensor


def _read(device: FakeCuda, tensor: _OnDevice, non_blocking: bool) -> torch.Tensor:
    """A copy on the host; one that is waited for lets all earlier ones arrive."""
    device.copies.append(Copy(True, tuple(tensor.shape), tensor.dtype, False, non_blocking))
    if not non_blocking:
        device.synchronize()
    return tensor.host.clone()


def _move(device: FakeCuda, tensor: torch.Tensor, given: Mapping[str, Any]) -> torch.Tensor:
    """`_to_copy` from one side to the other."""
    non_blocking, dtype = bool(given.get("non_blocking")), given.get("dtype") or tensor.dtype
    if isinstance(tensor, _OnDevice):
        value = _read(device, tensor, non_blocking).to(dtype)
        into = torch.empty_like(value)
        if non_blocking:
            device.arrive_late(into, value)
            return into
        return value
    pinned = hasattr(tensor, "is_pinned_here")
    device.copies.append(Copy(False, tuple(tensor.shape), tensor.dtype, pinned, non_blocking))
    return _OnDevice(tensor.clone().to(dtype), device)


def _copy_into(
    device: FakeCuda, into: torch.Tensor, value: torch.Tensor, non_blocking: bool
) -> torch.Tensor:
    """`copy_` from one side to the other."""
    to_host = isinstance(value, _OnDevice)
    pinned = hasattr(into if to_host else value, "is_pinned_here")
    device.copies.append(Copy(to_host, tuple(value.shape), value.dtype, pinned, non_blocking))
    if isinstance(value, _OnDevice) and non_blocking:
        device.arrive_late(into, value.host.clone())
    else:
        _behind(into).copy_(_behind(value))
    return into


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch, capacity: int | None = None) -> Iterator[FakeCuda]:
    """Inside, this thread has one CUDA device; a capacity can also be set later."""
    device = FakeCuda(capacity)
    replaced = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_properties": lambda number: SimpleNamespace(uuid=UUID),
        "set_device": lambda number: device.chosen.append((number, len(device.copies))),
        "current_stream": lambda *given: SimpleNamespace(synchronize=device.synchronize),
        "empty_cache": device.empty_cache,
        "synchronize": lambda *given: device.synchronize(),
        "reset_peak_memory_stats": lambda *given: setattr(device, "peak", device.n_bytes),
        "max_memory_allocated": lambda *given: device.peak,
        "get_device_name": lambda *given: "fake",
        "mem_get_info": lambda *given: (device.n_free, device.n_free + device.n_bytes),
    }
    with monkeypatch.context() as patch, _Places(), _Operations(device):
        for name, value in replaced.items():
            patch.setattr(torch.cuda, name, value)
        # A module that moves would else put the device's memory behind the same parameter.
        patch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
        yield device
