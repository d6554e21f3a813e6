"""int8 for the CPU: from an fp32 bundle and some pictures to a bundle that has a quantised graph too."""
