"""How heavy joined spaces may be; apart from them so that a config is checked without kernels."""

ROW_BITS = 32  # Sums of a row of 32-bit values stay below 2^32.
LENGTH_BITS = 20  # A space that is normalized vector by vector sums to at most 2^20.
AVERAGE_BITS = 18  # One that is brought to its average length: to 2^18 on average,
EXCESS_BITS = 8  # and to 256 times that at most; a longer vector is brought to it.


def max_total_weight(*, by_average: bool) -> int:
    """What the weights of all spaces together must stay below, where spaces are normalized."""
    return 1 << (ROW_BITS - (AVERAGE_BITS + EXCESS_BITS if by_average else LENGTH_BITS))
