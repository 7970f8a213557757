"""Brokers among each other: proof, requests, following the metadata log, heartbeats, succession."""
