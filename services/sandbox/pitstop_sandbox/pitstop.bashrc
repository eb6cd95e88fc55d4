# Read by the interactive shells of a session. Sets nothing that a child process would inherit.
PS1='\[\e[36m\]pitstop\[\e[0m\]:\w\$ '
