"""Training: shared weights and stand-alone networks, augmentation, schedules."""
