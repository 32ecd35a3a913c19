"""GPU hours are scaled from records: their own arithmetic holds, and they agree with one another."""

from __future__ import annotations

import pytest

from msd.fleet.gpu_hours import FORWARD_FLOPS, RATE, RECORDS, TAP_SHARE, gpu_hours
from msd.networks.cost import flops_to_tap, forward_flops, weightless
from msd.networks.folder import spec_from_json
from msd.teachers.blueprints import read_blueprint


def test_the_records_network_is_the_blueprints() -> None:
    blueprint = read_blueprint("edm-imagenet64")
    denoiser = weightless(blueprint.network, blueprint.config, spec_from_json(blueprint.spec))
    assert forward_flops(denoiser) == FORWARD_FLOPS
    assert flops_to_tap(denoiser, "bottleneck") / FORWARD_FLOPS == pytest.approx(TAP_SHARE, abs=1e-3)


def test_three_records_come_to_one_speed() -> None:
    assert [record.flops_per_gpu_second / RATE for record in RECORDS] == pytest.approx([1.0] * 3, abs=0.1)


def test_a_record_is_given_back_and_small_networks_have_none() -> None:
    record = RECORDS[0]
    assert gpu_hours(round(record.num_flops), FORWARD_FLOPS) == pytest.approx(record.hours * 7, rel=0.1)
    assert gpu_hours(10**15, 10**6) is None
