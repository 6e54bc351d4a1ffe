"""SIGKILL at every step by name and at random moments: no mail lost, each duplicate explained."""
