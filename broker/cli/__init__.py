"""The commands of `headwater`; each module is imported when its command is called."""
