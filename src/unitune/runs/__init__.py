"""From examples to records: tune, sample, choose, save and score."""
