"""Headwater embedded in a Python test."""
