"""The demo: broker, cache and workers on this machine, a few hundred image events, and a report."""
