"""What clients read when a request to a model was not answered by it."""

TIMED_OUT = "Timed out while evaluating the model. Verify that the model evaluates within the timeout."
QUEUE_FULL = (
    "Too many concurrent requests. Consider increasing the provisioned concurrency of the served entity."
)
NO_REPLICA = "No replica of the served entity is ready yet. Try again in a moment."
CANNOT_START = "No replica of the served entity could be started: {problem}"
NOT_ACCEPTED = "No replica of the served entity accepted the request in time. Try again in a moment."
BUS_LOST = "The connection to the replicas was lost. Try again in a moment."
UPDATING = "The endpoint is being updated. Try again in a moment."
GATEWAY_FAILED = "The gateway failed on this request. Its log has the details."
GATEWAY_BUSY = "The gateway is overloaded. Try again in a moment."
NOT_RUN_AGAIN = "The request was not run again."
REPLICA_DIED = f"The replica died while it worked on the request. {NOT_RUN_AGAIN}"
