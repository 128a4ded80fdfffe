"""The kinds of distortion, by what they imitate; ``iqa_core.images.degrade`` has the table."""
