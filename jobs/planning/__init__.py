"""What ``iqa plan`` measures and forecasts."""
