"""The worker: hosts replicas on one machine. Each is a trusted agent here and an untrusted runner process."""
