"""The storage protocol as small models, explored exhaustively: see README.md in this folder."""
