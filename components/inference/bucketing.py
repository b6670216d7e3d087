"""Which rows are computed together, and in which shape.

Rows are sorted by length and cut into groups that hold a bounded number of tokens, padding included. On a CPU that is
worth more than a large batch: 32 rows at once, MiniLM-L6 in fp32, two cores: 56 rows a second at 768 tokens a group,
50 at 1,536, 21 at 4,096 (medians on a machine with other work).

Products in bf16 on a CPU are oneDNN's, which makes a program for every number of tokens and keeps it: half a MiB for
each product of a layer, half of that for good whatever its cache holds. So there rows and widths come in few numbers:
some 60 products of both up to 1,536 tokens, where there are 360 with widths alone in eights, for 6% more tokens.
"""

from __future__ import annotations

from collections.abc import Sequence


def group_by_length(lengths: Sequence[int], budget: int, few: bool = False) -> list[list[int]]:
    """Row numbers in groups of like length: rows times the longest row is at most `budget` tokens.

    A row longer than the budget stands alone. few: groups hold a round number of rows, the last one aside, as long as
    what goes on to the next group costs less there than blank rows would here.
    """
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        # Lengths only grow, so this row is the longest of its group.
        if groups and (len(groups[-1]) + 1) * max(lengths[row], 1) <= budget:
            groups[-1].append(row)
            continue
        over: list[int] = []
        if few and groups:
            over = _surplus(groups[-1], lengths, row, budget)
            groups[-1] = groups[-1][: len(groups[-1]) - len(over)]
        groups.append([*over, row])
    return groups


def _surplus(group: list[int], lengths: Sequence[int], row: int, budget: int) -> list[int]:
    """The rows that a full group hands on to the one of the next `row`."""
    count, width = len(group), lengths[group[-1]]
    over = count - round_down(count)
    blank = (round_up(count) - count) * width
    if over * (lengths[row] - width) > blank or (over + 1) * lengths[row] > budget:
        return []
    return group[count - over :]


def round_down(count: int) -> int:
    """The largest round number of at most `count`: a power of two, or one and some quarters of it."""
    return max(number for number in _round(count) if number <= count)


def round_up(count: int) -> int:
    """The smallest round number of at least `count`: a sixteenth more in the middle."""
    return min(number for number in _round(count) if number >= count)


def _round(count: int) -> list[int]:
    power = 1 << (count.bit_length() - 1)
    return [power + power * quarters // 4 for quarters in range(5)]


def padded_width(length: int) -> int:
    """The width of a row of so many tokens: the next multiple of 8, beyond 64 of 16, beyond 128 of 32 and so on."""
    step = 8
    while length > 8 * step:
        step *= 2
    return max(-(-length // step), 1) * step
