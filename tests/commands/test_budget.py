"""What a budget pays for, on costs and a clock that are made up."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from msd.commands.budget import (
    ENOUGH_FOR_ALL_ROWS,
    FEWEST,
    MOST,
    REGRESSION_BATCH,
    Costs,
    Facts,
    NetworkCost,
    duration,
    enough_updates,
    is_too_large,
    makespan,
    needs_replacement,
    networks_for,
    num_parts,
    parse_budget,
    plan_budget,
    smallest_share,
)
from msd.commands.timing import measure
from msd.commands.timing_probe import Question
from msd.diffusion.codec import FoldedCodec
from msd.errors import RecipeError
from msd.networks.build import unet_config

SMALL = Facts((180,) * 10, 8, 1)
LARGE = Facts((6000,) * 10, 32, 1)


def costs(facts: Facts, *, speed: float = 1.0, num_processes: int = 2) -> Costs:
    """As a machine would have them on which a parameter costs a microsecond a place, roughly."""
    networks = []
    for network in networks_for(facts.size):
        num = sum(width**2 for width in network.block_out_channels) * 140
        second = 1e-7 * num / speed
        networks.append(NetworkCost(network, num, second, second / 400, second / 2, second * 2))
    return Costs(tuple(networks), num_processes, start=4 / speed)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h 30m".replace(" ", ""), 5400),
        ("0.5h", 1800),
        (" 2H ", 7200),
    ],
)
def test_a_budget_is_hours_minutes_and_seconds(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "soon", "0s", "-5m", "5m30", "1e3s", "m", "30 m x", "٣m" * 30])
def test_what_is_no_budget_is_one_sentence(text: str) -> None:
    with pytest.raises(RecipeError, match="is not a time; write"):
        parse_budget(text)


@given(st.floats(1, 3e5))
def test_a_duration_reads_back_to_a_minute(seconds: float) -> None:
    assert abs(parse_budget(duration(seconds)) - seconds) <= (0.51 if seconds < 179 else 30.1)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=9), st.integers(1, 5))
def test_jobs_side_by_side_end_between_the_bounds(jobs: list[float], num: int) -> None:
    """No sooner than the longest or an even share, no later than one after the other; by Graham within 4/3 of the best."""
    took, least = makespan(jobs, num), max(max(jobs), sum(jobs) / num)
    assert least - 1e-9 <= took <= sum(jobs) + 1e-9
    assert took <= least + max(jobs) + 1e-9


def test_the_digits_jobs_take_five_turns_on_two_processes() -> None:
    assert makespan([4, 1, 1, 1, 1, 1], 2) == 5
    assert makespan([1, 1, 1, 1, 1], 2) == 3
    assert makespan([4, 1, 1, 1, 1, 1], 1) == 9


@pytest.mark.parametrize("size", range(8, 129, 8))
@pytest.mark.parametrize("channels", [1, 3])
def test_every_network_can_be_built_for_its_size(size: int, channels: int) -> None:
    found = networks_for(size)
    assert len(found) == 6
    for network in found:
        shape = FoldedCodec(fold=network.fold).noise_shape((channels, size, size))
        unet_config(shape, 10, network.model_dump())
    assert [network.block_out_channels[0] for network in found] == sorted(n.block_out_channels[0] for n in found)


@pytest.mark.parametrize("size", [0, 1, 7, 30, 100, 136, 4096])
def test_a_size_that_fits_no_network_names_one_that_does(size: int) -> None:
    with pytest.raises(RecipeError, match="fits no network") as caught:
        networks_for(size)
    (near,) = re.findall(r"choose (\d+) ", str(caught.value))
    assert networks_for(int(near))


@given(st.floats(60, 30_000), st.sampled_from([SMALL, LARGE]), st.floats(0.3, 5), st.integers(1, 4))
@settings(max_examples=60)
def test_a_plan_fills_its_budget_and_never_exceeds_it(seconds: float, facts: Facts, speed: float, num: int) -> None:
    measured = costs(facts, speed=speed, num_processes=num)
    try:
        choice = plan_budget(seconds, measured, facts)
    except RecipeError as error:
        # The budget that it names works, and the next shorter minutes do not fit twice over.
        (wanted,) = re.findall(r"give --budget (\w+)", str(error))
        assert parse_budget(wanted) > seconds
        assert plan_budget(parse_budget(wanted), measured, facts).total <= parse_budget(wanted)
        return
    assert choice.total <= seconds
    assert choice.total == pytest.approx(sum(choice.seconds.values()))
    assert min(choice.seconds.values()) > 0
    lengths = {
        "teacher": choice.num_updates, "pairs": choice.num_pairs, "students": choice.dm_updates,
        "evaluation": choice.num_samples,
    }  # fmt: skip
    assert all(FEWEST[name] <= length <= MOST[name] for name, length in lengths.items())
    if all(length < MOST[name] for name, length in lengths.items()):
        assert choice.total >= 0.9 * seconds


@given(st.floats(200, 4000), st.floats(1.1, 6))
@settings(max_examples=40)
def test_more_time_never_buys_a_smaller_network(seconds: float, factor: float) -> None:
    measured = costs(LARGE)
    try:
        short = plan_budget(seconds, measured, LARGE)
    except RecipeError:
        assume(False)
        return
    long = plan_budget(factor * seconds, measured, LARGE)
    assert long.cost.num_parameters >= short.cost.num_parameters


def test_the_network_is_the_largest_that_gets_enough_updates() -> None:
    measured = costs(LARGE)
    choice = plan_budget(1800, measured, LARGE)
    assert choice.num_updates >= enough_updates(choice.cost, LARGE)
    larger = [cost for cost in measured.networks if cost.num_parameters > choice.cost.num_parameters]
    assert larger
    alone = Costs(larger[:1], 2, measured.start)  # pyright: ignore[reportArgumentType]
    forced = plan_budget(1800, alone, LARGE)
    assert forced.num_updates < enough_updates(forced.cost, LARGE) or forced.dm_updates < 400


def test_few_images_get_no_network_that_learns_them_by_heart() -> None:
    few = Facts((20, 20), 32, 3)
    choice = plan_budget(36_000, costs(few), few)
    assert not is_too_large(choice.cost.num_parameters, few)
    many = Facts((30_000, 30_000), 32, 3)
    assert plan_budget(36_000, costs(many), many).cost.num_parameters > choice.cost.num_parameters


def test_a_short_budget_leaves_the_longest_row_out() -> None:
    measured = costs(LARGE, speed=0.2)
    long, short = plan_budget(7200, measured, LARGE), plan_budget(480, measured, LARGE)
    assert long.has_equal_total
    assert long.dm_updates >= ENOUGH_FOR_ALL_ROWS
    assert not short.has_equal_total


@pytest.mark.parametrize(("classes", "parts"), [(2, 2), (3, 2), (7, 2), (8, 4), (10, 4), (1000, 4)])
def test_parts_are_four_where_each_has_two_classes(classes: int, parts: int) -> None:
    assert num_parts(classes) == parts


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=30))
@example([1, 1875])
@settings(max_examples=50)
def test_the_rarest_part_has_a_batch_of_pairs_or_the_plan_says_so(counts: list[int]) -> None:
    facts = Facts(tuple(counts), 8, 1)
    choice = plan_budget(3600, costs(facts), facts)
    assert 0 < smallest_share(facts) <= 1 / choice.num_parts
    enough = smallest_share(facts) * choice.num_pairs >= REGRESSION_BATCH
    assert enough or needs_replacement(choice, facts)


class Machine:
    """A clock that a made-up network's timing moves on."""

    def __init__(self, cost: float, busy: float = 1.0):
        self.now, self.asked, self._cost, self._busy = 0.0, [], cost, busy

    def clock(self) -> float:
        return self.now

    def ask(self, question: Question) -> dict[str, float]:
        width = question.network["block_out_channels"][0]
        update = self._cost * width / 8
        self.asked.append(width)
        self.now += 20 * update * self._busy
        return {
            "num_parameters": 700 * width**2, "teacher_update": update, "evaluation": update / 400,
            "regression_update": update / 2, "full_update": 2 * update, "busy": self._busy, "spent": 20 * update,
        }  # fmt: skip


