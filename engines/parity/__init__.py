"""Every way to run a bundle on this machine, compared with its reference: logits, AUC, speed."""
