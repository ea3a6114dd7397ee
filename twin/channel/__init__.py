"""What Session Manager's service, agent and plugin speak with each other. Standard library only: a box's agent runs it without packages."""