def test_measuring_stops_at_a_network_too_slow_for_the_budget() -> None:
    machine = Machine(0.005)
    measured = measure(600, LARGE, 2, machine.ask, 3.0, machine.clock)
    slowest = measured.networks[-1]
    assert len(measured.networks) < 6
    assert slowest.teacher_update * enough_updates(slowest, LARGE) > 0.48 * 600 or machine.now > 1
    assert (measured.num_processes, measured.start) == (2, 3.0)


@pytest.mark.parametrize("cost", [0.001, 0.05, 1.0, 60.0])
def test_measuring_takes_a_few_seconds_and_measures_at_least_one(cost: float) -> None:
    machine = Machine(cost)
    measured = measure(1800, LARGE, 2, machine.ask, 3.0, machine.clock)
    assert measured.networks
    assert machine.now <= 4.0 or machine.asked == [8]


def test_a_busy_machine_is_noticed_and_does_not_make_networks_slow() -> None:
    quiet, busy = Machine(0.01), Machine(0.01, busy=4)
    first = measure(1800, LARGE, 2, quiet.ask, 3.0, quiet.clock)
    second = measure(1800, LARGE, 2, busy.ask, 3.0, busy.clock)
    assert (first.busy, second.busy) == (1, 4)
    assert first.networks[0] == second.networks[0]


def test_small_sets_are_not_measured_with_networks_too_large_for_them() -> None:
    machine = Machine(1e-4)
    measure(360_000, Facts((10, 10), 8, 1), 2, machine.ask, 3.0, machine.clock)
    assert max(machine.asked) <= 24
    assert math.isclose(sum(machine.asked), sum(sorted(set(machine.asked))))
