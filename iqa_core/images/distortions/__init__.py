"""The distortions, grouped by what they imitate; ``iqa_core.images.degrade`` has the table."""
