"""The innermost loop of generalized Jaccard: LANES sums of minima at once, held in registers.

numba leaves the accumulators of such a loop in memory, so it is written here as LLVM vectors, which
LLVM turns into the widest instructions that the machine has (any machine: nothing names one).
Integers only: the result is the same everywhere.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 32  # Sums that one call adds to: two 512-bit registers, or four of 256 bits.

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)


@intrinsic
def add_minima(  # type: ignore[no-untyped-def]  # noqa: ANN201
    typing_context,  # noqa: ANN001
    lines,  # noqa: ANN001
    numbers,  # noqa: ANN001
    limits,  # noqa: ANN001
    first,  # noqa: ANN001
    last,  # noqa: ANN001
    sums,  # noqa: ANN001
    at,  # noqa: ANN001
):
    """sums[at + j] += sum over p of min(lines[numbers[p] * LANES + j], limits[p]), j < LANES.

    lines: uint32, lines of LANES amounts. numbers, limits: uint32; p runs over first..last - 1.
    sums: int64. Wraps where a lane's sum of minima reaches 2^32: the caller's limits see to that.
    All arrays one-dimensional and contiguous; nothing is checked.
    """
    signature = types.void(lines, numbers, limits, types.uint64, types.uint64, sums, types.uint64)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        pointers = _pointers(context, builder, signature, arguments)
        lines, numbers, limits, first, last, sums, at = pointers
        vectors, lane = 2, ir.VectorType(_INT32, LANES // 2)

        def add(p: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            limit = _splat(builder, _load(builder, limits, p), lane)
            line = _line(builder, lines, _load(builder, numbers, p), lane)
            found = []
            for v in range(vectors):
                place = builder.gep(line, [ir.Constant(_INT64, v)])
                amounts = builder.load(place, align=4)
                smaller = builder.select(builder.icmp_unsigned("<", amounts, limit), amounts, limit)
                found.append(builder.add(totals[v], smaller))
            return found

        totals = _loop(builder, first, last, [ir.Constant(lane, None)] * vectors, add)
        _add_to_sums(builder, sums, at, totals)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_multiplied_minima(  # type: ignore[no-untyped-def]  # noqa: ANN201
    typing_context,  # noqa: ANN001
    lines,  # noqa: ANN001
    numbers,  # noqa: ANN001
    limits,  # noqa: ANN001
    multiplier,  # noqa: ANN001
    first,  # noqa: ANN001
    last,  # noqa: ANN001
    sums,  # noqa: ANN001
    at,  # noqa: ANN001
):
    """sums[at + j] += sum over p of min(multiplier * lines[...], limits[p]), all in 64 bits.

    As `add_minima`, but limits are int64 of at least 0 and the multiplier is below 2^31.
    """
    signature = types.void(
        lines, numbers, limits, types.uint64, types.uint64, types.uint64, sums, types.uint64
    )

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        pointers = _pointers(context, builder, signature, arguments)
        lines, numbers, limits, multiplier, first, last, sums, at = pointers
        vectors, lane = 4, ir.VectorType(_INT64, LANES // 4)
        stored = ir.VectorType(_INT32, LANES // 4)
        # Both factors are seen to have 32 bits: one instruction then multiplies them.
        small = builder.zext(builder.trunc(multiplier, _INT32), _INT64)
        factor = _splat(builder, small, lane)

        def add(p: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
            limit = _splat(builder, _load(builder, limits, p), lane)
            line = _line(builder, lines, _load(builder, numbers, p), stored)
            found = []
            for v in range(vectors):
                place = builder.gep(line, [ir.Constant(_INT64, v)])
                amounts = builder.zext(builder.load(place, align=4), lane)
                amounts = builder.mul(amounts, factor)
                smaller = builder.select(builder.icmp_unsigned("<", amounts, limit), amounts, limit)
                found.append(builder.add(totals[v], smaller))
            return found

        totals = _loop(builder, first, last, [ir.Constant(lane, None)] * vectors, add)
        _add_to_sums(builder, sums, at, totals)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def count_bits(typing_context, word):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Number of bits set in a uint64."""

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


def _pointers(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:  # noqa: ANN401
    """The arguments, arrays as the address of their data."""
    found = []
    for kind, value in zip(signature.args, arguments, strict=True):
        is_array = isinstance(kind, types.Array)
        found.append(context.make_array(kind)(context, builder, value).data if is_array else value)
    return found


def _load(builder: Any, pointer: ir.Value, index: ir.Value) -> ir.Value:  # noqa: ANN401
    return builder.load(builder.gep(pointer, [index]))


def _splat(builder: Any, value: ir.Value, lane: ir.VectorType) -> ir.Value:  # noqa: ANN401
    """The value in every lane."""
    undefined = ir.Constant(lane, ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    zeros = ir.Constant(ir.VectorType(_INT32, lane.count), None)
    return builder.shuffle_vector(one, undefined, zeros)


def _line(builder: Any, lines: ir.Value, number: ir.Value, lane: ir.VectorType) -> ir.Value:  # noqa: ANN401
    """Address of a line as vectors."""
    start = builder.mul(builder.zext(number, _INT64), ir.Constant(_INT64, LANES))
    return builder.bitcast(builder.gep(lines, [start]), lane.as_pointer())


def _loop(builder: Any, first: ir.Value, last: ir.Value, start: list[ir.Value], body: Any) -> Any:  # noqa: ANN401
    """Run `body(p, values)` for p in first..last - 1; returns the values after the last."""
    slots = [cgutils.alloca_once_value(builder, value) for value in start]
    counter = cgutils.alloca_once_value(builder, first)
    head = builder.append_basic_block("minima.head")
    inside = builder.append_basic_block("minima.body")
    after = builder.append_basic_block("minima.after")
    for slot, value in zip(slots, start, strict=True):
        builder.store(value, slot)
    builder.store(first, counter)
    builder.branch(head)
    builder.position_at_end(head)
    p = builder.load(counter)
    builder.cbranch(builder.icmp_unsigned("<", p, last), inside, after)
    builder.position_at_end(inside)
    for slot, value in zip(slots, body(p, [builder.load(slot) for slot in slots]), strict=True):
        builder.store(value, slot)
    builder.store(builder.add(p, ir.Constant(_INT64, 1)), counter)
    builder.branch(head)
    builder.position_at_end(after)
    return [builder.load(slot) for slot in slots]


def _add_to_sums(builder: Any, sums: ir.Value, at: ir.Value, totals: list[ir.Value]) -> None:  # noqa: ANN401
    """Add the lanes to sums[at:at + LANES]."""
    wide = ir.VectorType(_INT64, LANES // len(totals))
    place = builder.bitcast(builder.gep(sums, [at]), wide.as_pointer())
    for v, total in enumerate(totals):
        own = builder.gep(place, [ir.Constant(_INT64, v)])
        amount = total if total.type == wide else builder.zext(total, wide)
        builder.store(builder.add(builder.load(own, align=8), amount), own, align=8)
