import pytest

from servery_common import metering


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1/v1/metrics"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRICS_EXPORTER": "none"}, False),
    ],
)
def test_counters_are_exported_only_if_the_environment_says_so(
    environment: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = list[object]()
    monkeypatch.setattr(metering.metrics, "set_meter_provider", providers.append)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    metering.configure_metering("test")
    assert bool(providers) is wanted
    for provider in providers:
        provider.shutdown(timeout_millis=1)  # type: ignore[attr-defined]
