"""The boundary between trainer and worker: what a bundle is, how it is built, checked and run."""
