"""The labelled pictures that the demo moderates; SOURCES.md says whose they are."""
