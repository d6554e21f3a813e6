"""The worker while parts of its world die: nothing may be lost, and nothing doubled but by a crash."""
