"""The pictures of a report: one file each, drawn without a display and without global state."""
