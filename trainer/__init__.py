"""The trainer: folders of images -> a bundle. Start it with ``python -m trainer``."""
