"""The durable, fenced log on conditional creates."""
