"""What the controller counts as it goes."""

from prometheus_client import Counter, Gauge, Histogram

leader = Gauge("servery_controller_leader", "Whether this controller leads: the one that reconciles.")
leader_epoch = Gauge("servery_controller_leader_epoch", "Of the last time it led; grows by one per takeover.")
reconcile_duration = Histogram(
    "servery_controller_reconcile_duration_seconds",
    "Steps of the reconcile loop, by how they ended: done, postponed (tried again), failed (a fault of Servery's).",
    ["result"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
notifications = Counter(
    "servery_controller_notifications",
    "Attempts to deliver a notification, by what came of it.",
    ["sink", "result"],
)
renewals = Counter(
    "servery_controller_credential_renewals",
    "Replicas that asked for their next credentials, by what came of it: renewed, refused, failed (the files were not"
    " there).",
    ["result"],
)

for _result in ("done", "postponed", "failed"):
    reconcile_duration.labels(_result)
for _result in ("renewed", "refused", "failed"):
    renewals.labels(_result)
