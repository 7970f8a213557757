"""The same scripted requests to Headwater and to Apache Kafka, and what differs in the answers."""
