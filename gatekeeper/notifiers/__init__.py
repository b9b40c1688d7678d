"""How people and programs are told what happened: signed web hooks and mail, at least once."""
