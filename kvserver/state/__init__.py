"""What the server remembers between commands, and how commands are run; no sockets here."""
