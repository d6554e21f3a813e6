"""Images: found, divided, decoded, augmented, drawn into batches."""
