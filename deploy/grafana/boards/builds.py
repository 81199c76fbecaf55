"""How model versions become environments."""

from deploy.grafana.boards.panels import Panels, board, graph, processes, with_rows
from deploy.grafana.boards.queries import Query, quantile, quantiles, rate
from grafana_foundation_sdk.builders.dashboard import Dashboard

BUILDER = 'job="builder"'


def builds() -> Dashboard:
    """Return the dashboard."""
    made = board("Servery: builds", "servery-builds", "Builds: how many, how long, and why they fail.")
    return with_rows(made, (("Builds", _builds()), ("The builder", _builder())))


def _builds() -> Panels:
    return (
        graph(
            "Open builds",
            "queued for minutes: add a builder, or raise SERVERY_BUILDER_CONCURRENCY.",
            "short",
            [Query("max by (state) (servery_builder_open_builds)", "{{state}}")],
        ),
        graph(
            "Wait of the oldest",
            "How long the build that was ordered first has waited for a builder.",
            "s",
            [Query("max(servery_builder_queue_oldest_seconds)", "oldest")],
        ),
        graph(
            "Builds that ended",
            "In an hour, by how.",
            "short",
            [Query("sum by (result) (increase(servery_builder_builds_total[1h]))", "{{result}}")],
        ),
        graph(
            "Failures by code",
            "In an hour. INTERNAL_ERROR and TIMED_OUT are the installation's, all others the model's.",
            "short",
            [
                Query(
                    "sum by (code) (increase(servery_builder_build_failures_total[1h])) > 0 or vector(0)",
                    "{{code}}",
                )
            ],
            stacked=True,
        ),
        graph(
            "Time of a build",
            "With an environment that was there already, and with one that had to be made.",
            "s",
            quantiles("servery_builder_build_duration_seconds", "", ("environment",), "{{environment}}"),
        ),
        graph(
            "Time of each phase (p95)",
            "environment: downloads and installs; verify: loads the model and predicts its example.",
            "s",
            [quantile(0.95, "servery_builder_phase_duration_seconds", "phase")],
        ),
        graph(
            "Environments found in the cache",
            "Share of a day's successful builds. Low: models differ in their requirements; pin fewer versions apart.",
            "percentunit",
            [
                Query(
                    'sum(increase(servery_builder_build_duration_seconds_count{environment="cached"}[1d])) /'
                    " sum(increase(servery_builder_build_duration_seconds_count[1d]))",
                    "cached",
                )
            ],
            highest=1,
        ),
    )


def _builder() -> Panels:
    return (
        *processes(
            BUILDER,
            "{{instance}}",
            processors="Of the builder itself; installers and verifications are processes of their own.",
            memory="Resident memory of the builder.",
        ),
        graph(
            "Connections to Postgres",
            "Used of the builder's pool.",
            "short",
            [Query(f"servery_postgres_pool_connections{{{BUILDER}}}", "{{instance}} {{state}}")],
        ),
        graph(
            "Connections to NATS lost",
            "Each loses the hints that were on their way; builds go on.",
            "ops",
            [rate("servery_nats_connection_losses_total", BUILDER, "instance", "{{instance}}")],
        ),
    )
