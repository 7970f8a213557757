"""Messages that kafka-python lacks, described as it describes its own.

One file a message, named like it. Source of each: the message of that name in Apache Kafka 4.3.1.
"""
