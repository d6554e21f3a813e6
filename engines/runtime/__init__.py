"""The runtimes that can run a bundle's model, one file each."""
