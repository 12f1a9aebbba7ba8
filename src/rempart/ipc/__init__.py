"""Messages between processes of one user, over socket pairs."""
