"""What only a GPU can show; ``make test-gpu`` runs it, and fails where there is none."""
