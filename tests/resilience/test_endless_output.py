"""A model that prints or answers without measure: what it prints is cut, its answer refused, memory stays bounded."""

from tests.resilience.system import ANSWER, System, highest

from servery_worker.model_log import KEPT_LINES, LONGEST_LINE

PRINTED = 200 * 1000 * 1000
ANSWERED = 32 * 1024 * 1024
LITTLE = 24 * 1024 * 1024
"""What a worker or a gateway may need more, for log, frames and what Python keeps of them."""


async def test_a_model_that_prints_without_measure_is_answered_and_its_log_and_the_worker_stay_small(
    system: System,
):
    loud, other = await system.deploy(0), await system.deploy(0)
    async with other.load(clients=2) as load, highest(system.processes.workers[0].pid) as most:
        before = most[0]
        answer = await loud.score(f"print:{PRINTED}")
        assert answer.status == 200
        await load.succeeded(10)
        assert most[0] - before < LITTLE
    assert load.statuses() == {200}
    lines = await loud.log()
    assert 100 < len(lines) <= KEPT_LINES
    assert max(map(len, lines)) <= LONGEST_LINE
    assert loud.observed().restarts == 0


async def test_an_answer_that_is_too_long_is_refused_in_the_models_process(system: System):
    talking = await system.deploy(0)
    async with (
        talking.load(clients=2) as load,
        highest(system.processes.workers[0].pid) as worker,
        highest(system.processes.gateway.process.pid) as gateway,
    ):
        before = worker[0], gateway[0]
        answers = [await talking.score(f"answer:{ANSWERED}") for _ in range(3)]
        await load.succeeded(10)
        assert worker[0] - before[0] < LITTLE
        assert gateway[0] - before[1] < LITTLE
    for answer in answers:
        assert (answer.status, answer.body["error_code"]) == (400, "BAD_REQUEST")
        assert answer.message == f"The model's answer is longer than the limit of {ANSWER} bytes."
    assert load.statuses() == {200}
    assert talking.observed().restarts == 0


async def test_an_answer_that_does_not_fit_into_memory_is_the_failure_of_its_request(system: System):
    talking = await system.deploy(0)
    before = await talking.process()
    answer = await talking.score("answer:800000000")
    assert (answer.status, answer.body["error_code"]) == (400, "BAD_REQUEST")
    assert "of memory that a model's process may use" in answer.message
    assert (await talking.process())["pid"] == before["pid"]
