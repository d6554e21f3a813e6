"""Everything a worker needs around it, on one machine, from pip packages alone."""
