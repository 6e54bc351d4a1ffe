"""Tests against the real servers: Postfix, Maddy, spamd and R2's simulator."""
