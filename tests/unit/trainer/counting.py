"""Bytes that lie in memory at the fullest moment, by torch's own count."""

from contextlib import contextmanager

from torch.profiler import ProfilerActivity, profile


@contextmanager
def counting():
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        yield profiled


def most(counted) -> int:
    """Bytes that lay in memory at the fullest moment, of all that came since the count began.

    What is freed counts only where it came since then: torch remembers the size of a block that an earlier count saw and that was freed
    after it, and takes whatever lies at that address later for as large.
    """
    events, lying, fullest = allocations(counted.profiler.kineto_results.experimental_event_tree()), {}, 0
    for event in sorted(events, key=lambda event: event.start_time_ns):
        block = event.typed[1]
        if block.alloc_size > 0:
            lying[block.ptr] = block.alloc_size
        else:
            lying.pop(block.ptr, None)
        fullest = max(fullest, sum(lying.values()))
    return fullest


def allocations(events):
    for event in events:
        if event.name == "[memory]":
            yield event
        yield from allocations(event.children)
