"""Consumers read from a broker of their own rack."""
