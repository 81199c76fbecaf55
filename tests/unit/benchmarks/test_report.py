import math

from tests.benchmarks import report
from tests.benchmarks.bench import Bench

MET = Bench.target("answers a second", 5200.0, ">=", 5000)
MISSED = Bench.target("p99 ms", 61.25, "<", 50)


def results(*targets: dict) -> dict:
    return {"parts": {"replicas": {"targets": list(targets), "per_second": {"1": 190.0}}}}


def test_the_summary_names_each_target_that_was_missed_and_by_how_much():
    said = report.summary(results(MET, MISSED))
    assert "1 of 2 targets were met" in said
    assert "p99 ms: 61.25, aimed at below 50" in said
    assert "answers a second" not in said


def test_the_table_says_of_each_target_whether_it_was_met():
    said = report.tables(results(MET, MISSED))
    assert "| answers a second | 5,200 | at least 5000 | met |" in said
    assert "| p99 ms | 61.25 | below 50 | **not met** |" in said


def test_what_could_not_be_measured_is_not_met():
    for relation in (">=", "<=", "<"):
        assert not Bench.target("p99 ms", math.nan, relation, 50)["met"]


def run_of(time: str, **parts: dict) -> dict:
    machine = {"cores": 2, "processor": "P", "memory_gib": 8, "system": "Linux", "python": "3.11"}
    return {"time": time, "machine": machine, "versions": {"mlflow": "3"}, "parts": parts}


def test_a_partial_run_replaces_its_parts_and_does_not_date_the_others():
    part = {"targets": [MET]}
    first = report.together({}, run_of("monday", replicas=part, unbatched={"targets": [MISSED]}))
    both = report.together(first, run_of("friday", replicas=part))
    assert both["parts"]["unbatched"]["targets"] == [MISSED]
    said = report.runs(both)
    assert said.startswith("The parts are from several runs")
    assert f"{report.TITLES['unbatched']}: monday" in said
    assert f"{report.TITLES['replicas']}: friday" in said
    assert report.runs(first).startswith("All in one run, monday")


def test_results_that_were_measured_in_another_way_are_not_kept():
    older = {"parts": {"unbatched": {"targets": [MET]}}}
    assert set(report.together(older, run_of("friday", replicas={"targets": [MET]}))["parts"]) == {"replicas"}


def test_each_part_has_a_title_and_says_how_it_is_measured():
    from tests.benchmarks.__main__ import PARTS, SIMULATED

    assert set(report.TITLES) == set(report.METHODS) == {*PARTS, *SIMULATED}
