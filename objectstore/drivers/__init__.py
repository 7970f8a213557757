"""One file per kind of store. Nothing is imported here: only the driver in use costs memory."""
