"""The services that a worker needs, on one machine, from pip packages only."""
