"""NATS and Postgres, as they tell of themselves and as the services see them."""

from deploy.grafana.boards.panels import Panels, board, graph, with_rows
from deploy.grafana.boards.queries import RATE, Query, rate
from grafana_foundation_sdk.builders.dashboard import Dashboard


def infrastructure() -> Dashboard:
    """Return the dashboard."""
    made = board("Servery: NATS and Postgres", "servery-infrastructure", "What everything else stands on.")
    return with_rows(made, (("NATS", _nats()), ("Postgres", _postgres())))


def _nats() -> Panels:
    return (
        graph(
            "Connections of the services",
            "1: up. 0: the service cannot be reached; see NATS' log and the network.",
            "short",
            [Query("min by (job, connection) (servery_nats_connected)", "{{job}} {{connection}}")],
        ),
        graph(
            "Connections lost",
            "Each lost connection fails the requests that were on it. Never, in a healthy network.",
            "ops",
            [rate("servery_nats_connection_losses_total", "", "job", "{{job}}")],
        ),
        graph(
            "Errors",
            "What clients were told by the server, and attempts to connect that failed.",
            "ops",
            [rate("servery_nats_errors_total", "", "job", "{{job}}")],
        ),
        graph(
            "Messages",
            "To and from all clients.",
            "ops",
            [_told("servery_nats_server_messages_total", "direction")],
        ),
        graph(
            "Bytes",
            "To and from all clients.",
            "Bps",
            [_told("servery_nats_server_bytes_total", "direction")],
        ),
        graph(
            "Slow consumers",
            "Clients that were cut off because they did not read. Which: see NATS' log; it is usually a service that is"
            " short of processor time.",
            "short",
            [Query("max(increase(servery_nats_server_slow_consumers_total[1h]))", "in an hour")],
        ),
        graph(
            "Clients",
            "Connected to the server.",
            "short",
            [Query("max(servery_nats_server_connections)", "clients")],
        ),
        graph(
            "Memory and processors",
            "Of the server, in bytes; processors on a scale of their own below.",
            "bytes",
            [Query("max(servery_nats_server_memory_bytes)", "memory")],
        ),
        graph(
            "Processors",
            "1 is a whole one. A server at its limit delays every request.",
            "short",
            [Query("max(servery_nats_server_cpu_ratio)", "processors")],
        ),
        graph(
            "JetStream's store",
            "What streams hold of what they may. Full: no endpoint can be changed; give NATS a larger disk.",
            "percentunit",
            [
                Query(
                    'max(servery_nats_jetstream_bytes{storage="file"} / servery_nats_jetstream_max_bytes)',
                    "file",
                )
            ],
            highest=1,
        ),
        graph(
            "Messages in streams",
            "Events that were not taken yet, and one for each key of a bucket.",
            "short",
            [Query("max(servery_nats_jetstream_messages)", "messages")],
        ),
        graph(
            "JetStream's API",
            "Calls and errors. Errors come with each start (streams that are there already).",
            "ops",
            [_told("servery_nats_jetstream_api_requests_total", "result")],
        ),
    )


def _postgres() -> Panels:
    return (
        graph(
            "Connections",
            "Of all services, by state, and the most the server takes. Near it: lower SERVERY_POSTGRES_POOL_SIZE.",
            "short",
            [
                Query("max by (state) (servery_postgres_connections)", "{{state}}"),
                Query("max(servery_postgres_max_connections)", "most"),
            ],
        ),
        graph(
            "Pools of the services",
            "Used connections, of those each process may have.",
            "percentunit",
            [
                Query(
                    'servery_postgres_pool_connections{state="used"} / ignoring (state)'
                    " servery_postgres_pool_max_connections",
                    "{{job}} {{instance}}",
                )
            ],
            highest=1,
        ),
        graph(
            "No connection to be had",
            "The pool was used up for two seconds, or Postgres did not answer.",
            "ops",
            [rate("servery_postgres_acquire_failures_total", 'job=~"controller|builder"', "job", "{{job}}")],
        ),
        graph(
            "Transactions",
            "Rollbacks are a few of a thousand; more: see the services' logs.",
            "ops",
            [_told("servery_postgres_transactions_total", "result")],
        ),
        graph(
            "Oldest transaction",
            "Seconds at most: one that stays open keeps old rows from being cleared away.",
            "s",
            [Query("max(servery_postgres_oldest_transaction_seconds)", "oldest")],
        ),
        graph(
            "Read from the cache",
            "Share of pages. Below 0.99 for long: give Postgres more memory (shared_buffers).",
            "percentunit",
            [
                Query(
                    f'max(rate(servery_postgres_blocks_total{{from="cache"}}[{RATE}])) /'
                    f' (max(rate(servery_postgres_blocks_total{{from="cache"}}[{RATE}])) +'
                    f' max(rate(servery_postgres_blocks_total{{from="disk"}}[{RATE}])))',
                    "cache",
                )
            ],
            highest=1,
        ),
        graph(
            "Size",
            "Of the database on disk.",
            "bytes",
            [Query("max(servery_postgres_database_bytes)", "database")],
        ),
        graph(
            "Deadlocks",
            "In an hour; one is a fault to be reported.",
            "short",
            [Query("max(increase(servery_postgres_deadlocks_total[1h]))", "in an hour")],
        ),
        graph(
            "Answers of what is looked at",
            "1: the controller and the builder could read what the panels above show.",
            "short",
            [Query("min by (survey) (servery_survey_up)", "{{survey}}")],
        ),
    )


def _told(metric: str, by: str) -> Query:
    """Return how fast a counter of a server grows.

    Each controller asks the same server: one of their answers is enough.
    """
    return Query(f"max by ({by}) (rate({metric}[{RATE}]))", f"{{{{{by}}}}}")
