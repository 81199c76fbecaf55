from servery_common.contracts.metrics import EntityMetrics, GatewayMetrics, Histogram, RequestCounts
from servery_controller.domain.metrics_book import REMEMBERED_SECONDS, SILENT_SECONDS, MetricsBook


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


def answered(book: MetricsBook, now: float) -> int:
    return sum(book.totals("s1", now).histograms.latency.counts)


def test_nothing_heard_is_all_zero() -> None:
    totals = MetricsBook().totals("s1", 0.0)
    assert totals.last_minute.requests == totals.in_flight == totals.queued == 0
    assert sum(totals.histograms.latency.counts) == 0


def test_gateways_are_added_up_and_a_repeated_report_changes_nothing() -> None:
    book = MetricsBook()
    book.hear(report("g1", 3, last_minute=2), 0.0)
    book.hear(report("g2", 4, last_minute=1), 0.0)
    book.hear(report("g2", 4, last_minute=1), 2.0)
    totals = book.totals("s1", 3.0)
    assert totals.last_minute == RequestCounts(requests=3, client_errors=3, server_errors=3)
    assert (totals.in_flight, totals.queued) == (2, 4)
    for heard in totals.histograms:
        assert (sum(heard.counts), heard.sum_ms) == (7, 70.0)


def test_a_silent_gateway_leaves_the_last_minute_and_stays_in_the_histograms() -> None:
    book = MetricsBook()
    book.hear(report("g1", 3, last_minute=3), 0.0)
    assert book.totals("s1", SILENT_SECONDS).last_minute.requests == 3
    later = SILENT_SECONDS + 1
    assert book.totals("s1", later).last_minute.requests == 0
    assert book.totals("s1", later).in_flight == 0
    assert answered(book, later) == 3


def test_histograms_never_go_back_while_gateways_come_and_go() -> None:
    book = MetricsBook()
    seen: list[int] = []
    hour = int(REMEMBERED_SECONDS)
    for now in range(0, 6 * hour, 600):
        # A new life of the gateway every two hours, each of which counts from one.
        life, age = divmod(now, 2 * hour)
        book.hear(report(f"g{life}", age // 600 + 1), float(now))
        seen.append(answered(book, float(now)))
    assert seen == sorted(seen)
    assert seen[-1] == 3 * 12


def test_a_gateway_that_was_cut_off_for_a_while_is_not_counted_twice() -> None:
    book = MetricsBook()
    book.hear(report("g1", 5), 0.0)
    book.hear(report("g2", 1), 900.0)
    book.hear(report("g1", 6), 1800.0)
    assert answered(book, 1800.0) == 7


def test_counters_that_begin_again_in_the_same_gateway_are_added() -> None:
    book = MetricsBook()
    book.hear(report("g1", 5), 0.0)
    book.hear(report("g1", 1), 2.0)
    assert answered(book, 2.0) == 6


def test_a_served_entity_nobody_reports_any_more_is_forgotten() -> None:
    book = MetricsBook()
    book.hear(report("g1", 5), 0.0)
    book.hear(report("g1", 1, entity="s2"), REMEMBERED_SECONDS + 1)
    assert answered(book, REMEMBERED_SECONDS + 1) == 0
