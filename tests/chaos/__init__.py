"""Real brokers on a real store, unchanged clients, and faults: `make chaos`.

A run starts a cluster, puts load on it, does one thing of `faults.py` to it, and waits until all is
whole again. Every client writes down what it was told (`history.py`); the checker compares that
with what a fresh reader finds at the end (`checker.py`), and times what the clients went through.
"""
