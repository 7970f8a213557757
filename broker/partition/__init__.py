"""A partition: one stream, plus what Kafka keeps beside the records."""
