"""Apache Kafka itself on one machine, from Maven Central, without a container."""
