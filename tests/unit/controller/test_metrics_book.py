from servery_common.contracts.metrics import (
    EndpointRejections,
    EntityMetrics,
    GatewayMetrics,
    Histogram,
    RequestCounts,
)
from servery_controller.domain.metrics_book import (
    REMEMBERED_SECONDS,
    SILENT_SECONDS,
    EntityTotals,
    MetricsBook,
)


def histogram(total: int) -> Histogram:
    counts = [0] * len(Histogram().counts)
    counts[3] = total
    return Histogram(counts=tuple(counts), sum_ms=total * 10.0)


def report(gateway: str, total: int, *, last_minute: int = 0, entity: str = "s1") -> GatewayMetrics:
    metrics = EntityMetrics(
        served_entity_id=entity,
        last_minute=RequestCounts(requests=last_minute, client_errors=last_minute, server_errors=last_minute),
        in_flight=1,
        queued=2,
        latency=histogram(total),
        queue_time=histogram(total),
        prediction=histogram(total),
    )
    return GatewayMetrics(gateway_id=gateway, entities=(metrics,))


def answered(book: MetricsBook, now: float) -> dict[str, int]:
    """By gateway."""
    return {gateway: sum(h.latency.counts) for gateway, h in book.totals("s1", now).histograms.items()}


def test_nothing_heard_is_all_zero() -> None:
    assert MetricsBook().totals("s1", 0.0) == EntityTotals()


def test_counts_of_gateways_are_added_up_and_a_repeated_report_changes_nothing() -> None:
    book = MetricsBook()
    book.hear(report("g1", 3, last_minute=2), 0.0)
    book.hear(report("g2", 4, last_minute=1), 0.0)
    book.hear(report("g2", 4, last_minute=1), 2.0)
    totals = book.totals("s1", 3.0)
    assert totals.last_minute == RequestCounts(requests=3, client_errors=3, server_errors=3)
    assert (totals.in_flight, totals.queued) == (2, 4)


def test_each_gateway_keeps_its_own_histograms() -> None:
    book = MetricsBook()
    book.hear(report("g1", 3), 0.0)
    book.hear(report("g2", 4), 0.0)
    for gateway, total in (("g1", 3), ("g2", 4)):
        for heard in book.totals("s1", 1.0).histograms[gateway]:
            assert (sum(heard.counts), heard.sum_ms) == (total, total * 10.0)


def test_a_silent_gateway_leaves_the_last_minute_at_once_and_the_histograms_later() -> None:
    book = MetricsBook()
    book.hear(report("g1", 3, last_minute=3), 0.0)
    assert book.totals("s1", SILENT_SECONDS).last_minute.requests == 3
    later = SILENT_SECONDS + 1
    assert book.totals("s1", later).last_minute.requests == 0
    assert book.totals("s1", later).in_flight == 0
    assert answered(book, later) == answered(book, REMEMBERED_SECONDS) == {"g1": 3}
    assert answered(book, REMEMBERED_SECONDS + 1) == {}


def test_an_idle_served_entity_that_is_told_of_once_a_minute_counts_zero_and_keeps_its_histograms() -> None:
    book = MetricsBook()
    book.hear(report("g1", 3, last_minute=3), 0.0)
    for now in range(60, 1200, 60):
        quiet = report("g1", 3).entities[0].model_copy(update={"in_flight": 0, "queued": 0})
        book.hear(GatewayMetrics(gateway_id="g1", entities=(quiet,)), float(now))
        totals = book.totals("s1", now + 59.0)
        assert (totals.last_minute.requests, totals.in_flight, totals.queued) == (0, 0, 0)
        assert answered(book, now + 59.0) == {"g1": 3}


def test_controllers_that_started_at_different_times_tell_the_same_of_a_gateway() -> None:
    older, newer = MetricsBook(), MetricsBook()
    older.hear(report("gone", 5), 0.0)
    for now, total in ((10.0, 1), (12.0, 2)):
        for book in (older, newer):
            book.hear(report("g1", total), now)
        assert answered(older, now)["g1"] == answered(newer, now)["g1"] == total


def test_a_gateway_that_was_cut_off_for_a_while_goes_on_where_it_is() -> None:
    book = MetricsBook()
    book.hear(report("g1", 5), 0.0)
    book.hear(report("g2", 1), 900.0)
    book.hear(report("g1", 6), 901.0)
    assert answered(book, 901.0) == {"g1": 6, "g2": 1}


def test_a_gateway_with_other_buckets_is_counted_but_has_no_histograms() -> None:
    told = EntityMetrics(
        served_entity_id="s1",
        last_minute=RequestCounts(requests=1),
        in_flight=1,
        queued=0,
        latency=Histogram(counts=(1, 2)),
        queue_time=histogram(1),
        prediction=histogram(1),
    )
    book = MetricsBook()
    book.hear(GatewayMetrics(gateway_id="g1", entities=(told,)), 0.0)
    assert book.totals("s1", 0.0).last_minute.requests == 1
    assert answered(book, 0.0) == {}


def test_a_served_entity_nobody_reports_any_more_is_forgotten() -> None:
    book = MetricsBook()
    book.hear(report("g1", 5), 0.0)
    book.hear(report("g1", 1, entity="s2"), REMEMBERED_SECONDS + 1)
    # Not merely left out of what is told: asked about an earlier moment, it is gone as well.
    assert answered(book, 0.0) == {}


def test_what_was_refused_is_remembered_by_gateway_and_forgotten_with_it() -> None:
    book = MetricsBook()
    for now, count in ((0.0, 1), (60.0, 5)):
        refused = EndpointRejections(endpoint_id="e1", counts={"queue_full": count})
        book.hear(GatewayMetrics(gateway_id="g1", rejections=(refused,)), now)
    assert book.rejections("e1", 60.0) == {"g1": {"queue_full": 5}}
    assert book.rejections("e2", 60.0) == {}
    assert book.rejections("e1", 61.0 + REMEMBERED_SECONDS) == {}
    book.hear(GatewayMetrics(gateway_id="g1"), 61.0 + REMEMBERED_SECONDS)
    # Not merely left out: asked about an earlier moment, it is gone as well.
    assert book.rejections("e1", 60.0) == {}


def test_what_a_gateway_that_died_had_under_way_is_nobodys() -> None:
    book, one = MetricsBook(), report("g1", 5)
    busy = tuple(entity.model_copy(update={"in_flight": 3}) for entity in one.entities)
    book.hear(one.model_copy(update={"entities": busy}), 0.0)
    assert book.answered("s1", 1.0)["g1"].in_flight == 3 + busy[0].queued
    later = book.answered("s1", SILENT_SECONDS + 1.0)["g1"]
    assert (later.in_flight, later.requests) == (0, book.answered("s1", 1.0)["g1"].requests)
