"""Pages for people: server-rendered HTML. The rule: a page is read from the ports and written by a template; what it
changes goes through the rooms that the admin API uses."""
