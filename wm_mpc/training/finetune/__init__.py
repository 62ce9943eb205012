"""Closing the train-test gap: online and adversarial world modeling (2512.09929)."""
