"""Stores around a store: each adds one thing and passes the rest on."""
