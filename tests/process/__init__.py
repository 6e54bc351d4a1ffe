"""drain as a process: what a person, systemd or a shell sees of it. Seconds each, unlike the unit tests."""
