"""The cluster's decisions: a log of records, and the image that they add up to."""
