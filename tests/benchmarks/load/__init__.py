"""A load generator for HTTP: closed and open loop, every answer checked, latencies kept exactly.

No package from PyPI sends open-loop load with checked answers at several thousand requests a second; what this
one takes of a processor is measured in each run (``tests.benchmarks.generator``).
"""
