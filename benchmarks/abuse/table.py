"""What people read: progress, the table by group, and what was not as promised."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.abuse.case import Outcome

HEADINGS = ("group", "cases", "as promised", "tracebacks", "hangs", "lost or wrong", "other", "skipped", "seconds")


def progress(total: int, *, verbose: bool) -> Callable[[Outcome], None]:
    """A line for each case that was not as promised, and a count now and then."""
    done = 0

    def note(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if verbose:
            print("\n".join(outcome.transcript))
        if outcome.faults:
            print(f"{outcome.id}: {outcome.faults[0].kind}: {outcome.faults[0].text[:160]}", flush=True)
        if done % 50 == 0:
            print(f"... {done} of {total}", flush=True)

    return note


def _row(name: str, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    played = [outcome for outcome in outcomes if not outcome.skipped]
    held = sum(outcome.held for outcome in played)
    traced, hung = sum(one.has("traceback") for one in played), sum(one.has("hang") for one in played)
    lost = sum(one.has("lost", "wrong") for one in played)
    other = sum(not one.held and not one.has("traceback", "hang", "lost", "wrong") for one in played)
    share = f"{held} ({held / len(played):.1%})" if played else "0"
    skipped, seconds = len(outcomes) - len(played), sum(outcome.seconds for outcome in outcomes)
    return (name, *map(str, (len(outcomes), share, traced, hung, lost, other, skipped, f"{seconds:.0f}")))


def print_table(outcomes: Sequence[Outcome], seconds: float) -> None:
    """As Markdown, to be copied into docs/reliability.md."""
    groups = list(dict.fromkeys(outcome.group for outcome in outcomes))
    rows = [_row(group, [outcome for outcome in outcomes if outcome.group == group]) for group in groups]
    rows.append(_row("all", outcomes))
    print()
    for cells in (HEADINGS, ("---",) * len(HEADINGS), *rows):
        print(f"| {' | '.join(cells)} |")
    print(f"\n{seconds:.0f} s in all")


def print_faults(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.skipped:
            print(f"{outcome.id}: skipped, {outcome.skipped}")
        for fault in outcome.faults:
            print(f"{outcome.id}: {fault.kind}: {fault.text}")
