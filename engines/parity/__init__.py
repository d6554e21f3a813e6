"""Every way in which a bundle can be run here, held against its reference: logits, decisions, AUC, speed."""
