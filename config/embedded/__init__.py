"""The embedded servers: real Kafka, PostgreSQL and Valkey out of packages, for one machine."""
