"""What tests share: builders of real, tiny things."""
