"""Access control: who the users are, what they may do, and the rules that say so."""
