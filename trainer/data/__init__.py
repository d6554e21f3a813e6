"""Images: listed, divided into splits, decoded, augmented, drawn into batches."""
