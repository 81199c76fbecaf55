"""A load generator for HTTP: closed and open loop, every answer checked, latencies kept exactly.

No package from PyPI sends open-loop load with checked answers at several thousand requests a second; this one takes
about 20 µs of a processor for a request, so that it does not measure itself.
"""
