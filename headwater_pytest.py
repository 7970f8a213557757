"""pytest fixture for an embedded broker."""
