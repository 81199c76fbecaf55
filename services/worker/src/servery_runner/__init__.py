"""The untrusted side of a worker: what runs inside a model's own environment.

Standard library and the environment's own MLflow only, Python 3.9 and up. The worker copies these files
(and ``servery_common.contracts.frames``) into an overlay directory and starts
``<environment python> -m servery_runner`` in it, so the model's packages and Servery's never meet.

A *warm parent* imports MLflow and the model's framework once and forks; each fork is a *runner*: it loads
one model and answers requests on a socket. Nothing here knows NATS, credentials or other replicas.
"""
