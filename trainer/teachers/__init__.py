"""The frozen diffusion models whose noise the detector learns."""
