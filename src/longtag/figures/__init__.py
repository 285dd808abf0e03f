"""What a run draws into the folder figures/ of its own."""
